"""lanes: agents stepped in lanes, that report what they were handed, or break the contract."""

cimport cython
from libc.math cimport NAN
from pufferlib_cy cimport NativeEnv, Rows, Slice, first_rows, next_lanes, next_rows, uniform

import numpy as np
from gymnasium.spaces import Box, Discrete

cdef enum:
    AGENTS = 3
    FIELDS = 3        # of an observation

cdef enum Way:
    SOUND = 0
    REWARD_NAN = 1
    OBSERVATION_NAN = 2
    OBSERVATION_PARTIAL = 3
    FLAG = 4
    BEFORE = 5
    BEHIND = 6
    FIRST_FOR_ALL = 7         # reads the first environment's draw for all that come with it
    COUNT = 8                 # shows how many come at a time
    NOT_DECLARED = 9          # lanes, without saying so
    ROWS = 10                 # says so, but takes environments one by one


@cython.final
cdef class Lanes(NativeEnv):
    """Three agents; action 1 terminates one, and the reward is the action.

    Observation: float32 (3,), a draw at the episode's start, and the steps of the agent's episode
    before this one, as the core counts them and as counted here. States: E draws, then E * A
    counts. In step, environment 1 (`way` up to BEHIND) or every environment does what `way` says.
    """
    cdef int way

    def __init__(self, int way=SOUND):
        self.way = way
        super().__init__(Box(-np.inf, np.inf, (FIELDS,), np.float32), Discrete(2),
                         (1 + AGENTS) * sizeof(float), agents_per_env=AGENTS,
                         lanes=way != NOT_DECLARED)

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while self.way == ROWS and next_rows(&rows):
            pass
        while self.way != ROWS and next_lanes(&rows):
            if rows.starting:
                self.reset(&rows)
            else:
                self.step(&rows)

    cdef inline float* draws(self, Rows* rows) noexcept nogil:
        return <float*> self.states + rows.environment

    cdef inline float* counts(self, Rows* rows) noexcept nogil:
        return <float*> self.states + self.num_envs + AGENTS * rows.environment

    cdef void reset(self, Rows* rows) noexcept nogil:
        cdef float* observation = <float*> rows.observations
        cdef Py_ssize_t e, n
        for e in range(rows.count):
            self.draws(rows)[e] = uniform(&rows.rng[e], 0.0, 1.0)
        for n in range(rows.count * AGENTS):
            self.counts(rows)[n] = 0
            observation[FIELDS * n] = self.draws(rows)[n // AGENTS]
            observation[FIELDS * n + 1] = rows.lengths[n]
            observation[FIELDS * n + 2] = 0

    cdef void step(self, Rows* rows) noexcept nogil:
        cdef float* observation = <float*> rows.observations
        cdef Py_ssize_t n, e
        cdef int way
        for n in range(rows.count * AGENTS):
            e = n // AGENTS
            way = self.way if self.way > BEHIND or rows.environment + e == 1 else SOUND
            if rows.masks[n]:
                rows.rewards[n] = NAN if way == REWARD_NAN else <float> rows.actions[n]
                rows.terminations[n] = 3 if way == FLAG else rows.actions[n]
            observation[FIELDS * n] = self.draws(rows)[0 if way == FIRST_FOR_ALL else e]
            if way != OBSERVATION_PARTIAL:
                observation[FIELDS * n + 1] = NAN if way == OBSERVATION_NAN else rows.lengths[n]
            observation[FIELDS * n + 2] = self.counts(rows)[n] + (rows.count if way == COUNT else 0)
            self.counts(rows)[n] += 1
            if way == BEFORE:
                observation[-1] = 7.0
            elif way == BEHIND:
                observation[FIELDS * AGENTS * rows.count] = 7.0
