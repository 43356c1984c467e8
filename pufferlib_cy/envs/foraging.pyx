"""foraging: a population that eats, multiplies and starves; agents come and go in an episode."""

cimport cython
from libc.stdint cimport int32_t, uint8_t
from libc.string cimport memcpy, memset
from pufferlib_cy cimport NativeEnv, Rng, Rows, Slice, first_rows, next_rows, uniform_int

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

cdef enum Action: STAY, UP, DOWN, LEFT, RIGHT
cdef enum Cell: EMPTY, FOOD, WALL, AGENT
cdef enum Role: WALKER, RUNNER
cdef enum: EATEN, BIRTHS, DEATHS, POPULATION          # the statistics
cdef enum:
    SIZE = 20                 # cells, of the map's side
    VISION = 3                # cells
    VIEW = 2 * VISION + 1
    STRIDE = SIZE + 2 * VISION                        # cells of one row of the map with its border
    MOST_AGENTS = 64
    START_ENERGY = 20         # in steps of standing still
    FOOD_ENERGY = 8
    BIRTH_ENERGY = 32         # from which an agent has a child, and gives it half
    MAX_ENERGY = 40
    SCALE = 16                # pixels per cell of a picture

# As the compiler lays it out, so does the space below: `observation_size` has the library compare.
cdef struct Observation:
    uint8_t[VIEW * VIEW] map
    int32_t role
    float[4] vitals

cdef struct Agent:
    int32_t cell
    int32_t energy            # 0: does not live
    int32_t role
    int32_t dx, dy            # its last move

cdef struct World:
    Agent[MOST_AGENTS] agents
    uint8_t[STRIDE * STRIDE] cells
    int32_t ticks             # since the reset
    int32_t food              # on the map
    int32_t lives             # ticks lived by all agents together


@cython.final
cdef class Foraging(NativeEnv):
    """Foragers on a small map: who finds food lives and multiplies, who does not starves.

    Observation: a Dict of `map`, uint8 (7, 7), the cells around the agent: 0 empty, 1 food, 2 wall,
    3 agent; `role`, 0 walker or 1 runner; and `vitals`, float32 (4,): energy / 40, the last move in
    x and y, and the share of the episode that is over. Action: Discrete(5), stay, up, down, left,
    right: a walker goes one cell, a runner two, each over what is empty or food.

    The agents move one after the other, slot 0 first. A step costs 1 energy, and a runner that
    moves one more. Food gives 8 energy (up to 40) and the reward 1. Who has none left starves: -1,
    terminated. Who has 32 gives half to a child of either role on a cell beside it, if one is empty
    and a slot free. Every step up to `regrowth` food grows, on random cells while there is less
    than `num_food`. The episode ends with the last agent, or for all after `max_ticks` (truncated).

    Statistics, of an episode: eaten, births, deaths, and population (mean number of agents).
    """
    cdef int32_t num_agents, starting, num_food, regrowth, max_ticks

    def __init__(self, Py_ssize_t max_agents=16, int32_t starting=6, int32_t num_food=40,
                 int32_t regrowth=2, int32_t max_ticks=256):
        if not 1 <= starting <= max_agents <= MOST_AGENTS:
            raise ValueError(f"foraging: 1 <= starting <= max_agents <= {MOST_AGENTS}, not "
                             f"starting={starting} and max_agents={max_agents}")
        if not 0 <= num_food <= SIZE * SIZE // 2:
            raise ValueError(f"foraging: num_food is 0 to {SIZE * SIZE // 2}, not {num_food}")
        if regrowth < 0 or max_ticks < 1:
            raise ValueError("foraging: regrowth is at least 0 and max_ticks at least 1, not "
                             f"{regrowth} and {max_ticks}")
        self.num_agents, self.starting, self.num_food = max_agents, starting, num_food
        self.regrowth, self.max_ticks = regrowth, max_ticks
        super().__init__(
            Dict([("map", Box(0, AGENT, (VIEW, VIEW), np.uint8)), ("role", Discrete(2)),
                  ("vitals", Box(-1, 1, (4,), np.float32))]),
            Discrete(5), sizeof(World), agents_per_env=max_agents,
            stats=("eaten", "births", "deaths", "population"),
            observation_size=sizeof(Observation))

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_rows(&rows):
            if rows.starting:
                self.reset(<World*> rows.state, &rows)
            else:
                self.step(<World*> rows.state, &rows)
            self.observe(<World*> rows.state, &rows)

    cdef inline void reset(self, World* world, Rows* rows) noexcept nogil:
        cdef int32_t y, a
        memset(world, 0, sizeof(World))
        memset(world.cells, WALL, sizeof(world.cells))
        for y in range(SIZE):
            memset(world.cells + (y + VISION) * STRIDE + VISION, EMPTY, SIZE)
        for a in range(self.num_agents):
            rows.masks[a] = a < self.starting
            if rows.masks[a]:
                self.settle(world, a, self.empty_cell(world, rows.rng), START_ENERGY, rows.rng)
        while world.food < self.num_food:
            world.cells[self.empty_cell(world, rows.rng)] = FOOD
            world.food += 1

    cdef inline void step(self, World* world, Rows* rows) noexcept nogil:
        cdef int32_t a, _, cell
        cdef bint over
        world.ticks += 1
        over = world.ticks == self.max_ticks
        for a in range(self.num_agents):
            if not rows.masks[a]:
                continue
            world.lives += 1
            self.move(world, a, rows)
            if world.agents[a].energy <= 0:
                world.agents[a].energy = 0
                world.cells[world.agents[a].cell] = EMPTY
                rows.rewards[a] -= 1.0
                rows.terminations[a] = True
                rows.stats[DEATHS] += 1
            else:
                rows.truncations[a] = over
        if not over:
            self.multiply(world, rows)
        for _ in range(self.regrowth):
            cell = self.random_cell(rows.rng)
            if world.food < self.num_food and world.cells[cell] == EMPTY:
                world.cells[cell] = FOOD
                world.food += 1
        rows.stats[POPULATION] = <double> world.lives / world.ticks

    cdef inline void move(self, World* world, int32_t a, Rows* rows) noexcept nogil:
        """An agent acts, and eats what it comes over."""
        cdef Agent* agent = &world.agents[a]
        cdef int32_t action = rows.actions[a], _, cell
        agent.dx = (action == RIGHT) - (action == LEFT)
        agent.dy = (action == DOWN) - (action == UP)
        agent.energy -= 1 + (agent.role == RUNNER and action != STAY)
        for _ in range(1 + (agent.role == RUNNER)):
            cell = agent.cell + agent.dy * STRIDE + agent.dx
            if world.cells[cell] > FOOD:                  # itself too, if it stays
                return
            if world.cells[cell] == FOOD:
                world.food -= 1
                agent.energy = min(agent.energy + FOOD_ENERGY, <int32_t> MAX_ENERGY)
                rows.rewards[a] += 1.0
                rows.stats[EATEN] += 1
            world.cells[agent.cell] = EMPTY
            world.cells[cell] = AGENT
            agent.cell = cell

    cdef inline void multiply(self, World* world, Rows* rows) noexcept nogil:
        """Who has enough energy has a child, in the first slot that is free and reports no end."""
        cdef int32_t a, child = 0, i, cell
        cdef int32_t[4] sides = [-STRIDE, STRIDE, -1, 1]
        for a in range(self.num_agents):
            if world.agents[a].energy < BIRTH_ENERGY:
                continue
            while child < self.num_agents and rows.masks[child]:
                child += 1
            if child == self.num_agents:
                return
            for i in range(4):
                cell = world.agents[a].cell + sides[i]
                if world.cells[cell] == EMPTY:
                    self.settle(world, child, cell, world.agents[a].energy // 2, rows.rng)
                    world.agents[a].energy -= world.agents[child].energy
                    rows.masks[child] = True
                    rows.stats[BIRTHS] += 1
                    break

    cdef inline void settle(self, World* world, int32_t a, int32_t cell, int32_t energy,
                            Rng* rng) noexcept nogil:
        world.agents[a] = Agent(cell, energy, <int32_t> uniform_int(rng, 2), 0, 0)
        world.cells[cell] = AGENT

    cdef inline int32_t random_cell(self, Rng* rng) noexcept nogil:
        cdef int32_t i = <int32_t> uniform_int(rng, SIZE * SIZE)
        return (i // SIZE + VISION) * STRIDE + i % SIZE + VISION

    cdef inline int32_t empty_cell(self, World* world, Rng* rng) noexcept nogil:
        cdef int32_t cell = self.random_cell(rng)
        while world.cells[cell] != EMPTY:
            cell = self.random_cell(rng)
        return cell

    cdef inline void observe(self, World* world, Rows* rows) noexcept nogil:
        """What each agent sees. The border is as wide as that: so no window leaves the map."""
        cdef Observation* seen = <Observation*> rows.observations
        cdef Agent* agent
        cdef const uint8_t* corner
        cdef int32_t a, y
        for a in range(self.num_agents):
            if not rows.masks[a]:
                continue
            agent = &world.agents[a]
            corner = world.cells + agent.cell - VISION * (STRIDE + 1)
            for y in range(VIEW):
                memcpy(seen[a].map + y * VIEW, corner + y * STRIDE, VIEW)
            seen[a].role = agent.role
            seen[a].vitals[0] = <float> agent.energy / MAX_ENERGY
            seen[a].vitals[1] = <float> agent.dx
            seen[a].vitals[2] = <float> agent.dy
            seen[a].vitals[3] = <float> world.ticks / self.max_ticks

    cdef object picture_of(self, Py_ssize_t environment):
        """uint8 (SIZE, SIZE): the Cell everywhere, and AGENT + role where an agent is."""
        cdef World* world = <World*> self.state_of(environment)
        cells = np.array([world.cells[i] for i in range(STRIDE * STRIDE)], np.uint8)
        for a in range(self.num_agents):
            if world.agents[a].energy > 0:
                cells[world.agents[a].cell] = AGENT + world.agents[a].role
        return cells.reshape(STRIDE, STRIDE)[VISION:-VISION, VISION:-VISION]

    def ansi(self, Py_ssize_t environment):
        """The map: food is '.', walkers are 'w', runners 'r'."""
        return "".join("".join(" .#wr"[cell] for cell in line) + "\n"
                       for line in self.picture_of(environment).tolist())

    def render(self, Py_ssize_t environment):
        """The map: uint8 (16 * 20, 16 * 20, 3)."""
        palette = np.array([(12, 16, 28), (120, 214, 92), (90, 90, 90), (64, 140, 246),
                            (250, 186, 60)], np.uint8)
        return palette[self.picture_of(environment)].repeat(SCALE, 0).repeat(SCALE, 1)
