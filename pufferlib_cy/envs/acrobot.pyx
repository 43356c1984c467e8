"""acrobot: Gymnasium's Acrobot-v1, in the same float64 arithmetic, to the last bit."""

cimport cython
from libc.math cimport cos, sin
from libc.stdint cimport int32_t
from pufferlib_cy cimport (
    ByteLane, DoubleLane, FloatLane, LaneLoop, NativeEnv, Rows, Slice, first_rows, next_block,
    uniform,
)
from pufferlib_cy.envs.libm_lanes cimport BLOCK, cosines, sines_and_cosines, squares
from pufferlib_cy.envs.numpy_scalars cimport cos_float32, sin_float32

import numpy as np
from gymnasium.spaces import Box, Discrete

cdef enum Field:
    # One array of E doubles each, in this order, in the room for the states.
    THETA1 = 0            # angle of the upper link, 0 hanging down, rad
    THETA2 = 1            # angle of the lower link from the upper one's direction, rad
    THETA1_DOT = 2        # rad/s
    THETA2_DOT = 3        # rad/s
    COS2 = 4              # of theta2: the observation's, which the next step needs again
    SIN2 = 5
    FIELDS = 6

cdef struct Motions:      # of some environments at a time
    double theta1[BLOCK]
    double theta2[BLOCK]
    double theta1_dot[BLOCK]
    double theta2_dot[BLOCK]
    double theta1_acc[BLOCK]              # rad/s^2
    double theta2_acc[BLOCK]

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
        super().__init__(Box(-high, high, dtype=np.float32), Discrete(3),
                         FIELDS * sizeof(double), lanes=True)

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
        cdef float* observation = <float*> rows.observations         # of one: (6,)
        cdef float first[4]
        cdef Py_ssize_t e, field
        for e in range(rows.count):
            for field in range(4):
                first[field] = <float> uniform(&rows.rng[e], -0.1, 0.1)
                self.lane(rows, <Field> field)[e] = first[field]
            # The first state is float32 there, and so its first observation.
            observation[0], observation[1] = cos_float32(first[0]), sin_float32(first[0])
            observation[2], observation[3] = cos_float32(first[1]), sin_float32(first[1])
            observation[4], observation[5] = first[2], first[3]
            observation += 6
        sines_and_cosines(rows.count, self.lane(rows, THETA2), self.lane(rows, SIN2),
                          self.lane(rows, COS2))

    cdef inline void step(self, Rows* rows) noexcept nogil:
        cdef double* theta1 = self.lane(rows, THETA1)
        cdef double* theta2 = self.lane(rows, THETA2)
        cdef double torque[BLOCK]                     # N m
        cdef double cos1[BLOCK]
        cdef double sin1[BLOCK]
        cdef double both[BLOCK]                       # theta1 + theta2, then its cosine
        cdef double cos_both[BLOCK]
        cdef Py_ssize_t e
        for e in range(rows.count):
            torque[e] = rows.actions[e] - 1
        runge_kutta(rows.count, torque, theta1, theta2, self.lane(rows, THETA1_DOT),
                    self.lane(rows, THETA2_DOT), self.lane(rows, COS2), self.lane(rows, SIN2))
        for e in range(rows.count):
            theta1[e], theta2[e] = wrap(theta1[e]), wrap(theta2[e])
            both[e] = theta2[e] + theta1[e]
        limit(rows.count, MAX_SPEED_1, self.lane(rows, THETA1_DOT))
        limit(rows.count, MAX_SPEED_2, self.lane(rows, THETA2_DOT))
        sines_and_cosines(rows.count, theta1, sin1, cos1)
        sines_and_cosines(rows.count, theta2, self.lane(rows, SIN2), self.lane(rows, COS2))
        cosines(rows.count, both, cos_both)
        show(rows.count, cos1, sin1, self.lane(rows, COS2), self.lane(rows, SIN2),
             self.lane(rows, THETA1_DOT), self.lane(rows, THETA2_DOT),
             <float*> rows.observations)
        judge(rows.count, cos1, cos_both, rows.lengths, self.max_steps, rows.rewards,
              rows.terminations, rows.truncations)

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
        cdef double* states = <double*> self.states
        cdef double theta1 = states[THETA1 * self.num_envs + environment]
        cdef double both = theta1 + states[THETA2 * self.num_envs + environment]
        x, y = sin(theta1), -cos(theta1)
        return [(0.0, 0.0), (x, y), (x + sin(both), y - cos(both))]


# ---- dynamics, in lanes --------------------------------------------------------------------------

cdef void runge_kutta(Py_ssize_t count, const double* torque, double* theta1, double* theta2,
                      double* theta1_dot, double* theta2_dot, const double* cos2,
                      const double* sin2) noexcept nogil:
    """Move on by TAU: one step of the classical method of order 4."""
    cdef Motions k1, k2, k3, k4
    copy(count, theta1, k1.theta1)
    copy(count, theta2, k1.theta2)
    copy(count, theta1_dot, k1.theta1_dot)
    copy(count, theta2_dot, k1.theta2_dot)
    accelerate(count, torque, cos2, sin2, &k1)
    follow(count, torque, TAU / 2.0, &k1, &k1, &k2)
    follow(count, torque, TAU / 2.0, &k1, &k2, &k3)
    follow(count, torque, TAU, &k1, &k3, &k4)
    advance_by_four(count, k1.theta1_dot, k2.theta1_dot, k3.theta1_dot, k4.theta1_dot, theta1)
    advance_by_four(count, k1.theta2_dot, k2.theta2_dot, k3.theta2_dot, k4.theta2_dot, theta2)
    advance_by_four(count, k1.theta1_acc, k2.theta1_acc, k3.theta1_acc, k4.theta1_acc, theta1_dot)
    advance_by_four(count, k1.theta2_acc, k2.theta2_acc, k3.theta2_acc, k4.theta2_acc, theta2_dot)


cdef void follow(Py_ssize_t count, const double* torque, double time, const Motions* start,
                 const Motions* slope, Motions* out) noexcept nogil:
    """The motions if `slope` lasted for some time from the start, with their accelerations."""
    cdef double cos2[BLOCK]
    cdef double sin2[BLOCK]
    advance(count, time, start.theta1, slope.theta1_dot, out.theta1)
    advance(count, time, start.theta2, slope.theta2_dot, out.theta2)
    advance(count, time, start.theta1_dot, slope.theta1_acc, out.theta1_dot)
    advance(count, time, start.theta2_dot, slope.theta2_acc, out.theta2_dot)
    sines_and_cosines(count, out.theta2, sin2, cos2)
    accelerate(count, torque, cos2, sin2, out)


cdef void accelerate(Py_ssize_t count, const double* torque, const double* cos2,
                     const double* sin2, Motions* motions) noexcept nogil:
    """The accelerations of motions."""
    cdef double upper[BLOCK]                          # angles from the horizontal, rad
    cdef double lower[BLOCK]
    cdef double cos_upper[BLOCK]
    cdef double cos_lower[BLOCK]
    cdef double d2[BLOCK]
    cdef double d2_squared[BLOCK]
    cdef double speed1_squared[BLOCK]
    cdef double speed2_squared[BLOCK]
    prepare(count, motions.theta1, motions.theta2, cos2, upper, lower, d2)
    cosines(count, upper, cos_upper)
    cosines(count, lower, cos_lower)
    squares(count, d2, d2_squared, TWO)
    squares(count, motions.theta1_dot, speed1_squared, TWO)
    squares(count, motions.theta2_dot, speed2_squared, TWO)
    solve(count, torque, cos2, sin2, cos_upper, cos_lower, d2, d2_squared, speed1_squared,
          speed2_squared, motions.theta1_dot, motions.theta2_dot, motions.theta1_acc,
          motions.theta2_acc)


cdef LaneLoop prepare(Py_ssize_t count, const double* theta1, const double* theta2,
                      const double* cos2, DoubleLane upper, DoubleLane lower,
                      DoubleLane d2) noexcept nogil:
    cdef Py_ssize_t e
    for e in range(count):
        upper[e] = theta1[e] - QUARTER
        lower[e] = theta1[e] + theta2[e] - QUARTER
        d2[e] = 0.25 + 0.5 * cos2[e] + 1.0


cdef LaneLoop solve(Py_ssize_t count, const double* torque, const double* cos2, const double* sin2,
                    const double* cos_upper, const double* cos_lower, const double* d2,
                    const double* d2_squared, const double* speed1_squared,
                    const double* speed2_squared, const double* theta1_dot,
                    const double* theta2_dot, DoubleLane theta1_acc,
                    DoubleLane theta2_acc) noexcept nogil:
    """The book's equations, rounded in Gymnasium's order; products with 1 are left out."""
    cdef Py_ssize_t e
    cdef double d1, phi1, phi2, acc
    for e in range(count):
        d1 = 0.25 + (1.25 + cos2[e]) + 1.0 + 1.0
        phi2 = WEIGHT_2 * cos_lower[e]
        phi1 = (-0.5 * speed2_squared[e] * sin2[e] - theta2_dot[e] * theta1_dot[e] * sin2[e]
                + WEIGHT_1 * cos_upper[e] + phi2)
        acc = (torque[e] + d2[e] / d1 * phi1 - 0.5 * speed1_squared[e] * sin2[e] - phi2) / (
            1.25 - d2_squared[e] / d1)
        theta1_acc[e] = -(d2[e] * acc + phi1) / d1
        theta2_acc[e] = acc


cdef LaneLoop copy(Py_ssize_t count, const double* x, DoubleLane out) noexcept nogil:
    cdef Py_ssize_t e
    for e in range(count):
        out[e] = x[e]


cdef LaneLoop advance(Py_ssize_t count, double time, const double* x, const double* slope,
                      DoubleLane out) noexcept nogil:
    cdef Py_ssize_t e
    for e in range(count):
        out[e] = x[e] + time * slope[e]


cdef LaneLoop advance_by_four(Py_ssize_t count, const double* k1, const double* k2,
                              const double* k3, const double* k4, DoubleLane x) noexcept nogil:
    cdef Py_ssize_t e
    for e in range(count):
        x[e] += TAU / 6.0 * (k1[e] + 2.0 * k2[e] + 2.0 * k3[e] + k4[e])


cdef LaneLoop limit(Py_ssize_t count, double most, DoubleLane x) noexcept nogil:
    cdef Py_ssize_t e
    for e in range(count):
        x[e] = min(max(x[e], -most), most)


cdef LaneLoop show(Py_ssize_t count, const double* cos1, const double* sin1, const double* cos2,
                   const double* sin2, const double* theta1_dot, const double* theta2_dot,
                   FloatLane observations) noexcept nogil:
    """What the agent sees; observations (count, 6)."""
    cdef Py_ssize_t e
    for e in range(count):
        observations[6 * e] = <float> cos1[e]
        observations[6 * e + 1] = <float> sin1[e]
        observations[6 * e + 2] = <float> cos2[e]
        observations[6 * e + 3] = <float> sin2[e]
        observations[6 * e + 4] = <float> theta1_dot[e]
        observations[6 * e + 5] = <float> theta2_dot[e]


cdef LaneLoop judge(Py_ssize_t count, const double* cos1, const double* cos_both,
                    const int32_t* lengths, int max_steps, FloatLane rewards,
                    ByteLane terminations, ByteLane truncations) noexcept nogil:
    """Who is up, or has reached the limit."""
    cdef Py_ssize_t e
    for e in range(count):
        rewards[e] = 0.0 if -cos1[e] - cos_both[e] > 1.0 else -1.0
        terminations[e] = -cos1[e] - cos_both[e] > 1.0
        truncations[e] = lengths[e] + 1 >= max_steps


cdef inline double wrap(double angle) noexcept nogil:
    """The angle in [-pi, pi], by whole turns."""
    while angle > PI:
        angle -= TURN
    while angle < -PI:
        angle += TURN
    return angle
