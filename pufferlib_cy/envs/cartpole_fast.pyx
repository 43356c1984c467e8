"""cartpole_fast: cartpole in float32, several environments per instruction.

The rules, limits and first states are cartpole's; trajectories differ by rounding. The states of
all environments are kept as one array per field, and a step is a loop over environments without
branches, which the C compiler turns into vector instructions ("lanes").
"""

cimport cython
from libc.math cimport fabsf
from libc.stdint cimport int32_t
from pufferlib_cy cimport (
    ByteLane, FloatLane, LaneLoop, NativeEnv, Rows, Slice, first_rows, next_lanes, uniform,
)
from pufferlib_cy.envs.small_angles cimport small_cosine, small_sine

import numpy as np
from gymnasium.spaces import Box, Discrete

cdef enum Field:
    # One array of E floats each, in this order, in the room for the states.
    X = 0             # cart position, m
    X_DOT = 1         # m/s
    THETA = 2         # pole angle from upright, rad
    THETA_DOT = 3     # rad/s
    FIELDS = 4

# cartpole's, with quotients of constants worked out.
cdef float GRAVITY = 9.8                      # m/s^2
cdef float POLE_MOMENT = 0.1 * 0.5            # kg m
cdef float PER_MASS = 1.0 / (0.1 + 1.0)       # 1/kg, of pole and cart together
cdef float MOMENT_PER_MASS = 0.1 * 0.5 / (0.1 + 1.0)     # m
cdef float INERTIA = 0.5 * 4.0 / 3.0          # m
cdef float FORCE = 10.0                       # N
cdef float TAU = 0.02                         # s
cdef float X_LIMIT = 2.4                      # m
cdef float THETA_LIMIT = 12 * 2 * 3.141592653589793 / 360


@cython.final
cdef class CartPoleFast(NativeEnv):
    """Balance a pole on a cart; 1 per step, at most `max_steps` steps.

    Observation: float32 (4,), x, x_dot, theta, theta_dot. Action: Discrete(2), push left or right.
    Falling or leaving the track terminates; the step limit truncates (both, if they meet).
    """
    cdef int max_steps

    def __init__(self, int max_steps=500):
        if max_steps < 1:
            raise ValueError(f"cartpole_fast: max_steps is at least 1, not {max_steps}")
        self.max_steps = max_steps
        high = np.array([X_LIMIT * 2, np.inf, THETA_LIMIT * 2, np.inf], np.float32)
        super().__init__(Box(-high, high, dtype=np.float32), Discrete(2), FIELDS * sizeof(float),
                         lanes=True)

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_lanes(&rows):
            if rows.starting:
                self.reset(&rows)
            else:
                self.step(&rows)

    cdef inline float* lane(self, Rows* rows, Field field) noexcept nogil:
        """One field of the states of these environments: (rows.count,)."""
        return <float*> self.states + field * self.num_envs + rows.environment

    cdef inline void reset(self, Rows* rows) noexcept nogil:
        cdef float* observations = <float*> rows.observations        # (count, FIELDS)
        cdef float* states = self.lane(rows, X)
        cdef Py_ssize_t e, field
        for e in range(rows.count):
            for field in range(FIELDS):
                observations[FIELDS * e + field] = uniform(&rows.rng[e], -0.05, 0.05)
                states[field * self.num_envs + e] = observations[FIELDS * e + field]

    cdef inline void step(self, Rows* rows) noexcept nogil:
        move(rows.count, rows.actions, self.lane(rows, X), self.lane(rows, X_DOT),
             self.lane(rows, THETA), self.lane(rows, THETA_DOT), <float*> rows.observations)
        judge(rows.count, self.lane(rows, X), self.lane(rows, THETA), rows.lengths,
              self.max_steps, rows.rewards, rows.terminations, rows.truncations)


cdef LaneLoop move(Py_ssize_t count, const int32_t* actions, FloatLane x, FloatLane x_dot,
                   FloatLane theta, FloatLane theta_dot,
                   FloatLane observations) noexcept nogil:
    """Push the carts; observations (count, FIELDS)."""
    cdef Py_ssize_t e
    cdef float sine, cosine, push, theta_acc, x_acc
    for e in range(count):
        sine = small_sine(theta[e])
        cosine = small_cosine(theta[e])
        push = PER_MASS * (FORCE * (2 * actions[e] - 1)
                           + POLE_MOMENT * (theta_dot[e] * theta_dot[e]) * sine)
        theta_acc = (GRAVITY * sine - cosine * push) / (
            INERTIA - MOMENT_PER_MASS * (cosine * cosine))
        x_acc = push - MOMENT_PER_MASS * theta_acc * cosine
        x[e] += TAU * x_dot[e]
        x_dot[e] += TAU * x_acc
        theta[e] += TAU * theta_dot[e]
        theta_dot[e] += TAU * theta_acc
        observations[FIELDS * e + X] = x[e]
        observations[FIELDS * e + X_DOT] = x_dot[e]
        observations[FIELDS * e + THETA] = theta[e]
        observations[FIELDS * e + THETA_DOT] = theta_dot[e]


cdef LaneLoop judge(Py_ssize_t count, const float* x, const float* theta,
                    const int32_t* lengths, int max_steps, FloatLane rewards,
                    ByteLane terminations, ByteLane truncations) noexcept nogil:
    """Who has fallen, left the track, or reached the limit."""
    cdef Py_ssize_t e
    for e in range(count):
        rewards[e] = 1.0
        # | evaluates both sides, where `or` would branch.
        terminations[e] = (fabsf(x[e]) > X_LIMIT) | (fabsf(theta[e]) > THETA_LIMIT)
        truncations[e] = lengths[e] + 1 >= max_steps
