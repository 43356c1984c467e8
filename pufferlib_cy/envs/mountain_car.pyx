"""mountain_car: Gymnasium's MountainCar-v0, in the same float64 arithmetic, to the last bit."""

cimport cython
from libc.math cimport atan, cos, sin
from libc.stdint cimport int32_t
from pufferlib_cy cimport (
    ByteLane, DoubleLane, FloatLane, LaneLoop, NativeEnv, Rows, Slice, first_rows, next_block,
    uniform,
)
from pufferlib_cy.envs.libm_lanes cimport BLOCK, BlockDouble, cosines

import numpy as np
from gymnasium.spaces import Box, Discrete

cdef enum Field:
    # One array of E doubles each, in this order, in the room for the states.
    POSITION = 0      # along the track, m
    VELOCITY = 1      # m per step
    FIELDS = 2

# Moore 1990, "Efficient memory-based learning for robot control", with Gymnasium's numbers.
cdef double MIN_POSITION = -1.2               # m, a wall
cdef double MAX_POSITION = 0.6                # m
cdef double GOAL_POSITION = 0.5               # m
cdef double MAX_SPEED = 0.07                  # m per step
cdef double FORCE = 0.001                     # m per step^2, the motor's
cdef double GRAVITY = 0.0025                  # m per step^2, down a vertical slope

cdef enum:
    WIDTH = 600                               # of the picture, pixels
    HEIGHT = 400


@cython.final
cdef class MountainCar(NativeEnv):
    """Drive a car out of a valley that is too steep for its motor; -1 per step.

    Observation: float32 (2,), position and velocity. Action: Discrete(3), push left, not, right.
    The car starts at rest, its position uniform in [-0.6, -0.4). A position of 0.5 or more, with a
    velocity of at least `goal_velocity`, terminates; `max_steps` steps truncate (both, if they
    meet).
    """
    cdef double goal_velocity
    cdef int max_steps
    action_names = ("left", "none", "right")
    render_fps = 30

    def __init__(self, double goal_velocity=0.0, int max_steps=200):
        if not goal_velocity <= MAX_SPEED:
            raise ValueError("mountain_car: goal_velocity is at most the greatest speed, "
                             f"{MAX_SPEED}, not {goal_velocity}")
        if max_steps < 1:
            raise ValueError(f"mountain_car: max_steps is at least 1, not {max_steps}")
        self.goal_velocity = goal_velocity
        self.max_steps = max_steps
        low = np.array([MIN_POSITION, -MAX_SPEED], np.float32)
        high = np.array([MAX_POSITION, MAX_SPEED], np.float32)
        super().__init__(Box(low, high, dtype=np.float32), Discrete(3),
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
        cdef double* position = self.lane(rows, POSITION)
        cdef double* velocity = self.lane(rows, VELOCITY)
        cdef float* observations = <float*> rows.observations        # (count, FIELDS)
        cdef Py_ssize_t e
        for e in range(rows.count):
            position[e] = uniform(&rows.rng[e], -0.6, -0.4)
            velocity[e] = 0.0
            observations[FIELDS * e + POSITION] = <float> position[e]
            observations[FIELDS * e + VELOCITY] = 0.0

    cdef inline void step(self, Rows* rows) noexcept nogil:
        cdef BlockDouble angle[BLOCK]                      # rad, whose cosine is the slope
        cdef BlockDouble slope[BLOCK]
        multiply(rows.count, 3.0, self.lane(rows, POSITION), angle)
        cosines(rows.count, angle, slope)
        drive(rows.count, rows.actions, slope, self.lane(rows, POSITION),
              self.lane(rows, VELOCITY), <float*> rows.observations)
        judge(rows.count, self.lane(rows, POSITION), self.lane(rows, VELOCITY), rows.lengths,
              self.goal_velocity, self.max_steps, rows.rewards, rows.terminations,
              rows.truncations)

    cdef double position(self, Py_ssize_t environment) noexcept nogil:
        return (<double*> self.states)[POSITION * self.num_envs + environment]

    def render(self, Py_ssize_t environment):
        """The valley, the car and the flag: uint8 (400, 600, 3)."""
        try:
            from PIL import Image, ImageDraw
        except ImportError as error:
            raise ImportError('mountain_car: rendering needs Pillow: '
                              'pip install "pufferlib_cy[render]"') from error
        cdef double x = self.position(environment)
        # Drawn three times as large and scaled down, so that edges are smooth.
        scale = 3 * WIDTH / (MAX_POSITION - MIN_POSITION)          # pixels per m

        def pixel(position, above=0.0):
            """A point `above` pixels of the small picture over the ground."""
            return ((position - MIN_POSITION) * scale,
                    3 * (HEIGHT - above) - height(position) * scale)

        image = Image.new("RGB", (3 * WIDTH, 3 * HEIGHT), (214, 234, 248))
        draw = ImageDraw.Draw(image)
        ground = [pixel(p) for p in np.linspace(MIN_POSITION, MAX_POSITION, 181)]
        draw.polygon([*ground, (3 * WIDTH, 3 * HEIGHT), (0, 3 * HEIGHT)], fill=(96, 145, 84))
        draw.line(ground, fill=(58, 96, 52), width=12)
        foot, top = pixel(GOAL_POSITION), pixel(GOAL_POSITION, 54)
        draw.line([foot, top], fill=(60, 60, 70), width=9)
        draw.polygon([top, (top[0] + 84, top[1] + 30), (top[0], top[1] + 60)], fill=(222, 62, 62))

        slope = atan(3.0 * 0.45 * cos(3.0 * x))
        along, across = np.array([cos(slope), -sin(slope)]), np.array([-sin(slope), -cos(slope)])
        middle = np.array(pixel(x))

        def car(*corners):
            return [tuple(middle + 3 * (a * along + b * across)) for a, b in corners]

        draw.polygon(car((-14, 22), (-9, 32), (7, 32), (12, 22)), fill=(44, 62, 80))
        draw.polygon(car((-24, 9), (-24, 20), (-20, 23), (20, 23), (24, 19), (24, 9)),
                     fill=(41, 98, 180))
        for wheel in car((-14, 8), (14, 8)):
            draw.circle(wheel, 24, fill=(34, 34, 40))
            draw.circle(wheel, 10, fill=(190, 190, 196))
        return np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))

    def ansi(self, Py_ssize_t environment):
        """The valley in 61 by 13 characters: O the car, P the flag."""
        cdef double x = self.position(environment)
        columns = np.linspace(MIN_POSITION, MAX_POSITION, 61)
        heights = [round(11 * height(p)) for p in columns]
        picture = [[" "] * 61 for _ in range(13)]
        for i, h in enumerate(heights):
            picture[h][i] = "_"
        for what, position in (("P", GOAL_POSITION), ("O", x)):
            i = np.abs(columns - position).argmin()
            picture[min(heights[i] + (what == "P"), 12)][i] = what
        return "\n".join("".join(line).rstrip() for line in reversed(picture)) + "\n"


# ---- dynamics, in lanes --------------------------------------------------------------------------

cdef LaneLoop multiply(Py_ssize_t count, double factor, const double* x,
                       DoubleLane out) noexcept nogil:
    cdef Py_ssize_t e
    for e in range(count):
        out[e] = factor * x[e]


cdef LaneLoop drive(Py_ssize_t count, const int32_t* actions, const double* slope,
                    DoubleLane position, DoubleLane velocity,
                    FloatLane observations) noexcept nogil:
    """One step of the cars; observations (count, FIELDS)."""
    cdef Py_ssize_t e
    cdef double x, v
    for e in range(count):
        v = velocity[e] + ((actions[e] - 1) * FORCE + slope[e] * -GRAVITY)
        v = min(max(v, -MAX_SPEED), MAX_SPEED)
        x = min(max(position[e] + v, MIN_POSITION), MAX_POSITION)
        v = 0.0 if (x == MIN_POSITION) & (v < 0.0) else v      # the wall stops the car
        position[e] = x
        velocity[e] = v
        observations[FIELDS * e + POSITION] = <float> x
        observations[FIELDS * e + VELOCITY] = <float> v


cdef LaneLoop judge(Py_ssize_t count, const double* position, const double* velocity,
                    const int32_t* lengths, double goal_velocity, int max_steps,
                    FloatLane rewards, ByteLane terminations,
                    ByteLane truncations) noexcept nogil:
    """Who has reached the goal, or the limit."""
    cdef Py_ssize_t e
    for e in range(count):
        rewards[e] = -1.0
        terminations[e] = (position[e] >= GOAL_POSITION) & (velocity[e] >= goal_velocity)
        truncations[e] = lengths[e] + 1 >= max_steps

# ---- pictures ------------------------------------------------------------------------------------

cdef double height(double position) noexcept nogil:
    """Of the ground, m; for pictures."""
    return sin(3.0 * position) * 0.45 + 0.55
