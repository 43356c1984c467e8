"""bandit: four arms with fixed chances, one pull an episode. The smallest test that learning works.
"""

cimport cython
from pufferlib_cy cimport NativeEnv, Rows, Slice, first_rows, next_rows, uniform

import numpy as np
from gymnasium.spaces import Box, Discrete

cdef enum: ARMS = 4

cdef struct State:
    int pulls         # in all episodes; only there so that the state is not empty

# The chance that arm i pays 1. A policy that has learnt takes the last one: mean return 0.8.
cdef double[ARMS] CHANCES = [0.2, 0.4, 0.6, 0.8]


@cython.final
cdef class Bandit(NativeEnv):
    """Pull one of four arms; it pays 1 with its own fixed chance (0.2, 0.4, 0.6, 0.8), else 0.

    Every episode is one step. Observation: float32 (1,), always 1.
    """

    def __init__(self):
        super().__init__(Box(0.0, 1.0, (1,), np.float32), Discrete(ARMS), sizeof(State))

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_rows(&rows):
            if not rows.starting:
                self.step(<State*> rows.state, &rows)
            (<float*> rows.observations)[0] = 1.0

    cdef inline void step(self, State* state, Rows* rows) noexcept nogil:
        state.pulls += 1
        rows.rewards[0] = uniform(rows.rng, 0.0, 1.0) < CHANCES[rows.actions[0]]
        rows.terminations[0] = True
