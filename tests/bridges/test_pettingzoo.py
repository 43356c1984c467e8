"""The PettingZoo bridge: PettingZoo's own tests, and the same trajectories as from `make`."""

from __future__ import annotations

import contextlib
import warnings
from functools import partial

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import InvalidAction
from toys import Village

import pufferlib_cy

pytest.importorskip("pettingzoo")

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)        # of its own modules' names
    from pettingzoo.test import parallel_api_test, parallel_seed_test
    from pettingzoo.test.example_envs import generated_agents_parallel_v0

from pufferlib_cy.bridges.pettingzoo import as_parallel

ARGUMENTS = {
    "pong": {"two_player": True}, "connect4": {"opponent": "self"}, "breakout": {},
    "snake": {"num_snakes": 5, "width": 12, "height": 12, "num_food": 20},
    "foraging": {"max_agents": 8, "num_food": 150},
    "commons": {"shared": False, "max_ticks": 60}, "warehouse": {"max_ticks": 60}}
GENERATED = {"snake", "foraging"}          # agents are born where others have died


def native(name):
    return as_parallel(name, generated=name in GENERATED, env_kwargs=ARGUMENTS[name])




class Generated(generated_agents_parallel_v0.parallel_env):
    """PettingZoo's example of agents that are generated, all with equal spaces."""

    def add_type(self):
        kind = super().add_type()
        self._obs_spaces[kind] = spaces.Box(0, 1, (3,))
        self._act_spaces[kind] = spaces.Discrete(4)
        self._obs_spaces[kind].seed(self.rng_seed)
        return kind


def spread():
    return pytest.importorskip("mpe2.simple_spread_v3").parallel_env(max_cycles=20)


def spread_with_continuous_actions():
    return pytest.importorskip("mpe2.simple_spread_v3").parallel_env(
        max_cycles=20, continuous_actions=True)


def knights():
    pytest.importorskip("pygame")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from pettingzoo.butterfly import knights_archers_zombies_v11

    return knights_archers_zombies_v11.parallel_env(max_cycles=300, spawn_delay=2)


ADAPTED = {
    "spread": spread, "continuous spread": spread_with_continuous_actions, "knights": knights,
    "generated": Generated,
}
MAX_AGENTS = {"generated": 60}


def adapted(name):
    return as_parallel(ADAPTED[name], max_agents=MAX_AGENTS.get(name))


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.filterwarnings("ignore:Your environment should override the observation_space")
@pytest.mark.filterwarnings(r"ignore:.*possible_agents|No agents present:UserWarning")
def test_pettingzoos_tests_of_native_environments(name, capsys):
    with contextlib.closing(native(name)) as env:
        parallel_api_test(env, num_cycles=400)
    parallel_seed_test(partial(native, name), num_cycles=20)
    assert "Passed" in capsys.readouterr().out


@pytest.mark.parametrize("name", ADAPTED)
@pytest.mark.filterwarnings(r"ignore:.*possible_agents|No agents present:UserWarning")
def test_pettingzoos_tests_after_a_round_trip(name, capsys):
    with contextlib.closing(adapted(name)) as env:
        parallel_api_test(env, num_cycles=200)
    parallel_seed_test(partial(adapted, name), num_cycles=20)
    assert "Passed" in capsys.readouterr().out


def assert_equal(ours, theirs):
    if isinstance(theirs, tuple):
        assert_equal(dict(enumerate(ours)), dict(enumerate(theirs)))
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert_equal(ours[key], value)
    else:
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ADAPTED)
def test_a_round_trip_changes_nothing(name):
    """Agents, observations, rewards, flags and infos are the environment's own."""
    theirs = ADAPTED[name]()
    births = deaths = 0
    with contextlib.closing(adapted(name)) as ours:
        assert getattr(ours, "possible_agents", None) == getattr(theirs, "possible_agents", None)
        for seed in (3, 4):
            assert_equal(ours.reset(seed=seed), theirs.reset(seed=seed))
            generator = np.random.default_rng(0)
            agents = set(theirs.agents)
            for _ in range(500):
                if not theirs.agents:
                    break
                assert set(ours.agents) == set(theirs.agents)
                actions = {}
                for agent in theirs.agents:
                    space = ours.action_space(agent)
                    actions[agent] = (
                        generator.uniform(space.low, space.high).astype(np.float32)
                        if isinstance(space, spaces.Box) else int(generator.integers(space.n)))
                results, expected = list(ours.step(actions)), list(theirs.step(actions))
                seen = set(expected[0])
                # Of an agent that dies as it is born nothing is known.
                for kind, values in enumerate(expected):
                    assert_equal({agent: results[kind][agent] for agent in seen},
                                 {agent: values[agent] for agent in seen})
                births += len(seen - agents)
                deaths += len(seen - set(theirs.agents))
                agents = seen
            assert set(ours.agents) == set(theirs.agents)
        assert name == "generated" or ours.step({}) == ({}, {}, {}, {}, {})
    assert deaths > 0
    assert (births > 0) == (name == "generated")


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_same_trajectories_as_from_make(name):
    env = native(name)
    vec = pufferlib_cy.make(name, 1, autoreset="disabled", env_kwargs=ARGUMENTS[name], copy=True)
    A = vec.agents_per_env
    generator = np.random.default_rng(1)

    def assert_rows(results, rows, slots):
        """What the agents are given is what stands in the rows of their slots."""
        assert [int(agent.removeprefix("agent_")) % A for agent in results] == slots
        view = vec.space_tree.unflatten(rows)
        for result, slot in zip(results.values(), slots, strict=True):
            assert_equal(result, {key: part[slot] for key, part in view.items()}
                         if isinstance(view, dict) else view[slot])

    with contextlib.closing(env), vec:
        observations, infos = env.reset(seed=11)
        rows, _ = vec.reset(seed=11)
        names = set(env.agents)
        for _ in range(300):
            acting = vec.acting
            slots = np.flatnonzero(acting).tolist()
            assert_rows({a: observations[a] for a in env.agents}, rows, slots)
            if vec.action_masks is not None:
                for agent, slot in zip(env.agents, slots, strict=True):
                    assert_equal(infos[agent]["action_mask"], vec.action_masks[slot])
                choices = np.array([generator.choice(np.flatnonzero(mask))
                                    for mask in vec.action_masks])
            else:
                choices = generator.integers(0, vec.single_action_space.n, A)
            observations, rewards, terminations, truncations, infos = env.step(
                {agent: choices[slot] for agent, slot in zip(env.agents, slots, strict=True)})
            rows, *results, _ = vec.step(choices)
            seen = np.flatnonzero(acting | vec.acting).tolist()
            assert_rows(observations, rows, seen)
            for ours, theirs in zip((rewards, terminations, truncations), results, strict=True):
                assert list(ours.values()) == theirs[seen].tolist()
            names |= set(env.agents)
            if not env.agents:
                assert not vec.acting.any()
                observations, infos = env.reset()
                rows, _ = vec.reset()
    assert len(names) > A if name in GENERATED else len(names) == A


def test_agents_die_and_are_born():
    """By name, each in a slot; a native slot that is used again has an agent of another name."""
    timetable = {"a_1": (0, 2, "terminated"), "b_2": (0, 9, "truncated"),
                 "c_3": (3, 5, "truncated")}
    env = as_parallel(partial(Village, timetable, masks=True))
    observations, infos = env.reset(seed=1, options={"any": 1})
    assert env.agents == ["a_1", "b_2"]
    assert set(observations) == set(infos) == {"a_1", "b_2"}
    assert observations["a_1"]["action_mask"].tolist() == [1, 0, 1, 0]
    env.step({"a_1": 0, "b_2": 0})
    _, _, terminations, _, infos = env.step({"a_1": 0, "b_2": 0})
    assert terminations == {"a_1": True, "b_2": False}
    assert infos == {"a_1": {"t": 2}, "b_2": {}}
    assert env.agents == ["b_2"]
    observations, rewards, *_ = env.step({"b_2": 2})
    assert env.agents == ["b_2", "c_3"]
    assert set(observations) == {"b_2", "c_3"}
    assert rewards == {"b_2": 2.2, "c_3": 3.0}
    for wrong, message in (({"b_2": 0}, r"none for \['c_3'\]"),
                           ({"a_1": 0, "b_2": 0, "c_3": 0}, r"some for \['a_1'\]")):
        with pytest.raises(ValueError, match=message):
            env.step(wrong)
    with pytest.raises(InvalidAction, match="agent slot 1"):
        env.step({"b_2": 7, "c_3": 0})
    env.close()


def test_a_slot_that_is_used_again():
    env = as_parallel("snake", env_kwargs=ARGUMENTS["snake"])
    with contextlib.closing(env):
        env.reset(seed=0)
        while len(env.agents) == 5:
            env.step(dict.fromkeys(env.agents, 1))
        with pytest.raises(ValueError, match=r"another agent is born in its slot: .*generated"):
            env.step(dict.fromkeys(env.agents, 1))


def test_pictures():
    with contextlib.closing(as_parallel("snake", render_mode="rgb_array")) as env:
        env.reset(seed=0)
        assert env.render().shape[2] == 3
        assert env.metadata["render_modes"] == ["rgb_array", "ansi"]
        with pytest.raises(NotImplementedError, match="snake_v0"):
            env.state()
    with contextlib.closing(as_parallel("snake", render_mode="ansi")) as env:
        env.reset(seed=0)
        assert isinstance(env.render(), str)
    with contextlib.closing(as_parallel("snake")) as env:
        env.reset(seed=0)
        assert env.render() is None
    with contextlib.closing(as_parallel(partial(Village, {"a_1": (0, 2, "terminated")}))) as env:
        env.reset(seed=0)
        assert env.render().shape == (2, 2, 3)


def test_what_is_no_parallel_environment():
    for kwargs in ({"num_envs": 2, "autoreset": "disabled"}, {"num_envs": 1}):
        with (pufferlib_cy.make("snake", **kwargs) as vec,
              pytest.raises(ValueError, match="is one environment that is reset by its user")):
            as_parallel(vec)
    with pufferlib_cy.make("snake", 1, autoreset="disabled") as vec:
        with pytest.raises(TypeError, match=r"\['seed'\] are for environments that are yet"):
            as_parallel(vec, seed=3)
        assert as_parallel(vec).possible_agents[0] == "agent_0"
    with pytest.raises(ValueError, match="render_mode: 'human'"):
        as_parallel("snake", render_mode="human")
