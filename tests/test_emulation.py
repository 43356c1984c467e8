"""Python environments in the serial backend: rows, slots, infos and errors."""

from __future__ import annotations

import contextlib
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from toys import Nested, Village, number

import pufferlib_cy
from pufferlib_cy import EnvError

MODES = ("same_step", "next_step", "disabled")


def vector_pair(factory, num_envs, mode):
    ours = pufferlib_cy.make(factory, num_envs, autoreset=mode, copy=True)
    theirs = SyncVectorEnv([factory] * num_envs, autoreset_mode={
        "same_step": AutoresetMode.SAME_STEP, "next_step": AutoresetMode.NEXT_STEP,
        "disabled": AutoresetMode.DISABLED}[mode])
    return ours, theirs


def assert_same_infos(ours, theirs):
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        if isinstance(value, dict):
            assert_same_infos(ours[key], value)
        else:
            assert ours[key].dtype == value.dtype, key
            np.testing.assert_array_equal(ours[key], value)


@pytest.mark.parametrize("mode", MODES)
def test_cartpole_is_gymnasiums(mode):
    """Rows, flags and rewards of Gymnasium's own SyncVectorEnv, to the last bit."""
    ours, theirs = vector_pair(partial(gymnasium.make, "CartPole-v1"), 5, mode)
    generator = np.random.default_rng(0)
    with ours, contextlib.closing(theirs):
        np.testing.assert_array_equal(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
        for _ in range(200):
            actions = generator.integers(0, 2, 5)
            results, expected = ours.step(actions), theirs.step(actions)
            for mine, other in zip(results[:4], expected[:4], strict=True):
                np.testing.assert_array_equal(mine, other)
            ended = expected[2] | expected[3]
            if mode == "disabled" and ended.any():
                options = {"reset_mask": ended}
                np.testing.assert_array_equal(ours.reset(options=options)[0],
                                              theirs.reset(options=options)[0])


@pytest.mark.parametrize("mode", MODES)
def test_nested_rows_and_infos_are_gymnasiums(mode):
    """Observations unflatten to what the environments gave; infos have Gymnasium's arrays."""
    ours, theirs = vector_pair(Nested, 3, mode)
    with ours, contextlib.closing(theirs):
        rows, infos = ours.reset(seed=7)
        observations, expected_infos = theirs.reset(seed=7)
        for step in range(11):
            nested = ours.space_tree.unflatten(rows)
            np.testing.assert_array_equal(nested["picture"], observations["picture"])
            np.testing.assert_array_equal(nested["where"][0], observations["where"][0])
            np.testing.assert_array_equal(nested["where"][1], observations["where"][1])
            np.testing.assert_array_equal(nested["flags"], observations["flags"])
            expected_infos.pop("final_obs", None)
            expected_infos.pop("_final_obs", None)
            assert_same_infos(infos, expected_infos)
            discrete = np.array([[1], [2], [3]])
            continuous = np.full((3, 2), step / 20, np.float32)
            rows, rewards, terminations, truncations, infos = ours.step((discrete, continuous))
            observations, *expected, expected_infos = theirs.step(
                {"jump": discrete[:, 0], "push": continuous.reshape(3, 2, 1)})
            np.testing.assert_array_equal(rewards, expected[0].astype(np.float32))
            np.testing.assert_array_equal(terminations, expected[1])
            np.testing.assert_array_equal(truncations, expected[2])
            ended = terminations | truncations
            if mode == "same_step" and ended.any():
                last = ours.space_tree.unflatten(ours.final_observations)
                assert (last["picture"][ended] % 10 == 4).all()
            if mode == "disabled" and ended.any():
                rows, infos = ours.reset(options={"reset_mask": ended})
                observations, expected_infos = theirs.reset(options={"reset_mask": ended})


def test_seeds_and_options_reach_the_environments():
    with pufferlib_cy.make(Nested, 2) as vec:
        vec.reset()
        vec.reset(seed=5, options={"level": 2})
        for _ in range(4):
            vec.step(([[1]] * 2, np.zeros((2, 2), np.float32)))
        vec.reset(seed=[None, 9])
        vec.reset(options={"reset_mask": np.array([False, True]), "level": 3})
        assert vec.get_attr("seeds") == ([None, 5, None, None], [None, 6, None, 9, None])
        assert vec.get_attr("options") == ([None, {"level": 2}, None, None],
                                           [None, {"level": 2}, None, None, {"level": 3}])


def test_call_and_attributes():
    vec = pufferlib_cy.make([partial(Nested, 4), partial(Nested, 5)])
    vec.reset(seed=0)
    assert vec.num_envs == 2
    assert vec.get_attr("length") == (4, 5)
    vec.set_attr("length", [6, 7])
    assert vec.call("length") == (6, 7)
    assert vec.call("info")[0]["name"] == "step 0"
    environments = vec.call("observe"), vec._engine.envs[0].envs
    vec.close()
    vec.close()
    assert all(env.closed for env in environments[1])
    with pufferlib_cy.make("squared") as native, pytest.raises(ValueError, match="native"):
        native.call("length")


def test_padding_is_zero_in_memory_of_the_callers():
    with pufferlib_cy.make("foraging") as native, pufferlib_cy.make(Nested, 2) as vec:
        for each in (native, vec):
            shape = (3, each.num_agents, *each.single_observation_space.shape)
            ring = np.full(shape, 0xA5, np.uint8)
            each.attach(observations=ring)
            each.reset(seed=0)
            for _ in range(5):
                each.step(np.zeros(each.num_agents, int) if each is native
                          else (np.ones((2, 1), int), np.zeros((2, 2), np.float32)))
            dtype = each.space_tree.dtype
            written = np.zeros(dtype.itemsize, bool)
            for leaf in each.space_tree.leaves:
                size = leaf.dtype.itemsize * int(np.prod(leaf.shape))
                written[leaf.offset:leaf.offset + size] = True
            assert not written.all()
            assert not ring[..., ~written].any()


# ---- agents --------------------------------------------------------------------------------------

TIMETABLE = {"a_0": (0, 3, "terminated"), "b_1": (0, 6, "truncated"), "c_2": (2, 5, "terminated"),
             "d_3": (0, 2, "truncated")}


@pytest.mark.parametrize("masks", [False, True])
def test_agents_keep_their_slots(masks):
    """Slots by the index in possible_agents; padding is zero; an episode ends with its last agent.
    """
    with pufferlib_cy.make(partial(Village, TIMETABLE, masks=masks), 2, copy=True) as vec:
        assert (vec.agents_per_env, vec.num_agents) == (4, 8)
        rows, infos = vec.reset(seed=1)
        for step in range(1, 14):
            t = (step - 1) % 6                        # what the agents see before this step
            living = np.array([born <= t < ends for born, ends, _ in TIMETABLE.values()])
            np.testing.assert_array_equal(vec.acting, np.tile(living, 2))
            actions = np.tile(np.arange(4), 2)
            actions[~np.tile(living, 2)] = 99         # ignored
            rows, rewards, terminations, truncations, infos = vec.step(actions)
            t += 1
            ends = np.array([e for _, e, _ in TIMETABLE.values()]) == t
            seen = np.array([born <= t <= e for born, e, _ in TIMETABLE.values()])
            np.testing.assert_array_equal(vec.masks, np.tile(seen | (t == 6) * living, 2)
                                          if t < 6 else np.tile([True, True, False, True], 2))
            last = vec.final_observations if t == 6 else rows
            seen_rows = vec.space_tree.unflatten(last)
            seen_rows = (seen_rows["observation"] if masks else seen_rows).reshape(2, 4, 2)
            for slot, agent in enumerate(TIMETABLE):
                expected = [number(agent), t] if seen[slot] else [0, 0]
                if t < 6 or ends[slot]:
                    np.testing.assert_array_equal(seen_rows[:, slot], [expected] * 2)
                reward = number(agent) + 0.1 * slot * living[slot] if seen[slot] else 0.0
                np.testing.assert_array_equal(rewards[[slot, 4 + slot]], np.float32(reward))
                if masks and t < 6 and seen[slot]:
                    np.testing.assert_array_equal(
                        vec.action_masks[slot], [1, t % 2, number(agent) % 2, 0])
            kinds = np.array([kind for _, _, kind in TIMETABLE.values()])
            np.testing.assert_array_equal(terminations, np.tile(ends & (kinds == "terminated"), 2))
            np.testing.assert_array_equal(truncations, np.tile(ends & (kinds == "truncated"), 2))
            if t in (2, 3, 5, 6):
                told = infos if t < 6 else infos["final_info"]
                assert [a for a in told if not a.startswith("_")] == [
                    a for a, e in zip(TIMETABLE, ends, strict=True) if e]


def test_agents_unknown_beforehand_take_slots_as_they_come():
    timetable = {"x_5": (0, 2, "terminated"), "x_6": (0, 9, "terminated"),
                 "x_7": (3, 9, "terminated")}
    make = partial(pufferlib_cy.make, partial(Village, timetable, fixed=False), 1)
    with pytest.raises(ValueError, match="max_agents"):
        make()
    with make(max_agents=2) as vec:
        rows, _ = vec.reset()
        assert rows[:, 0].tolist() == [6, 5]             # the order of `agents`
        for _ in range(2):
            rows = vec.step([0, 0])[0]
        assert rows[:, 0].tolist() == [6, 5]
        rows = vec.step([0, 0])[0]                       # x_5 is gone, x_7 takes its slot
        assert rows[:, 0].tolist() == [6, 7]
        assert vec.masks.all()


def test_too_many_agents_and_strangers():
    timetable = {"x_0": (0, 9, "terminated"), "x_1": (0, 9, "terminated"),
                 "x_2": (1, 9, "terminated")}
    vec = pufferlib_cy.make(partial(Village, timetable, fixed=False), 1, max_agents=2)
    vec.reset()
    with pytest.raises(EnvError, match=r"environment 0 .*'x_2' is one more than max_agents=2"):
        vec.step([0, 0])

    class Stranger(Village):
        def living(self):
            return [*super().living(), "y_9"]

    vec = pufferlib_cy.make(partial(Stranger, timetable), 1)
    with pytest.raises(EnvError, match="'y_9' is not one of possible_agents"):
        vec.reset()


def test_different_agents_are_refused():
    class Unequal(Village):
        def action_space(self, agent):
            return spaces.Discrete(4 + number(agent))

    with pytest.raises(ValueError, match=r"agent 'b_1' has the action space Discrete\(5\)"):
        pufferlib_cy.make(partial(Unequal, TIMETABLE))


# ---- what can go wrong ---------------------------------------------------------------------------

class Failing(Nested):
    def __init__(self, at=2, error=RuntimeError):
        super().__init__()
        self.at, self.error = at, error

    def step(self, action):
        if self.t == self.at:
            raise self.error("no more rope")
        return super().step(action)


@pytest.mark.parametrize("backend", ["serial", "threads"])
def test_an_exception_names_the_environment(backend):
    vec = pufferlib_cy.make([Nested, partial(Failing, 2), Nested], backend=backend)
    environments = vec._engine.envs[0].envs
    vec.reset()
    actions = [[1]] * 3, np.zeros((3, 2), np.float32)
    vec.step(actions)
    vec.step(actions)
    with pytest.raises(EnvError, match="environment 1 raised RuntimeError: no more rope") as caught:
        vec.step(actions)
    assert caught.value.environment == 1
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert all(env.closed for env in environments)
    with pytest.raises(ClosedEnvironmentError):
        vec.reset()


def test_interrupts_pass_as_they_are():
    vec = pufferlib_cy.make(partial(Failing, 0, KeyboardInterrupt))
    vec.reset()
    with pytest.raises(KeyboardInterrupt):
        vec.step(([[1]], np.zeros((1, 2), np.float32)))


class Broken(Nested):
    def __init__(self, change):
        super().__init__()
        self.change = change

    def observe(self):
        observation = super().observe()
        self.change(observation)
        return observation


@pytest.mark.parametrize(("change", "where"), [
    (lambda o: o.pop("flags"), "flags"),
    (lambda o: o.update(picture=np.zeros((3, 4), np.uint8)), "picture"),
    (lambda o: o.update(picture=np.zeros((3, 3), np.float32)), "picture"),
    (lambda o: o.update(where=(np.zeros(3), 0)), "where"),
    (lambda o: o.update(where=(np.zeros(2), "x")), "where"),
    (lambda o: o.update(where=(np.zeros(2),)), "where"),
])
def test_an_observation_outside_its_space_is_named(change, where):
    vec = pufferlib_cy.make([Nested, partial(Broken, change)])
    with pytest.raises(EnvError, match=rf"environment 1 raised SpaceError: .*{where}"):
        vec.reset()


@pytest.mark.parametrize("backend", ["serial", "threads"])
def test_a_wrong_observation_leaves_the_rows_of_before(backend):
    """On the first reset and step, where all is checked, before anything is written."""
    def late(observation):
        if observation["picture"][0, 0] % 10 == 1:       # the first step
            observation["where"] = (np.zeros(2), "x")    # the last leaf: the others are sound

    vec = pufferlib_cy.make([Nested, partial(Broken, late)], backend=backend)
    rows, _ = vec.reset(seed=0)
    before = rows.copy()
    with pytest.raises(EnvError, match=r"environment 1 .*observation\['where'\]\[1\]"):
        vec.step(([[1]] * 2, np.zeros((2, 2), np.float32)))
    np.testing.assert_array_equal(rows[1], before[1])


def test_a_wrong_observation_late_in_play_names_its_place_too():
    def late(observation):
        if observation["picture"][0, 0] % 10 == 3:
            observation["picture"] = np.zeros((3, 3), np.float32)

    with pufferlib_cy.make(partial(Broken, late)) as vec:
        vec.reset()
        for _ in range(2):
            vec.step(([[1]], np.zeros((1, 2), np.float32)))
        with pytest.raises(EnvError, match=r"observation\['picture'\]: expected uint8"):
            vec.step(([[1]], np.zeros((1, 2), np.float32)))


def test_a_wrong_observation_of_an_agent_names_the_agent():
    class Cramped(Village):
        def observe(self, agent):
            return super().observe(agent)[:2 - (agent == "b_1" and self.t == 1)]

    vec = pufferlib_cy.make(partial(Cramped, TIMETABLE), 2)
    rows, _ = vec.reset()
    before = rows.copy()
    with pytest.raises(EnvError, match=r"environment 0 .*agent 'b_1': observation: expected "
                       r"float32 of shape \(2,\)"):
        vec.step([0] * 8)
    np.testing.assert_array_equal(rows[1], before[1])


def test_a_wrong_action_mask_names_the_agent():
    class Wordy(Village):
        def reset(self, seed=None, options=None):
            observations, _ = super().reset(seed, options)
            return observations, {agent: {"action_mask": np.ones(3)} for agent in self.agents}

    vec = pufferlib_cy.make(partial(Wordy, TIMETABLE))
    with pytest.raises(EnvError, match=r"agent '\w_\d': action_mask: expected shape \(4,\)"):
        vec.reset()


def test_environments_that_cannot_be_one_vector():
    def other():
        env = Nested()
        env.observation_space = spaces.Discrete(3)
        return env

    made = []

    def keep():
        made.append(Nested())
        return made[-1]

    with pytest.raises(ValueError, match="environment 1 differs from environment 0"):
        pufferlib_cy.make([keep, other])
    assert made[0].closed
    shared = Nested()
    with pytest.raises(ValueError, match="a new one every time"):
        pufferlib_cy.make([lambda: shared] * 2)
    with pytest.raises(TypeError, match=r"; give a callable"):
        pufferlib_cy.make(shared)
    with pytest.raises(TypeError, match=r"expected a gymnasium[.]Env or a PettingZoo"):
        pufferlib_cy.make(lambda: 3)
    with pytest.raises(ValueError, match=r"did you mean CartPole-v1 or"):
        pufferlib_cy.make("CartPole")
    with pytest.raises(ValueError, match=r"env: .*`v9` for environment `CartPole`"):
        pufferlib_cy.make("CartPole-v9")
    with pytest.raises(ValueError, match="num_envs: 3, but the list has 2"):
        pufferlib_cy.make([Nested, Nested], 3)
    with pytest.raises(ValueError, match="max_agents: a Gymnasium environment has one"):
        pufferlib_cy.make(Nested, max_agents=2)


class Unwilling(Nested):
    def close(self):
        raise RuntimeError("close failed")


def test_the_first_error_is_the_one_told():
    def broken():
        raise ValueError("cannot make the second")

    kept = []

    def keep():
        kept.append(Nested())
        return kept[-1]

    with pytest.raises(ValueError, match="cannot make the second"):
        pufferlib_cy.make([Unwilling, keep, broken])
    assert kept[0].closed


@pytest.mark.parametrize(("bad", "error"), [(0, ValueError), (-1, ValueError), ("3", TypeError)])
def test_max_agents_is_a_count(bad, error):
    with pytest.raises(error, match="max_agents: expected"):
        pufferlib_cy.make(partial(Village, TIMETABLE), max_agents=bad)


def test_infos_of_different_types_are_named():
    class Shapes(Nested):
        def info(self):
            return {"size": np.zeros(self.length)}

    with (pufferlib_cy.make([partial(Shapes, 3), partial(Shapes, 4)]) as vec,
          pytest.raises(ValueError, match=r"infos: 'size' of environment 1 .*\(4,\).*\(3,\)")):
        vec.reset(seed=0)


def test_an_action_that_is_not_in_the_space_steps_nothing():
    with pufferlib_cy.make(Nested, 2) as vec:
        with pytest.raises(ResetNeeded):
            vec.step(([[1]] * 2, np.zeros((2, 2), np.float32)))
        vec.reset()
        for discrete, continuous in (([[1], [4]], np.zeros((2, 2))),
                                     ([[1], [1]], np.array([[0, 0], [0, 2]])),
                                     ([[1], [1]], np.array([[0, 0], [np.nan, 0]]))):
            with pytest.raises(gymnasium.error.InvalidAction, match="row 1"):
                vec.step((np.array(discrete), continuous.astype(np.float32)))
        assert vec.get_attr("actions") == ([], [])


def test_states_of_python_environments_cannot_be_saved():
    with pufferlib_cy.make(Nested) as vec:
        vec.reset()
        with pytest.raises(ValueError, match="native"):
            vec.save_state()
