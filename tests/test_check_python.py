"""`check` finds planted faults in Python environments, names them, and is content without."""

from __future__ import annotations

import random
import re
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from toys import Nested, Village

from pufferlib_cy.check import check
from pufferlib_cy.cli import main

STEPS = 60
TIMETABLE = {"a_0": (0, 3, "terminated"), "b_1": (0, 6, "truncated"), "c_2": (2, 5, "terminated")}


class Walk(gymnasium.Env[Any, Any]):
    """A sound environment of one agent, in pieces that a fault can replace."""

    def __init__(self) -> None:
        self.observation_space = spaces.Dict({
            "place": spaces.Box(-1, 1, (2,), np.float32), "count": spaces.Discrete(12),
            "pair": spaces.Tuple((spaces.MultiBinary(2), spaces.MultiDiscrete([3, 4])))})
        self.action_space = spaces.MultiDiscrete([2, 3])

    def observe(self) -> Any:
        return {"place": self.np_random.uniform(-1, 1, 2).astype(np.float32), "count": self.t,
                "pair": (np.array([1, 0], np.int8), np.array([2, self.t % 4]))}

    def info(self) -> Any:
        return {} if self.t == 7 else {"action_mask": np.array([1, 1, 0, 1, 1], np.int8)}

    def reward(self) -> Any:
        return 0.5

    def flags(self) -> tuple[Any, Any]:
        return self.t == 11, self.np_random.random() < 0.1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), self.info()

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.t += 1
        return (self.observe(), self.reward(), *self.flags(), self.info())


class Talk(Village):
    """`Village` for faults: what step returns, and the agents after it, can be changed."""

    def __init__(self) -> None:
        super().__init__(TIMETABLE, masks=True)

    def step(self, actions: dict[str, Any]) -> Any:
        returned = super().step(actions)
        self.change(*returned)
        return returned

    def change(self, observations: Any, rewards: Any, terminations: Any, truncations: Any,
               infos: Any) -> None:
        pass


@pytest.mark.parametrize("env", [
    Walk, Talk, partial(Village, TIMETABLE), partial(Village, TIMETABLE, fixed=False),
    partial(Village, TIMETABLE, masks=True), "CartPole-v1", "Blackjack-v1", "Taxi-v4"])
def test_sound_environments(env):
    assert check(env, steps=STEPS) == []


def test_what_survives_a_reset_is_found():
    """`Nested` counts its episodes in its observations; Gymnasium's own checker minds that too."""
    class Forgetful(Nested):
        def reset(self, **arguments: Any) -> Any:
            self.episodes = -1
            return super().reset(**arguments)

    assert check(Forgetful, steps=STEPS) == []
    [finding] = check(Nested, steps=STEPS)
    assert finding == ("a used environment, reset with the seed it began with, goes another way "
                       "than at first: `reset` does not begin anew (first in the first reset: "
                       "observations)")


# ---- faults of one agent -------------------------------------------------------------------------

def of(base: type, **methods: Any) -> type:
    return type("Faulty", (base,), methods)


def seen(change: Any) -> type:
    """Faulty from step 3 on: what it observes is changed."""
    def observe(self: Any) -> Any:
        observation = Walk.observe(self)
        return change(observation) if self.t >= 3 else observation
    return of(Walk, observe=observe)


def place(value: Any) -> type:
    return seen(lambda o: {**o, "place": value})


def stepping(change: Any) -> type:
    return of(Walk, step=lambda self, action: change(Walk.step(self, action)))


def looped(self: Walk) -> Any:
    """The same array in every observation."""
    if not hasattr(self, "place"):
        self.place = np.zeros(2, np.float32)
    self.place[:] = self.np_random.uniform(-1, 1, 2)
    return {**Walk.observe(self), "place": self.place}


def other_space(self: Walk) -> Any:
    if self.t == 5:
        self.observation_space = spaces.Dict(
            {**self.observation_space.spaces, "count": spaces.Discrete(13)})
    return Walk.observe(self)


def space_in_place(self: Walk) -> Any:
    if self.t == 5:
        self.observation_space.spaces["place"].high[0] = 2.0
    return Walk.observe(self)


def fragile(self: Walk, action: Any) -> Any:
    return Walk.step(self, action) if action[1] == 1 else [][action[1]]


class Sampled(spaces.Discrete):  # type: ignore[type-arg]
    def contains(self, x: Any) -> bool:
        return bool(super().contains(x) and x != 1)


class Many:
    """Random numbers of all environments of the process."""
    stream = np.random.default_rng(0)


def crowd(self: Walk, *, seed: int | None = None, options: Any = None) -> Any:
    """A seed is for all environments."""
    if seed is not None:
        Many.stream = np.random.default_rng(seed)
    self.t = 0
    return self.observe(), self.info()


def tired(self: Walk, *, seed: int | None = None, options: Any = None) -> Any:
    gymnasium.Env.reset(self, seed=seed)
    self.t = getattr(self, "t", 0) % 11              # goes on where it was
    return self.observe(), self.info()


def closing_once(self: Walk) -> None:
    del self.action_space


ONE_AGENT = {
    "out of range": (place(np.array([0, 1.5], np.float32)), r"step 3: observation\['place'\] is "
                     r"1.5 at \[1\], outside \[-1.0, 1.0\]"),
    "nan": (place(np.array([np.nan, 0], np.float32)), r"step 3: observation\['place'\] is nan"),
    "infinite": (place(np.array([0, -np.inf], np.float32)), r"\['place'\] is -inf at \[1\]"),
    "shape": (place(np.zeros(3, np.float32)), r"\['place'\] is a float32 array of shape \(3,\), "
              r"expected float32 of shape \(2,\)"),
    "dtype": (place(np.zeros(2)), r"\['place'\] is float64, but its space is float32"),
    "list": (place([0.0, 0.0]), r"\['place'\] is \[0.0, 0.0\] \(list\), expected an array"),
    "missing key": (seen(lambda o: {"place": o["place"], "pair": o["pair"]}),
                    r"\['count'\] is missing"),
    "unknown key": (seen(lambda o: {**o, "more": 1}), r"\['more'\] is not in its space"),
    "no dict": (seen(lambda o: o["place"]), "observation is a float32 array .*, expected a dict"),
    "tuple": (seen(lambda o: {**o, "pair": o["pair"][:1]}), "expected a tuple of 2"),
    "in a tuple": (seen(lambda o: {**o, "pair": (o["pair"][0], np.array([3, 0]))}),
                   r"observation\['pair'\]\[1\] is 3 at \[0\], outside \[0, 2\]"),
    "discrete": (seen(lambda o: {**o, "count": 12}), r"\['count'\] is 12, outside \[0, 11\]"),
    "discrete type": (seen(lambda o: {**o, "count": 1.0}), r"\['count'\] is 1.0 \(float\)"),
    "alias": (of(Walk, observe=looped), "step 1: changes the observation that the first reset "
              "returned"),
    "space changes": (of(Walk, observe=other_space), r"step \d+: the observation space was Dict\("),
    "space changes in place": (of(Walk, observe=space_in_place), "the observation space was"),
    "no row": (of(Walk, __init__=lambda self: (Walk.__init__(self), self.observation_space.spaces
                                               .update(word=spaces.Text(3)))[0]),
               r"^observation\['word'\]: a Text has no fixed layout"),
    "own sample": (of(Walk, __init__=lambda self: (
        Walk.__init__(self), setattr(self, "action_space", Sampled(3, seed=1)))[0],
        info=lambda self: {}), "the action space .* does not contain 1|the action 1"),
    "action": (of(Walk, step=fragile), r"step \d+: step\(array\(\[\d, 2\].*raised IndexError: .*"
               r"\(at test_check_python.py:\d+\)"),
    "reward nan": (of(Walk, reward=lambda self: float("nan")), "step 1: reward is nan"),
    "reward none": (of(Walk, reward=lambda self: None), "reward: expected a number, got None"),
    "reward array": (of(Walk, reward=lambda self: np.ones(1)), r"got a float64 array of shape"),
    "flag": (of(Walk, flags=lambda self: (int(self.t == 4), False)),
             r"step 1: terminated is 0 \(int\), expected a bool"),
    "info": (of(Walk, info=lambda self: None), "the first reset: info: expected a dict, got None"),
    "mask shape": (of(Walk, info=lambda self: {"action_mask": np.ones(4)}),
                   r"action_mask: expected shape \(5,\).*, got a float64 array of shape \(4,\)"),
    "mask empty": (of(Walk, info=lambda self: {"action_mask": np.array([1, 1, 0, 0, 0])}),
                   "action_mask: no action is legal"),
    "old step": (stepping(lambda r: (*r[:2], r[2] or r[3], r[4])),
                 "step 1: step: returned 4 values, expected the 5 values observation, reward, "),
    "old reset": (of(Walk, reset=lambda self, seed=None, options=None: Walk.reset(
        self, seed=seed)[0]), "the first reset: reset: returned .*, expected the 2 values "),
    "no options": (of(Walk, reset=lambda self, seed=None: Walk.reset(self, seed=seed)),
                   r"the reset after step \d+: reset\(options=\{\}\) raised TypeError"),
    "unseeded": (of(Walk, reset=lambda self, seed=None, options=None: Walk.reset(self)),
                 "two new environments, reset with the same seed, begin differently"),
    "chance": (of(Walk, flags=lambda self: (random.random() < 0.1, False)),
               r"part in step \d+: flags: chance that does not come from the seed"),
    "seeds anew": (of(Walk, reset=lambda self, seed=None, options=None: Walk.reset(
        self, seed=random.getrandbits(30) if seed is None else seed)),
        r"part in the reset after step \d+: observations: a reset without a seed"),
    "no reset": (of(Walk, reset=tired), "`reset` does not begin anew"),
    "shared": (of(Walk, reset=crowd, flags=lambda self: (self.t == 11, Many.stream.random() < 0.1),
                  observe=lambda self: {**Walk.observe(self), "place": np.full(
                      2, Many.stream.random(), np.float32)}),
               "if another one is stepped in between: they share something"),
    "close": (of(Walk, close=closing_once), "close raised the second time AttributeError"),
}


@pytest.mark.parametrize(("fault", "words"), ONE_AGENT.values(), ids=ONE_AGENT)
def test_faults_of_one_agent(fault, words):
    findings = check(fault, steps=STEPS)
    assert any(re.search(words, finding) for finding in findings), findings


# ---- faults of several agents --------------------------------------------------------------------

def revive(self: Any, observations: Any, rewards: Any, *rest: Any) -> None:
    if self.t == 5:                                      # a_0 ended at 3
        self.agents.append("a_0")
        observations["a_0"] = self.observe("a_0")


def linger(self: Any, *rest: Any) -> None:
    if self.t == 3:
        self.agents.append("a_0")


def changed(change: Any) -> type:
    return of(Talk, change=change)


SEVERAL = {
    "revived": (changed(revive), "step 5: agent 'a_0' ended in this episode, and lives again"),
    "lingering": (changed(linger), "step 3: agent 'a_0' ended, and is in `agents` still"),
    "unseen": (changed(lambda self, o, *rest: o.pop("b_1")),
               "step 1: agent 'b_1' is in `agents`, but has no observation"),
    "slips away": (changed(lambda self, *rest: self.t == 2 and self.agents.remove("b_1")),
                   "step 2, agent 'b_1': left `agents`, but is neither terminated nor truncated"),
    "unrewarded": (changed(lambda self, o, r, *rest: r.pop("a_0", 0)),
                   "step 1, agent 'a_0': acted, but has no reward"),
    "unflagged": (changed(lambda self, o, r, t, *rest: t.pop("b_1", 0)),
                  "step 1, agent 'b_1': acted, but terminated says nothing of it"),
    "stranger's reward": (changed(lambda self, o, r, *rest: r.update(z_9=1.0)),
                          "step 1, agent 'z_9': is in rewards, but lives neither before nor after"),
    "the dead flagged": (changed(lambda self, o, r, t, *rest: t.update(a_0=self.t >= 3)),
                         "step 4, agent 'a_0': is in terminations, but lives neither"),
    "stranger's info": (changed(lambda self, *all: all[4].update(episode={})),
                        "agent 'episode': is a key of infos, but no agent of this step"),
    "info": (changed(lambda self, *all: all[4].update(b_1=3)),
             "step 1, agent 'b_1': info: expected a dict, got 3"),
    "unlisted": (changed(lambda self, o, *rest: (self.agents.append("z_9"), o.update(z_9=0))),
                 "agent 'z_9' is in `agents`, but not in possible_agents"),
    "twice": (changed(lambda self, *rest: self.agents.append("b_1")),
              "agent 'b_1' is more than once in `agents`"),
    "mask": (of(Talk, mask=lambda self, agent: np.zeros(4, np.int8)),
             "the first reset, agent 'b_1': action_mask: no action is legal"),
    "spaces": (of(Talk, action_space=lambda self, agent: spaces.Discrete(3 + (agent == "a_0"))),
               r"has the action space Discrete\(4\), but agent 'b_1' has Discrete\(3\)"),
    "observation": (of(Talk, observe=lambda self, agent: {
        "observation": np.full(2, -2, np.float32), "action_mask": self.mask(agent)}),
        r"the first reset, agent 'b_1': observation\['observation'\] is -2.0 at \[0\], outside"),
    "no dicts": (of(Talk, step=lambda self, actions: tuple([[]] * 5)),
                 r"step: observations: expected a dict with a value for each agent, got \[\]"),
    "nobody": (of(Talk, living=lambda self: []), "the first reset: no agent lives after a reset"),
}


@pytest.mark.parametrize(("fault", "words"), SEVERAL.values(), ids=SEVERAL)
def test_faults_of_several_agents(fault, words):
    findings = check(fault, steps=STEPS)
    assert any(re.search(words, finding) for finding in findings), findings


# ---- what is checked -----------------------------------------------------------------------------

def test_one_object_for_all_is_found():
    shared = Walk()
    assert check(lambda: shared) == [
        "the callable gives the same object again: it has to make a new one every time"]


def test_each_kind_of_fault_is_told_once():
    findings = check(of(Walk, reward=lambda self: None, flags=lambda self: (self.t == 11, 0)),
                     steps=STEPS)
    assert len(findings) == 2


def test_what_is_no_environment_is_refused():
    with pytest.raises(TypeError, match="a PettingZoo environment, got 3"):
        check(lambda: 3)
    with pytest.raises(ValueError, match="did you mean CartPole-v1"):
        check("CartPole")
    with pytest.raises(TypeError, match="a list of callables"):
        check([Walk])
    with pytest.raises(ValueError, match="there is no module nowhere"):
        check("nowhere:env")


def test_the_command(tmp_path, monkeypatch, capsys):
    """Findings give exit code 1."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "walking.py").write_text(
        "import gymnasium\n"
        "class Still(gymnasium.Env):\n"
        "    observation_space = action_space = gymnasium.spaces.Discrete(2)\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        return 0, {}\n"
        "    def step(self, action):\n"
        "        return 2, 0.0, False, False, {}\n")
    assert main(["check", "CartPole-v1", "--steps", "20"]) == 0
    assert capsys.readouterr().out == (
        "CartPole-v1: nothing wrong in 20 steps played by two new environments, by a used one, and "
        "beside another\n")
    assert main(["check", "walking:Still", "--steps", "20"]) == 1
    assert capsys.readouterr().out == (
        "walking:Still: step 1: observation is 2, outside [0, 1]\n")
