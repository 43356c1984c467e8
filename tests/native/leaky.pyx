"""leaky: reads or writes what is not its own, in one way at a time."""

cimport cython
from libc.stdlib cimport rand
from pufferlib_cy cimport NativeEnv, Rng, Rows, Slice, first_rows, next_rows, uniform

import numpy as np
from gymnasium.spaces import Box, Discrete

cdef enum Way:
    SOUND = 0
    C_RAND = 1            # the C library's generator
    FOREIGN_STREAM = 2    # draws from environment 0's stream
    GLOBAL = 3            # counts in a global variable
    STALE = 4             # keeps a pointer to the rows of the step before
    OUTSIDE = 5           # an observation outside its space

cdef struct State:
    double x
    float* last

cdef int calls = 0


@cython.final
cdef class Leaky(NativeEnv):
    """Shows a number; what it comes from is `way`."""
    cdef int way

    def __init__(self, int way=SOUND):
        self.way = way
        super().__init__(Box(0, 1, (1,), np.float32), Discrete(2), sizeof(State))

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_rows(&rows):
            self.act(<State*> rows.state, &rows)

    cdef inline void act(self, State* state, Rows* rows) noexcept nogil:
        global calls
        cdef float* observation = <float*> rows.observations
        cdef Rng* rng = rows.rng
        if self.way == FOREIGN_STREAM:
            rng = self.rngs
        state.x = uniform(rng, 0.0, 1.0)
        if self.way == C_RAND:
            state.x = rand() % 1000 / 1000.0
        elif self.way == GLOBAL:
            calls += 1
            state.x = calls % 1000 / 1000.0
        elif self.way == STALE:
            if state.last != NULL:
                state.x = state.last[0]
            state.last = <float*> rows._slice.observations
        elif self.way == OUTSIDE and not rows.starting:
            state.x = 1.5
        observation[0] = state.x
        if not rows.starting:
            rows.terminations[0] = state.x < 0.1
