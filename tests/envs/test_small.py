"""squared, bandit and memory: what their rules promise over many episodes."""

from pathlib import Path

import numpy as np
import pytest

from pufferlib_cy import envs, make


def play(vec, policy, steps):
    observations, _ = vec.reset(seed=0)
    for _ in range(steps):
        observations = vec.step(policy(observations))[0]
    return vec.episode_stats()


def to_target(observations):
    """squared: walk straight to the target."""
    size = int(observations.shape[1] ** 0.5)
    agent, target = (np.argmax(observations == cell, axis=1) for cell in (1, 2))
    dy, dx = target // size - agent // size, target % size - agent % size
    return np.select([dy > 0, dy < 0, dx < 0, dx > 0], [1, 2, 3, 4], 0)


@pytest.mark.parametrize("size", [2, 5, 11])
def test_squared_target_is_uniform_and_reachable(size):
    E = 2000
    with make("squared", E, env_kwargs={"size": size}) as vec:
        observations, _ = vec.reset(seed=0)
        assert ((observations == 1).sum(1) == 1).all()
        assert ((observations == 2).sum(1) == 1).all()
        assert (observations[:, size // 2 * (size + 1)] == 1).all()
        counts = (observations == 2).sum(0)
        others = np.delete(counts, size // 2 * (size + 1))
        expected = E / (size * size - 1)
        assert ((others - expected) ** 2 / expected).sum() < 2 * len(others) + 30
        stats = play(vec, to_target, 4 * size)
        assert stats["episode_return"] == 1.0
        assert stats["episode_length"] < 2 * size


def test_squared_ends_after_three_times_its_size():
    with make("squared", 4) as vec:
        vec.reset(seed=0)
        for k in range(1, 35):
            _, rewards, terminations, _, _ = vec.step([0] * 4)
            assert terminations.all() == (k == 34)
        assert (rewards == -1).all()


def test_squared_is_short():
    """As the template it shows how little an environment needs."""
    source = Path(envs.__file__).with_name("squared.pyx").read_text()
    assert len(source.splitlines()) <= 60


def test_squared_refuses_a_grid_without_room():
    with pytest.raises(ValueError, match="size is at least 2"):
        make("squared", env_kwargs={"size": 1})


@pytest.mark.parametrize("arm", range(4))
def test_bandit_pays_with_fixed_chances(arm):
    with make("bandit", 1000) as vec:
        stats = play(vec, lambda _: np.full(1000, arm), 40)
    assert stats["episode_return"] == pytest.approx([0.2, 0.4, 0.6, 0.8][arm], abs=0.01)
    assert stats["episode_length"] == 1.0


def test_memory_rewards_the_goal_and_nothing_else():
    E = 500
    with make("memory", E, env_kwargs={"delay": 3, "digits": 4}) as vec:
        observations, _ = vec.reset(seed=0)
        goal = observations[:, :4].argmax(1)
        assert (observations[:, 4] == 1).all()
        digits = []
        for _ in range(3):
            observations, rewards, *_ = vec.step(np.zeros(E, int))
            assert (observations[:, :4].sum(1) == 1).all()
            assert not observations[:, 4:].any()
            assert not rewards.any()
            digits.append(observations[:, :4].argmax(1))
        observations = vec.step(np.zeros(E, int))[0]
        assert (observations == [0, 0, 0, 0, 0, 1]).all()
        rewards, terminations = vec.step(goal)[1:3]
        assert (rewards == 1).all()
        assert terminations.all()
        assert abs(np.corrcoef(goal, digits[0])[0, 1]) < 0.15
        vec.episode_stats()
        stats = play(vec, lambda _: np.zeros(E, int), 50)
        assert stats["episode_return"] == pytest.approx(-0.5, abs=0.05)


@pytest.mark.parametrize("bad", [{"delay": -1}, {"digits": 1}])
def test_memory_refuses(bad):
    with pytest.raises(ValueError, match="memory"):
        make("memory", env_kwargs=bad)
