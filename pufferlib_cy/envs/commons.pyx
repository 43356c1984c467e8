"""commons: harvesters of food that grows again only where some is left; a common-pool resource."""

cimport cython
from libc.math cimport fabs
from libc.stdint cimport int32_t, uint8_t
from libc.string cimport memcpy, memset
from pufferlib_cy cimport (NativeEnv, Rng, Rows, Slice, first_rows, next_rows, uniform,
                           uniform_int)

import numpy as np
from gymnasium.spaces import Box, Discrete

cdef enum Action: STAY, UP, DOWN, LEFT, RIGHT
cdef enum Cell: EMPTY, FOOD, WALL, AGENT
cdef enum: EATEN, LEFT_OVER, SUSTAINABILITY, EQUALITY    # the statistics
cdef enum:
    LOT = 7                   # cells, of the side of a square with a patch in its middle
    SIZE = 2 * LOT            # cells, of the map's side
    RADIUS = 2                # cells, of a patch, and of what is near
    PLACES = 4 * 13           # cells where food grows
    NEAR = 12                 # cells near another
    MOST_NEAR = 5             # from which on more food makes no difference
    VISION = 3                # cells
    VIEW = 2 * VISION + 1
    STRIDE = SIZE + 2 * VISION                           # cells of a row of map and border
    MOST_AGENTS = 16
    SCALE = 24                # pixels per cell of a picture

cdef struct Agent:
    int32_t cell
    int32_t eaten             # food, since the reset

cdef struct State:
    Agent[MOST_AGENTS] agents
    uint8_t[STRIDE * STRIDE] cells
    uint8_t[STRIDE * STRIDE] near   # food near each cell
    int32_t ticks             # since the reset
    int32_t food              # on the map

# How far the cells near one are from it, and the cells where food grows, row by row.
cdef int32_t[NEAR] OFFSETS
cdef int32_t[PLACES] PLACE_CELLS

_disc = [(y, x) for y in range(-RADIUS, RADIUS + 1) for x in range(-RADIUS, RADIUS + 1)
         if y * y + x * x <= RADIUS * RADIUS]
for _i, (_y, _x) in enumerate(cell for cell in _disc if cell != (0, 0)):
    OFFSETS[_i] = _y * STRIDE + _x
for _i, (_y, _x) in enumerate(sorted((middle_y + y, middle_x + x) for y, x in _disc
                                     for middle_y in (LOT // 2, LOT + LOT // 2)
                                     for middle_x in (LOT // 2, LOT + LOT // 2))):
    PLACE_CELLS[_i] = (_y + VISION) * STRIDE + _x + VISION


@cython.final
cdef class Commons(NativeEnv):
    """Harvesters on a small map with four patches of food. Who takes all of a patch kills it.

    After the common-pool resource of Perolat et al. 2017, "A multi-agent reinforcement learning
    model of common-pool resource appropriation" (arXiv 1707.06600), without their beam and without
    a heading: with `shared` False a harvester that spares food may see others take it.

    Observation: uint8 (49,), the 7 x 7 cells around the agent: 0 empty, 1 food, 2 wall, 3 agent.
    Action: Discrete(5), stay, up, down, left, right; walls and agents are in the way.

    The agents move one after the other, slot 0 first, so that of two that want a cell the lower
    slot gets it. Who comes onto food eats it: 1, with `shared` divided among all. Then food grows
    in the patches, discs of 13 cells, on every empty cell with a chance given by how much food was
    within 2 cells of it: none without any, 0.01 with 1 or 2, 0.05 with 3 or 4, and 0.1 with more,
    each times `growth`. The episode ends for all when no food is left, as none will come again
    (terminated), or after `max_ticks` (truncated).

    Statistics, of an episode: eaten, by all; left, the share of the first food that is there at the
    end; sustainability, the mean tick at which food was eaten; equality, 1 less the Gini
    coefficient of what each has eaten.
    """
    action_names = ("stay", "up", "down", "left", "right")
    render_fps = 10
    cdef int32_t num_agents, max_ticks
    cdef bint shared
    cdef double[MOST_NEAR + 1] chances                   # of growth, by the food near

    def __init__(self, Py_ssize_t num_agents=6, bint shared=True, double growth=1.0,
                 int32_t max_ticks=256):
        if not 1 <= num_agents <= MOST_AGENTS:
            raise ValueError(f"commons: num_agents is 1 to {MOST_AGENTS}, not {num_agents}")
        if not 0 <= growth <= 10:
            raise ValueError(f"commons: growth is 0 to 10, not {growth}")
        if max_ticks < 1:
            raise ValueError(f"commons: max_ticks is at least 1, not {max_ticks}")
        self.num_agents, self.shared, self.max_ticks = num_agents, shared, max_ticks
        for near, chance in enumerate((0.0, 0.01, 0.01, 0.05, 0.05, 0.1)):
            self.chances[near] = chance * growth
        super().__init__(Box(0, AGENT, (VIEW * VIEW,), np.uint8), Discrete(5), sizeof(State),
                         agents_per_env=num_agents,
                         stats=("eaten", "left", "sustainability", "equality"))

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_rows(&rows):
            if rows.starting:
                self.reset(<State*> rows.state, rows.rng)
            else:
                self.step(<State*> rows.state, &rows)
            self.observe(<State*> rows.state, &rows)

    cdef inline void reset(self, State* state, Rng* rng) noexcept nogil:
        cdef int32_t a, i, y
        memset(state, 0, sizeof(State))
        memset(state.cells, WALL, sizeof(state.cells))
        for y in range(SIZE):
            memset(state.cells + (y + VISION) * STRIDE + VISION, EMPTY, SIZE)
        for i in range(PLACES):
            self.put_food(state, PLACE_CELLS[i])
        for a in range(self.num_agents):
            state.agents[a].cell = self.empty_cell(state, rng)
            state.cells[state.agents[a].cell] = AGENT

    cdef inline void step(self, State* state, Rows* rows) noexcept nogil:
        cdef int32_t a
        cdef int32_t before = state.food
        cdef float share
        state.ticks += 1
        for a in range(self.num_agents):
            self.move(state, rows, a)
        if self.shared and state.food < before:
            share = <float> (before - state.food) / self.num_agents
            for a in range(self.num_agents):
                rows.rewards[a] = share
        self.grow(state, rows.rng)
        for a in range(self.num_agents):
            rows.terminations[a] = state.food == 0
            rows.truncations[a] = state.food != 0 and state.ticks == self.max_ticks
        rows.stats[LEFT_OVER] = <double> state.food / PLACES
        if rows.terminations[0] or rows.truncations[0]:
            rows.stats[EQUALITY] = self.equality(state)

    cdef inline void move(self, State* state, Rows* rows, int32_t a) noexcept nogil:
        cdef Agent* agent = &state.agents[a]
        cdef int32_t action = rows.actions[a]
        cdef int32_t cell = agent.cell + (
            STRIDE * ((action == DOWN) - (action == UP)) + (action == RIGHT) - (action == LEFT))
        if state.cells[cell] > FOOD:                     # itself too, if it stays
            return
        if state.cells[cell] == FOOD:
            self.take_food(state, cell)
            agent.eaten += 1
            if not self.shared:
                rows.rewards[a] = 1.0
            rows.stats[EATEN] += 1
            rows.stats[SUSTAINABILITY] += (
                (state.ticks - rows.stats[SUSTAINABILITY]) / rows.stats[EATEN])
        state.cells[agent.cell] = EMPTY
        state.cells[cell] = AGENT
        agent.cell = cell

    cdef inline void grow(self, State* state, Rng* rng) noexcept nogil:
        """All at once: what grows now has no effect on what else grows now."""
        cdef int32_t[PLACES] grown
        cdef int32_t count = 0, i, cell
        for i in range(PLACES):
            cell = PLACE_CELLS[i]
            if (state.cells[cell] == EMPTY and state.near[cell] > 0 and uniform(rng, 0.0, 1.0)
                    < self.chances[min(state.near[cell], <uint8_t> MOST_NEAR)]):
                grown[count] = cell
                count += 1
        for i in range(count):
            self.put_food(state, grown[i])

    cdef inline void put_food(self, State* state, int32_t cell) noexcept nogil:
        cdef int32_t i
        state.cells[cell] = FOOD
        state.food += 1
        for i in range(NEAR):
            state.near[cell + OFFSETS[i]] += 1

    cdef inline void take_food(self, State* state, int32_t cell) noexcept nogil:
        cdef int32_t i
        state.cells[cell] = EMPTY
        state.food -= 1
        for i in range(NEAR):
            state.near[cell + OFFSETS[i]] -= 1

    cdef inline int32_t empty_cell(self, State* state, Rng* rng) noexcept nogil:
        cdef int32_t i, cell = 0                         # a corner of the border, a wall
        while state.cells[cell] != EMPTY:
            i = <int32_t> uniform_int(rng, SIZE * SIZE)
            cell = (i // SIZE + VISION) * STRIDE + i % SIZE + VISION
        return cell

    cdef inline double equality(self, State* state) noexcept nogil:
        cdef double total = 0, differences = 0
        cdef int32_t a, b
        for a in range(self.num_agents):
            total += state.agents[a].eaten
            for b in range(a):
                differences += fabs(<double> state.agents[a].eaten - state.agents[b].eaten)
        return 1 - differences / (self.num_agents * total) if total > 0 else 1

    cdef inline void observe(self, State* state, Rows* rows) noexcept nogil:
        """What each agent sees. The border is as wide as that: so no window leaves the map."""
        cdef uint8_t* view = <uint8_t*> rows.observations
        cdef const uint8_t* corner
        cdef int32_t a, y
        for a in range(self.num_agents):
            corner = state.cells + state.agents[a].cell - VISION * (STRIDE + 1)
            for y in range(VIEW):
                memcpy(view, corner + y * STRIDE, VIEW)
                view += VIEW

    cdef object picture_of(self, Py_ssize_t environment):
        """uint8 (SIZE, SIZE): the Cell everywhere, and WALL where food may grow again."""
        cdef State* state = <State*> self.state_of(environment)
        cells = np.array([state.cells[i] for i in range(STRIDE * STRIDE)], np.uint8)
        places = np.array([PLACE_CELLS[i] for i in range(PLACES)])
        cells[places[cells[places] == EMPTY]] = WALL
        return cells.reshape(STRIDE, STRIDE)[VISION:-VISION, VISION:-VISION]

    def ansi(self, Py_ssize_t environment):
        """The map: food is 'o', places without it '.', agents '@'."""
        return "".join("".join(" o.@"[cell] for cell in line) + "\n"
                       for line in self.picture_of(environment).tolist())

    def render(self, Py_ssize_t environment):
        """The map: uint8 (24 * 14, 24 * 14, 3)."""
        palette = np.array([(12, 16, 28), (120, 214, 92), (48, 44, 40), (64, 140, 246)], np.uint8)
        return palette[self.picture_of(environment)].repeat(SCALE, 0).repeat(SCALE, 1)
