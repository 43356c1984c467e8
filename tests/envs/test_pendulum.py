"""pendulum against Gymnasium's Pendulum-v1: the same bits from the same actions."""

import sys

import gymnasium
import numpy as np
import pytest
from gymnasium_twin import Twin, assert_equal_bits, states

from pufferlib_cy import make
from pufferlib_cy.envs.pendulum import Pendulum

# Before NumPy 2, a float32 scalar times a Python float was float64.
needs_numpy_2 = pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.0.0b1",
                                   reason="Pendulum-v1 rounds differently under NumPy 1")


class Original(Twin):
    name = "Pendulum-v1"

    def first_state(self):
        return np.array([self.rng.uniform(-np.pi, np.pi), self.rng.uniform(-1.0, 1.0)])

    def first_view(self, env):
        return env._get_obs()

    def action(self, actions):
        return actions


@needs_numpy_2
def test_random_episodes_are_gymnasiums():
    rng = np.random.default_rng(0)
    ends = assert_equal_bits(
        Pendulum, Original, lambda _: rng.uniform(-2, 2, (300, 1)).astype(np.float32),
        num_envs=300, steps=401)
    assert ends == (0, 600)


def with_the_motion(observations):
    """Turn the way the pendulum goes: soon it whirls, and the angle passes many turns."""
    return np.where(observations[:, 2:] >= 0, 2.0, -2.0).astype(np.float32)


@needs_numpy_2
@pytest.mark.parametrize("kwargs", [{}, {"g": 9.81}])
def test_whirling_is_gymnasiums(kwargs):
    assert_equal_bits(Pendulum, Original, with_the_motion, num_envs=40, steps=201, ours=kwargs,
                      theirs=kwargs)
    with make(Pendulum, 40, env_kwargs=kwargs) as vec:
        observations = vec.reset(seed=5)[0]
        for _ in range(199):
            observations = vec.step(with_the_motion(observations))[0]
        turns = np.abs(states(vec, 1)) / (2 * np.pi)
        assert turns.max() > 5                           # or the whirling tested nothing


@needs_numpy_2
def test_rewards_between_two_float32_are_gymnasiums():
    """There, a square's last bit decides, and in one of a thousand it is not the product's."""
    middles = np.random.default_rng(2).uniform(0.01, 6.0, 2000).astype(np.float32).astype(float)
    middles += np.spacing(middles.astype(np.float32)) / 2
    speeds = np.sqrt(middles / 0.1)
    twin = gymnasium.make("Pendulum-v1")
    with make(Pendulum, len(speeds)) as vec:
        vec.reset(seed=0)
        states(vec, 3)[:] = np.c_[np.zeros_like(speeds), speeds, np.zeros_like(speeds)]
        rewards = vec.step(np.zeros((len(speeds), 1), np.float32))[1]
    for reward, speed in zip(rewards, speeds, strict=True):
        twin.reset(seed=0)
        twin.unwrapped.state = np.array([0.0, speed])
        assert reward == np.float32(twin.step(np.zeros(1, np.float32))[1])


def test_spaces_are_gymnasiums():
    twin = gymnasium.make("Pendulum-v1")
    with make(Pendulum) as vec:
        assert vec.single_observation_space == twin.observation_space
        assert vec.single_action_space == twin.action_space


def test_first_states_fill_their_range():
    with make(Pendulum, 4000) as vec:
        vec.reset(seed=0)
        for values, most in zip(states(vec, 2).T, (np.pi, 1.0), strict=True):
            assert values.min() == pytest.approx(-most, rel=0.005)
            assert values.max() == pytest.approx(most, rel=0.005)
            assert values.mean() == pytest.approx(0.0, abs=0.04 * most)
            assert values.std() == pytest.approx(most / 3**0.5, rel=0.05)


@pytest.mark.parametrize(("kwargs", "message"), [
    ({"g": float("inf")}, "pendulum: g is a finite number of m/s.2, not inf"),
    ({"max_steps": 0}, "pendulum: max_steps is at least 1, not 0"),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Pendulum(**kwargs)


def test_pictures():
    pytest.importorskip("PIL")
    with make(Pendulum) as vec:
        vec.reset(seed=0)
        states(vec, 2)[0] = np.pi / 2, 0.0               # to the left
        picture, lines = vec.render(), vec.ansi().split("\n")
        assert (picture.shape, picture.dtype) == ((500, 500, 3), np.uint8)
        assert len(lines) == 16
        assert lines[7].startswith("O")
        assert lines[7].endswith("+")
        states(vec, 2)[0] = 0.0, 0.0
        assert vec.ansi().startswith(" " * 14 + "O\n")
        bright = picture.astype(int).sum(axis=2) > 350
        assert bright[240:260, 75:240].all()
        assert not bright[:, 300:].any()


def test_rendering_without_pillow_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with make(Pendulum) as vec:
        vec.reset(seed=0)
        with pytest.raises(ImportError, match=r"pufferlib_cy\[render\]"):
            vec.render()
