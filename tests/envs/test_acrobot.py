"""acrobot against Gymnasium's Acrobot-v1: the same bits from the same actions."""

import sys

import gymnasium
import numpy as np
import pytest
from gymnasium_twin import Twin, assert_equal_bits, states

from pufferlib_cy import make
from pufferlib_cy.envs.acrobot import Acrobot


class Original(Twin):
    name = "Acrobot-v1"

    def first_state(self):
        return np.array([self.rng.uniform(-0.1, 0.1) for _ in range(4)], np.float32)

    def first_view(self, env):
        return env._get_ob()


def test_random_episodes_are_gymnasiums():
    rng = np.random.default_rng(0)
    terminated, truncated = assert_equal_bits(
        Acrobot, Original, lambda _: rng.integers(0, 3, (300, 1)), num_envs=300, steps=501)
    assert terminated + truncated >= 300


def with_the_motion(observations):
    """Turn the joint the way it goes: that swings the links up."""
    return np.where(observations[:, 5:] >= 0, 2, 0)


def test_swinging_up_is_gymnasiums():
    terminated, _ = assert_equal_bits(Acrobot, Original, with_the_motion, num_envs=50, steps=500)
    assert terminated > 100


def test_greatest_speeds_and_whole_turns_are_gymnasiums():
    rng = np.random.default_rng(1)
    starts = rng.uniform(-1, 1, (200, 4)) * [np.pi, np.pi, 4 * np.pi, 9 * np.pi]
    actions = rng.integers(0, 3, 200)
    starts[::50], actions[::50] = 0.0, 1        # at rest; the angles' sines are nearly 0 after it
    with make(Acrobot, 200, autoreset="disabled") as vec:
        vec.reset(seed=0)
        inside = states(vec, 6)
        inside[:] = np.c_[starts, np.cos(starts[:, 1]), np.sin(starts[:, 1])]
        observations, rewards, terminations, _, _ = vec.step(actions)
        twin = gymnasium.make("Acrobot-v1")
        fastest, turned = [0, 0], 0
        for e, start in enumerate(starts):
            twin.reset(seed=0)
            twin.unwrapped.state = start
            there = twin.step(actions[e])
            assert inside[e, :4].tobytes() == twin.unwrapped.state.tobytes()
            assert observations[e].tobytes() == there[0].tobytes()
            assert (rewards[e], terminations[e]) == there[1:3]
            fastest += np.abs(inside[e, 2:4]) == [4 * np.pi, 9 * np.pi]
            turned += abs(inside[e, 1] - start[1]) > np.pi
    assert min(*fastest, turned) > 5


def test_spaces_are_gymnasiums():
    twin = gymnasium.make("Acrobot-v1")
    with make(Acrobot) as vec:
        assert vec.single_observation_space == twin.observation_space
        assert vec.single_action_space == twin.action_space


def test_first_states_fill_their_range():
    with make(Acrobot, 4000) as vec:
        vec.reset(seed=0)
        first = states(vec, 4)
        assert (first == first.astype(np.float32)).all()
        assert first.min(axis=0) == pytest.approx(-0.1, rel=0.01)
        assert first.max(axis=0) == pytest.approx(0.1, rel=0.01)
        assert np.abs(first.mean(axis=0)).max() < 0.004
        assert first.std(axis=0) == pytest.approx(0.2 / 12**0.5, rel=0.05)


def test_bad_arguments():
    with pytest.raises(ValueError, match="acrobot: max_steps is at least 1, not 0"):
        Acrobot(max_steps=0)


def test_pictures():
    pytest.importorskip("PIL")
    with make(Acrobot) as vec:
        vec.reset(seed=0)
        states(vec, 4)[0] = np.pi / 2, 0.0, 0.0, 0.0     # both to the right
        picture, lines = vec.render(), vec.ansi().split("\n")
        assert (picture.shape, picture.dtype) == ((500, 500, 3), np.uint8)
        assert len(lines) == 26
        assert lines[12].strip() == "+" + 11 * "*" + "o" + 11 * "*" + "O"
        bright = picture.astype(int).sum(axis=2) > 250
        assert bright[245:255, 250:460].all()
        assert not bright[150:, :230].any()


def test_rendering_without_pillow_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with make(Acrobot) as vec:
        vec.reset(seed=0)
        with pytest.raises(ImportError, match=r"pufferlib_cy\[render\]"):
            vec.render()
