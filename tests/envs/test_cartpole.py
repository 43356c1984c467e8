"""cartpole against Gymnasium's CartPole-v1: the same bits from the same states and actions."""

import gymnasium
import numpy as np
import pytest
from gymnasium_twin import states

from pufferlib_cy import make


def test_a_thousand_random_episodes_are_gymnasiums():
    E = 1000
    rng = np.random.default_rng(0)
    with make("cartpole", E, autoreset="disabled") as vec:
        observations = vec.reset(seed=1)[0].copy()
        twins = []
        for e in range(E):
            twin = gymnasium.make("CartPole-v1")
            twin.reset(seed=0)
            twin.unwrapped.state = states(vec, 4)[e].copy()
            twins.append(twin)
            np.testing.assert_array_equal(observations[e], twin.unwrapped.state.astype(np.float32))
        over = np.zeros(E, bool)
        steps = 0
        while not over.all():
            actions = rng.integers(0, 2, E)
            observations, rewards, terminations, truncations, _ = vec.step(actions)
            for e in np.flatnonzero(~over):
                got = twins[e].step(actions[e])
                assert observations[e].tobytes() == got[0].tobytes()
                assert (rewards[e], terminations[e], truncations[e]) == got[1:4]
                steps += 1
            ended = terminations | truncations
            over |= ended
            vec.reset(options={"reset_mask": ended})
        assert steps > 20_000


def balance(observations):
    """A hand-made controller that keeps the pole up for the whole episode."""
    return (observations @ [0.1, 0.5, 2.0, 1.0] > 0).astype(np.int64)


def test_long_episodes_and_the_limit_are_gymnasiums():
    E = 5
    twins = [gymnasium.make("CartPole-v1") for _ in range(E)]
    with make("cartpole", E, autoreset="disabled") as vec:
        observations = vec.reset(seed=1)[0]
        for e, twin in enumerate(twins):
            twin.reset(seed=0)
            twin.unwrapped.state = states(vec, 4)[e].copy()
        for k in range(1, 501):
            actions = balance(observations)
            observations, rewards, terminations, truncations, _ = vec.step(actions)
            for e, twin in enumerate(twins):
                got = twin.step(actions[e])
                assert observations[e].tobytes() == got[0].tobytes()
                assert (rewards[e], terminations[e], truncations[e]) == got[1:4]
            assert truncations.all() == (k == 500)
            assert not terminations.any()


def test_spaces_are_gymnasiums():
    twin = gymnasium.make("CartPole-v1")
    with make("cartpole") as vec:
        assert vec.single_observation_space == twin.observation_space
        assert vec.single_action_space == twin.action_space


def test_first_states_fill_their_range():
    with make("cartpole", 2000) as vec:
        vec.reset(seed=0)
        first = states(vec, 4)
        assert np.abs(first).max() < 0.05
        assert np.abs(first.mean(axis=0)).max() < 0.004
        assert first.std(axis=0) == pytest.approx(0.1 / 12**0.5, rel=0.05)


def test_continuous_pushes_with_ten_newtons_at_most():
    with make("cartpole", 2, env_kwargs={"continuous": True}) as soft, make("cartpole", 2) as hard:
        for vec in (soft, hard):
            vec.reset(seed=0)
        for _ in range(8):
            a = soft.step(np.array([-1.0, 1.0], np.float32))
            b = hard.step(np.array([0, 1]))
            assert a[0].tobytes() == b[0].tobytes()
