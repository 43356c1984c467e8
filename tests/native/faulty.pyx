"""faulty: breaks the contract of a native environment in one way at a time, in environment 1."""

cimport cython
from libc.math cimport NAN
from pufferlib_cy cimport NativeEnv, Rows, Slice, first_rows, next_rows

import numpy as np
from gymnasium.spaces import Box, Discrete

cdef enum Way:
    SOUND = 0
    REWARD_NAN = 1
    OBSERVATION_NAN = 2
    OBSERVATION_PARTIAL = 3
    FLAG = 4
    BEFORE = 5
    BEHIND = 6
    STATE_BEHIND = 7
    NO_ACTION = 8

cdef struct State:
    int unused


@cython.final
cdef class Faulty(NativeEnv):
    """Sound at reset; in step, environment 1 does what `way` says."""
    cdef int way

    def __init__(self, int way=SOUND):
        self.way = way
        super().__init__(Box(-1, 1, (2,), np.float32), Discrete(2), sizeof(State),
                         action_masks=True)

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        cdef float* observation
        cdef int way
        while next_rows(&rows):
            observation = <float*> rows.observations
            observation[0] = 0.5
            if rows.starting:
                observation[1] = 0.5
                continue
            way = self.way if rows._environment == 1 else SOUND
            if way != OBSERVATION_PARTIAL:
                observation[1] = NAN if way == OBSERVATION_NAN else 0.5
            rows.rewards[0] = NAN if way == REWARD_NAN else 0.0
            rows.terminations[0] = 3 if way == FLAG else 0
            if way == BEFORE:
                observation[-1] = 7.0
            elif way == BEHIND:
                observation[2] = 7.0
            elif way == STATE_BEHIND:
                (<State*> rows.state)[1].unused = 7
            elif way == NO_ACTION:
                rows.action_masks[0] = rows.action_masks[1] = False


cdef class NoRun(NativeEnv):
    """Does not implement run."""

    def __init__(self):
        super().__init__(Box(-1, 1, (2,), np.float32), Discrete(2), sizeof(State))


cdef class NoInit(NativeEnv):
    """Does not call super().__init__."""

    def __init__(self):
        pass
