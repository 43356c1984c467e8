"""``backend="auto"``: the rule, the trial, and that the trial leaves nothing behind."""

import sys
import threading
import time

import numpy as np
import pytest
from gymnasium import Env
from gymnasium.spaces import Box, Discrete

import pufferlib_cy
from pufferlib_cy import auto
from pufferlib_cy.auto import PROCESS_SECONDS, THREAD_SECONDS, choose

posix = pytest.mark.skipif(sys.platform == "win32", reason="worker processes need POSIX")


@pytest.mark.parametrize(("seconds", "most", "backend", "workers"), [
    (1.0, 1, "serial", 1),
    (1.9 * THREAD_SECONDS, 8, "serial", 1),
    (2.1 * THREAD_SECONDS, 8, "threads", 2),
    (7.5 * THREAD_SECONDS, 8, "threads", 7),
    (1.0, 8, "threads", 8)])
def test_the_rule_for_native_environments(seconds, most, backend, workers):
    choice = choose(seconds, True, most)
    assert (choice.backend, choice.num_workers) == (backend, workers)
    assert choice.reason


@posix
@pytest.mark.parametrize(("seconds", "most", "backend", "workers"), [
    (1.0, 1, "serial", 1),
    (0.9 * PROCESS_SECONDS, 8, "serial", 1),
    (1.1 * PROCESS_SECONDS, 8, "processes", 8)])
def test_the_rule_for_python_environments(seconds, most, backend, workers):
    choice = choose(seconds, False, most)
    assert (choice.backend, choice.num_workers) == (backend, workers)
    assert choice.reason


@pytest.mark.parametrize(("seconds", "words"), [
    (12.34e-6, "12.3 µs"), (5e-3, "5 ms"), (2.0, "2 s")])
def test_times_in_words(seconds, words):
    assert auto.in_words(seconds) == words


class Sleeper(Env):
    """Each step sleeps; remembers what was made and closed."""

    observation_space = Box(0, 1, (2,))
    action_space = Discrete(2)
    made = 0
    closed = 0

    def __init__(self, seconds=0.0):
        type(self).made += 1
        self.seconds, self.steps = seconds, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        if self.seconds:
            time.sleep(self.seconds)
        self.steps += 1
        return np.zeros(2, np.float32), 0.0, False, False, {}

    def close(self):
        type(self).closed += 1


@pytest.fixture
def sleeper():
    Sleeper.made = Sleeper.closed = 0
    return Sleeper


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr("pufferlib_cy.vector.available_cores", lambda: 2)


@posix
@pytest.mark.usefixtures("two_cores")
def test_slow_environments_get_processes(sleeper):
    with pufferlib_cy.make(sleeper, 4, env_kwargs={"seconds": 0.002}, context="fork") as vec:
        assert (vec.backend, vec.num_workers) == ("processes", 2)
        assert (sleeper.made, sleeper.closed) == (3, 1)       # one to try out, two of the caller's
        assert vec.get_attr("steps") == (0, 0, 0, 0)
    assert (sleeper.made, sleeper.closed) == (3, 3)


@posix
@pytest.mark.usefixtures("two_cores")
def test_what_cannot_be_sent_to_processes_stays_here_and_that_is_told(sleeper):
    lock = threading.Lock()

    def locked():
        with lock:
            return sleeper(0.001)

    with pytest.warns(RuntimeWarning, match=r"auto.*processes.*could not start.*TypeError.*lock"):
        vec = pufferlib_cy.make([locked, locked])
    with vec:
        assert (vec.backend, vec.num_workers) == ("serial", 1)
        vec.reset(seed=0)
    assert sleeper.made == sleeper.closed


@pytest.mark.usefixtures("two_cores")
def test_quick_environments_stay_here(sleeper):
    with pufferlib_cy.make(sleeper, 4) as vec:
        assert (vec.backend, vec.num_workers) == ("serial", 1)
        assert (sleeper.made, sleeper.closed) == (5, 1)
    assert sleeper.closed == 5


@pytest.mark.usefixtures("two_cores")
def test_what_cannot_be_shared_is_not_tried(sleeper):
    for num_envs, workers in ((1, None), (4, 1)):
        with pufferlib_cy.make(sleeper, num_envs, num_workers=workers) as vec:
            assert vec.backend == "serial"
            assert sleeper.closed == 0
        assert sleeper.made == num_envs
        sleeper.made = sleeper.closed = 0


@pytest.mark.usefixtures("two_cores")
def test_an_environment_that_is_given_twice_is_not_closed(sleeper):
    here = sleeper()
    with pufferlib_cy.make([lambda: here, sleeper]) as vec:
        assert sleeper.closed == 0
        vec.reset(seed=0)
    assert sleeper.closed == 2


@pytest.mark.usefixtures("two_cores")
def test_what_a_trial_meets_is_left_to_the_user(sleeper):
    class Broken(sleeper):
        def step(self, action):
            raise RuntimeError("no step")

    with pufferlib_cy.make(Broken, 2) as vec:
        assert (vec.backend, Broken.closed) == ("serial", 1)
        vec.reset(seed=0)
        with pytest.raises(pufferlib_cy.EnvError, match="no step"):
            vec.step([0, 0])
    with pytest.raises(TypeError, match="second"):
        pufferlib_cy.make(sleeper, 2, env_kwargs={"second": 1})
