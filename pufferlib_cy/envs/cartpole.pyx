"""cartpole: Gymnasium's CartPole-v1, in the same float64 arithmetic, to the last bit."""

cimport cython
from libc.math cimport cos, sin
from pufferlib_cy cimport NativeEnv, Rows, STEP, Slice, first_rows, next_rows, uniform

import numpy as np
from gymnasium.spaces import Box, Discrete

cdef struct State:
    double x          # cart position, m
    double x_dot      # m/s
    double theta      # pole angle from upright, rad
    double theta_dot  # rad/s
    double sine       # of theta, as a step begins
    double cosine
    int steps         # since the reset

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
        super().__init__(Box(-high, high, dtype=np.float32), actions, sizeof(State))

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        cdef State* states = <State*> slice.states
        cdef Py_ssize_t e
        # A loop of its own: in the step, the processor would wait for each sine; here it works on
        # those of several environments at once.
        if slice.command == STEP:
            for e in range(slice.count):
                states[e].sine = sin(states[e].theta)
                states[e].cosine = cos(states[e].theta)
        while next_rows(&rows):
            if rows.starting:
                self.reset(<State*> rows.state, &rows)
            else:
                self.step(<State*> rows.state, &rows)

    cdef inline void reset(self, State* state, Rows* rows) noexcept nogil:
        state.x = uniform(rows.rng, -0.05, 0.05)
        state.x_dot = uniform(rows.rng, -0.05, 0.05)
        state.theta = uniform(rows.rng, -0.05, 0.05)
        state.theta_dot = uniform(rows.rng, -0.05, 0.05)
        state.steps = 0
        self.observe(state, <float*> rows.observations)

    cdef inline void step(self, State* state, Rows* rows) noexcept nogil:
        cdef double sine = state.sine, cosine = state.cosine
        cdef double force, push, theta_acc, x_acc
        if self.continuous:
            force = FORCE * rows.continuous_actions[0]
        else:
            force = FORCE if rows.actions[0] == 1 else -FORCE
        push = (force + POLE_MOMENT * (state.theta_dot * state.theta_dot) * sine) / MASS_TOTAL
        theta_acc = (GRAVITY * sine - cosine * push) / (
            HALF_LENGTH * (4.0 / 3.0 - MASS_POLE * (cosine * cosine) / MASS_TOTAL))
        x_acc = push - POLE_MOMENT * theta_acc * cosine / MASS_TOTAL
        state.x += TAU * state.x_dot
        state.x_dot += TAU * x_acc
        state.theta += TAU * state.theta_dot
        state.theta_dot += TAU * theta_acc
        state.steps += 1
        rows.rewards[0] = 1.0
        rows.terminations[0] = (state.x < -X_LIMIT or state.x > X_LIMIT
                                or state.theta < -THETA_LIMIT or state.theta > THETA_LIMIT)
        rows.truncations[0] = state.steps >= self.max_steps
        self.observe(state, <float*> rows.observations)

    cdef inline void observe(self, State* state, float* observation) noexcept nogil:
        observation[0] = <float> state.x
        observation[1] = <float> state.x_dot
        observation[2] = <float> state.theta
        observation[3] = <float> state.theta_dot

    def render(self, Py_ssize_t environment):
        """Cart, pole (1 m) and track, 120 pixels a metre: uint8 (240, 600, 3)."""
        cdef State* state = <State*> self.state_of(environment)
        y, x = np.mgrid[0:240, 0:600]
        right, up = x - 300 - 120 * state.x, 180 - y                # from the pole's foot, pixels
        along = right * sin(state.theta) + up * cos(state.theta)
        across = right * cos(state.theta) - up * sin(state.theta)
        picture = np.full((240, 600, 3), 245, np.uint8)
        picture[y == 195] = 120
        picture[(abs(right) <= 30) & (abs(up) <= 15)] = 40, 50, 70
        picture[(0 <= along) & (along <= 120) & (abs(across) <= 4)] = 224, 152, 60
        return picture

    def ansi(self, Py_ssize_t environment):
        """The track from its one limit to the other, the cart, and the pole's lean in degrees."""
        cdef State* state = <State*> self.state_of(environment)
        track = ["-"] * 49
        track[min(max(round(10 * state.x) + 24, 0), 48)] = "#"
        lean = round(state.theta * 180 / 3.141592653589793)
        side = "left" if lean < 0 else "right"
        return f"{''.join(track)}\npole {abs(lean)} degrees to the {side}\n"
