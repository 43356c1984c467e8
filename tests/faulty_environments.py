"""An environment that does what it is told to, and what it may be told.

They are in a module of their own so that spawned workers find them.
"""

import os
import signal
import time

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Faulty(gymnasium.Env):
    """Does in a reset or step, or in its constructor, what it is told; `where` says in which."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float64)
    action_space = Discrete(2)

    def __init__(self, do=None, where="step"):
        self.do, self.where, self.t = do, where, 0
        self.closed = False
        self.at("constructor")

    def at(self, where):
        if self.do is not None and where == self.where:
            self.do()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at("reset")
        self.t = 0
        return np.array([0.0, os.getpid()]), {}

    def step(self, action):
        if action:
            self.at("step")
        self.t += 1
        return np.array([float(self.t), os.getpid()]), 1.0, False, False, {}

    def close(self):
        self.closed = True


def fall():
    raise LookupError("no more rope")


def leave():
    os._exit(7)


def crash(number):
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)       # the test runner has a handler for it
    os.kill(os.getpid(), number)
    time.sleep(60)


def hang():
    time.sleep(1000)
