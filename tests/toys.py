"""Small Python environments with known behaviour, for the tests of emulation."""

from __future__ import annotations

import random
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Nested(gymnasium.Env[Any, Any]):
    """Nested observations that say which environment, seed and step they are of; episodes of
    `length` steps, ended by turns with termination and truncation; infos of every kind."""

    def __init__(self, length: int = 4, infos: bool = True) -> None:
        self.observation_space = spaces.Dict({
            "picture": spaces.Box(0, 255, (3, 3), np.uint8),
            "where": spaces.Tuple((spaces.Box(-np.inf, np.inf, (2,), np.float64),
                                   spaces.Discrete(9, start=-4))),
            "flags": spaces.MultiBinary(3)})
        self.action_space = spaces.Dict({
            "jump": spaces.Discrete(3, start=1), "push": spaces.Box(-1, 1, (2, 1), np.float32)})
        self.length, self.infos = length, infos
        self.episodes = -1
        self.seeds: list[int | None] = []
        self.options: list[Any] = []
        self.actions: list[Any] = []
        self.closed = False

    def observe(self) -> Any:
        k = self.t
        return {"picture": np.full((3, 3), 10 * self.episodes + k, np.uint8),
                "where": (np.array([k, self.np_random.random()]), k % 9 - 4),
                "flags": np.array([k & 1, k >> 1 & 1, k >> 2 & 1], np.int8)}

    def info(self) -> dict[str, Any]:
        if not self.infos or self.t % 2:
            return {}
        return {"t": self.t, "share": self.t / 2, "name": f"step {self.t}", "even": True,
                "array": np.arange(3) * self.t, "deep": {"episode": self.episodes}}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.options.append(options)
        self.episodes += 1
        self.t = 0
        return self.observe(), self.info()

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.actions.append(action)
        self.t += 1
        over = self.t == self.length
        return (self.observe(), self.t * 0.1, over and self.episodes % 2 == 0,
                over and self.episodes % 2 == 1, self.info())

    def close(self) -> None:
        self.closed = True


class Village:
    """A PettingZoo parallel environment whose agents are born and die by a timetable.

    `timetable`: agent: (first step it is seen at, step it ends at, flag). An agent's observation is
    (its number, t); action masks are given as PettingZoo does it, in the observation.
    """

    metadata: dict[str, Any] = {"name": "village_v0"}  # noqa: RUF012 - PettingZoo's convention

    def __init__(self, timetable: dict[str, tuple[int, int, str]], fixed: bool = True,
                 masks: bool = False) -> None:
        self.timetable, self.masks = timetable, masks
        if fixed:
            self.possible_agents = list(timetable)
        self.render_mode = None
        self.seeds: list[int | None] = []

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        box = spaces.Box(-1, 1000, (2,), np.float32)
        if not self.masks:
            return box
        return spaces.Dict({"observation": box, "action_mask": spaces.MultiBinary(4)})

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Discrete(4)

    def mask(self, agent: str) -> Any:
        return np.array([1, self.t % 2, number(agent) % 2, 0], np.int8)

    def observe(self, agent: str) -> Any:
        row = np.array([number(agent), self.t], np.float32)
        return {"observation": row, "action_mask": self.mask(agent)} if self.masks else row

    def living(self) -> list[str]:
        return [a for a, (born, ends, _) in self.timetable.items() if born <= self.t < ends]

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.seeds.append(seed)
        self.t = 0
        self.agents = self.living()[::-1]                # in another order than the slots
        return ({a: self.observe(a) for a in self.agents}, {a: {} for a in self.agents})

    def step(self, actions: dict[str, Any]) -> Any:
        assert set(actions) == set(self.agents), (actions, self.agents)
        assert all(type(a) is int for a in actions.values()), actions
        self.t += 1
        ended = {a: self.timetable[a][2] for a in self.agents if self.timetable[a][1] == self.t}
        new = [a for a in self.living() if a not in self.agents]
        seen = [*self.agents, *new]
        self.agents = [a for a in seen if a not in ended]
        return ({a: self.observe(a) for a in seen},
                {a: number(a) + actions.get(a, 0) / 10 for a in seen},
                {a: ended.get(a) == "terminated" for a in seen},
                {a: ended.get(a) == "truncated" for a in seen},
                {a: {"t": self.t} if a in ended else {} for a in seen})

    def render(self) -> Any:
        return np.full((2, 2, 3), self.t, np.uint8)

    def close(self) -> None:
        pass


def number(agent: str) -> int:
    return int(agent.rpartition("_")[2])


class Jittery(gymnasium.Env[Any, Any]):
    """A walk that the actions push, with truncated and terminated episodes. Its steps take a random
    time that no seed decides, so that batches come in another order every time."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, seconds: float = 0.001, fails_after: int = 0) -> None:
        self.seconds, self.fails_after = seconds, fails_after
        self.steps = 0

    def observe(self) -> Any:
        return np.array([self.place, self.t / 8, 1.0], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.place, self.t = self.np_random.normal(), 0
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        time.sleep(self.seconds * random.SystemRandom().random())
        self.t += 1
        self.steps += 1
        if self.steps == self.fails_after:
            raise RuntimeError("it fell apart")
        self.place += (action - 1) * 0.3 + 0.3 * self.np_random.normal()
        return self.observe(), -abs(self.place), abs(self.place) > 2, self.t == 8, {}


# For programs that define an environment in their main script; its reward is the action.
HERE = """
import gymnasium, numpy as np
class Here(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}
    def step(self, action):
        return np.ones(2, np.float32), float(action), False, False, {}
"""
