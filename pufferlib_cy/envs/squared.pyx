"""squared: walk to the target on a small grid. The template of a native environment."""

cimport cython
from libc.stdint cimport uint8_t
from libc.string cimport memset
from pufferlib_cy cimport NativeEnv, Rows, Slice, first_rows, next_rows, uniform_int

import numpy as np
from gymnasium.spaces import Box, Discrete

cdef enum Action: STAY, DOWN, UP, LEFT, RIGHT
cdef enum Cell: EMPTY, AGENT, TARGET

cdef struct State:
    int y, x          # the agent's row and column
    int target        # the target's cell, y * size + x
    int ticks         # steps since the reset


@cython.final
cdef class Squared(NativeEnv):
    """One agent starts in the centre of a size x size grid, the target on any other cell.

    Reaching the target gives 1 and ends the episode; leaving the grid, or more than 3 * size
    steps, gives -1 and ends it. Observation: uint8 (size * size,), 0 empty, 1 agent, 2 target.
    """
    cdef int size

    def __init__(self, int size=11):
        if size < 2:
            raise ValueError(f"squared: size is at least 2, not {size}")
        self.size = size
        super().__init__(Box(0, 2, (size * size,), np.uint8), Discrete(5), sizeof(State))

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_rows(&rows):
            if rows.starting:
                self.reset(<State*> rows.state, &rows)
            else:
                self.step(<State*> rows.state, &rows)

    cdef inline void reset(self, State* state, Rows* rows) noexcept nogil:
        cdef int centre = self.size // 2 * (self.size + 1)
        state.y = state.x = self.size // 2
        state.target = uniform_int(rows.rng, self.size * self.size - 1)
        state.target += state.target >= centre        # any cell but the centre
        state.ticks = 0
        self.observe(state, <uint8_t*> rows.observations)

    cdef inline void step(self, State* state, Rows* rows) noexcept nogil:
        cdef int action = rows.actions[0]
        state.ticks += 1
        state.y += (action == DOWN) - (action == UP)
        state.x += (action == RIGHT) - (action == LEFT)
        if not (0 <= state.y < self.size and 0 <= state.x < self.size):
            state.y = min(max(state.y, 0), self.size - 1)
            state.x = min(max(state.x, 0), self.size - 1)
            rows.rewards[0], rows.terminations[0] = -1.0, True
        elif state.y * self.size + state.x == state.target:
            rows.rewards[0], rows.terminations[0] = 1.0, True
        elif state.ticks > 3 * self.size:
            rows.rewards[0], rows.terminations[0] = -1.0, True
        self.observe(state, <uint8_t*> rows.observations)

    cdef inline void observe(self, State* state, uint8_t* cells) noexcept nogil:
        memset(cells, EMPTY, self.size * self.size)
        cells[state.target] = TARGET
        cells[state.y * self.size + state.x] = AGENT
