"""acrobot: Gymnasium's Acrobot-v1, in the same float64 arithmetic, to the last bit."""

cimport cython
from libc.math cimport cos, fabs, sin
from libc.stdint cimport int32_t, int64_t
from pufferlib_cy cimport (
    ByteLane, DoubleLane, FloatLane, LaneLoop, NativeEnv, Rows, Slice, first_rows, next_block,
    uniform,
)
from pufferlib_cy.envs.libm_lanes cimport (
    BLOCK, BlockDouble, cosines, near_sines_and_cosines, sines_and_cosines, squares,
)
from pufferlib_cy.envs.numpy_scalars cimport cos_float32, sin_float32

import numpy as np
from gymnasium.spaces import Box, Discrete

cdef extern from *:
    """
    /* Two float32 stored as one number, so that a loop over rows of six stores three. */
    #if defined(__GNUC__)
    typedef int64_t pufferlib_cy_pair __attribute__((may_alias));
    #else
    typedef int64_t pufferlib_cy_pair;
    #endif
    static inline int64_t pufferlib_cy_pair_of(float first, float second) {
        uint32_t a, b;
        memcpy(&a, &first, 4);
        memcpy(&b, &second, 4);
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        return (int64_t) (b | (uint64_t) a << 32);
    #else
        return (int64_t) (a | (uint64_t) b << 32);
    #endif
    }
    """
    ctypedef int64_t* PairLane "pufferlib_cy_pair* __restrict"
    int64_t pair "pufferlib_cy_pair_of"(float first, float second) noexcept nogil

cdef enum Field:
    # One array of E doubles each, in this order, in the room for the states.
    THETA1 = 0            # angle of the upper link, 0 hanging down, rad
    THETA2 = 1            # angle of the lower link from the upper one's direction, rad
    THETA1_DOT = 2        # rad/s
    THETA2_DOT = 3        # rad/s
    COS2 = 4              # of theta2: the observation's, which the next step needs again
    SIN2 = 5
    FIELDS = 6

cdef struct Slopes:       # of the motions of some environments
    # `accelerate` squares the first three as one array.
    BlockDouble d2[BLOCK]                 # kg m^2, the book's name
    BlockDouble speed1[BLOCK]             # rad/s
    BlockDouble speed2[BLOCK]
    BlockDouble acc1[BLOCK]               # rad/s^2
    BlockDouble acc2[BLOCK]

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
cdef double ERROR = 8.881784197001252e-16              # 2**-50
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
        cdef double* theta1_dot = self.lane(rows, THETA1_DOT)
        cdef double* theta2_dot = self.lane(rows, THETA2_DOT)
        cdef BlockDouble torque[BLOCK]                     # N m
        cdef BlockDouble cos1[BLOCK]
        cdef BlockDouble sin1[BLOCK]
        cdef double* cos2 = self.lane(rows, COS2)
        cdef double* sin2 = self.lane(rows, SIN2)
        cdef bint unsure
        cdef Py_ssize_t e
        choose(rows.count, rows.actions, torque)
        runge_kutta(rows.count, torque, theta1, theta2, theta1_dot, theta2_dot, cos2, sin2)
        near_sines_and_cosines(rows.count, theta1, sin1, cos1)
        sines_and_cosines(rows.count, theta2, sin2, cos2)
        self.show_and_judge(rows, cos1, sin1, &unsure)
        if unsure:
            sines_and_cosines(rows.count, theta1, sin1, cos1)
            self.show_and_judge(rows, cos1, sin1, &unsure)
            for e in range(rows.count):
                rows.terminations[e] = -cos1[e] - cos(theta2[e] + theta1[e]) > 1.0
                rows.rewards[e] = 0.0 if rows.terminations[e] else -1.0

    cdef inline void show_and_judge(self, Rows* rows, const double* cos1, const double* sin1,
                                    bint* unsure) noexcept nogil:
        cdef double* cos2 = self.lane(rows, COS2)
        cdef double* sin2 = self.lane(rows, SIN2)
        show(rows.count, cos1, sin1, cos2, sin2, self.lane(rows, THETA1_DOT),
             self.lane(rows, THETA2_DOT), <PairLane> rows.observations)
        judge(rows.count, cos1, sin1, cos2, sin2, rows.lengths, self.max_steps, rows.rewards,
              rows.terminations, rows.truncations, unsure)

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

cdef LaneLoop choose(Py_ssize_t count, const int32_t* actions, DoubleLane torque) noexcept nogil:
    cdef Py_ssize_t e
    for e in range(count):
        torque[e] = actions[e] - 1


cdef void runge_kutta(Py_ssize_t count, const double* torque, double* theta1, double* theta2,
                      double* theta1_dot, double* theta2_dot, const double* cos2,
                      const double* sin2) noexcept nogil:
    """Move on by TAU: one step of the classical method of order 4."""
    cdef Slopes k1, k2, k3, k4
    cdef BlockDouble upper[BLOCK]                     # angles from the horizontal, rad
    cdef BlockDouble lower[BLOCK]
    start(count, theta1, theta2, theta1_dot, theta2_dot, k1.speed1, k1.speed2, upper, lower)
    accelerate(count, torque, cos2, sin2, upper, lower, &k1)
    follow(count, torque, TAU / 2.0, theta1, theta2, theta1_dot, theta2_dot, &k1, &k2)
    follow(count, torque, TAU / 2.0, theta1, theta2, theta1_dot, theta2_dot, &k2, &k3)
    follow(count, torque, TAU, theta1, theta2, theta1_dot, theta2_dot, &k3, &k4)
    finish(count, &k1, &k2, &k3, &k4, theta1, theta2, theta1_dot, theta2_dot)


cdef void follow(Py_ssize_t count, const double* torque, double time, const double* theta1,
                 const double* theta2, const double* theta1_dot, const double* theta2_dot,
                 const Slopes* slopes, Slopes* out) noexcept nogil:
    """The slopes where the motions would be if `slopes` lasted for some time."""
    cdef BlockDouble angle2[BLOCK]
    cdef BlockDouble cos2[BLOCK]
    cdef BlockDouble sin2[BLOCK]
    cdef BlockDouble upper[BLOCK]
    cdef BlockDouble lower[BLOCK]
    advance(count, time, theta1, theta2, theta1_dot, theta2_dot, slopes, out.speed1, out.speed2,
            angle2, upper, lower)
    sines_and_cosines(count, angle2, sin2, cos2)
    accelerate(count, torque, cos2, sin2, upper, lower, out)


cdef void accelerate(Py_ssize_t count, const double* torque, const double* cos2,
                     const double* sin2, const double* upper, const double* lower,
                     Slopes* slopes) noexcept nogil:
    """The slopes of the speeds, given those of the angles, which are the speeds."""
    cdef BlockDouble cos_upper[BLOCK]
    cdef BlockDouble cos_lower[BLOCK]
    cdef BlockDouble squared[3 * BLOCK]               # d2, and both speeds
    cosines(count, upper, cos_upper)
    cosines(count, lower, cos_lower)
    add_inertia(count, cos2, slopes.d2)
    if count == BLOCK:
        squares(3 * BLOCK, slopes.d2, squared)        # at once: the arrays lie side by side
    else:
        squares(count, slopes.d2, squared)
        squares(count, slopes.speed1, squared + BLOCK)
        squares(count, slopes.speed2, squared + 2 * BLOCK)
    solve(count, torque, cos2, sin2, cos_upper, cos_lower, slopes.d2, squared, squared + BLOCK,
          squared + 2 * BLOCK, slopes.speed1, slopes.speed2, slopes.acc1, slopes.acc2)


cdef LaneLoop start(Py_ssize_t count, const double* theta1, const double* theta2,
                    const double* theta1_dot, const double* theta2_dot, DoubleLane slope1,
                    DoubleLane slope2, DoubleLane upper, DoubleLane lower) noexcept nogil:
    cdef Py_ssize_t e
    for e in range(count):
        slope1[e] = theta1_dot[e]
        slope2[e] = theta2_dot[e]
        upper[e] = theta1[e] - QUARTER
        lower[e] = theta1[e] + theta2[e] - QUARTER


cdef LaneLoop advance(Py_ssize_t count, double time, const double* theta1, const double* theta2,
                      const double* theta1_dot, const double* theta2_dot, const Slopes* slopes,
                      DoubleLane speed1, DoubleLane speed2, DoubleLane angle2, DoubleLane upper,
                      DoubleLane lower) noexcept nogil:
    cdef Py_ssize_t e
    cdef double angle1
    for e in range(count):
        angle1 = theta1[e] + time * slopes.speed1[e]
        angle2[e] = theta2[e] + time * slopes.speed2[e]
        speed1[e] = theta1_dot[e] + time * slopes.acc1[e]
        speed2[e] = theta2_dot[e] + time * slopes.acc2[e]
        upper[e] = angle1 - QUARTER
        lower[e] = angle1 + angle2[e] - QUARTER


cdef LaneLoop add_inertia(Py_ssize_t count, const double* cos2, DoubleLane d2) noexcept nogil:
    cdef Py_ssize_t e
    for e in range(count):
        d2[e] = 0.25 + 0.5 * cos2[e] + 1.0


cdef LaneLoop solve(Py_ssize_t count, const double* torque, const double* cos2, const double* sin2,
                    const double* cos_upper, const double* cos_lower, const double* d2,
                    const double* d2_squared, const double* speed1_squared,
                    const double* speed2_squared, const double* speed1, const double* speed2,
                    DoubleLane acc1, DoubleLane acc2) noexcept nogil:
    """The book's equations, rounded in Gymnasium's order; products with 1 are left out."""
    cdef Py_ssize_t e
    cdef double d1, phi1, phi2, acc
    for e in range(count):
        d1 = 0.25 + (1.25 + cos2[e]) + 1.0 + 1.0
        phi2 = WEIGHT_2 * cos_lower[e]
        phi1 = (-0.5 * speed2_squared[e] * sin2[e] - speed2[e] * speed1[e] * sin2[e]
                + WEIGHT_1 * cos_upper[e] + phi2)
        acc = (torque[e] + d2[e] / d1 * phi1 - 0.5 * speed1_squared[e] * sin2[e] - phi2) / (
            1.25 - d2_squared[e] / d1)
        acc1[e] = -(d2[e] * acc + phi1) / d1
        acc2[e] = acc


cdef void finish(Py_ssize_t count, const Slopes* k1, const Slopes* k2, const Slopes* k3,
                 const Slopes* k4, double* theta1, double* theta2, double* theta1_dot,
                 double* theta2_dot) noexcept nogil:
    """Move on, wrap the angles and limit the speeds."""
    cdef bint far
    cdef Py_ssize_t e
    move(count, k1, k2, k3, k4, theta1, theta2, theta1_dot, theta2_dot, &far)
    if far:
        for e in range(count):
            theta1[e], theta2[e] = wrap(theta1[e]), wrap(theta2[e])


cdef LaneLoop move(Py_ssize_t count, const Slopes* k1, const Slopes* k2, const Slopes* k3,
                   const Slopes* k4, DoubleLane theta1, DoubleLane theta2, DoubleLane theta1_dot,
                   DoubleLane theta2_dot, bint* far) noexcept nogil:
    """Angles are wrapped by one turn, `far` if that is not enough; speeds are limited."""
    cdef Py_ssize_t e
    cdef double angle1, angle2, speed1, speed2
    cdef int more = 0
    for e in range(count):
        angle1 = by_one_turn(theta1[e] + TAU / 6.0 * (
            k1.speed1[e] + 2.0 * k2.speed1[e] + 2.0 * k3.speed1[e] + k4.speed1[e]))
        angle2 = by_one_turn(theta2[e] + TAU / 6.0 * (
            k1.speed2[e] + 2.0 * k2.speed2[e] + 2.0 * k3.speed2[e] + k4.speed2[e]))
        speed1 = theta1_dot[e] + TAU / 6.0 * (k1.acc1[e] + 2.0 * k2.acc1[e]
                                              + 2.0 * k3.acc1[e] + k4.acc1[e])
        speed2 = theta2_dot[e] + TAU / 6.0 * (k1.acc2[e] + 2.0 * k2.acc2[e]
                                              + 2.0 * k3.acc2[e] + k4.acc2[e])
        more |= (fabs(angle1) > PI) | (fabs(angle2) > PI)
        theta1[e], theta2[e] = angle1, angle2
        theta1_dot[e] = min(max(speed1, -MAX_SPEED_1), MAX_SPEED_1)
        theta2_dot[e] = min(max(speed2, -MAX_SPEED_2), MAX_SPEED_2)
    far[0] = more


cdef LaneLoop show(Py_ssize_t count, const double* cos1, const double* sin1, const double* cos2,
                   const double* sin2, const double* theta1_dot, const double* theta2_dot,
                   PairLane observations) noexcept nogil:
    """What the agent sees; observations (count, 6)."""
    cdef Py_ssize_t e
    for e in range(count):
        observations[3 * e] = pair(<float> cos1[e], <float> sin1[e])
        observations[3 * e + 1] = pair(<float> cos2[e], <float> sin2[e])
        observations[3 * e + 2] = pair(<float> theta1_dot[e], <float> theta2_dot[e])


cdef LaneLoop judge(Py_ssize_t count, const double* cos1, const double* sin1, const double* cos2,
                    const double* sin2, const int32_t* lengths, int max_steps, FloatLane rewards,
                    ByteLane terminations, ByteLane truncations, bint* unsure) noexcept nogil:
    """Who is up, or has reached the limit. The lower end's height by the cosine of a sum. cos1 and
    sin1 err by less than ERROR, heights by less than four times that. `unsure` if a height is too
    near to 1 m to tell, or a cos1 or sin1 may round to another float32 than the library's."""
    cdef Py_ssize_t e
    cdef double height
    cdef int close = 0
    for e in range(count):
        height = sin1[e] * sin2[e] - cos1[e] * cos2[e] - cos1[e]
        rewards[e] = 0.0 if height > 1.0 else -1.0
        terminations[e] = height > 1.0
        truncations[e] = lengths[e] + 1 >= max_steps
        close |= ((fabs(height - 1.0) < 10.0 * ERROR)
                  | (<float> (cos1[e] - ERROR) != <float> (cos1[e] + ERROR))
                  | (<float> (sin1[e] - ERROR) != <float> (sin1[e] + ERROR)))
    unsure[0] = close


cdef inline double by_one_turn(double angle) noexcept nogil:
    cdef double turned = angle - TURN if angle > PI else angle
    return turned + TURN if turned < -PI else turned


cdef inline double wrap(double angle) noexcept nogil:
    """The angle in [-pi, pi], by whole turns."""
    while angle > PI:
        angle -= TURN
    while angle < -PI:
        angle += TURN
    return angle
