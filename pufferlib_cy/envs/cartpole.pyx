"""cartpole: Gymnasium's CartPole-v1, in the same float64 arithmetic, to the last bit."""

cimport cython
from libc.math cimport cos, fabs, sin
from libc.stdint cimport int32_t
from pufferlib_cy cimport (
    ByteLane, DoubleLane, FloatLane, LaneLoop, NativeEnv, Rows, Slice, first_rows, next_block,
    uniform,
)
from pufferlib_cy.envs.libm_lanes cimport BLOCK, BlockDouble, small_sines_and_cosines

import numpy as np
from gymnasium.spaces import Box, Discrete

cdef enum Field:
    # One array of E doubles each, in this order, in the room for the states.
    X = 0             # cart position, m
    X_DOT = 1         # m/s
    THETA = 2         # pole angle from upright, rad
    THETA_DOT = 3     # rad/s
    FIELDS = 4

# Barto, Sutton and Anderson 1983, with Gymnasium's numbers. The products are written out, not
# simplified, so that every rounding is the same as there.
cdef double GRAVITY = 9.8                     # m/s^2
cdef double MASS_POLE = 0.1                   # kg
cdef double MASS_TOTAL = 0.1 + 1.0            # kg, pole and cart
cdef double HALF_LENGTH = 0.5                 # m
cdef double POLE_MOMENT = 0.1 * 0.5           # kg m
cdef double FORCE = 10.0                      # N
cdef double TAU = 0.02                        # s
cdef double X_LIMIT = 2.4                     # m
cdef double THETA_LIMIT = 12 * 2 * 3.141592653589793 / 360


@cython.final
cdef class CartPole(NativeEnv):
    """Balance a pole on a cart; 1 per step, at most `max_steps` steps.

    Observation: float32 (4,), x, x_dot, theta, theta_dot. Action: Discrete(2), push left or right;
    with `continuous`, Box(-1, 1, (1,)), the fraction of 10 N. Falling or leaving the track
    terminates; the step limit truncates (both, if they meet).
    """
    cdef bint continuous
    cdef int max_steps
    action_names = ("left", "right")
    render_fps = 50

    def __init__(self, bint continuous=False, int max_steps=500):
        if max_steps < 1:
            raise ValueError(f"cartpole: max_steps is at least 1, not {max_steps}")
        self.continuous = continuous
        self.max_steps = max_steps
        high = np.array([X_LIMIT * 2, np.inf, THETA_LIMIT * 2, np.inf], np.float32)
        actions = Box(-1.0, 1.0, (1,), np.float32) if continuous else Discrete(2)
        super().__init__(Box(-high, high, dtype=np.float32), actions, FIELDS * sizeof(double),
                         lanes=True)

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_block(&rows, BLOCK):
            if rows.starting:
                self.reset(&rows)
            else:
                self.step(&rows)

    cdef inline double* lane(self, Rows* rows, Field field) noexcept nogil:
        """One field of the states of these environments: (rows.count,)."""
        return <double*> self.states + field * self.num_envs + rows.environment

    cdef inline void reset(self, Rows* rows) noexcept nogil:
        cdef float* observations = <float*> rows.observations        # (count, FIELDS)
        cdef double* states = self.lane(rows, X)
        cdef Py_ssize_t e, field
        for e in range(rows.count):
            for field in range(FIELDS):
                states[field * self.num_envs + e] = uniform(&rows.rng[e], -0.05, 0.05)
                observations[FIELDS * e + field] = <float> states[field * self.num_envs + e]

    cdef inline void step(self, Rows* rows) noexcept nogil:
        cdef BlockDouble force[BLOCK]                      # N
        cdef BlockDouble sine[BLOCK]                       # of theta
        cdef BlockDouble cosine[BLOCK]
        if self.continuous:
            push_by(rows.count, rows.continuous_actions, force)
        else:
            push(rows.count, rows.actions, force)
        small_sines_and_cosines(rows.count, self.lane(rows, THETA), sine, cosine)
        move(rows.count, force, sine, cosine, self.lane(rows, X), self.lane(rows, X_DOT),
             self.lane(rows, THETA), self.lane(rows, THETA_DOT), <float*> rows.observations)
        judge(rows.count, self.lane(rows, X), self.lane(rows, THETA), rows.lengths,
              self.max_steps, rows.rewards, rows.terminations, rows.truncations)

    cdef double value(self, Py_ssize_t environment, Field field) noexcept nogil:
        return (<double*> self.states)[field * self.num_envs + environment]

    def render(self, Py_ssize_t environment):
        """Cart, pole (1 m) and track, 120 pixels a metre: uint8 (240, 600, 3)."""
        cdef double theta = self.value(environment, THETA)
        y, x = np.mgrid[0:240, 0:600]
        right, up = x - 300 - 120 * self.value(environment, X), 180 - y     # from the pole's foot
        along = right * sin(theta) + up * cos(theta)                        # pixels
        across = right * cos(theta) - up * sin(theta)
        picture = np.full((240, 600, 3), 245, np.uint8)
        picture[y == 195] = 120
        picture[(abs(right) <= 30) & (abs(up) <= 15)] = 40, 50, 70
        picture[(0 <= along) & (along <= 120) & (abs(across) <= 4)] = 224, 152, 60
        return picture

    def ansi(self, Py_ssize_t environment):
        """The track from its one limit to the other, the cart, and the pole's lean in degrees."""
        track = ["-"] * 49
        track[min(max(round(10 * self.value(environment, X)) + 24, 0), 48)] = "#"
        lean = round(self.value(environment, THETA) * 180 / 3.141592653589793)
        side = "left" if lean < 0 else "right"
        return f"{''.join(track)}\npole {abs(lean)} degrees to the {side}\n"

# ---- dynamics, in lanes --------------------------------------------------------------------------

cdef LaneLoop push(Py_ssize_t count, const int32_t* actions, DoubleLane force) noexcept nogil:
    cdef Py_ssize_t e
    for e in range(count):
        force[e] = FORCE if actions[e] == 1 else -FORCE


cdef LaneLoop push_by(Py_ssize_t count, const float* actions, DoubleLane force) noexcept nogil:
    cdef Py_ssize_t e
    for e in range(count):
        force[e] = FORCE * actions[e]


cdef LaneLoop move(Py_ssize_t count, const double* force, const double* sine,
                   const double* cosine, DoubleLane x, DoubleLane x_dot, DoubleLane theta,
                   DoubleLane theta_dot, FloatLane observations) noexcept nogil:
    """One step of the carts; observations (count, FIELDS)."""
    cdef Py_ssize_t e
    cdef double moved, theta_acc, x_acc
    for e in range(count):
        moved = (force[e] + POLE_MOMENT * (theta_dot[e] * theta_dot[e]) * sine[e]) / MASS_TOTAL
        theta_acc = (GRAVITY * sine[e] - cosine[e] * moved) / (
            HALF_LENGTH * (4.0 / 3.0 - MASS_POLE * (cosine[e] * cosine[e]) / MASS_TOTAL))
        x_acc = moved - POLE_MOMENT * theta_acc * cosine[e] / MASS_TOTAL
        x[e] += TAU * x_dot[e]
        x_dot[e] += TAU * x_acc
        theta[e] += TAU * theta_dot[e]
        theta_dot[e] += TAU * theta_acc
        observations[FIELDS * e + X] = <float> x[e]
        observations[FIELDS * e + X_DOT] = <float> x_dot[e]
        observations[FIELDS * e + THETA] = <float> theta[e]
        observations[FIELDS * e + THETA_DOT] = <float> theta_dot[e]


cdef LaneLoop judge(Py_ssize_t count, const double* x, const double* theta,
                    const int32_t* lengths, int max_steps, FloatLane rewards,
                    ByteLane terminations, ByteLane truncations) noexcept nogil:
    """Who has fallen, left the track, or reached the limit."""
    cdef Py_ssize_t e
    for e in range(count):
        rewards[e] = 1.0
        terminations[e] = (fabs(x[e]) > X_LIMIT) | (fabs(theta[e]) > THETA_LIMIT)
        truncations[e] = lengths[e] + 1 >= max_steps
