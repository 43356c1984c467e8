"""trouble: an environment for the tests of worker processes, which works, dies or hangs as told."""

cimport cython
from libc.signal cimport SIG_DFL, SIGSEGV, raise_, signal as set_handler
from posix.signal cimport kill
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport _exit, getpid, pause
from pufferlib_cy cimport NativeEnv, Rows, Slice, first_rows, next_rows, uniform
from pufferlib_cy._core cimport REWARD_NOT_FINITE

import time

import numpy as np
from gymnasium.spaces import Box, Discrete

cdef extern from "signal.h":
    int SIGKILL

cdef enum Way:
    WORK = 0                  # sleep for as long as the tail says
    LEAVE = 1                 # os._exit(7)
    KILL = 2
    SEGV = 3
    HANG = 4                  # for ever, without the GIL
    HANG_WITH_GIL = 5
    BREAK = 6                 # the contract

cdef struct State:
    int steps


@cython.final
cdef class Trouble(NativeEnv):
    """Observation float64 (3,): the environment's steps so far, the process it lives in, and when
    its step was done, by the clock of time.monotonic.

    A step sleeps `seconds` / u, u uniform in (0, 1): Pareto's heavy tail; at most 100 * `seconds`.
    `size` floats follow the observation. `fails`: the constructor raises.
    """
    cdef double seconds

    def __init__(self, double seconds=0.0, int size=0, bint fails=False):
        if fails:
            raise OSError("no trouble to be had")
        self.seconds = seconds
        super().__init__(Box(0, np.inf, (3 + size,), np.float64), Discrete(7), sizeof(State))

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        cdef double* observation
        cdef State* state
        cdef double u
        cdef timespec now
        while next_rows(&rows):
            state = <State*> rows.state
            observation = <double*> rows.observations
            if rows.starting:
                state.steps = 0
            else:
                state.steps += 1
                if rows.actions[0] == LEAVE:
                    _exit(7)
                elif rows.actions[0] == KILL:
                    kill(getpid(), SIGKILL)
                elif rows.actions[0] == SEGV:
                    set_handler(SIGSEGV, SIG_DFL)
                    raise_(SIGSEGV)
                elif rows.actions[0] == HANG:
                    while True:
                        pause()
                elif rows.actions[0] == HANG_WITH_GIL:
                    with gil:
                        time.sleep(1000)
                elif rows.actions[0] == BREAK:
                    slice.fault = REWARD_NOT_FINITE
                    slice.fault_environment = rows._environment
                elif self.seconds:
                    u = uniform(rows.rng, 0.01, 1.0)
                    with gil:
                        time.sleep(self.seconds / u)
            observation[0] = state.steps
            observation[1] = getpid()
            clock_gettime(CLOCK_MONOTONIC, &now)
            observation[2] = now.tv_sec + now.tv_nsec * 1e-9
