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
    int y, x, target          # the agent's row and column; the target's cell, y * size + x


@cython.final
cdef class Squared(NativeEnv):
    """The agent starts in the centre of a size x size grid, the target on any other cell.

    Reaching it gives 1, leaving the grid or taking more than 3 * size steps gives -1; each ends the
    episode. Observation: uint8 (size * size,), 0 empty, 1 agent, 2 target."""
    cdef int size
    action_names = ("stay", "down", "up", "left", "right")

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
            self.observe(<State*> rows.state, <uint8_t*> rows.observations)

    cdef inline void reset(self, State* state, Rows* rows) noexcept nogil:
        state.y = state.x = self.size // 2
        state.target = uniform_int(rows.rng, self.size * self.size - 1)
        state.target += state.target >= state.y * self.size + state.x   # any but the centre

    cdef inline void step(self, State* state, Rows* rows) noexcept nogil:
        cdef int y = state.y + (rows.actions[0] == DOWN) - (rows.actions[0] == UP)
        cdef int x = state.x + (rows.actions[0] == RIGHT) - (rows.actions[0] == LEFT)
        if not (0 <= y < self.size and 0 <= x < self.size) or rows.lengths[0] >= 3 * self.size:
            rows.rewards[0], rows.terminations[0] = -1.0, True
            return
        state.y, state.x = y, x
        if y * self.size + x == state.target:
            rows.rewards[0], rows.terminations[0] = 1.0, True

    cdef inline void observe(self, State* state, uint8_t* cells) noexcept nogil:
        cdef int agent = state.y * self.size + state.x, target = state.target
        memset(cells, EMPTY, self.size * self.size)
        cells[target], cells[agent] = TARGET, AGENT
