"""acrobot: Gymnasium's Acrobot-v1, in the same float64 arithmetic, to the last bit."""

cimport cython
from libc.math cimport cos, sin
from pufferlib_cy cimport NativeEnv, Rows, Slice, first_rows, next_rows, uniform
from pufferlib_cy.envs.numpy_scalars cimport cos_float32, sin_float32, square

import numpy as np
from gymnasium.spaces import Box, Discrete

cdef struct Motion:       # a state, or its derivative by time
    double theta1         # angle of the upper link, 0 hanging down, rad
    double theta2         # angle of the lower link from the upper one's direction, rad
    double theta1_dot     # rad/s
    double theta2_dot     # rad/s

cdef struct State:
    Motion motion
    double cos2, sin2     # of theta2: the observation's, which the next step needs again
    int steps             # since the reset

# Sutton 1996, "Generalization in reinforcement learning", with Gymnasium's numbers: both links have
# 1 m, 1 kg, the centre of mass in the middle and a moment of inertia of 1 kg m^2, so that most
# factors are 1 and left out.
cdef double PI = 3.141592653589793
cdef double QUARTER = 3.141592653589793 / 2.0          # rad
cdef double TURN = 2 * 3.141592653589793               # rad
cdef double MAX_SPEED_1 = 4 * 3.141592653589793        # rad/s
cdef double MAX_SPEED_2 = 9 * 3.141592653589793        # rad/s
cdef double WEIGHT_1 = 1.5 * 9.8                       # N m, of both links about the fixed end
cdef double WEIGHT_2 = 0.5 * 9.8                       # N m, of the lower link about the joint
cdef double TAU = 0.2                                  # s
cdef double TWO = 2.0
cdef enum: SIDE = 500                                  # of the picture, pixels


@cython.final
cdef class Acrobot(NativeEnv):
    """Swing two hanging links up by the motor between them: -1 per step, 0 for the last.

    Observation: float32 (6,), cos and sin of theta1, cos and sin of theta2, theta1_dot, theta2_dot;
    theta1 is the upper link's angle, 0 hanging down, theta2 the lower link's from the upper's.
    Action: Discrete(3), a torque of -1, 0 or 1 N m. All four start uniform in [-0.1, 0.1), as
    float32. The lower end above the fixed one by more than 1 m, one link, terminates; `max_steps`
    steps truncate (both, if they meet).
    """
    cdef int max_steps
    action_names = ("left", "none", "right")
    render_fps = 15

    def __init__(self, int max_steps=500):
        if max_steps < 1:
            raise ValueError(f"acrobot: max_steps is at least 1, not {max_steps}")
        self.max_steps = max_steps
        high = np.array([1.0, 1.0, 1.0, 1.0, MAX_SPEED_1, MAX_SPEED_2], np.float32)
        super().__init__(Box(-high, high, dtype=np.float32), Discrete(3), sizeof(State))

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_rows(&rows):
            if rows.starting:
                self.reset(<State*> rows.state, &rows)
            else:
                self.step(<State*> rows.state, &rows)

    cdef inline void reset(self, State* state, Rows* rows) noexcept nogil:
        cdef float theta1 = <float> uniform(rows.rng, -0.1, 0.1)
        cdef float theta2 = <float> uniform(rows.rng, -0.1, 0.1)
        cdef float theta1_dot = <float> uniform(rows.rng, -0.1, 0.1)
        cdef float theta2_dot = <float> uniform(rows.rng, -0.1, 0.1)
        cdef float* observation = <float*> rows.observations
        state.motion = Motion(theta1, theta2, theta1_dot, theta2_dot)
        state.cos2, state.sin2 = cos(state.motion.theta2), sin(state.motion.theta2)
        state.steps = 0
        # The first state is float32 there, and so its first observation.
        observation[0], observation[1] = cos_float32(theta1), sin_float32(theta1)
        observation[2], observation[3] = cos_float32(theta2), sin_float32(theta2)
        observation[4], observation[5] = theta1_dot, theta2_dot

    cdef inline void step(self, State* state, Rows* rows) noexcept nogil:
        cdef float* observation = <float*> rows.observations
        cdef Motion motion = runge_kutta(state, rows.actions[0] - 1)
        motion.theta1, motion.theta2 = wrap(motion.theta1), wrap(motion.theta2)
        motion.theta1_dot = min(max(motion.theta1_dot, -MAX_SPEED_1), MAX_SPEED_1)
        motion.theta2_dot = min(max(motion.theta2_dot, -MAX_SPEED_2), MAX_SPEED_2)
        state.motion = motion
        state.cos2, state.sin2 = cos(motion.theta2), sin(motion.theta2)
        state.steps += 1
        cdef double cos1 = cos(motion.theta1)
        cdef bint up = -cos1 - cos(motion.theta2 + motion.theta1) > 1.0
        rows.rewards[0] = 0.0 if up else -1.0
        rows.terminations[0] = up
        rows.truncations[0] = state.steps >= self.max_steps
        observation[0], observation[1] = <float> cos1, <float> sin(motion.theta1)
        observation[2], observation[3] = <float> state.cos2, <float> state.sin2
        observation[4], observation[5] = <float> motion.theta1_dot, <float> motion.theta2_dot

    def render(self, Py_ssize_t environment):
        """The links and the height to reach: uint8 (500, 500, 3)."""
        try:
            from PIL import Image, ImageDraw
        except ImportError as error:
            raise ImportError('acrobot: rendering needs Pillow: '
                              'pip install "pufferlib_cy[render]"') from error
        # Drawn twice as large and scaled down, so that edges are smooth.
        scale = 2 * SIDE / 4.6                                 # pixels per m
        points = [(SIDE + scale * x, SIDE - scale * y) for x, y in self.joints(environment)]
        image = Image.new("RGB", (2 * SIDE, 2 * SIDE), (24, 27, 38))
        draw = ImageDraw.Draw(image)
        for x in range(0, 2 * SIDE, 40):                       # dashes
            draw.line([(x, SIDE - scale), (x + 20, SIDE - scale)], fill=(64, 148, 112), width=5)
        for ends, colour in ((points[:2], (70, 130, 180)), (points[1:], (104, 170, 214))):
            draw.line(ends, fill=colour, width=36)
        for point, radius, colour in zip(points, (26, 26, 18), (
                (196, 200, 212), (242, 178, 92), (104, 170, 214)), strict=True):
            draw.circle(point, radius, fill=colour)
        return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS))

    def ansi(self, Py_ssize_t environment):
        """The links in 49 by 25 characters: + the fixed end, o the joint, O the end, - the goal."""
        picture = [[" "] * 49 for _ in range(25)]
        picture[6] = ["-"] * 49
        points = self.joints(environment)
        for start, end in ((0, 1), (1, 2)):
            for part in np.linspace(0, 1, 25):
                x, y = (1 - part) * np.array(points[start]) + part * np.array(points[end])
                picture[round(12 - 6 * y)][round(24 + 12 * x)] = "*"
        for (x, y), what in zip(points, "+oO", strict=True):
            picture[round(12 - 6 * y)][round(24 + 12 * x)] = what
        return "\n".join("".join(line).rstrip() for line in picture) + "\n"

    def joints(self, Py_ssize_t environment):
        """The fixed end, the joint and the lower end: three (x, y), m, y upwards."""
        cdef Motion* motion = &(<State*> self.state_of(environment)).motion
        x, y = sin(motion.theta1), -cos(motion.theta1)
        both = motion.theta1 + motion.theta2
        return [(0.0, 0.0), (x, y), (x + sin(both), y - cos(both))]


# ---- dynamics ------------------------------------------------------------------------------------

cdef inline Motion runge_kutta(const State* state, double torque) noexcept nogil:
    """The motion TAU later: one step of the classical method of order 4."""
    cdef Motion start = state.motion
    cdef Motion k1 = derivative(start, state.cos2, state.sin2, torque)
    cdef Motion k2 = derivative_at(advanced(start, TAU / 2.0, k1), torque)
    cdef Motion k3 = derivative_at(advanced(start, TAU / 2.0, k2), torque)
    cdef Motion k4 = derivative_at(advanced(start, TAU, k3), torque)
    return advanced(start, TAU / 6.0, Motion(
        k1.theta1 + 2.0 * k2.theta1 + 2.0 * k3.theta1 + k4.theta1,
        k1.theta2 + 2.0 * k2.theta2 + 2.0 * k3.theta2 + k4.theta2,
        k1.theta1_dot + 2.0 * k2.theta1_dot + 2.0 * k3.theta1_dot + k4.theta1_dot,
        k1.theta2_dot + 2.0 * k2.theta2_dot + 2.0 * k3.theta2_dot + k4.theta2_dot))


cdef inline Motion advanced(Motion motion, double time, Motion slope) noexcept nogil:
    return Motion(motion.theta1 + time * slope.theta1,
                  motion.theta2 + time * slope.theta2,
                  motion.theta1_dot + time * slope.theta1_dot,
                  motion.theta2_dot + time * slope.theta2_dot)


cdef inline Motion derivative_at(Motion motion, double torque) noexcept nogil:
    return derivative(motion, cos(motion.theta2), sin(motion.theta2), torque)


cdef inline Motion derivative(Motion motion, double cos2, double sin2,
                              double torque) noexcept nogil:
    """The book's equations, rounded in Gymnasium's order; products with 1 are left out."""
    cdef double d1 = 0.25 + (1.25 + cos2) + 1.0 + 1.0
    cdef double d2 = 0.25 + 0.5 * cos2 + 1.0
    cdef double phi2 = WEIGHT_2 * cos(motion.theta1 + motion.theta2 - QUARTER)
    cdef double phi1 = (-0.5 * square(motion.theta2_dot, TWO) * sin2
                        - motion.theta2_dot * motion.theta1_dot * sin2
                        + WEIGHT_1 * cos(motion.theta1 - QUARTER) + phi2)
    cdef double theta2_acc = (
        torque + d2 / d1 * phi1 - 0.5 * square(motion.theta1_dot, TWO) * sin2 - phi2
    ) / (1.25 - square(d2, TWO) / d1)
    return Motion(motion.theta1_dot, motion.theta2_dot, -(d2 * theta2_acc + phi1) / d1, theta2_acc)


cdef inline double wrap(double angle) noexcept nogil:
    """The angle in [-pi, pi], by whole turns."""
    while angle > PI:
        angle -= TURN
    while angle < -PI:
        angle += TURN
    return angle
