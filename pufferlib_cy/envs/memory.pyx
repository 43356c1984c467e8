"""memory: remember a digit past distractors. A test that a policy has memory."""

cimport cython
from libc.string cimport memset
from pufferlib_cy cimport NativeEnv, Rows, Slice, first_rows, next_rows, uniform_int

import numpy as np
from gymnasium.spaces import Box, Discrete

cdef struct State:
    int goal          # the digit to repeat at the end
    int shown         # observations shown in this episode
    int digit         # the one in the last of them; -1: none


@cython.final
cdef class Memory(NativeEnv):
    """The first observation shows a goal digit; `delay` random digits follow; then repeat the goal.

    Observation: float32 (digits + 2,): the digit as one-hot, 1 if it is the goal, 1 if it is time
    to answer (no digit then). Action: Discrete(digits); only the answer counts: 1 if it is the
    goal, else -1, and the episode terminates, delay + 2 steps long. Without memory nobody is right
    more often than once in `digits` times.
    """
    cdef int delay, digits

    def __init__(self, int delay=4, int digits=2):
        if delay < 0 or digits < 2:
            raise ValueError("memory: delay is at least 0 and digits at least 2, not "
                             f"{delay} and {digits}")
        self.delay = delay
        self.digits = digits
        super().__init__(Box(0.0, 1.0, (digits + 2,), np.float32), Discrete(digits), sizeof(State))

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_rows(&rows):
            if rows.starting:
                self.reset(<State*> rows.state, &rows)
            else:
                self.step(<State*> rows.state, &rows)

    cdef inline void reset(self, State* state, Rows* rows) noexcept nogil:
        state.goal = uniform_int(rows.rng, self.digits)
        state.shown = 1
        self.show(state, <float*> rows.observations, state.goal, True, False)

    cdef inline void step(self, State* state, Rows* rows) noexcept nogil:
        if state.shown == self.delay + 2:             # the action answers the last observation
            rows.rewards[0] = 1.0 if rows.actions[0] == state.goal else -1.0
            rows.terminations[0] = True
            self.show(state, <float*> rows.observations, -1, False, False)
        elif state.shown == self.delay + 1:
            self.show(state, <float*> rows.observations, -1, False, True)
        else:
            self.show(state, <float*> rows.observations, uniform_int(rows.rng, self.digits), False,
                      False)
        state.shown += 1

    cdef inline void show(self, State* state, float* observation, int digit, bint is_goal,
                          bint answer) noexcept nogil:
        state.digit = digit
        memset(observation, 0, (self.digits + 2) * sizeof(float))
        if digit >= 0:
            observation[digit] = 1.0
        observation[self.digits] = is_goal
        observation[self.digits + 1] = answer

    def ansi(self, Py_ssize_t environment):
        """What the last observation shows, in words."""
        cdef State* state = <State*> self.state_of(environment)
        if state.shown == 1:
            return f"remember {state.digit}\n"
        if state.digit >= 0:
            return f"not {state.digit}\n"
        return "which was it?\n" if state.shown == self.delay + 2 else "the end\n"
