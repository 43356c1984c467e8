"""warehouse: robots that bring the shelves asked for to a goal, and put them back."""

cimport cython
from libc.stdint cimport int8_t, int32_t, uint8_t, uint32_t
from libc.string cimport memset
from pufferlib_cy cimport NativeEnv, Rng, Rows, Slice, first_rows, next_rows, uniform_int

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

cdef enum Action: STAY, FORWARD, TURN_LEFT, TURN_RIGHT, LIFT
cdef enum Heading: UP, RIGHT, DOWN, LEFT                 # clockwise
cdef enum Cell: ROAD, WALL, GOAL, PLACE, SHELF, REQUESTED
cdef enum Load: NOTHING, ANY_SHELF, REQUESTED_SHELF, DELIVERED_SHELF
cdef enum: DELIVERIES, RETURNS, BLOCKED                  # the statistics
cdef enum:
    BLOCK = 3                 # cells, of the side of a block of 2 x 2 places with its roads
    MOST_BLOCKS = 4           # in a row or column
    MOST_SIDE = BLOCK * MOST_BLOCKS + 1                  # cells, of the map
    VISION = 2                # cells
    VIEW = 2 * VISION + 1
    STRIDE = MOST_SIDE + 2 * VISION                      # cells of a row of map and border
    MOST_AGENTS = 16
    MOST_SHELVES = 4 * MOST_BLOCKS * MOST_BLOCKS
    SCALE = 32                # pixels per cell of a picture

cdef float REWARD_DELIVERY = 0.5
cdef float REWARD_RETURN = 0.5

# As the compiler lays it out, so does the space below: `observation_size` has the library compare.
cdef struct Observation:
    uint8_t[VIEW * VIEW] floor
    uint8_t[VIEW * VIEW] robots
    int32_t load
    int8_t[2] goal

cdef struct Robot:
    int32_t cell
    int32_t heading
    int32_t shelf             # that it carries, or -1
    int32_t delivered         # 1: that shelf was at the goal since it was lifted

cdef struct State:
    Robot[MOST_AGENTS] robots
    uint8_t[STRIDE * STRIDE] cells
    uint8_t[STRIDE * STRIDE] headings   # 1 + the Heading of the robot on each cell, 0: none
    uint8_t[STRIDE * STRIDE] shelves    # number of the one that stands on each cell, if one does
    int32_t[MOST_SHELVES] places        # the cell that each shelf stands on, or -1: it is carried
    uint8_t[MOST_SHELVES] requested     # 1: it is asked for
    int32_t ticks                       # since the reset

# From a cell to the next, by Heading; and from a robot's to all that it sees, from the far left on.
cdef int32_t[4] AHEAD = [-STRIDE, 1, STRIDE, -1]
cdef int32_t[4][VIEW * VIEW] WINDOW
for _heading in range(4):
    for _i in range(VIEW * VIEW):
        WINDOW[_heading][_i] = ((VISION - _i // VIEW) * AHEAD[_heading]
                                + (_i % VIEW - VISION) * AHEAD[(_heading + 1) % 4])


@cython.final
cdef class Warehouse(NativeEnv):
    """Robots that lift shelves, bring those that are requested to the goal, and put them back.

    After the robotic warehouse (RWARE) of Papoudakis et al. 2021, "Benchmarking multi-agent deep
    reinforcement learning algorithms in cooperative tasks" (arXiv 2006.07869), with its two-stage
    rewards, one goal, small blocks, and a view that turns with the robot.

    The map has `columns` x `lines` blocks of 2 x 2 places, with roads of one cell between and
    around them, and the goal in the middle of the lowest road. At first there is a shelf on every
    place, `num_requests` of them are requested, and the robots are anywhere.

    Observation: a Dict of `floor`, uint8 (5, 5), the cells around the robot, ahead of it first:
    0 road, 1 wall, 2 goal, 3 a place without a shelf, 4 shelf, 5 requested shelf; `robots`, uint8
    (5, 5), 0 none, and else its heading as the robot sees it: 1 away, 2 right, 3 towards it, 4
    left; `load`, 0 nothing, 1 a shelf, 2 a requested one, 3 one that was delivered; and `goal`,
    int8 (2,), how many cells ahead and to the right it is. Action: Discrete(5), stay, forward, turn
    left, turn right, lift: take the shelf of the own cell, or put the load onto a place.

    The robots act one after the other, slot 0 first: of two that want a cell the lower slot gets
    it, and a cell that a lower slot leaves is free for a higher one in the same step. Walls and
    robots are in the way; standing shelves are too for a robot with a load, one without drives
    under them. A requested shelf on the goal is delivered: 0.5, and in its place one that was not
    requested is. To put a delivered shelf onto a place, any one, gives 0.5 too. With `shared` all
    rewards are divided among all. The episode ends after `max_ticks` (truncated).

    Statistics, of an episode: deliveries, returns, and blocked, how often a robot did not move as
    another was in its way.
    """
    action_names = ("stay", "forward", "left", "right", "lift")
    render_fps = 10
    cdef int32_t num_agents, num_requests, num_shelves, max_ticks
    cdef int32_t width, height                           # cells
    cdef int32_t goal_x, goal_y
    cdef bint shared

    def __init__(self, Py_ssize_t num_agents=3, Py_ssize_t columns=2, Py_ssize_t lines=2,
                 int32_t num_requests=4, bint shared=False, int32_t max_ticks=256):
        if not 1 <= num_agents <= MOST_AGENTS:
            raise ValueError(f"warehouse: num_agents is 1 to {MOST_AGENTS}, not {num_agents}")
        if not (1 <= columns <= MOST_BLOCKS and 1 <= lines <= MOST_BLOCKS):
            raise ValueError(f"warehouse: columns and lines are 1 to {MOST_BLOCKS}, not {columns} "
                             f"and {lines}")
        self.num_shelves = 4 * columns * lines
        if not 1 <= num_requests < self.num_shelves:
            raise ValueError("warehouse: num_requests is at least 1 and less than the "
                             f"{self.num_shelves} shelves, not {num_requests}")
        if max_ticks < 1:
            raise ValueError(f"warehouse: max_ticks is at least 1, not {max_ticks}")
        self.num_agents, self.num_requests = num_agents, num_requests
        self.shared, self.max_ticks = shared, max_ticks
        self.width, self.height = BLOCK * columns + 1, BLOCK * lines + 1
        self.goal_x, self.goal_y = self.width // 2, self.height - 1
        far = MOST_SIDE - 1
        super().__init__(
            Dict([("floor", Box(0, REQUESTED, (VIEW, VIEW), np.uint8)),
                  ("robots", Box(0, 4, (VIEW, VIEW), np.uint8)), ("load", Discrete(4)),
                  ("goal", Box(-far, far, (2,), np.int8))]),
            Discrete(5), sizeof(State), agents_per_env=num_agents,
            stats=("deliveries", "returns", "blocked"), observation_size=sizeof(Observation))

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_rows(&rows):
            if rows.starting:
                self.reset(<State*> rows.state, rows.rng)
            else:
                self.step(<State*> rows.state, &rows)
            self.observe(<State*> rows.state, &rows)

    cdef inline void reset(self, State* state, Rng* rng) noexcept nogil:
        cdef int32_t x, y, cell, a, _
        cdef int32_t shelf = 0
        memset(state, 0, sizeof(State))
        memset(state.cells, WALL, sizeof(state.cells))
        for y in range(self.height):
            for x in range(self.width):
                cell = self.cell_at(y, x)
                state.cells[cell] = ROAD
                if y % BLOCK != 0 and x % BLOCK != 0:
                    self.put(state, shelf, cell)
                    shelf += 1
        state.cells[self.cell_at(self.goal_y, self.goal_x)] = GOAL
        for _ in range(self.num_requests):
            self.request(state, rng)
        for a in range(self.num_agents):
            self.settle(state, &state.robots[a], rng)

    cdef inline void settle(self, State* state, Robot* robot, Rng* rng) noexcept nogil:
        """Put a robot onto a random cell without one."""
        cdef int32_t i = <int32_t> uniform_int(rng, <uint32_t> (self.width * self.height))
        while state.headings[self.cell_at(i // self.width, i % self.width)]:
            i = <int32_t> uniform_int(rng, <uint32_t> (self.width * self.height))
        robot.cell = self.cell_at(i // self.width, i % self.width)
        robot.heading = <int32_t> uniform_int(rng, 4)
        robot.shelf = -1
        state.headings[robot.cell] = <uint8_t> (1 + robot.heading)

    cdef inline void step(self, State* state, Rows* rows) noexcept nogil:
        cdef int32_t a
        cdef float total = 0
        state.ticks += 1
        for a in range(self.num_agents):
            self.act(state, rows, a)
            total += rows.rewards[a]
        for a in range(self.num_agents):
            if self.shared:
                rows.rewards[a] = total / self.num_agents
            rows.truncations[a] = state.ticks == self.max_ticks

    cdef inline void act(self, State* state, Rows* rows, int32_t a) noexcept nogil:
        cdef Robot* robot = &state.robots[a]
        cdef int32_t action = rows.actions[a]
        if action == FORWARD:
            self.drive(state, rows, robot)
        elif action == LIFT:
            if robot.shelf < 0:
                self.lift(state, robot)
            elif state.cells[robot.cell] == PLACE:
                self.put(state, robot.shelf, robot.cell)
                robot.shelf = -1
                if robot.delivered:
                    rows.rewards[a] += REWARD_RETURN
                    rows.stats[RETURNS] += 1
        else:
            robot.heading = (robot.heading + (action == TURN_RIGHT) - (action == TURN_LEFT)) & 3
            state.headings[robot.cell] = <uint8_t> (1 + robot.heading)
        if (state.cells[robot.cell] == GOAL and robot.shelf >= 0
                and state.requested[robot.shelf]):
            self.request(state, rows.rng)
            state.requested[robot.shelf] = False
            robot.delivered = True
            rows.rewards[a] += REWARD_DELIVERY
            rows.stats[DELIVERIES] += 1

    cdef inline void drive(self, State* state, Rows* rows, Robot* robot) noexcept nogil:
        cdef int32_t cell = robot.cell + AHEAD[robot.heading]
        if state.headings[cell]:
            rows.stats[BLOCKED] += 1
        elif state.cells[cell] != WALL and (robot.shelf < 0 or state.cells[cell] < SHELF):
            state.headings[robot.cell] = 0
            state.headings[cell] = <uint8_t> (1 + robot.heading)
            robot.cell = cell

    cdef inline void lift(self, State* state, Robot* robot) noexcept nogil:
        if state.cells[robot.cell] >= SHELF:
            robot.shelf = state.shelves[robot.cell]
            robot.delivered = False
            state.places[robot.shelf] = -1
            state.cells[robot.cell] = PLACE

    cdef inline void put(self, State* state, int32_t shelf, int32_t cell) noexcept nogil:
        state.places[shelf] = cell
        state.shelves[cell] = <uint8_t> shelf
        state.cells[cell] = SHELF + state.requested[shelf]

    cdef inline void request(self, State* state, Rng* rng) noexcept nogil:
        """Ask for a shelf that is not asked for, on whatever cell it is."""
        cdef int32_t shelf = <int32_t> uniform_int(rng, <uint32_t> self.num_shelves)
        while state.requested[shelf]:
            shelf = <int32_t> uniform_int(rng, <uint32_t> self.num_shelves)
        state.requested[shelf] = True
        if state.places[shelf] >= 0:
            state.cells[state.places[shelf]] = REQUESTED

    cdef inline int32_t cell_at(self, int32_t y, int32_t x) noexcept nogil:
        return (y + VISION) * STRIDE + x + VISION

    cdef inline void observe(self, State* state, Rows* rows) noexcept nogil:
        """What each robot sees. The border is as wide as that: so no window leaves the map."""
        cdef Observation* seen = <Observation*> rows.observations
        cdef Robot* robot
        cdef int32_t a, i, cell, ahead, right
        for a in range(self.num_agents):
            robot = &state.robots[a]
            for i in range(VIEW * VIEW):
                cell = robot.cell + WINDOW[robot.heading][i]
                seen[a].floor[i] = state.cells[cell]
                seen[a].robots[i] = (0 if state.headings[cell] == 0 else <uint8_t> (
                    1 + ((state.headings[cell] - 1 - robot.heading) & 3)))
            seen[a].load = self.load_of(state, robot)
            ahead = robot.cell // STRIDE - VISION - self.goal_y       # for who heads up
            right = self.goal_x - (robot.cell % STRIDE - VISION)
            if robot.heading & 1:
                ahead, right = right, -ahead
            if robot.heading & 2:
                ahead, right = -ahead, -right
            seen[a].goal[0] = <int8_t> ahead
            seen[a].goal[1] = <int8_t> right

    cdef inline int32_t load_of(self, State* state, Robot* robot) noexcept nogil:
        if robot.shelf < 0:
            return NOTHING
        if state.requested[robot.shelf]:
            return REQUESTED_SHELF
        return DELIVERED_SHELF if robot.delivered else ANY_SHELF

    cdef object picture_of(self, Py_ssize_t environment):
        """uint8 (height, width): the Cell everywhere; and a list with (y, x, heading, load) of
        every robot."""
        cdef State* state = <State*> self.state_of(environment)
        cdef Robot* robot
        cells = np.array([[state.cells[self.cell_at(y, x)] for x in range(self.width)]
                          for y in range(self.height)], np.uint8)
        robots = []
        for a in range(self.num_agents):
            robot = &state.robots[a]
            robots.append((robot.cell // STRIDE - VISION, robot.cell % STRIDE - VISION,
                           robot.heading, self.load_of(state, robot)))
        return cells, robots

    def ansi(self, Py_ssize_t environment):
        """The map, two characters a cell. First a robot, one of '^>v<'; then what is there: the
        goal 'G', a place '.', a shelf 'o', a requested one '!'; or the load of the robot: a shelf
        's', a requested one 'r', a delivered one 'd'."""
        cells, robots = self.picture_of(environment)
        text = [[[" ", " #G.o!"[cell]] for cell in line] for line in cells.tolist()]
        for y, x, heading, load in robots:
            text[y][x][0] = "^>v<"[heading]
            if load:
                text[y][x][1] = " srd"[load]
        return "".join("".join(map("".join, line)) + "\n" for line in text)

    def render(self, Py_ssize_t environment):
        """The map: uint8 (32 * height, 32 * width, 3). Shelves are squares, requested ones bright;
        robots are smaller ones with a white nose, of the colour of their load."""
        floors = np.array([(12, 16, 28), (90, 90, 90), (120, 214, 92), (34, 38, 52), (34, 38, 52),
                           (34, 38, 52)], np.uint8)
        shelves = {SHELF: (124, 104, 96), REQUESTED: (250, 186, 60)}
        bodies = ((64, 140, 246), (124, 104, 96), (250, 186, 60), (170, 110, 244))
        cells, robots = self.picture_of(environment)
        picture = floors[cells].repeat(SCALE, 0).repeat(SCALE, 1)

        def fill(y, x, top, left, bottom, right, color):
            """A rectangle in a cell, in 32nds of it."""
            picture[y * SCALE + top:y * SCALE + bottom, x * SCALE + left:x * SCALE + right] = color

        for y, x in np.argwhere(cells >= SHELF):
            fill(y, x, 2, 2, 30, 30, shelves[cells[y, x]])
        for y, x, heading, load in robots:
            fill(y, x, 7, 7, 25, 25, (12, 16, 28))
            fill(y, x, 8, 8, 24, 24, bodies[load])
            fill(y, x, *((8, 13, 12, 19), (13, 20, 19, 24), (20, 13, 24, 19),
                         (13, 8, 19, 12))[heading], (255, 255, 255))
        return picture
