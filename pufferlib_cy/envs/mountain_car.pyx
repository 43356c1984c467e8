"""mountain_car: Gymnasium's MountainCar-v0, in the same float64 arithmetic, to the last bit."""

cimport cython
from libc.math cimport atan, cos, sin
from pufferlib_cy cimport NativeEnv, Rows, Slice, first_rows, next_rows, uniform

import numpy as np
from gymnasium.spaces import Box, Discrete

cdef struct State:
    double position   # along the track, m
    double velocity   # m per step
    int steps         # since the reset

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
        super().__init__(Box(low, high, dtype=np.float32), Discrete(3), sizeof(State))

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_rows(&rows):
            if rows.starting:
                self.reset(<State*> rows.state, &rows)
            else:
                self.step(<State*> rows.state, &rows)
            self.observe(<State*> rows.state, <float*> rows.observations)

    cdef inline void reset(self, State* state, Rows* rows) noexcept nogil:
        state.position = uniform(rows.rng, -0.6, -0.4)
        state.velocity = 0.0
        state.steps = 0

    cdef inline void step(self, State* state, Rows* rows) noexcept nogil:
        cdef double velocity, position
        velocity = state.velocity + (
            (rows.actions[0] - 1) * FORCE + cos(3.0 * state.position) * -GRAVITY)
        velocity = min(max(velocity, -MAX_SPEED), MAX_SPEED)
        position = min(max(state.position + velocity, MIN_POSITION), MAX_POSITION)
        if position == MIN_POSITION and velocity < 0.0:
            velocity = 0.0                            # the wall stops the car
        state.position, state.velocity = position, velocity
        state.steps += 1
        rows.rewards[0] = -1.0
        rows.terminations[0] = position >= GOAL_POSITION and velocity >= self.goal_velocity
        rows.truncations[0] = state.steps >= self.max_steps

    cdef inline void observe(self, State* state, float* observation) noexcept nogil:
        observation[0] = <float> state.position
        observation[1] = <float> state.velocity

    def render(self, Py_ssize_t environment):
        """The valley, the car and the flag: uint8 (400, 600, 3)."""
        try:
            from PIL import Image, ImageDraw
        except ImportError as error:
            raise ImportError('mountain_car: rendering needs Pillow: '
                              'pip install "pufferlib_cy[render]"') from error
        cdef double x = (<State*> self.state_of(environment)).position
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
        cdef double x = (<State*> self.state_of(environment)).position
        columns = np.linspace(MIN_POSITION, MAX_POSITION, 61)
        heights = [round(11 * height(p)) for p in columns]
        picture = [[" "] * 61 for _ in range(13)]
        for i, h in enumerate(heights):
            picture[h][i] = "_"
        for what, position in (("P", GOAL_POSITION), ("O", x)):
            i = np.abs(columns - position).argmin()
            picture[min(heights[i] + (what == "P"), 12)][i] = what
        return "\n".join("".join(line).rstrip() for line in reversed(picture)) + "\n"


cdef double height(double position) noexcept nogil:
    """Of the ground, m; for pictures."""
    return sin(3.0 * position) * 0.45 + 0.55
