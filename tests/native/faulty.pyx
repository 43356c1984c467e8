"""faulty: breaks the contract of a native environment in one way at a time, in environment 1."""

cimport cython
from libc.math cimport NAN
from pufferlib_cy cimport NativeEnv, Rows, Slice, first_rows, next_rows, next_uint64

import numpy as np
from gymnasium.spaces import Box, Discrete

cpdef enum Way:
    SOUND = 0
    REWARD_NAN = 1
    OBSERVATION_NAN = 2
    OBSERVATION_PARTIAL = 3
    FLAG = 4
    BEFORE = 5
    BEHIND = 6
    STATE_BEHIND = 7
    NO_ACTION = 8
    REWARD_BEHIND = 9
    TERMINATION_BEHIND = 10
    TRUNCATION_BEHIND = 11
    MASK_BEFORE = 12
    ACTION_MASK_BEHIND = 13
    STATS_BEHIND = 14
    STREAM_OF_ANOTHER = 15
    STREAM_OF_SLICE = 16
    STREAM_WRITTEN = 17
    STALE_STATE = 18
    STALE_REWARD = 19
    STALE_READ = 20
    SUM = 21
    PRODUCT = 22
    SHIFT = 23
    INDEX = 24
    NEGATION = 25
    DIFFERENCE = 26

cdef enum: CELLS = 4

cdef struct State:
    int count
    int[CELLS] cells
    int last

# Filled at import, so that the compiler cannot know them.
cdef int LARGE = 2**31 - 1


@cython.final
cdef class Faulty(NativeEnv):
    """Sound at reset; in step, environment 1 does what `way` says."""
    cdef int way
    cdef State* kept_state        # of environment 1, at its reset
    cdef float* kept_rewards
    cdef float* kept_observations

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
                if rows._environment == 1:
                    self.kept_state = <State*> rows.state
                    self.kept_rewards = rows.rewards
                    self.kept_observations = observation
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
                (<State*> rows.state)[1].count = 7
            elif way == NO_ACTION:
                rows.action_masks[0] = rows.action_masks[1] = False
            elif way == REWARD_BEHIND:
                rows.rewards[1] = 7.0
            elif way == TERMINATION_BEHIND:
                rows.terminations[1] = True
            elif way == TRUNCATION_BEHIND:
                rows.truncations[1] = True
            elif way == MASK_BEFORE:
                rows.masks[-1] = True
            elif way == ACTION_MASK_BEHIND:
                rows.action_masks[2] = True
            elif way == STATS_BEHIND:
                rows.stats[0] = 7.0
            elif way == STREAM_OF_ANOTHER:
                next_uint64(self.rngs + 2)
            elif way == STREAM_OF_SLICE:
                next_uint64(slice.rngs + 1)
            elif way == STREAM_WRITTEN:
                rows.rng[1].state = 7
            elif way == STALE_STATE:
                self.kept_state.count += 1
            elif way == STALE_REWARD:
                self.kept_rewards[0] = 0.25
            elif way == STALE_READ:
                observation[1] = self.kept_observations[0]
            elif way != SOUND:
                self.calculate(<State*> rows.state, way)

    cdef void calculate(self, State* state, int way) noexcept nogil:
        if way == SUM:
            state.count = LARGE + 1
        elif way == PRODUCT:
            state.count = LARGE * LARGE
        elif way == SHIFT:
            state.count = 1 << LARGE
        elif way == NEGATION:
            state.count = -(-LARGE - 1)
        elif way == DIFFERENCE:
            state.count = -LARGE - 2
        elif way == INDEX:
            state.cells[LARGE % 5 + 2] = 7       # 4: that is `last`


@cython.final
cdef class Crowded(NativeEnv):
    """Writes the rows of one agent more than it declared."""

    def __init__(self):
        super().__init__(Box(0, 9, (2,), np.uint8), Discrete(2), sizeof(State), agents_per_env=3)

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        cdef int a
        while next_rows(&rows):
            for a in range(4):
                (<unsigned char*> rows.observations)[2 * a] = a
                (<unsigned char*> rows.observations)[2 * a + 1] = a
                rows.terminations[a] = False


@cython.final
cdef class Undersized(NativeEnv):
    """Gives the size of a pointer to its state instead of the state's."""

    def __init__(self):
        super().__init__(Box(0, 9, (1,), np.uint8), Discrete(2), sizeof(State*))

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_rows(&rows):
            (<State*> rows.state).last = 7
            (<unsigned char*> rows.observations)[0] = 0


cdef class NoRun(NativeEnv):
    """Does not implement run."""

    def __init__(self):
        super().__init__(Box(-1, 1, (2,), np.float32), Discrete(2), sizeof(State))


cdef class NoInit(NativeEnv):
    """Does not call super().__init__."""

    def __init__(self):
        pass
