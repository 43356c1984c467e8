"""snake: many snakes on one map, who eat, grow, and die on walls and on each other."""

cimport cython
from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memcpy, memset
from pufferlib_cy cimport NativeEnv, Rng, Rows, Slice, first_rows, next_rows, uniform_int

import numpy as np
from gymnasium.spaces import Box, Discrete

# Opposite directions differ in the last bit.
cdef enum Action: UP, DOWN, LEFT, RIGHT
# A body shows as BODY + slot % COLORS.
cdef enum Cell: EMPTY, FOOD, CORPSE, WALL, BODY
cdef enum: DEATHS, EATEN, DEATH_LENGTH, LONGEST       # the statistics
cdef enum:
    COLORS = 4
    VISION = 5                # cells, the default
    MAX_LENGTH = 1024         # cells
    MAX_AREA = 1 << 30        # cells of a map with its border
    ALIGNMENT = 64            # bytes, of one state
    PICTURE_WIDTH = 1280      # pixels, about
    MAX_SCALE = 24            # pixels per cell

cdef double REWARD_EATEN = 0.1
cdef double REWARD_DEATH = -1.0

cdef struct Body:
    int32_t head, tail        # cells
    int32_t length            # cells; 0: not on the map
    int32_t heading           # the Action of its last move

cdef struct Map:
    # The head of a state. There follow, without gaps, num_snakes bodies, then for every cell of the
    # map and its border a byte with what is there, row by row, and then a byte each with the
    # direction in which a body that lies there goes on towards its head.
    int32_t ticks             # since the reset
    int32_t food              # on the map


cdef inline void copy_window(uint8_t* view, const uint8_t* corner, Py_ssize_t stride,
                             Py_ssize_t side) noexcept nogil:
    cdef Py_ssize_t y
    for y in range(side):
        memcpy(view + y * side, corner + y * stride, side)


@cython.final
cdef class Snake(NativeEnv):
    """Snakes that seek food on a map with walls around it; an agent is one life of a snake.

    Observation: int8 (side * side,), the cells around the head, side = 2 * vision + 1: 0 empty,
    1 food, 2 corpse, 3 wall, 4 to 7 bodies, by slot. The own one is the colour in the middle.
    Action: Discrete(4), up, down, left, right; back into the own neck means straight on.

    The snakes move one after the other, slot 0 first. Food and corpses give 0.1 and make a snake
    one cell longer, 1024 at most. Walls and bodies, to the end of the own tail, kill: -1,
    terminated. Of the dead body every second cell from the tail becomes a corpse. In the next step
    the slot has a new snake of one cell, put on a random cell; where that is taken, it is tried
    again a step later. Likewise food that was eaten. After `max_ticks` steps (0: never) all are
    truncated, and the map starts anew; so it does when no snake is left.

    Statistics, of a map: deaths, eaten (food and corpses), death_length (mean length at death, 0
    without a death) and longest.
    """
    cdef Py_ssize_t num_snakes, width, height, num_food, vision, max_ticks
    cdef Py_ssize_t side      # of an observation
    cdef Py_ssize_t stride    # cells of one row of the map with its border, `vision` wide
    cdef Py_ssize_t area      # cells of the map with its border
    cdef Py_ssize_t[4] offsets  # cells from one to the next, by Action
    action_names = ("up", "down", "left", "right")
    render_fps = 10

    def __init__(self, Py_ssize_t num_snakes=256, Py_ssize_t width=640, Py_ssize_t height=360,
                 Py_ssize_t num_food=4096, Py_ssize_t vision=VISION, Py_ssize_t max_ticks=1000):
        least = {"num_snakes": (num_snakes, 1), "width": (width, 1), "height": (height, 1),
                 "num_food": (num_food, 0), "vision": (vision, 1), "max_ticks": (max_ticks, 0)}
        for name, (value, bound) in least.items():
            if not bound <= value <= MAX_AREA:
                raise ValueError(f"snake: {name} is at least {bound} (and at most 2**30), "
                                 f"not {value}")
        self.side = 2 * vision + 1
        self.stride = width + 2 * vision
        self.area = self.stride * (height + 2 * vision)
        if self.area > MAX_AREA:
            raise ValueError(f"snake: width={width} and height={height} with a border of "
                             f"vision={vision} are {self.area} cells; at most 2**30 are possible")
        if 2 * (num_snakes + num_food) > width * height:
            raise ValueError(f"snake: num_snakes={num_snakes} and num_food={num_food} need twice "
                             f"as many cells, but width={width} times height={height} are "
                             f"{width * height}")
        self.num_snakes = num_snakes
        self.width, self.height = width, height
        self.num_food = num_food
        self.vision = vision
        self.max_ticks = max_ticks
        self.offsets = [-self.stride, self.stride, -1, 1]
        size = sizeof(Map) + num_snakes * sizeof(Body) + 2 * self.area
        super().__init__(Box(0, BODY + COLORS - 1, (self.side * self.side,), np.int8), Discrete(4),
                         -(-size // ALIGNMENT) * ALIGNMENT, agents_per_env=num_snakes,
                         stats=("deaths", "eaten", "death_length", "longest"))

    cdef inline Body* snakes_of(self, Map* map) noexcept nogil:
        return <Body*> (map + 1)

    cdef inline uint8_t* cells_of(self, Map* map) noexcept nogil:
        return <uint8_t*> (self.snakes_of(map) + self.num_snakes)

    cdef inline uint8_t* directions_of(self, Map* map) noexcept nogil:
        return self.cells_of(map) + self.area

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_rows(&rows):
            if rows.starting:
                self.reset(<Map*> rows.state, &rows)
            else:
                self.step(<Map*> rows.state, &rows)
            self.observe(<Map*> rows.state, &rows)

    cdef inline void reset(self, Map* map, Rows* rows) noexcept nogil:
        cdef uint8_t* cells = self.cells_of(map)
        cdef Py_ssize_t a, y
        map.ticks = map.food = 0
        memset(cells, WALL, self.area)
        for y in range(self.vision, self.vision + self.height):
            memset(cells + y * self.stride + self.vision, EMPTY, self.width)
        for a in range(self.num_snakes):
            while not self.bear(map, rows, a):
                pass
        while map.food < self.num_food:
            self.sow(map, rows.rng)

    cdef inline void step(self, Map* map, Rows* rows) noexcept nogil:
        cdef Py_ssize_t a
        map.ticks += 1
        for a in range(self.num_snakes):
            if rows.masks[a]:
                self.move(map, rows, a)
        for a in range(self.num_snakes):
            if map.ticks == self.max_ticks:
                rows.truncations[a] = rows.masks[a] and not rows.terminations[a]
            elif not rows.masks[a]:
                rows.masks[a] = self.bear(map, rows, a)
        for _ in range(self.num_food - map.food):
            self.sow(map, rows.rng)

    cdef inline void move(self, Map* map, Rows* rows, Py_ssize_t a) noexcept nogil:
        cdef uint8_t* cells = self.cells_of(map)
        cdef uint8_t* directions = self.directions_of(map)
        cdef Body* snake = self.snakes_of(map) + a
        cdef int32_t tail = snake.tail
        cdef int found
        if snake.length == 1 or rows.actions[a] != snake.heading ^ 1:
            snake.heading = rows.actions[a]
        found = cells[snake.head + self.offsets[snake.heading]]
        if found >= WALL:
            self.kill(map, rows, a)
            return
        directions[snake.head] = snake.heading
        snake.head += self.offsets[snake.heading]
        cells[snake.head] = BODY + a % COLORS
        if found != EMPTY:
            map.food -= found == FOOD
            rows.rewards[a] = REWARD_EATEN
            rows.stats[EATEN] += 1
            if snake.length < MAX_LENGTH:
                snake.length += 1
                rows.stats[LONGEST] = max(rows.stats[LONGEST], <double> snake.length)
                return
        snake.tail += self.offsets[directions[tail]]
        cells[tail] = EMPTY

    cdef inline void kill(self, Map* map, Rows* rows, Py_ssize_t a) noexcept nogil:
        cdef uint8_t* cells = self.cells_of(map)
        cdef uint8_t* directions = self.directions_of(map)
        cdef Body* snake = self.snakes_of(map) + a
        cdef int32_t cell = snake.tail
        cdef int i
        rows.rewards[a], rows.terminations[a] = REWARD_DEATH, True
        rows.stats[DEATHS] += 1
        rows.stats[DEATH_LENGTH] += (snake.length - rows.stats[DEATH_LENGTH]) / rows.stats[DEATHS]
        for i in range(snake.length):
            cells[cell] = CORPSE if i % 2 else EMPTY
            cell += self.offsets[directions[cell]]
        snake.length = 0

    cdef inline bint bear(self, Map* map, Rows* rows, Py_ssize_t a) noexcept nogil:
        """Try to put a new snake on a random cell; False: it was taken."""
        cdef Body* snake = self.snakes_of(map) + a
        cdef int32_t cell = self.random_cell(rows.rng)
        if self.cells_of(map)[cell] != EMPTY:
            return False
        self.cells_of(map)[cell] = BODY + a % COLORS
        snake.head = snake.tail = cell
        snake.length = 1
        rows.stats[LONGEST] = max(rows.stats[LONGEST], 1.0)
        return True

    cdef inline void sow(self, Map* map, Rng* rng) noexcept nogil:
        """Try to put food on a random cell."""
        cdef int32_t cell = self.random_cell(rng)
        if self.cells_of(map)[cell] == EMPTY:
            self.cells_of(map)[cell] = FOOD
            map.food += 1

    cdef inline int32_t random_cell(self, Rng* rng) noexcept nogil:
        cdef Py_ssize_t i = uniform_int(rng, <uint32_t> (self.width * self.height))
        return <int32_t> ((i // self.width + self.vision) * self.stride
                          + i % self.width + self.vision)

    cdef inline void observe(self, Map* map, Rows* rows) noexcept nogil:
        """Copy the windows around the heads. The border is as wide as a snake sees, so that they
        need no look at where the map ends."""
        cdef uint8_t* view = <uint8_t*> rows.observations
        cdef const uint8_t* corners = self.cells_of(map) - self.vision * (self.stride + 1)
        cdef Body* snakes = self.snakes_of(map)
        cdef Py_ssize_t a
        for a in range(self.num_snakes):
            if rows.masks[a]:
                if self.vision == VISION:         # a size that the compiler knows: two moves a row
                    copy_window(view, corners + snakes[a].head, self.stride, 2 * VISION + 1)
                else:
                    copy_window(view, corners + snakes[a].head, self.stride, self.side)
            view += self.side * self.side

    cdef object picture_of(self, Py_ssize_t environment):
        """uint8 (height, width): what is on every cell; 8 is a head."""
        cdef Map* map = <Map*> self.state_of(environment)
        cdef Body* snakes = self.snakes_of(map)
        first = <char*> self.cells_of(map) - <char*> map
        cells = self.state_array[environment][first:first + self.area].copy()
        for a in range(self.num_snakes):
            if snakes[a].length:
                cells[snakes[a].head] = BODY + COLORS
        inside = slice(self.vision, -self.vision)
        return cells.reshape(-1, self.stride)[inside, inside]

    def ansi(self, Py_ssize_t environment):
        """The map: food is '.', corpses are 'x', bodies letters by colour, heads '@'."""
        return "".join("".join(" .x#abcd@"[cell] for cell in line) + "\n"
                       for line in self.picture_of(environment).tolist())

    def render(self, Py_ssize_t environment):
        """The map, at least a pixel per cell: uint8 (scale * height, scale * width, 3)."""
        palette = np.array([
            (12, 16, 28), (120, 214, 92), (124, 104, 96), (90, 90, 90), (64, 140, 246),
            (246, 96, 120), (250, 186, 60), (170, 110, 244), (255, 255, 255)], np.uint8)
        scale = min(max(PICTURE_WIDTH // self.width, 1), MAX_SCALE)
        return palette[self.picture_of(environment)].repeat(scale, 0).repeat(scale, 1)
