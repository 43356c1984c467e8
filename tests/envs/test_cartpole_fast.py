"""cartpole_fast against cartpole, float32 against float64; its bits are in test_vector.py's oracle.
"""

import gymnasium
import numpy as np
import pytest

from pufferlib_cy import make

X, X_DOT, THETA, THETA_DOT = range(4)
LIMIT = np.float32(np.pi / 15)                       # of theta: 12 degrees


def lanes(vec, dtype=np.float32):
    """(4, E): the states, an array per field; those of cartpole are float64."""
    return vec._engine.envs[0].state_array.reshape(-1).view(dtype).reshape(4, -1)


@pytest.mark.parametrize("name", ["sine", "cosine"])
def test_small_angles_are_within_their_bounds(native, name):
    """Of every float32 from 1/8 to 0.22, where errors are largest, and of a million below."""
    top = np.array([0.125, 0.22], np.float32).view(np.int32)
    angles = np.concatenate([np.arange(*top, dtype=np.int32).view(np.float32),
                             np.linspace(0, 0.125, 1_000_000, dtype=np.float32)])
    angles = np.concatenate([angles, -angles])
    out = np.empty_like(angles)
    getattr(native["arithmetic"], f"small_{name}s")(angles, out)
    exact = (np.sin if name == "sine" else np.cos)(angles.astype(np.float64))
    errors = np.abs(out - exact)
    assert errors.max() < (1.3e-8 if name == "sine" else 3.3e-8)
    assert (errors <= np.spacing(np.abs(out))).all()


def test_each_step_is_cartpoles_but_for_rounding():
    """From equal states, at every one of 5,000 steps of 64 environments."""
    E = 64
    rng = np.random.default_rng(0)
    error = 0.0
    with make("cartpole_fast", E) as fast, make("cartpole", E) as exact:
        fast.reset(seed=1)
        exact.reset(seed=1)
        for _ in range(5000):
            lanes(exact, np.float64)[:] = lanes(fast)
            actions = rng.integers(0, 2, E)
            a, rewards, *flags, _ = fast.step(actions)
            ended = flags[0] | flags[1]
            b, _, *exact_flags, _ = exact.step(actions)
            went = ~(ended | exact_flags[0] | exact_flags[1])
            error = max(error, np.abs(a[went] - b[went]).max())
            assert (rewards == 1).all()
            # They may disagree about an end only at the very edge.
            for e in np.flatnonzero(flags[0] != exact_flags[0]):
                vec = fast if flags[0][e] else exact
                last = np.abs(vec.final_observations[e])
                assert min(abs(last[X] - 2.4), abs(last[THETA] - LIMIT)) < 1e-6
    assert 0 < error < 1.5e-6                        # velocities of up to 4: six units at most


def test_random_episodes_stay_near_cartpoles():
    """A thousand whole episodes from equal states: errors grow, since an upright pole is unstable.
    """
    E = 1000
    rng = np.random.default_rng(0)
    lengths = np.zeros((2, E), int)
    with (make("cartpole_fast", E, autoreset="next_step") as fast,
          make("cartpole", E, autoreset="next_step") as exact):
        fast.reset(seed=1)
        exact.reset(seed=1)
        lanes(exact, np.float64)[:] = lanes(fast)
        running = np.ones((2, E), bool)
        while running.any():
            actions = rng.integers(0, 2, E)
            rows = [vec.step(actions) for vec in (fast, exact)]
            both = running.all(axis=0)
            np.testing.assert_allclose(rows[0][0][both], rows[1][0][both], atol=1e-3)
            lengths += running
            running &= np.stack([~(t | c) for _, _, t, c, _ in rows])
    assert (lengths[0] == lengths[1]).mean() > 0.99
    assert np.abs(lengths[0] - lengths[1]).max() <= 1
    assert 20 < lengths[0].mean() < 25


def test_limits_end_an_episode_as_soon_as_they_are_passed():
    edges = [[2.4, 0], [np.nextafter(np.float32(2.4), np.float32(3)), 0],
             [0, LIMIT], [0, np.nextafter(LIMIT, np.float32(1))]]
    edges += [[-x, -theta] for x, theta in edges]
    with make("cartpole_fast", len(edges), autoreset="disabled") as vec:
        vec.reset(seed=0)
        lanes(vec)[:] = 0                            # without speed, positions stay for one step
        lanes(vec)[[X, THETA]] = np.transpose(edges)
        terminations = vec.step(np.zeros(len(edges), int))[2]
        np.testing.assert_array_equal(terminations, [False, True] * 4)


@pytest.mark.parametrize("max_steps", [1, 7, 500])
def test_an_episode_is_cut_off_at_the_limit(max_steps):
    with make("cartpole_fast", 9, env_kwargs={"max_steps": max_steps}) as vec:
        observations = vec.reset(seed=1)[0]
        for k in range(1, 2 * max_steps + 1):
            balance = (observations @ [0.1, 0.5, 2.0, 1.0] > 0).astype(np.int64)
            observations, _, terminations, truncations, _ = vec.step(balance)
            assert not terminations.any()
            assert (truncations == (k % max_steps == 0)).all()
        assert vec.episode_stats() == {
            "episodes": 18, "episode_return": max_steps, "episode_length": max_steps}


def test_first_states_are_cartpoles():
    with make("cartpole_fast", 2000) as fast, make("cartpole", 2000) as exact:
        for seed in (5, None):                       # the streams go on alike, too
            observations = fast.reset(seed=seed)[0]
            np.testing.assert_array_equal(observations, exact.reset(seed=seed)[0])
            np.testing.assert_array_equal(observations, lanes(fast).T)
        assert observations.std(axis=0) == pytest.approx(0.1 / 12**0.5, rel=0.05)


def test_spaces_are_gymnasiums():
    twin = gymnasium.make("CartPole-v1")
    with make("cartpole_fast") as vec:
        assert vec.single_observation_space == twin.observation_space
        assert vec.single_action_space == twin.action_space


def test_max_steps_is_positive():
    with pytest.raises(ValueError, match="max_steps is at least 1, not 0"):
        make("cartpole_fast", env_kwargs={"max_steps": 0})


def play(E, autoreset, steps=60, **arguments):
    """All rows of all steps as bytes, and the states at the end."""
    actions = np.random.default_rng(0).integers(0, 2, (steps, E))
    with make("cartpole_fast", E, autoreset=autoreset, **arguments) as vec:
        record = [vec.reset(seed=3)[0].tobytes()]
        for action in actions:
            rows = vec.step(action)
            record += [array.tobytes() for array in (*rows[:4], vec.masks)]
            ended = rows[2] | rows[3]
            record.append(vec.final_observations[ended].tobytes())
            if autoreset == "disabled":
                record.append(vec.reset(options={"reset_mask": ended})[0].tobytes())
        return [*record, repr(vec.episode_stats()), lanes(vec).tobytes()]


@pytest.mark.parametrize("E", [1, 7, 4097])
@pytest.mark.parametrize("autoreset", ["same_step", "next_step", "disabled"])
def test_how_environments_are_cut_into_slices_makes_no_difference(autoreset, E):
    expected = play(E, autoreset, backend="serial")
    for workers in (1, 2, 3, 7):
        assert play(E, autoreset, backend="threads", num_workers=workers) == expected, workers


def test_an_environment_does_the_same_alone():
    """Vector instructions, the loop's remainder, and one at a time give the same bits."""
    E, steps = 37, 200
    actions = np.random.default_rng(0).integers(0, 2, (steps, E))
    with make("cartpole_fast", E) as vec:
        vec.reset(seed=0)
        together = np.stack([vec.step(action)[0].copy() for action in actions])
    for e in range(0, E, 5):
        with make("cartpole_fast") as vec:
            vec.reset(seed=e)
            alone = np.stack([vec.step(action[[e]])[0].copy() for action in actions])
        assert alone.tobytes() == together[:, [e]].tobytes()
