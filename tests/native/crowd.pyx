"""crowd: a small game for the tests, in which agents die, are born and may not do everything.

Its rules in slow Python are in ``tests/oracle.py``.
"""

cimport cython
from pufferlib_cy cimport NativeEnv, Rows, Slice, first_rows, next_rows, uniform_int

import numpy as np
from gymnasium.spaces import Box, MultiDiscrete

cdef enum: SLOTS = 4
cdef enum: BIRTH_TICK = 3
cdef enum: LAST_TICK = 6

cdef struct State:
    int tick
    int[SLOTS] energy


@cython.final
cdef class Crowd(NativeEnv):
    """Four slots, the last empty at first. Observation: float32 (3,), slot, energy, tick. Action:
    how much energy to spend (0 to 2, but not 2 with energy 1) and an idle bit."""

    def __init__(self):
        super().__init__(Box(-np.inf, np.inf, (3,), np.float32), MultiDiscrete([3, 2]),
                         sizeof(State), agents_per_env=SLOTS, action_masks=True,
                         stats=("spent", "first_energy"))

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_rows(&rows):
            if rows.starting:
                self.reset(<State*> rows.state, &rows)
            else:
                self.step(<State*> rows.state, &rows)
            self.observe(<State*> rows.state, &rows)

    cdef inline void reset(self, State* state, Rows* rows) noexcept nogil:
        cdef int a
        state.tick = 0
        for a in range(SLOTS):
            state.energy[a] = 1 + uniform_int(rows.rng, 3)
        rows.masks[SLOTS - 1] = False
        rows.stats[1] = state.energy[0]

    cdef inline void step(self, State* state, Rows* rows) noexcept nogil:
        cdef int a
        state.tick += 1
        for a in range(SLOTS):
            if rows.masks[a]:
                state.energy[a] -= rows.actions[2 * a]
                rows.stats[0] += rows.actions[2 * a]
                rows.rewards[a] = state.energy[a]
                rows.terminations[a] = state.energy[a] <= 0
                rows.truncations[a] = state.tick >= LAST_TICK
            elif state.tick == BIRTH_TICK:
                rows.masks[a] = True
                state.energy[a] = 2

    cdef inline void observe(self, State* state, Rows* rows) noexcept nogil:
        cdef int a
        cdef float* observations = <float*> rows.observations
        for a in range(SLOTS):
            observations[3 * a] = a
            observations[3 * a + 1] = state.energy[a]
            observations[3 * a + 2] = state.tick
            if state.energy[a] < 2:
                rows.action_masks[5 * a + 2] = False
