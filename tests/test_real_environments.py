"""Gymnasium's, MiniGrid's, Atari's and PettingZoo's own environments as rows, held against the same
environment stepped by hand beside them."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import pufferlib_cy
from pufferlib_cy import SpaceError
from pufferlib_cy.check import check

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

minigrid = pytest.importorskip("minigrid")
pytest.importorskip("ale_py")
pettingzoo = pytest.importorskip("pettingzoo")
pytest.importorskip("mpe2")

STEPS = 200


def random_actions(vec: pufferlib_cy.VectorEnv, generator: np.random.Generator) -> Any:
    """A legal action for every row: (N,) or (N, values)."""
    space = vec.single_action_space
    if isinstance(space, spaces.Box):
        return generator.uniform(space.low, space.high,
                                 (vec.num_agents, *space.shape)).astype(np.float32)
    scores = generator.random((vec.num_agents, space.n))
    if vec.action_masks is not None:
        scores[~vec.action_masks] = -1.0
    return scores.argmax(axis=1)


def assert_same(nested: Any, observation: Any) -> None:
    """What a row unflattens to is what the environment returned: structure, values, dtypes."""
    if isinstance(observation, dict):
        assert set(nested) == set(observation)
        for key, part in observation.items():
            assert_same(nested[key], part)
    elif isinstance(observation, tuple):
        assert len(nested) == len(observation)
        for mine, part in zip(nested, observation, strict=True):
            assert_same(mine, part)
    else:
        if isinstance(observation, np.ndarray):
            assert nested.dtype == observation.dtype
        np.testing.assert_array_equal(nested, observation)


# ---- one agent -----------------------------------------------------------------------------------

GYMNASIUM = ["CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1",
             "Pendulum-v1", "FrozenLake-v1", "Taxi-v4", "CliffWalking-v1", "Blackjack-v1"]


def beside(factory: Any, steps: int = STEPS) -> Any:
    """Play the environment in rows and by hand; return the last infos by hand."""
    generator = np.random.default_rng(1)
    with pufferlib_cy.make(factory, copy=True) as vec, contextlib.closing(
            gymnasium.make(factory) if isinstance(factory, str) else factory()) as twin:
        rows, _ = vec.reset(seed=3)
        observation, info = twin.reset(seed=3)
        for _ in range(steps):
            assert_same(vec.space_tree.unflatten(rows[0]), observation)
            if vec.action_masks is not None:
                np.testing.assert_array_equal(vec.action_masks[0], info.get("action_mask", True))
            actions = random_actions(vec, generator)
            rows, rewards, terminations, truncations, _ = vec.step(actions)
            action = actions[0] if actions.ndim > 1 else int(actions[0])
            observation, reward, *flags, info = twin.step(action)
            assert rewards[0] == np.float32(reward)
            assert [terminations[0], truncations[0]] == flags
            if any(flags):
                assert_same(vec.space_tree.unflatten(vec.final_observations[0]), observation)
                observation, info = twin.reset()
        return vec


@pytest.mark.parametrize("name", GYMNASIUM)
def test_gymnasium(name):
    beside(name)


def test_blackjack_is_three_integers():
    vec = beside("Blackjack-v1", 3)
    assert vec.single_observation_space.shape == (3,)
    assert vec.single_observation_space.dtype == np.int32


def test_taxi_says_which_actions_are_legal():
    """In its infos; `beside` compares every step."""
    with pufferlib_cy.make("Taxi-v4") as vec:
        vec.reset(seed=0)
        assert 0 < vec.action_masks.sum() < 6


def test_minigrid():
    """A mission is text, which has no fixed layout; a wrapper that leaves it out is the way."""
    name = "minigrid:MiniGrid-DoorKey-5x5-v0"
    with pytest.raises(SpaceError, match=r"observation\['mission'\]: a MissionSpace has no fixed"):
        pufferlib_cy.make(name)
    assert check(name, steps=50) == [
        "observation['mission']: a MissionSpace has no fixed layout as numbers: expected Dict, "
        "Tuple, Box, Discrete, MultiDiscrete or MultiBinary"]

    vec = beside(partial(without_mission, name))
    assert vec.space_tree.dtype.names == ("direction", "image")
    vec = beside(lambda: minigrid.wrappers.ImgObsWrapper(gymnasium.make(name)))
    assert vec.single_observation_space.shape == (7, 7, 3)


def without_mission(name: str) -> Any:
    return gymnasium.wrappers.FilterObservation(gymnasium.make(name), ["image", "direction"])


def test_atari():
    vec = beside("ale_py:ALE/Pong-v5", 60)
    assert vec.single_observation_space.shape == (210, 160, 3)
    assert vec.single_observation_space.dtype == np.uint8


# ---- several agents ------------------------------------------------------------------------------

def beside_agents(factory: Any, twin: Any, steps: int = STEPS, **arguments: Any) -> Any:
    """Play a parallel environment in rows and by hand; return what happened.

    Slots are found by what stands in them, and have to be kept while their agent lives.
    """
    generator = np.random.default_rng(1)
    happened = {"deaths": 0, "births": 0, "episodes": 0, "most": 0}
    with pufferlib_cy.make(factory, copy=True, **arguments) as vec, contextlib.closing(twin):
        A = vec.agents_per_env
        rows, _ = vec.reset(seed=3)
        observations, _ = twin.reset(seed=3)
        slots: dict[Any, int] = {}
        for _ in range(steps):
            slots = {agent: slot for agent, slot in slots.items() if agent in twin.agents}
            for agent in twin.agents:
                if agent not in slots:
                    slots[agent] = find(vec, rows, observations[agent], set(slots.values()))
                assert_same(vec.space_tree.unflatten(rows[slots[agent]]), observations[agent])
            happened["most"] = max(happened["most"], len(slots))
            living = np.isin(np.arange(A), list(slots.values()))
            np.testing.assert_array_equal(vec.acting, living)
            assert not rows[~living & ~vec.masks].any()
            actions = random_actions(vec, generator)
            before = set(twin.agents)
            observations, given, terminated, truncated, _ = twin.step(
                {agent: actions[slot] if actions.ndim > 1 else int(actions[slot])
                 for agent, slot in slots.items()})
            rows, rewards, terminations, truncations, _ = vec.step(actions)
            for agent, slot in slots.items():
                assert rewards[slot] == np.float32(given[agent])
                assert (terminations[slot], truncations[slot]) == (terminated[agent],
                                                                   truncated[agent])
                happened["deaths"] += agent not in twin.agents
            happened["births"] += len(set(twin.agents) - before)
            over = not twin.agents
            last = vec.final_observations if over else rows
            for agent, slot in slots.items():
                if agent in observations and agent not in twin.agents:
                    assert_same(vec.space_tree.unflatten(last[slot]), observations[agent])
            if over:
                happened["episodes"] += 1
                slots = {}
                observations, _ = twin.reset()
    return happened


def find(vec: Any, rows: Any, observation: Any, taken: set[int]) -> int:
    """The slot whose row holds an observation."""
    flat = vec.space_tree.flatten(observation)
    return next(slot for slot in np.flatnonzero(vec.masks).tolist()
                if slot not in taken and np.array_equal(rows[slot], flat))


def test_pistonball():
    make = partial(pettingzoo.make, "parallel", "butterfly/pistonball-v6", n_pistons=6,
                   max_cycles=25)
    happened = beside_agents(make, make(), 40)
    assert happened == {"deaths": 6, "births": 0, "episodes": 1, "most": 6}


def test_knights_archers_zombies():
    """Agents die one by one; the episode ends with the last."""
    make = partial(pettingzoo.make, "parallel", "butterfly/knights_archers_zombies-v11",
                   spawn_delay=2, line_death=True, max_cycles=200)
    happened = beside_agents(make, make(), 700)
    assert happened["episodes"] >= 2
    assert happened["deaths"] >= 8


@pytest.mark.parametrize("arguments", [{}, {"continuous_actions": True}])
@pytest.mark.parametrize("kind", ["parallel_env", "env"])
def test_simple_spread(arguments, kind):
    """An environment of turns whose agents act at the same time becomes a parallel one."""
    from mpe2 import simple_spread_v3

    happened = beside_agents(partial(getattr(simple_spread_v3, kind), **arguments),
                             simple_spread_v3.parallel_env(**arguments))
    assert happened == {"deaths": 24, "births": 0, "episodes": 8, "most": 3}


def test_turns():
    """Chess-like turns are no rows; PettingZoo's converter lets agents wait, and a wrapper gives
    those who wait something legal to do."""
    from pettingzoo.utils import BaseParallelWrapper
    from pettingzoo.utils.conversions import turn_based_aec_to_parallel

    class Waiting(BaseParallelWrapper):
        """Those who wait may choose anything; it is ignored."""

        def reset(self, seed=None, options=None):
            observations, infos = self.env.reset(seed=seed, options=options)
            return self.free(observations), infos

        def step(self, actions):
            observations, *others = self.env.step(actions)
            return self.free(observations), *others

        def free(self, observations):
            for observation in observations.values():
                if not observation["action_mask"].any():
                    observation["action_mask"] = np.ones_like(observation["action_mask"])
            return observations

    turns = partial(pettingzoo.make, "aec", "classic/connect_four-v3")
    with pytest.raises(ValueError, match="connect_four_v3: its agents act by turns"):
        pufferlib_cy.make(turns)

    def make():
        return Waiting(turn_based_aec_to_parallel(turns()))

    assert check(make, steps=60) == []
    happened = beside_agents(make, make(), 100)
    assert happened["episodes"] >= 2


def generated() -> Any:
    """PettingZoo's example whose agents are born and die at random, with equal spaces for all."""
    from pettingzoo.test.example_envs import generated_agents_parallel_v0

    class Equal(generated_agents_parallel_v0.parallel_env):
        def add_type(self):
            name = super().add_type()
            self._obs_spaces[name] = spaces.Box(0, 1, (20,), seed=self.rng_seed)
            self._act_spaces[name] = spaces.Discrete(5)
            return name

        def step(self, actions):
            self.num_steps += 1                          # which the example forgets
            return super().step(actions)

        def observe(self, agent):
            return self.np_random.random(20, np.float32)

    return Equal(max_cycles=60)


# PettingZoo's own tests import its examples by the old names.
OLD_NAMES = pytest.mark.filterwarnings("ignore:The old environment creation API")


@OLD_NAMES
def test_a_changing_population():
    happened = beside_agents(generated, generated(), max_agents=16)
    assert happened["births"] > 20
    assert happened["deaths"] > 20
    assert happened["most"] > 8
    assert happened["episodes"] == 3


@OLD_NAMES
def test_agents_of_different_spaces():
    from pettingzoo.test.example_envs import generated_agents_parallel_v0

    with pytest.raises(ValueError, match=r"agent '\w+' has the (observation|action) space .*, but "
                       r"others have .*: agents of one environment have equal spaces"):
        pufferlib_cy.make(generated_agents_parallel_v0.parallel_env, max_agents=16)


@pytest.mark.parametrize("name", [
    "mpe2.simple_spread_v3:parallel_env", "ale_py:ALE/Pong-v5",
    "pettingzoo.butterfly.knights_archers_zombies.knights_archers_zombies:parallel_env"])
def test_real_environments_are_sound(name):
    assert check(name, steps=60) == []
