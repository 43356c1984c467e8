"""maze: find the way out, seeing no more than the room one stands in."""

cimport cython
from libc.stdint cimport uint8_t
from libc.string cimport memset
from pufferlib_cy cimport NativeEnv, Rng, Rows, Slice, first_rows, next_rows, uniform_int

import numpy as np
from gymnasium.spaces import Box, Discrete

# Opposite directions differ in the last bit.
cdef enum Direction: NORTH, SOUTH, WEST, EAST
cdef enum:
    DIRECTIONS = 4
    MAX_SIZE = 16
    MAX_VISITS = 3            # as many as the agent can tell apart
    VALUES = 10               # of one observation

cdef float STEP_REWARD = -0.01

cdef struct State:
    int room                  # where the agent is; rooms are counted row by row
    int ticks                 # since the reset
    uint8_t[MAX_SIZE * MAX_SIZE] doors   # of each room: bit 1 << direction is an open side
    uint8_t[MAX_SIZE * MAX_SIZE] visits  # to each room, MAX_VISITS at most


@cython.final
cdef class Maze(NativeEnv):
    """A maze of size x size rooms in which one way leads from each room to each other.

    The agent starts in the north-western room and looks for the south-eastern one: 1, terminated.
    Every step costs 0.01, also one against a wall; after 4 * size * size of them the episode is
    truncated. A new maze every episode. Action: Discrete(4), north, south, west, east.
    Observation: uint8 (10,), for each direction 1 if there is a door; for each how often the agent
    has been in the room behind it (0 to 3; 3 where there is no door); rooms to the south and to
    the east, to the exit. Statistic: solved, 1 if the exit was found.
    """
    cdef int size

    def __init__(self, int size=5):
        if not 2 <= size <= MAX_SIZE:
            raise ValueError(f"maze: size is 2 to {MAX_SIZE}, not {size}")
        self.size = size
        super().__init__(Box(0, max(MAX_VISITS, size - 1), (VALUES,), np.uint8),
                         Discrete(DIRECTIONS), sizeof(State), stats=("solved",))

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_rows(&rows):
            if rows.starting:
                self.reset(<State*> rows.state, &rows)
            else:
                self.step(<State*> rows.state, &rows)
            self.observe(<State*> rows.state, <uint8_t*> rows.observations)

    cdef inline void reset(self, State* state, Rows* rows) noexcept nogil:
        self.carve(state, rows.rng)
        memset(state.visits, 0, sizeof(state.visits))
        state.room = state.ticks = 0
        state.visits[0] = 1

    cdef inline void step(self, State* state, Rows* rows) noexcept nogil:
        cdef int action = rows.actions[0]
        state.ticks += 1
        if state.doors[state.room] >> action & 1:
            state.room = self.neighbour(state.room, action)
        state.visits[state.room] = min(state.visits[state.room] + 1, MAX_VISITS)
        rows.rewards[0] = STEP_REWARD
        if state.room == self.size * self.size - 1:
            rows.rewards[0], rows.terminations[0], rows.stats[0] = 1.0, True, 1.0
        elif state.ticks == 4 * self.size * self.size:
            rows.truncations[0] = True

    cdef inline void observe(self, State* state, uint8_t* view) noexcept nogil:
        cdef int direction
        cdef bint door
        for direction in range(DIRECTIONS):
            door = state.doors[state.room] >> direction & 1
            view[direction] = door
            view[DIRECTIONS + direction] = MAX_VISITS
            if door:
                view[DIRECTIONS + direction] = state.visits[self.neighbour(state.room, direction)]
        view[8] = self.size - 1 - state.room // self.size
        view[9] = self.size - 1 - state.room % self.size

    cdef inline int neighbour(self, int room, int direction) noexcept nogil:
        """The room in that direction; -1 outside the maze."""
        cdef int y = room // self.size + (direction == SOUTH) - (direction == NORTH)
        cdef int x = room % self.size + (direction == EAST) - (direction == WEST)
        return y * self.size + x if 0 <= y < self.size and 0 <= x < self.size else -1

    cdef inline void carve(self, State* state, Rng* rng) noexcept nogil:
        """Walk at random into rooms without doors, opening doors; where there are none, go back.

        The way back is kept in `visits`, as the direction to where each room was entered from.
        """
        cdef int room = 0, near, direction, choices, chosen
        memset(state.doors, 0, sizeof(state.doors))
        while True:
            choices = 0
            for direction in range(DIRECTIONS):
                near = self.neighbour(room, direction)
                if near > 0 and state.doors[near] == 0:      # the first room was never entered
                    choices += 1
                    if uniform_int(rng, choices) == 0:       # each of them is as likely
                        chosen = direction
            if choices:
                state.doors[room] |= 1 << chosen
                room = self.neighbour(room, chosen)
                state.doors[room] = 1 << (chosen ^ 1)
                state.visits[room] = chosen ^ 1
            elif room:
                room = self.neighbour(room, state.visits[room])
            else:
                return

    def ansi(self, Py_ssize_t environment):
        """The maze from above: A is the agent, X the exit."""
        cdef State* state = <State*> self.state_of(environment)
        cdef int size = self.size, y, x, room
        lines = ["+" + "--+" * size]
        for y in range(size):
            line, below = "|", "+"
            for x in range(size):
                room = y * size + x
                line += " A" if room == state.room else " X" if room == size * size - 1 else "  "
                line += " " if state.doors[room] >> EAST & 1 else "|"
                below += "  +" if state.doors[room] >> SOUTH & 1 else "--+"
            lines += [line, below]
        return "\n".join([*lines, ""])
