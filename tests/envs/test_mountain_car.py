"""mountain_car against Gymnasium's MountainCar-v0: the same bits from the same actions."""

import sys

import gymnasium
import numpy as np
import pytest
from gymnasium_twin import Twin, assert_equal_bits, states

from pufferlib_cy import make
from pufferlib_cy.envs.mountain_car import MountainCar


class Original(Twin):
    name = "MountainCar-v0"

    def first_state(self):
        return np.array([self.rng.uniform(-0.6, -0.4), 0.0])

    def first_view(self, env):
        return np.array(env.state, np.float32)


def test_random_episodes_are_gymnasiums():
    rng = np.random.default_rng(0)
    ends = assert_equal_bits(MountainCar, Original, lambda _: rng.integers(0, 3, (300, 1)),
                             num_envs=300, steps=201)
    assert ends == (0, 300)


def with_the_motion(observations):
    """Push the way the car goes: it swings higher and higher, to the wall and the goal."""
    return np.where(observations[:, 1:] >= 0, 2, 0)


def test_walls_and_goals_are_gymnasiums():
    fast, slow = (assert_equal_bits(MountainCar, Original, with_the_motion, num_envs=40, steps=400,
                                    ours=kwargs, theirs=kwargs)[0]
                  for kwargs in ({}, {"goal_velocity": 0.07}))
    assert fast > slow > 0                               # some pass the goal too slowly, then turn


def test_the_wall_stops_the_car():
    with make(MountainCar) as vec:
        vec.reset(seed=0)
        states(vec, 2)[0] = -1.17, -0.06
        observations = vec.step(np.array([0]))[0]
        assert observations.tobytes() == np.array([-1.2, 0.0], np.float32).tobytes()


def test_goal_and_limit_may_meet():
    with make(MountainCar, env_kwargs={"max_steps": 1}) as vec:
        vec.reset(seed=0)
        states(vec, 2)[0] = 0.49, 0.06
        _, rewards, terminations, truncations, _ = vec.step(np.array([2]))
        assert (rewards[0], terminations[0], truncations[0]) == (-1.0, True, True)


def test_spaces_are_gymnasiums():
    twin = gymnasium.make("MountainCar-v0")
    with make(MountainCar) as vec:
        assert vec.single_observation_space == twin.observation_space
        assert vec.single_action_space == twin.action_space


def test_first_states_fill_their_range():
    with make(MountainCar, 4000) as vec:
        vec.reset(seed=0)
        position, velocity = states(vec, 2).T
        assert position.min() == pytest.approx(-0.6, abs=0.001)
        assert position.max() == pytest.approx(-0.4, abs=0.001)
        assert position.mean() == pytest.approx(-0.5, abs=0.004)
        assert position.std() == pytest.approx(0.2 / 12**0.5, rel=0.05)
        assert not velocity.any()


@pytest.mark.parametrize(("kwargs", "message"), [
    ({"goal_velocity": 0.08}, r"mountain_car: goal_velocity is at most .* 0\.07, not 0\.08"),
    ({"goal_velocity": float("nan")}, "mountain_car: goal_velocity .* not nan"),
    ({"max_steps": 0}, "mountain_car: max_steps is at least 1, not 0"),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        MountainCar(**kwargs)


def test_pictures():
    pytest.importorskip("PIL")
    with make(MountainCar) as vec:
        vec.reset(seed=0)
        first, text = vec.render(), vec.ansi()
        assert (first.shape, first.dtype) == ((400, 600, 3), np.uint8)
        lines = text.split("\n")
        assert len(lines) == 14
        assert next(line.find("O") for line in lines if "O" in line) in range(20, 28)
        states(vec, 2)[0] = 0.2, 0.0
        assert [line.find("O") for line in vec.ansi().split("\n") if "O" in line] == [47]
        moved = (vec.render() != first).any(axis=(0, 2))
        assert moved[180:265].any()                      # where the car was
        assert moved[430:500].any()                      # where it is
        assert not moved[500:].any()


def test_rendering_without_pillow_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with make(MountainCar) as vec:
        vec.reset(seed=0)
        with pytest.raises(ImportError, match=r"pufferlib_cy\[render\]"):
            vec.render()
