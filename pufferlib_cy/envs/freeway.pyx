"""freeway: bring a chicken across ten lanes of traffic, again and again, before time is up."""

cimport cython
from libc.stdint cimport int32_t
from pufferlib_cy cimport NativeEnv, Rows, Slice, first_rows, next_rows, uniform_int

import numpy as np
from gymnasium.spaces import Box, Discrete

# Lengths in pixels. x grows to the right; y grows upwards from the field's lower edge, and is that
# of a thing's lower edge.
cdef enum:
    LANES = 10
    LANE_HEIGHT = 16
    KERB = 16                 # height of each of the two
    WIDTH = 160
    HEIGHT = 192              # of the lanes and both kerbs
    CAR_LENGTH = 16
    CAR_HEIGHT = 12
    CAR_GAP = 2               # from the lower edge of a lane to its car
    CHICKEN_X = 76            # its left edge, so that its middle is the field's
    CHICKEN_WIDTH = 8
    CHICKEN_HEIGHT = 12
    CHICKEN_SPEED = 4         # a tick
    KNOCK = 8                 # ticks that a hit takes the chicken back, at its own speed
    BEYOND_FIRST = 30         # y from which it is beyond the car of the lowest lane
    FAR_KERB = 176            # y of a chicken that has crossed
    OBSERVATION = 23
    SCALE = 3                 # pixels of a picture for one of the field

# A car's way: from where its front comes into the field to where its rear leaves it. Places on it
# are those of the front, in eighths of a pixel. The chicken walks in the middle of the field, so
# that those where a car touches it are the same from either side.
cdef enum:
    PARTS = 8                 # of a pixel
    TOP_SPEED = 24            # parts a tick
    WAY = (WIDTH + CAR_LENGTH) * PARTS
    TOUCH = CHICKEN_X * PARTS                                       # the front is at the chicken
    PASSED = (CHICKEN_X + CHICKEN_WIDTH + CAR_LENGTH) * PARTS       # the rear has left it

cdef enum Action: STAY, UP, DOWN
cdef enum: CROSSINGS, HITS    # the statistics

# Of the lanes, the lowest first, in parts of a pixel a tick. The cars of the lower five lanes go to
# the right, those of the upper five to the left.
cdef int32_t[LANES] SPEEDS = [8, 12, 10, 16, 22, 24, 14, 18, 11, 9]

cdef struct State:
    int32_t[LANES] cars       # how far each is on its way
    int32_t y                 # of the chicken
    int32_t knocked           # ticks for which it still goes back
    int32_t crossings         # in this episode


@cython.final
cdef class Freeway(NativeEnv):
    """A chicken, ten lanes with a car each, and `max_ticks` to cross them as often as it can: after
    Freeway for the Atari 2600.

    The lanes are 16 px high and 160 px wide, with a kerb of 16 px on either side; cars are 16 by 12
    px, the chicken 8 by 12 px. It walks up and down the middle of the field at 4 px a tick, from
    y = 0 on. At y = 176 it has crossed, gets 1, and begins anew at 0. Every lane has a car of its
    own constant speed, 1 to 3 px a tick, to the right in the lower five lanes and to the left in
    the upper five; one that has left the field comes in again at once. Where each of them is at the
    beginning is drawn for every episode. A car that overlaps the chicken takes it back for the next
    8 ticks, 4 px each, down to the kerb at most; it then cannot be hit, and what it wants has no
    effect. In a tick the cars move first, then the chicken.

    Action: Discrete(3), stay, up, down, held for `frameskip` ticks. Observation: float32 (23,) in
    [0, 1]: y / 176; (y - 16 n) / 32, where n, 0 to 9, is the lane ahead, the lowest whose car the
    chicken has not passed; what is left of the 8 ticks; how far each car is on its way through the
    field, that of the lane ahead first, then upwards, and after the uppermost from the lowest on;
    and their speeds / 3 px a tick, in the same order. After `max_ticks`, a minute at 60 a second,
    the episode is truncated; nothing else ends it. Statistics: crossings, hits.
    """
    cdef int32_t frameskip
    cdef int32_t max_ticks
    action_names = ("stay", "up", "down")

    def __init__(self, int32_t frameskip=4, int32_t max_ticks=3600):
        if frameskip < 1:
            raise ValueError(f"freeway: frameskip is at least 1, not {frameskip}")
        if max_ticks < 1:
            raise ValueError(f"freeway: max_ticks is at least 1, not {max_ticks}")
        self.frameskip = frameskip
        self.max_ticks = max_ticks
        super().__init__(Box(0.0, 1.0, (OBSERVATION,), np.float32), Discrete(3), sizeof(State),
                         stats=("crossings", "hits"))

    @property
    def render_fps(self):
        """60 ticks a second."""
        return 60.0 / self.frameskip

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_rows(&rows):
            if rows.starting:
                reset(<State*> rows.state, &rows)
            else:
                self.step(<State*> rows.state, &rows)
            observe(<State*> rows.state, <float*> rows.observations)

    cdef inline void step(self, State* state, Rows* rows) noexcept nogil:
        cdef int32_t wish = (rows.actions[0] == UP) - (rows.actions[0] == DOWN), going, _tick
        for _tick in range(self.frameskip):
            drive(state)
            going = wish if state.knocked == 0 else -1
            state.y = max(state.y + CHICKEN_SPEED * going, 0)
            if state.knocked > 0:
                state.knocked -= 1
            elif is_hit(state):
                state.knocked = KNOCK
                rows.stats[HITS] += 1
            elif state.y >= FAR_KERB:
                state.y = 0
                rows.rewards[0] += 1.0
                state.crossings += 1
                rows.stats[CROSSINGS] = state.crossings
        rows.truncations[0] = (rows.lengths[0] + 1) * self.frameskip >= self.max_ticks

    def render(self, Py_ssize_t environment):
        """The field with the crossings above, three pixels for one: uint8 (624, 480, 3)."""
        try:
            from PIL import Image, ImageDraw, ImageFont
        except ImportError as error:
            raise ImportError('freeway: drawing needs Pillow: '
                              'pip install "pufferlib_cy[render]"') from error
        cdef State* state = <State*> self.state_of(environment)
        cdef int header = 48, lane
        image = Image.new("RGB", (WIDTH * SCALE, header + HEIGHT * SCALE), (13, 17, 28))
        draw = ImageDraw.Draw(image)

        def box(double x, double y, double width, double height, colour, int radius):
            top = header + (HEIGHT - y - height) * SCALE
            draw.rounded_rectangle((x * SCALE, top, (x + width) * SCALE - 1,
                                    top + height * SCALE - 1), radius, fill=colour)

        box(0, 0, WIDTH, HEIGHT, (52, 62, 92), 0)
        box(0, KERB, WIDTH, HEIGHT - 2 * KERB, (22, 28, 45), 0)
        for lane in range(1, LANES):
            for x in range(4, WIDTH, 16):
                box(x, KERB + LANE_HEIGHT * lane - 0.5, 8, 1,
                    (250, 208, 90) if lane == LANES // 2 else (52, 62, 92), 0)
        colours = ((235, 77, 96), (243, 120, 80), (248, 165, 70), (110, 205, 120), (80, 165, 235))
        for lane in range(LANES):
            box(car_x(state, lane), KERB + LANE_HEIGHT * lane + CAR_GAP, CAR_LENGTH, CAR_HEIGHT,
                colours[lane % len(colours)], 8)
        box(CHICKEN_X, state.y, CHICKEN_WIDTH, CHICKEN_HEIGHT,
            (255, 150, 140) if state.knocked else (245, 245, 240), 10)
        draw.text((14, header // 2), str(state.crossings), fill=(245, 245, 240),
                  font=ImageFont.load_default(30), anchor="lm")
        return np.asarray(image)

    def ansi(self, Py_ssize_t environment):
        """The crossings and the field in characters, 4 by 16 pixels each; the chicken is 'Y', and
        'x' while it goes back."""
        cdef State* state = <State*> self.state_of(environment)
        cdef int columns = WIDTH // 4, lane
        picture = [[" "] * columns for _ in range(LANES + 2)]
        for lane in range(LANES):
            for column in range(columns):
                if 0 <= 4 * column + 2 - car_x(state, lane) < CAR_LENGTH:
                    picture[lane + 1][column] = ">" if lane < LANES // 2 else "<"
        line = (state.y + CHICKEN_HEIGHT // 2) // LANE_HEIGHT
        for column in range(columns // 2 - 1, columns // 2 + 1):
            picture[line][column] = "x" if state.knocked else "Y"
        edge = "+" + "-" * columns + "+"
        return "\n".join([f" crossings {state.crossings}", edge,
                          *("|" + "".join(line) + "|" for line in reversed(picture)), edge, ""])


cdef double car_x(State* state, int lane):
    """The left edge of a car."""
    cdef double front = <double> state.cars[lane] / PARTS
    return front - CAR_LENGTH if lane < LANES // 2 else WIDTH - front


cdef inline void reset(State* state, Rows* rows) noexcept nogil:
    cdef int32_t lane
    state.y = state.knocked = state.crossings = 0
    for lane in range(LANES):
        state.cars[lane] = <int32_t> uniform_int(rows.rng, WAY)


cdef inline void drive(State* state) noexcept nogil:
    cdef int32_t lane, place
    for lane in range(LANES):
        place = state.cars[lane] + SPEEDS[lane]
        state.cars[lane] = place - WAY if place >= WAY else place


cdef inline bint is_hit(State* state) noexcept nogil:
    """Whether a car overlaps the chicken. All lanes are looked at: cheaper than branches."""
    cdef int32_t lane, car_y, hits = 0
    for lane in range(LANES):
        car_y = KERB + LANE_HEIGHT * lane + CAR_GAP
        hits |= ((state.y < car_y + CAR_HEIGHT) & (car_y < state.y + CHICKEN_HEIGHT)
                 & (state.cars[lane] > TOUCH) & (state.cars[lane] < PASSED))
    return hits


cdef inline void observe(State* state, float* observation) noexcept nogil:
    """Lanes in the order in which they come: so what is learnt about one holds for all."""
    cdef int32_t lane = max(state.y - BEYOND_FIRST + LANE_HEIGHT, 0) // LANE_HEIGHT, i
    observation[0] = <float> state.y / FAR_KERB
    observation[1] = <float> (state.y - LANE_HEIGHT * lane) / (2 * LANE_HEIGHT)
    observation[2] = <float> state.knocked / KNOCK
    for i in range(LANES):
        observation[3 + i] = <float> state.cars[lane] / WAY
        observation[3 + LANES + i] = <float> SPEEDS[lane] / TOP_SPEED
        lane = lane + 1 if lane < LANES - 1 else 0
