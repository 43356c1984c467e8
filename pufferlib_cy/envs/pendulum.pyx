"""pendulum: Gymnasium's Pendulum-v1, in the same float64 and float32 arithmetic, to the bit."""

cimport cython
from libc.math cimport cos, fmod, isfinite, sin
from pufferlib_cy cimport NativeEnv, Rows, Slice, first_rows, next_rows, uniform
from pufferlib_cy.envs.numpy_scalars cimport square, square_float32

import numpy as np
from gymnasium.spaces import Box

cdef struct State:
    double theta      # angle from upright, rad; not wrapped
    double theta_dot  # rad/s
    double sine       # of theta: the observation's, which the next step needs again
    int steps         # since the reset

cdef double PI = 3.141592653589793
cdef double TURN = 2 * 3.141592653589793      # rad
cdef double MAX_SPEED = 8.0                   # rad/s
cdef double MAX_TORQUE = 2.0                  # N m
cdef double TAU = 0.05                        # s
cdef double TWO = 2.0
cdef enum: SIDE = 500                         # of the picture, pixels


@cython.final
cdef class Pendulum(NativeEnv):
    """Swing a pendulum of 1 kg and 1 m up with too weak a motor and hold it there.

    Observation: float32 (3,), cos(theta), sin(theta), theta_dot, where theta is 0 upright. Action:
    Box(-2, 2, (1,)), the torque in N m. Reward: -(theta^2 + 0.1 theta_dot^2 + 0.001 torque^2) with
    the theta in [-pi, pi) and theta_dot before the step. First theta uniform in [-pi, pi),
    theta_dot in [-1, 1). Nothing terminates; `max_steps` steps truncate. `g`: gravity, m/s^2.

    The same as Gymnasium's under NumPy 2: there terms with the torque alone are float32.
    """
    cdef double gravity_term                  # rad/s^2 at an angle of 90 degrees
    cdef int max_steps
    render_fps = 30

    def __init__(self, double g=10.0, int max_steps=200):
        if not isfinite(g):
            raise ValueError(f"pendulum: g is a finite number of m/s^2, not {g}")
        if max_steps < 1:
            raise ValueError(f"pendulum: max_steps is at least 1, not {max_steps}")
        self.gravity_term = 3.0 * g / 2.0
        self.max_steps = max_steps
        high = np.array([1.0, 1.0, MAX_SPEED], np.float32)
        torque = Box(-MAX_TORQUE, MAX_TORQUE, (1,), np.float32)
        super().__init__(Box(-high, high, dtype=np.float32), torque, sizeof(State))

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_rows(&rows):
            if rows.starting:
                self.reset(<State*> rows.state, &rows)
            else:
                self.step(<State*> rows.state, &rows)
            self.observe(<State*> rows.state, <float*> rows.observations)

    cdef inline void reset(self, State* state, Rows* rows) noexcept nogil:
        state.theta = uniform(rows.rng, -PI, PI)
        state.theta_dot = uniform(rows.rng, -1.0, 1.0)
        state.steps = 0

    cdef inline void step(self, State* state, Rows* rows) noexcept nogil:
        cdef double theta_dot = state.theta_dot
        cdef float torque = rows.continuous_actions[0]
        rows.rewards[0] = <float> -(
            square(wrap(state.theta), TWO) + 0.1 * square(theta_dot, TWO)
            + <float> 0.001 * square_float32(torque, <float> TWO))
        theta_dot += (self.gravity_term * state.sine + <float> 3.0 * torque) * TAU
        theta_dot = min(max(theta_dot, -MAX_SPEED), MAX_SPEED)
        state.theta += theta_dot * TAU
        state.theta_dot = theta_dot
        state.steps += 1
        rows.truncations[0] = state.steps >= self.max_steps

    cdef inline void observe(self, State* state, float* observation) noexcept nogil:
        state.sine = sin(state.theta)
        observation[0] = <float> cos(state.theta)
        observation[1] = <float> state.sine
        observation[2] = <float> state.theta_dot

    def render(self, Py_ssize_t environment):
        """The pendulum and its circle: uint8 (500, 500, 3)."""
        try:
            from PIL import Image, ImageDraw
        except ImportError as error:
            raise ImportError('pendulum: rendering needs Pillow: '
                              'pip install "pufferlib_cy[render]"') from error
        cdef State* state = <State*> self.state_of(environment)
        # Drawn twice as large and scaled down, so that edges are smooth.
        centre, length = (SIDE, SIDE), 0.7 * SIDE
        tip = (SIDE - length * sin(state.theta), SIDE - length * cos(state.theta))
        image = Image.new("RGB", (2 * SIDE, 2 * SIDE), (24, 27, 38))
        draw = ImageDraw.Draw(image)
        draw.circle(centre, length, outline=(52, 57, 76), width=4)
        draw.circle((SIDE, SIDE - length), 22, fill=(64, 148, 112))          # the goal
        draw.line([centre, tip], fill=(226, 120, 88), width=44)
        for point, radius, colour in ((centre, 22, (226, 120, 88)), (tip, 44, (242, 178, 92)),
                                      (centre, 10, (24, 27, 38))):
            draw.circle(point, radius, fill=colour)
        return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS))

    def ansi(self, Py_ssize_t environment):
        """The pendulum in 29 by 15 characters: + the axle, O the end."""
        cdef State* state = <State*> self.state_of(environment)
        picture = [[" "] * 29 for _ in range(15)]
        for i in range(8):
            line, column = 7 - i * cos(state.theta), 14 - 2 * i * sin(state.theta)
            picture[round(line)][round(column)] = "+" if i == 0 else "O" if i == 7 else "*"
        return "\n".join("".join(line).rstrip() for line in picture) + "\n"


cdef inline double wrap(double theta) noexcept nogil:
    """The angle in [-pi, pi): ``(theta + pi) % (2 * pi) - pi`` with Python's remainder."""
    cdef double angle = theta + PI
    if not -TURN < angle < TURN:
        angle = fmod(angle, TURN)
    if angle < 0.0:
        angle += TURN
    return angle - PI
