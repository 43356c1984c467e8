"""The Stable-Baselines3 bridge against SB3's own DummyVecEnv, and PPO on it."""

from __future__ import annotations

import contextlib
import time
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

import pufferlib_cy

pytest.importorskip("stable_baselines3")

import stable_baselines3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from pufferlib_cy.bridges.sb3 import SB3VecEnv


class Counting(gymnasium.Env):
    """Episodes of `length` steps, ended by turns with termination and truncation; says in its
    observations, infos and pictures where it stands."""

    def __init__(self, length=3, nested=True, render_mode="rgb_array"):
        self.observation_space = Box(0, 99, (2,), np.float32)
        if nested:
            self.observation_space = Dict({"place": self.observation_space, "t": Discrete(99)})
        self.action_space = Box(-1, 1, (2,), np.float32)
        self.length, self.nested, self.render_mode = length, nested, render_mode
        self.episodes = 0

    def observe(self):
        place = np.array([self.episodes, self.np_random.integers(99)], np.float32)
        return {"place": place, "t": self.t} if self.nested else place

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        self.episodes += 1
        return self.observe(), {"episodes": self.episodes, "options": options}

    def step(self, action):
        self.t += 1
        over = self.t == self.length
        turn = self.episodes % 2 == 0
        return (self.observe(), float(action[0]), over and turn, over and not turn,
                {"t": self.t} if self.t % 2 else {})

    def render(self):
        return np.full((2, 3, 3), self.t, np.uint8)

    def add(self, a, b=0):
        return self.t + a + b


def assert_equal(ours, theirs):
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert_equal(ours[key], value)
    elif isinstance(theirs, list):
        for mine, other in zip(ours, theirs, strict=True):
            assert_equal(mine, other)
    else:
        assert np.asarray(ours).dtype == np.asarray(theirs).dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("backend", ["serial", "threads", "processes"])
def test_the_results_are_sb3s_own(nested, backend):
    env_fns = [partial(Counting, length, nested) for length in (3, 4, 5)]
    theirs = VecMonitor(DummyVecEnv(env_fns))
    ours = SB3VecEnv(pufferlib_cy.make(env_fns, backend=backend, context="fork"))
    episodes = 0
    with contextlib.closing(ours):
        for env in (ours, theirs):
            env.seed(5)
            env.set_options({"level": 2})
        assert_equal(ours.reset(), theirs.reset())
        assert_equal(ours.reset_infos, theirs.venv.reset_infos)
        assert ours.reset_infos[1] == {"episodes": 1, "options": {"level": 2}}
        generator = np.random.default_rng(0)
        for _ in range(40):
            actions = generator.uniform(-1, 1, (3, 2)).astype(np.float32)
            results, expected = list(ours.step(actions)), list(theirs.step(actions))
            for mine, other in zip(results[3], expected[3], strict=True):
                if "episode" in other:
                    episode, reference = mine.pop("episode"), other.pop("episode")
                    # SB3 adds float32 rewards; ours are added as the environment gives them.
                    assert episode["r"] == pytest.approx(reference["r"], abs=1e-5)
                    assert episode["l"] == reference["l"]
                    assert episode["t"] >= 0
                    episodes += 1
            assert_equal(results, expected)
            assert_equal(ours.reset_infos, theirs.venv.reset_infos)
        # Seeds and options are for one reset.
        assert_equal(ours.reset(), theirs.reset())
        assert ours.reset_infos[1]["options"] is None
    assert episodes == 40 // 3 + 40 // 4 + 40 // 5


@pytest.mark.parametrize("backend", ["serial", "processes"])
def test_methods_and_attributes(backend):
    env_fns = [partial(Counting, length) for length in (3, 4, 5)]
    with contextlib.closing(SB3VecEnv(pufferlib_cy.make(
            env_fns, backend=backend, num_workers=1 if backend == "serial" else 2,
            context="fork"))) as env:
        env.reset()
        env.step(np.zeros((3, 2), np.float32))
        assert env.get_attr("length") == [3, 4, 5]
        assert env.get_attr("length", 1) == [4]
        assert env.env_method("add", 2, b=3, indices=[0, 2]) == [6, 6]
        env.set_attr("length", 9, indices=[1])
        assert env.get_attr("length") == [3, 9, 5]
        assert env.has_attr("length")
        assert not env.has_attr("height")
        assert env.env_is_wrapped(gymnasium.wrappers.TimeLimit) == [False] * 3
        assert env.env_is_wrapped(Monitor, indices=[1]) == [True]
        assert env.render_mode == "rgb_array"
        assert env.metadata["render_modes"] == ["human", "rgb_array"]
        assert [image.shape for image in env.get_images()] == [(2, 3, 3)] * 3
        assert env.render().shape == (4, 6, 3)
        env.set_options([{"a": 1}, {}, {}])
        with pytest.raises(ValueError, match="equal options"):
            env.reset()
    wrapped = pufferlib_cy.make("CartPole-v1", 2)
    with contextlib.closing(SB3VecEnv(wrapped)) as env:
        assert env.env_is_wrapped(gymnasium.wrappers.TimeLimit, indices=1) == [True]
    with contextlib.closing(SB3VecEnv(pufferlib_cy.make("breakout", 2))) as env:
        env.reset()
        assert env.render_mode == "rgb_array"
        assert env.get_images()[1].dtype == np.uint8
        assert not env.has_attr("length")
        assert env.env_is_wrapped(gymnasium.Wrapper) == [False, False]
        with pytest.raises(AttributeError, match="no attributes or methods"):
            env.env_method("add", 1)


def test_what_sb3_cannot_train_on():
    with (pufferlib_cy.make("pong", env_kwargs={"two_player": True}) as vec,
          pytest.raises(ValueError, match="one agent per environment")):
        SB3VecEnv(vec)
    with (pufferlib_cy.make("pong", autoreset="next_step") as vec,
          pytest.raises(ValueError, match="same_step")):
        SB3VecEnv(vec)


class Episodes(BaseCallback):
    """All episodes that infos told of, and how many ended."""

    def __init__(self):
        super().__init__()
        self.told, self.ended = [], 0

    def _on_step(self):
        self.ended += int(self.locals["dones"].sum())
        self.told += [info["episode"] for info in self.locals["infos"] if "episode" in info]
        return True


@pytest.mark.parametrize(("name", "backend"), [
    ("CartPole-v1", "serial"), ("CartPole-v1", "processes"), ("cartpole", "auto"),
    ("squared", "auto")])
def test_ppo_trains_and_logs_every_episode(name, backend):
    env = SB3VecEnv(pufferlib_cy.make(name, 8, backend=backend, context="forkserver"))
    with contextlib.closing(env):
        episodes = Episodes()
        start = time.monotonic()
        model = stable_baselines3.PPO("MlpPolicy", env, n_steps=64, batch_size=128, n_epochs=2,
                                      seed=1, device="cpu")
        model.learn(4096, callback=episodes)
        assert len(episodes.told) == episodes.ended > 20
        finished = sum(episode["l"] for episode in episodes.told)
        assert 4096 - 8 * 500 < finished <= 4096
        assert all(0 <= episode["t"] <= time.monotonic() - start for episode in episodes.told)
        if name != "squared":
            assert all(episode["r"] == episode["l"] for episode in episodes.told)
        assert model.ep_info_buffer[-1] == episodes.told[-1]
        mean, _ = evaluate_policy(model, env, n_eval_episodes=8)
        assert np.isfinite(mean)
