"""pendulum: Gymnasium's Pendulum-v1, in the same float64 and float32 arithmetic, to the bit."""

cimport cython
from libc.math cimport cos, fabs, fmod, isfinite, sin
from libc.stdint cimport uint8_t
from pufferlib_cy cimport (
    ByteLane, DoubleLane, FloatLane, LaneLoop, NativeEnv, Rows, Slice, first_rows, next_block,
    uniform,
)
from pufferlib_cy.envs.libm_lanes cimport (
    BLOCK, BlockDouble, marked, sines_and_cosines, squares_float32,
)
from pufferlib_cy.envs.numpy_scalars cimport square

import numpy as np
from gymnasium.spaces import Box

cdef enum Field:
    # One array of E doubles each, in this order, in the room for the states.
    THETA = 0         # angle from upright, rad; not wrapped
    THETA_DOT = 1     # rad/s
    SINE = 2          # of theta: the observation's, which the next step needs again
    FIELDS = 3

cdef double PI = 3.141592653589793
cdef double TURN = 2 * 3.141592653589793      # rad
cdef double TURN_33_BITS = 6.2831853069365025
cdef double TURN_OTHER_BITS = 2 * 3.141592653589793 - 6.2831853069365025
cdef double PER_TURN = 1.0 / 6.283185307179586
cdef double FAR = 1e6                         # rad
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
        super().__init__(Box(-high, high, dtype=np.float32), torque, FIELDS * sizeof(double),
                         lanes=True)

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_block(&rows, BLOCK):
            if rows.starting:
                self.reset(&rows)
            else:
                self.step(&rows)
            self.observe(&rows)

    cdef inline double* lane(self, Rows* rows, Field field) noexcept nogil:
        """One field of the states of these environments: (rows.count,)."""
        return <double*> self.states + field * self.num_envs + rows.environment

    cdef inline void reset(self, Rows* rows) noexcept nogil:
        cdef double* theta = self.lane(rows, THETA)
        cdef double* theta_dot = self.lane(rows, THETA_DOT)
        cdef Py_ssize_t e
        for e in range(rows.count):
            theta[e] = uniform(&rows.rng[e], -PI, PI)
            theta_dot[e] = uniform(&rows.rng[e], -1.0, 1.0)

    cdef inline void step(self, Rows* rows) noexcept nogil:
        cdef BlockDouble angle[BLOCK]
        cdef float torque_squared[BLOCK]
        wrap(rows.count, self.lane(rows, THETA), angle)
        squares_float32(rows.count, rows.continuous_actions, torque_squared)
        reward(rows.count, angle, self.lane(rows, THETA_DOT), torque_squared, rows.rewards)
        swing(rows.count, self.gravity_term, rows.continuous_actions, self.lane(rows, SINE),
              self.lane(rows, THETA), self.lane(rows, THETA_DOT))
        cdef Py_ssize_t e
        for e in range(rows.count):
            rows.truncations[e] = rows.lengths[e] + 1 >= self.max_steps

    cdef inline void observe(self, Rows* rows) noexcept nogil:
        cdef BlockDouble cosine[BLOCK]
        sines_and_cosines(rows.count, self.lane(rows, THETA), self.lane(rows, SINE), cosine)
        show(rows.count, cosine, self.lane(rows, SINE), self.lane(rows, THETA_DOT),
             <float*> rows.observations)

    cdef double theta(self, Py_ssize_t environment) noexcept nogil:
        return (<double*> self.states)[THETA * self.num_envs + environment]

    def render(self, Py_ssize_t environment):
        """The pendulum and its circle: uint8 (500, 500, 3)."""
        try:
            from PIL import Image, ImageDraw
        except ImportError as error:
            raise ImportError('pendulum: rendering needs Pillow: '
                              'pip install "pufferlib_cy[render]"') from error
        cdef double theta = self.theta(environment)
        # Drawn twice as large and scaled down, so that edges are smooth.
        centre, length = (SIDE, SIDE), 0.7 * SIDE
        tip = (SIDE - length * sin(theta), SIDE - length * cos(theta))
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
        cdef double theta = self.theta(environment)
        picture = [[" "] * 29 for _ in range(15)]
        for i in range(8):
            line, column = 7 - i * cos(theta), 14 - 2 * i * sin(theta)
            picture[round(line)][round(column)] = "+" if i == 0 else "O" if i == 7 else "*"
        return "\n".join("".join(line).rstrip() for line in picture) + "\n"

# ---- dynamics, in lanes --------------------------------------------------------------------------

cdef inline void reward(Py_ssize_t count, const double* angle, const double* speed,
                        const float* torque_squared, FloatLane rewards) noexcept nogil:
    cdef uint8_t unsure[BLOCK + 7]
    cdef Py_ssize_t places[BLOCK]
    cdef Py_ssize_t e, k
    reward_by_products(count, angle, speed, torque_squared, rewards, unsure)
    for k in range(marked(count, unsure, places)):
        e = places[k]
        rewards[e] = <float> -(square(angle[e], TWO) + 0.1 * square(speed[e], TWO)
                               + <float> 0.001 * torque_squared[e])


cdef LaneLoop reward_by_products(Py_ssize_t count, const double* angle, const double* speed,
                                 const float* torque_squared, FloatLane rewards,
                                 ByteLane unsure) noexcept nogil:
    """The reward, with products for NumPy's squares, which makes less than 2**-49 of a difference;
    1 where that may change the float32."""
    cdef Py_ssize_t e
    cdef double cost
    for e in range(count):
        cost = (angle[e] * angle[e] + 0.1 * (speed[e] * speed[e])
                + <float> 0.001 * torque_squared[e])
        rewards[e] = <float> -cost
        unsure[e] = (<float> (cost - 1.7763568394002505e-15 * cost)
                     != <float> (cost + 1.7763568394002505e-15 * cost))


cdef LaneLoop swing(Py_ssize_t count, double gravity_term, const float* torque,
                    const double* sine, DoubleLane theta, DoubleLane theta_dot) noexcept nogil:
    cdef Py_ssize_t e
    cdef double speed
    for e in range(count):
        speed = theta_dot[e] + (gravity_term * sine[e] + <float> 3.0 * torque[e]) * TAU
        speed = min(max(speed, -MAX_SPEED), MAX_SPEED)
        theta[e] += speed * TAU
        theta_dot[e] = speed


cdef LaneLoop show(Py_ssize_t count, const double* cosine, const double* sine,
                   const double* theta_dot, FloatLane observations) noexcept nogil:
    """What the agent sees; observations (count, 3)."""
    cdef Py_ssize_t e
    for e in range(count):
        observations[3 * e] = <float> cosine[e]
        observations[3 * e + 1] = <float> sine[e]
        observations[3 * e + 2] = <float> theta_dot[e]


cdef inline void wrap(Py_ssize_t count, const double* theta, DoubleLane angle) noexcept nogil:
    """The angles in [-pi, pi): ``(theta + pi) % (2 * pi) - pi`` with Python's remainder."""
    cdef uint8_t far[BLOCK + 7]
    cdef Py_ssize_t places[BLOCK]
    cdef Py_ssize_t k
    wrap_near(count, theta, angle, far)
    for k in range(marked(count, far, places)):
        angle[places[k]] = wrap_far(theta[places[k]])


cdef LaneLoop wrap_near(Py_ssize_t count, const double* theta, DoubleLane angle,
                        ByteLane far) noexcept nogil:
    """The same without a call of fmod, as exactly; 1 where the angle is too far for that."""
    cdef Py_ssize_t e
    cdef double shifted, turns
    for e in range(count):
        shifted = theta[e] + PI
        # The nearest whole number (adding and subtracting 1.5 * 2**52 rounds). Products of at most
        # 53 bits, and differences that are too: nothing is rounded before the last sum.
        turns = (shifted * PER_TURN + 6755399441055744.0) - 6755399441055744.0
        shifted = (shifted - turns * TURN_33_BITS) - turns * TURN_OTHER_BITS
        angle[e] = (shifted + TURN if shifted < 0.0 else shifted) - PI
        far[e] = not fabs(theta[e]) < FAR


cdef double wrap_far(double theta) noexcept nogil:
    cdef double shifted = fmod(theta + PI, TURN)
    if shifted < 0.0:
        shifted += TURN
    return shifted - PI
