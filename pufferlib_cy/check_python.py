"""Look for faults in a Python environment by playing it: the part of `check` for Gymnasium and
PettingZoo.

`Player` plays one environment by random legal actions and holds everything it returns against the
rules of its interface. `check` then plays in ways that must not make a difference: again in a new
environment, again in the used one, and with another environment stepped in between.
"""

from __future__ import annotations

import copy
import math
import traceback
import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple
from numpy.typing import NDArray

from pufferlib_cy import emulation
from pufferlib_cy._spaces import ActionTree, SpaceTree
from pufferlib_cy.arrays import describe
from pufferlib_cy.spaces import TAKES, SpaceError, place

T = TypeVar("T")

CUTS = 3                     # an episode is cut short after this share of the steps
LARGEST = 10.0               # of random continuous actions, where the space has no bound
COMMON = "common"            # a key of infos beside the agents', which PettingZoo allows


def check(factory: Callable[[], Any], *, steps: int, seed: int) -> list[str]:
    """Play a Python environment for `steps` steps, four times; say what is wrong, [] if nothing is.

    factory: gives a new gymnasium.Env or PettingZoo environment at every call.
    """
    findings = Findings()
    envs = [emulation.adapt(factory()) for _ in range(3)]
    if len({id(env) for env in envs}) < len(envs):
        return ["the callable gives the same object again: it has to make a new one every time"]

    def play(env: Any, into: Findings | None = None, first: int = seed) -> Iterator[Trace]:
        return Player(env, Findings() if into is None else into, first).play(steps)

    try:
        new, other, neighbour = envs
        expected = list(play(new, findings))
        if findings.stopped:
            return findings.words
        again = list(play(other))
        used = list(play(new))
        beside = [trace for trace, _ in zip_longest(play(other), play(neighbour, first=seed + 1))
                  if trace is not None]
        if again != expected:
            findings.add("again", _other_way(expected, again))
        elif used != expected:
            findings.add("used", "a used environment, reset with the seed it began with, goes "
                         "another way than at first: `reset` does not begin anew "
                         f"(first in {_first_difference(expected, used)})")
        elif beside != expected:
            findings.add("beside", "an environment goes another way if another one is stepped in "
                         "between: they share something "
                         f"(first in {_first_difference(expected, beside)})")
    finally:
        for env in envs:
            _close_twice(env, findings)
    return findings.words


# ---- findings ------------------------------------------------------------------------------------

class Findings:
    """What was found, in words: of each kind only the first."""

    def __init__(self) -> None:
        self._kinds: dict[Hashable, str] = {}
        self.stopped = False             # at a fault after which there was no playing on

    def add(self, kind: Hashable, words: str) -> None:
        self._kinds.setdefault(kind, words)

    @property
    def words(self) -> list[str]:
        return list(self._kinds.values())


class StopPlayError(Exception):
    """A fault after which there is no playing on."""


@dataclass(frozen=True)
class Trace:
    """One call of a play: which, and checksums of what it returned."""

    call: str
    observations: int
    rewards: int
    flags: int


def _first_difference(expected: Sequence[Trace], other: Sequence[Trace]) -> str:
    """The first call of two plays that returned something else, and what."""
    for a, b in zip(expected, other, strict=False):
        for quantity in ("observations", "rewards", "flags"):
            if getattr(a, quantity) != getattr(b, quantity):
                return f"{a.call}: {quantity}"
    return "where one of them stopped with an error"


def _other_way(expected: Sequence[Trace], other: Sequence[Trace]) -> str:
    where = _first_difference(expected, other)
    if where.startswith("the reset after"):
        return (f"two environments with the same seed and actions part in {where}: a reset without "
                "a seed has to go on with the random stream, not to draw a new one")
    if where.startswith("the first reset"):
        return (f"two new environments, reset with the same seed, begin differently ({where}): "
                "`reset` ignores its seed, or something else decides")
    return (f"two environments with the same seed and actions part in {where}: chance that does "
            "not come from the seed")


# ---- the two interfaces as one -------------------------------------------------------------------

@dataclass(frozen=True)
class Returned:
    """What a call returned, by agent; a reset has neither rewards nor flags."""

    observations: dict[Any, Any]
    infos: dict[Any, Any]
    agents: list[Any]                    # that live after the call
    rewards: dict[Any, Any]
    terminations: dict[Any, Any]
    truncations: dict[Any, Any]


class OneAgent:
    """A Gymnasium environment, as one with a single agent that has no name."""

    possible_agents: Sequence[Any] = ()

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self.env = env

    def spaces(self, agent: Any) -> tuple[Space[Any], Space[Any]]:
        return self.env.observation_space, self.env.action_space

    def reset(self, **arguments: Any) -> Returned:
        observation, info = _unpack(self.env.reset(**arguments), "observation, info")
        return Returned({None: observation}, {None: info}, [None], {}, {}, {})

    def step(self, actions: Mapping[Any, Any]) -> Returned:
        observation, reward, terminated, truncated, info = _unpack(
            self.env.step(actions[None]), "observation, reward, terminated, truncated, info")
        agents = [] if _is_set(terminated) or _is_set(truncated) else [None]
        return Returned({None: observation}, {None: info}, agents, {None: reward},
                        {None: terminated}, {None: truncated})


class Agents:
    """A parallel environment of PettingZoo."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.possible_agents: Sequence[Any] = list(getattr(env, "possible_agents", None) or ())

    def spaces(self, agent: Any) -> tuple[Space[Any], Space[Any]]:
        return self.env.observation_space(agent), self.env.action_space(agent)

    def reset(self, **arguments: Any) -> Returned:
        observations, infos = _unpack(self.env.reset(**arguments), "observations, infos", dict)
        return Returned(observations, infos, list(self.env.agents), {}, {}, {})

    def step(self, actions: Mapping[Any, Any]) -> Returned:
        observations, rewards, terminations, truncations, infos = _unpack(
            self.env.step(dict(actions)),
            "observations, rewards, terminations, truncations, infos", dict)
        return Returned(observations, infos, list(self.env.agents), rewards, terminations,
                        truncations)


def _unpack(result: Any, names: str, kind: type = object) -> tuple[Any, ...]:
    """The result of a call as a tuple with these parts, each of a kind."""
    expected = names.split(", ")
    if not isinstance(result, tuple) or len(result) != len(expected):
        got = f"{len(result)} values" if isinstance(result, tuple) else describe(result)
        raise StopPlayError(f"returned {got}, expected the {len(expected)} values {names}")
    for name, part in zip(expected, result, strict=True):
        if not isinstance(part, kind):
            raise StopPlayError(f"{name}: expected a dict with a value for each agent, got "
                                f"{describe(part)}")
    return result


# ---- one play ------------------------------------------------------------------------------------

class Player:
    """Plays one environment; what breaks the rules goes to the findings."""

    def __init__(self, env: Any, findings: Findings, seed: int) -> None:
        self.env = OneAgent(env) if isinstance(env, gymnasium.Env) else Agents(env)
        self.findings = findings
        self.seed = seed
        self.generator = np.random.default_rng(seed)
        self.call = "the first reset"
        self.spaces: dict[Any, tuple[Space[Any], Space[Any]]] = {}      # copies of the first seen
        self.seen_spaces: dict[Any, tuple[Space[Any], Space[Any]]] = {}  # the objects last seen
        self.action_trees: dict[Any, ActionTree] = {}
        self.given: tuple[str, dict[Any, Any], dict[Any, int]] = ("", {}, {})

    def play(self, steps: int) -> Iterator[Trace]:
        """Reset and step; ends early, with `findings.stopped`, if there is no playing on."""
        try:
            yield from self._play(steps)
        except StopPlayError as stop:
            self.findings.add(str(stop), f"{self.call}: {stop}")
            self.findings.stopped = True

    def _play(self, steps: int) -> Iterator[Trace]:
        episodes, length = 0, 0
        longest = math.ceil(steps / CUTS)
        first: dict[int, dict[str, Any]] = {0: {"seed": self.seed}, 1: {"options": {}}}
        returned: Returned | None = None
        for step in range(1, steps + 1):
            if returned is None or not returned.agents or length == longest:
                if returned is not None:
                    self.call = f"the reset after step {step - 1}"
                returned = self._reset(first.get(episodes, {}))
                yield self._trace(returned)
                episodes, length = episodes + 1, 0
            self.call = f"step {step}"
            actions = {agent: self._action(agent, returned) for agent in returned.agents}
            returned = self._step(actions, returned.agents)
            yield self._trace(returned)
            length += 1

    # ---- calls -----------------------------------------------------------------------------------

    def _reset(self, arguments: Mapping[str, Any]) -> Returned:
        shown = ", ".join(f"{name}={value}" for name, value in arguments.items())
        returned = self._guarded(f"reset({shown})", partial(self.env.reset, **arguments))
        self.dead: set[Any] = set()
        self.known = set(returned.agents)
        if not returned.agents:
            raise StopPlayError("no agent lives after a reset")
        self._look_at_agents(returned)
        self._look_at_observations(returned)
        self._look_at_infos(returned, set(returned.agents))
        self._look_at_masks(returned)
        return returned

    def _step(self, actions: dict[Any, Any], before: list[Any]) -> Returned:
        shown = actions.get(None, actions)
        returned = self._guarded(f"step({shown!r:.200})",
                                 partial(self.env.step, copy.deepcopy(actions)))
        self._look_at_agents(returned)
        self._look_at_flags(returned, before)
        self._look_at_rewards(returned, before)
        # An agent may be born and end within one step; one that is dead already may not.
        told = {*returned.observations, *returned.rewards, *returned.terminations}
        self.known |= {*before, *returned.agents}
        passing = {agent for agent in told if agent not in self.known
                   and (_is_set(returned.terminations.get(agent, False))
                        or _is_set(returned.truncations.get(agent, False)))}
        entitled = {*before, *returned.agents, *passing}
        for name in ("observations", "rewards", "terminations", "truncations"):
            for agent in getattr(returned, name):
                if agent not in entitled:
                    self._find(("stranger", name), agent, f"is in {name}, but lives neither "
                               "before nor after the step")
        self.known |= passing
        self._look_at_observations(returned)
        self._look_at_infos(returned, entitled)
        self._look_at_masks(returned)
        return returned

    def _guarded(self, what: str, call: Callable[[], T]) -> T:
        """What a call into the environment returns; StopPlayError if it raises."""
        try:
            return call()
        except StopPlayError as stop:
            raise StopPlayError(f"{what.partition('(')[0]}: {stop}") from None
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            raise StopPlayError(f"{what} raised {type(error).__name__}: {error} (at "
                                f"{Path(frame.filename).name}:{frame.lineno})") from error

    def _find(self, kind: Hashable, agent: Any, words: str) -> None:
        self.findings.add(kind, f"{self.call}{_of(agent)}: {words}")

    # ---- rules -----------------------------------------------------------------------------------

    def _look_at_agents(self, returned: Returned) -> None:
        for agent in returned.agents:
            if returned.agents.count(agent) > 1:
                raise StopPlayError(f"agent {agent!r} is more than once in `agents`")
            if self.env.possible_agents and agent not in self.env.possible_agents:
                raise StopPlayError(f"agent {agent!r} is in `agents`, but not in possible_agents")
            if agent in self.dead:
                raise StopPlayError(f"agent {agent!r} ended in this episode, and lives again")
            if agent not in returned.observations:
                raise StopPlayError(f"agent {agent!r} is in `agents`, but has no observation")

    def _look_at_flags(self, returned: Returned, before: list[Any]) -> None:
        for agent in before:
            flags = []
            for name, given in (("terminated", returned.terminations),
                                ("truncated", returned.truncations)):
                if agent not in given:
                    self._find((name, "missing"), agent, f"acted, but {name} says nothing of it")
                    continue
                flags.append(_is_set(given[agent]))
                if not isinstance(given[agent], (bool, np.bool_)):
                    self._find((name, "type"), agent, f"{name} is {describe(given[agent])}, "
                               "expected a bool")
            if any(flags):
                self.dead.add(agent)
                if agent in returned.agents:
                    raise StopPlayError(f"agent {agent!r} ended, and is in `agents` still")
            elif agent not in returned.agents:
                self.dead.add(agent)
                self._find("left", agent, "left `agents`, but is neither terminated nor truncated")

    def _look_at_rewards(self, returned: Returned, before: list[Any]) -> None:
        for agent in before:
            if agent not in returned.rewards:
                self._find(("reward", "missing"), agent, "acted, but has no reward")
                continue
            reward = returned.rewards[agent]
            if np.ndim(reward) or np.asarray(reward).dtype.kind not in "biuf":
                self._find(("reward", "type"), agent, f"reward: expected a number, got "
                           f"{describe(reward)}")
            elif not np.isfinite(reward):
                self._find(("reward", "finite"), agent, f"reward is {reward}")

    def _look_at_observations(self, returned: Returned) -> None:
        before, observations, sums = self.given
        for agent, observation in observations.items():
            if checksum(observation) != sums[agent]:
                self._find("alias", agent, f"changes the observation that {before} returned: the "
                           "environment goes on writing into it, and has to return a copy")
        self._look_at_spaces(returned)
        for agent, observation in returned.observations.items():
            if agent in self.spaces:
                for path, words in outside(self.spaces[agent][0], observation):
                    self._find(("observation", path), agent,
                               f"{place('observation', path)} {words}")
        self.given = (self.call, returned.observations,
                      {agent: checksum(given) for agent, given in returned.observations.items()})

    def _look_at_spaces(self, returned: Returned) -> None:
        """Spaces stay as they were, and are the same for all agents.

        An object that was looked at is compared again at resets only: that takes its time.
        """
        for agent in returned.agents:
            spaces = self._guarded(f"spaces{_of(agent)}", partial(self.env.spaces, agent))
            seen = self.seen_spaces.get(agent, (None, None))
            if all(a is b for a, b in zip(spaces, seen, strict=True)) and "reset" not in self.call:
                continue
            self.seen_spaces[agent] = spaces
            if agent not in self.spaces:
                self.spaces[agent] = copy.deepcopy(spaces)
                self._look_at_new_spaces(agent)
            for name, space, expected in zip(("observation", "action"), spaces,
                                             self.spaces[agent], strict=True):
                if space != expected:
                    self._find((name, "changed"), agent, f"the {name} space was {expected}, and "
                               f"is now {space}")

    def _look_at_new_spaces(self, agent: Any) -> None:
        first = next(iter(self.spaces))
        for name, space, expected in zip(("observation", "action"), self.spaces[agent],
                                         self.spaces[first], strict=True):
            if not isinstance(space, Space):
                raise StopPlayError(f"the {name} space{_of(agent)} is {describe(space)}, expected "
                                    "a gymnasium.Space")
            if space != expected:
                self._find((name, "unequal"), agent, f"has the {name} space {space}, but agent "
                           f"{first!r} has {expected}: agents of one environment have equal spaces")
            space.seed(self.seed)
            sample = space.sample()
            if not space.contains(sample):
                self._find((name, "sample"), agent, f"the {name} space {space} does not contain "
                           f"{describe(sample)}, which it sampled itself")
        observation_space, action_space = self.spaces[agent]
        try:
            SpaceTree(observation_space)
        except SpaceError as error:
            self.findings.add(("no row", str(error)), str(error))
        try:
            self.action_trees[agent] = ActionTree(action_space)
        except SpaceError as error:
            raise StopPlayError(str(error)) from error

    def _look_at_infos(self, returned: Returned, entitled: set[Any]) -> None:
        for agent, info in returned.infos.items():
            if agent not in entitled and agent != COMMON:
                self._find(("info", "stranger"), agent, "is a key of infos, but no agent of this "
                           "step")
            elif not isinstance(info, dict):
                self._find(("info", "type"), agent, f"info: expected a dict, got {describe(info)}")

    def _look_at_masks(self, returned: Returned) -> None:
        for agent in returned.agents:
            mask = self._mask(agent, returned)
            tree = self.action_trees[agent]
            if mask is None or not tree.heads:           # all are legal
                continue
            choices = int(sum(tree.sizes))
            if mask.shape != (choices,):
                self._find("mask shape", agent, f"action_mask: expected shape ({choices},), one "
                           f"entry per discrete action, got {describe(mask)}")
            elif not all(part.any() for part in _heads(mask, tree)):
                self._find("mask empty", agent, f"action_mask: no action is legal: {mask}")

    def _mask(self, agent: Any, returned: Returned) -> NDArray[Any] | None:
        """The agent's action mask, from its observation or info."""
        for source in (returned.observations.get(agent), returned.infos.get(agent)):
            if isinstance(source, dict) and source.get("action_mask") is not None:
                mask = source["action_mask"]
                if isinstance(mask, (tuple, list)) and len(mask) and np.ndim(mask[0]):
                    mask = np.concatenate(mask)
                return np.asarray(mask)
        return None

    # ---- actions ---------------------------------------------------------------------------------

    def _action(self, agent: Any, returned: Returned) -> Any:
        """A random legal action, as the rows of the agent would give it."""
        tree, mask = self.action_trees[agent], self._mask(agent, returned)
        if mask is None or mask.shape != (int(sum(tree.sizes)),):
            mask = np.ones(int(sum(tree.sizes)), np.bool_)
        discrete = [start + self.generator.choice(np.flatnonzero(part if part.any() else part == 0))
                    for part, start in zip(_heads(mask, tree), tree.starts, strict=True)]
        low, high = np.maximum(tree.lows, -LARGEST), np.minimum(tree.highs, LARGEST)
        continuous = np.clip(self.generator.uniform(low, high).astype(np.float32), low, high)
        action = tree.read(np.array(discrete, np.int64), continuous)
        if not tree.space.contains(action):
            self._find("action", agent, f"the action space {tree.space} does not contain the "
                       f"action {action!r}, though its bounds do")
        return action

    def _trace(self, returned: Returned) -> Trace:
        return Trace(self.call, checksum(returned.observations), checksum(returned.rewards),
                     checksum([returned.terminations, returned.truncations, returned.agents]))


# ---- pieces --------------------------------------------------------------------------------------

def outside(space: Space[Any], value: Any,
            path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Where and how a value does not match its space: (path of the leaf, words)."""
    if isinstance(space, Dict):
        if not isinstance(value, Mapping):
            yield path, f"is {describe(value)}, expected a dict"
            return
        for key in [*space.spaces, *(key for key in value if key not in space.spaces)]:
            if key not in value:
                yield (*path, key), "is missing"
            elif key not in space.spaces:
                yield (*path, key), "is not in its space"
            else:
                yield from outside(space[key], value[key], (*path, key))
    elif isinstance(space, Tuple):
        if not isinstance(value, (tuple, list)) or len(value) != len(space.spaces):
            yield path, f"is {describe(value)}, expected a tuple of {len(space.spaces)}"
            return
        for i, (part, inner) in enumerate(zip(space.spaces, value, strict=True)):
            yield from outside(part, inner, (*path, i))
    elif isinstance(space, (Box, Discrete, MultiDiscrete, MultiBinary)):
        if words := _outside_leaf(space, value):
            yield path, words
    elif not space.contains(value):
        yield path, f"is {describe(value)}, which is not in {space}"


def _outside_leaf(space: Box | Discrete[Any] | MultiDiscrete[Any] | MultiBinary,
                  value: Any) -> str | None:
    """How a value does not match the space of a leaf; None if it does."""
    low, high = _bounds(space)
    if np.ndim(value) and not isinstance(value, np.ndarray):
        return f"is {describe(value)}, expected an array"
    array = np.asarray(value)
    kind = space.dtype.kind if isinstance(space, Box) else "i"
    if array.shape != space.shape or array.dtype.kind not in TAKES[kind]:
        return f"is {describe(value)}, expected {space.dtype} of shape {space.shape}"
    if isinstance(space, Box) and isinstance(value, (np.ndarray, np.generic)) \
            and not np.can_cast(array.dtype, space.dtype):
        return f"is {array.dtype}, but its space is {space.dtype}"
    for fault in (~np.isfinite(array), ~((array >= low) & (array <= high))):
        if fault.any():
            index = tuple(int(i) for i in np.argwhere(fault)[0])
            name = f"is {array[index]}" + (f" at {list(index)}" if index else "")
            return name if not np.isfinite(array[index]) else (
                f"{name}, outside [{low[index]}, {high[index]}]")
    return None


def _bounds(space: Box | Discrete[Any] | MultiDiscrete[Any] | MultiBinary) -> tuple[
        NDArray[Any], NDArray[Any]]:
    """The least and the greatest value of each element."""
    if isinstance(space, Box):
        return space.low, space.high
    if isinstance(space, MultiBinary):
        return np.zeros(space.shape, np.int64), np.ones(space.shape, np.int64)
    first = np.asarray(space.start)
    return first, first + (space.n if isinstance(space, Discrete) else space.nvec) - 1


def checksum(value: Any) -> int:
    """A number that is the same for equal values, whatever they consist of."""
    if isinstance(value, Mapping):
        return checksum([(key, value[key]) for key in sorted(value, key=repr)])
    if isinstance(value, (tuple, list)):
        return zlib.crc32(repr([checksum(part) for part in value]).encode())
    if isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        return zlib.crc32(np.ascontiguousarray(value).tobytes(), hash(value.shape) & 0xffffffff)
    return zlib.crc32(repr(value).encode())


def _heads(mask: NDArray[Any], tree: ActionTree) -> list[NDArray[Any]]:
    """The mask of each discrete part of an action."""
    return np.split(mask, np.cumsum(tree.sizes)[:-1]) if tree.heads else []


def _is_set(flag: Any) -> bool:
    """What a flag says, whatever its type."""
    return bool(np.any(flag))


def _of(agent: Any) -> str:
    return "" if agent is None else f", agent {agent!r}"


def _close_twice(env: Any, findings: Findings) -> None:
    for time in ("", " the second time"):
        try:
            env.close()
        except Exception as error:
            findings.add("close", f"close raised{time} {type(error).__name__}: {error}")
            return
