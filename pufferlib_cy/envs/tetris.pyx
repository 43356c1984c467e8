"""tetris: pieces fall into a well of ten columns, one in a step; full lines vanish."""

cimport cython
from libc.stdint cimport int8_t, int32_t, uint8_t, uint16_t
from libc.string cimport memcpy, memset
from pufferlib_cy cimport NativeEnv, Rng, Rows, Slice, first_rows, next_rows, uniform_int

from itertools import product, starmap

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

cdef enum: LINES_CLEARED, TETRISES                    # the statistics
cdef enum:
    COLUMNS = 10
    LINES = 20                # line 0 is the bottom
    PIECES = 7
    TURNS = 4                 # quarter turns clockwise
    ACTIONS = 40              # turns * COLUMNS + column
    FULL = 0x3FF              # a line with a block in every column
    TALLEST = 4               # lines of a piece
    STEEPEST = 3              # of the surface, as it is observed
    MOST_COVERED = 3          # likewise
    LANES = 16                # columns that are looked at together; those past the wall are empty
    BLOCK_PIXELS = 24
    PANEL = 6                 # columns of a picture for the pieces beside the well

NAMES = "IOTSZJL"
DRAWINGS = ("####", "## ##", ".#. ###", ".## ##.", "##. .##", "#.. ###", "..# ###")

cdef struct Shape:
    # A piece in one of its turns. Rows are counted from its lowest, columns from its leftmost.
    int32_t width, height     # width 0: looks like one with fewer turns
    uint16_t[TALLEST] rows    # bit x: a block in column x
    int32_t[TALLEST] bottoms  # of each column: row of its lowest block
    int32_t[TALLEST] tops     # and the row above its highest

cdef struct State:
    uint16_t[LINES] lines     # bit x: a block in column x
    uint8_t[COLUMNS] heights  # lines up to the highest block
    uint8_t piece             # to be placed now
    uint8_t next_piece
    uint8_t[PIECES] bag       # pieces that come before any comes again, `left` of them
    uint8_t left

# As the compiler lays it out, so does the space below: `observation_size` has the library compare.
cdef struct Observation:
    uint8_t[LINES * COLUMNS] well
    uint8_t[COLUMNS] heights
    int8_t[COLUMNS - 1] surface
    uint8_t[ACTIONS] rests
    uint8_t[ACTIONS] covers
    uint8_t[ACTIONS] clears
    int32_t piece
    int32_t next_piece

cdef Shape[PIECES][TURNS] SHAPES
cdef uint8_t[PIECES][ACTIONS] WITHIN                  # 1: the piece is between the walls
cdef uint8_t[1 << COLUMNS][COLUMNS] SPREAD            # byte x of SPREAD[line] is bit x


def turned(piece, turns):
    """The rows of a piece from the top, "#" for a block; None: a smaller turn looks the same."""
    rows, seen = DRAWINGS[piece].split(), []
    for _ in range(turns):
        seen.append(rows)
        rows = ["".join(column) for column in zip(*reversed(rows), strict=True)]
    return None if rows in seen else rows


cdef fill_tables():
    cdef Shape* shape
    for piece in range(PIECES):
        for turns in range(TURNS):
            rows = turned(piece, turns)
            if rows is None:
                continue
            shape = &SHAPES[piece][turns]
            shape.height, shape.width = len(rows), len(rows[0])
            for y, row in enumerate(reversed(rows)):
                shape.rows[y] = sum((block == "#") << x for x, block in enumerate(row))
            for x in range(shape.width):
                blocks = [y for y in range(shape.height) if shape.rows[y] >> x & 1]
                shape.bottoms[x], shape.tops[x] = min(blocks), max(blocks) + 1
            for x in range(COLUMNS + 1 - shape.width):
                WITHIN[piece][turns * COLUMNS + x] = True
    for line in range(1 << COLUMNS):
        for x in range(COLUMNS):
            SPREAD[line][x] = line >> x & 1


fill_tables()


cdef inline int32_t landing(const State* state, const Shape* shape, int32_t column) noexcept nogil:
    """The line on which the lowest row of a shape comes to rest."""
    cdef int32_t line = 0, x
    for x in range(shape.width):
        line = max(line, state.heights[column + x] - shape.bottoms[x])
    return line


cdef inline int32_t cells_under(const State* state, const Shape* shape, int32_t column,
                                int32_t line) noexcept nogil:
    """Empty cells between a shape that rests on a line and the surface."""
    cdef int32_t cells = 0, x
    for x in range(shape.width):
        cells += line + shape.bottoms[x] - state.heights[column + x]
    return cells


@cython.final
cdef class Tetris(NativeEnv):
    """Place pieces in a well of 10 columns and 20 lines so that lines fill up and vanish.

    Action: Discrete(40), 10 * turns + column: the piece is turned that many quarters clockwise,
    its leftmost block is put over that column, and it drops straight down. Action masks: turns that
    look different, between the walls, such that the piece comes to rest within the 20 lines. Any
    other action ends the game. Lines that are full vanish, and what is above them moves down. The
    game terminates when the next piece has no legal place, and is truncated after `max_pieces`
    pieces (0: never). The pieces are I, O, T, S, Z, J, L, each once, in random order, in every
    seven.

    Observation: a Dict of `well`, uint8 (20, 10), from the top, 1 for a block; `heights`, uint8
    (10,), of the columns; `surface`, int8 (9,), by how much a column is higher than the one to its
    left, at most 3; for every action, uint8 (40,), `rests`, the line where the lowest row of the
    piece would come to rest (20 if it is illegal), `covers`, how many empty cells would be under
    it, at most 3, and `clears`, how many lines would vanish; and `piece` and `next_piece`,
    Discrete(7).

    Reward: 1 per line, less `cover_cost` (a help for learners, 0 by default) for each empty cell
    that the piece came to rest over. Statistics: lines, and tetrises (four lines with one piece).
    """
    cdef int32_t max_pieces
    cdef double cover_cost
    action_names = tuple(starmap("turn {}, column {}".format,
                                 product(range(TURNS), range(COLUMNS))))

    def __init__(self, int32_t max_pieces=500, double cover_cost=0.0):
        if max_pieces < 0:
            raise ValueError(f"tetris: max_pieces is at least 0, not {max_pieces}")
        if not 0 <= cover_cost <= 1:
            raise ValueError(f"tetris: cover_cost is 0 to 1, not {cover_cost}")
        self.max_pieces = max_pieces
        self.cover_cost = cover_cost
        super().__init__(
            Dict([("well", Box(0, 1, (LINES, COLUMNS), np.uint8)),
                  ("heights", Box(0, LINES, (COLUMNS,), np.uint8)),
                  ("surface", Box(-STEEPEST, STEEPEST, (COLUMNS - 1,), np.int8)),
                  ("rests", Box(0, LINES, (ACTIONS,), np.uint8)),
                  ("covers", Box(0, MOST_COVERED, (ACTIONS,), np.uint8)),
                  ("clears", Box(0, TALLEST, (ACTIONS,), np.uint8)),
                  ("piece", Discrete(PIECES)), ("next_piece", Discrete(PIECES))]),
            Discrete(ACTIONS), sizeof(State), action_masks=True, stats=("lines", "tetrises"),
            observation_size=sizeof(Observation))

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_rows(&rows):
            if rows.starting:
                self.reset(<State*> rows.state, &rows)
            else:
                self.step(<State*> rows.state, &rows)
            self.observe(<State*> rows.state, &rows)

    cdef inline void reset(self, State* state, Rows* rows) noexcept nogil:
        memset(state, 0, sizeof(State))
        state.piece = self.draw(state, rows.rng)
        state.next_piece = self.draw(state, rows.rng)

    cdef inline void step(self, State* state, Rows* rows) noexcept nogil:
        cdef int32_t action = rows.actions[0], column = action % COLUMNS, line, covered, cleared
        cdef const Shape* shape = &SHAPES[state.piece][action // COLUMNS]
        line = landing(state, shape, column) if WITHIN[state.piece][action] else LINES + 1
        if line + shape.height > LINES:
            rows.terminations[0] = True
            return
        covered = cells_under(state, shape, column, line)
        cleared = self.place(state, shape, column, line)
        rows.rewards[0] = <float> (cleared - self.cover_cost * covered)
        rows.stats[LINES_CLEARED] += cleared
        rows.stats[TETRISES] += cleared == 4
        state.piece = state.next_piece
        state.next_piece = self.draw(state, rows.rng)
        rows.truncations[0] = rows.lengths[0] + 1 == self.max_pieces

    cdef inline int32_t place(self, State* state, const Shape* shape, int32_t column,
                              int32_t first) noexcept nogil:
        """Put a shape into a column, its lowest row on line `first`; how many lines vanish."""
        cdef int32_t line, x, kept
        cdef uint16_t covered = 0
        cdef bint full = False
        for line in range(shape.height):
            state.lines[first + line] |= shape.rows[line] << column
            full |= state.lines[first + line] == FULL
        for x in range(shape.width):
            state.heights[column + x] = <uint8_t> (first + shape.tops[x])
        if not full:
            return 0
        kept = first
        for line in range(first, LINES):
            state.lines[kept] = state.lines[line]
            kept += state.lines[line] != FULL
        memset(state.lines + kept, 0, (LINES - kept) * sizeof(uint16_t))
        memset(state.heights, 0, COLUMNS)
        for line in range(kept - 1, -1, -1):              # the highest blocks, from the top
            for x in range(COLUMNS):
                if (state.lines[line] & ~covered) >> x & 1:
                    state.heights[x] = <uint8_t> (line + 1)
            covered |= state.lines[line]
            if covered == FULL:
                break
        return LINES - kept

    cdef inline uint8_t draw(self, State* state, Rng* rng) noexcept nogil:
        """Take a random piece from the bag, and a new bag when it is empty."""
        cdef uint8_t i, piece
        if state.left == 0:
            for i in range(PIECES):
                state.bag[i] = i
            state.left = PIECES
        i = <uint8_t> uniform_int(rng, state.left)
        piece = state.bag[i]
        state.left -= 1
        state.bag[i] = state.bag[state.left]
        return piece

    cdef inline void observe(self, const State* state, Rows* rows) noexcept nogil:
        """What is to be seen, the action masks, and whether the game is over."""
        cdef Observation* seen = <Observation*> rows.observations
        cdef int32_t line, x, step
        for line in range(LINES):
            memcpy(seen.well + COLUMNS * line, SPREAD[state.lines[LINES - 1 - line]], COLUMNS)
        memcpy(seen.heights, state.heights, COLUMNS)
        for x in range(COLUMNS - 1):
            step = <int32_t> state.heights[x + 1] - state.heights[x]
            seen.surface[x] = <int8_t> max(min(step, STEEPEST), -STEEPEST)
        seen.piece = state.piece
        seen.next_piece = state.next_piece
        if self.try_out(state, seen):
            for x in range(ACTIONS):
                rows.action_masks[x] = seen.rests[x] < LINES
        else:
            rows.terminations[0] = True
            rows.truncations[0] = False

    cdef inline bint try_out(self, const State* state, Observation* seen) noexcept nogil:
        """What each action would do; False: none is legal."""
        cdef uint8_t[LANES + TALLEST] heights
        cdef int32_t[LANES] rests, under                  # of a shape over each column
        cdef const Shape* shape
        cdef int32_t turns, column, x, y, action, clears
        cdef bint some = False
        memset(heights, 0, sizeof(heights))
        memcpy(heights, state.heights, COLUMNS)
        memset(seen.rests, LINES, ACTIONS)
        memset(seen.covers, MOST_COVERED, ACTIONS)
        memset(seen.clears, 0, ACTIONS)
        for turns in range(TURNS):
            shape = &SHAPES[state.piece][turns]
            memset(rests, 0, sizeof(rests))
            memset(under, 0, sizeof(under))
            for x in range(shape.width):
                for column in range(LANES):
                    rests[column] = max(rests[column], heights[column + x] - shape.bottoms[x])
                    under[column] += shape.bottoms[x] - heights[column + x]
            for column in range(COLUMNS + 1 - shape.width if shape.width else 0):
                if rests[column] + shape.height > LINES:
                    continue
                some = True
                clears = 0
                for y in range(shape.height):
                    clears += (state.lines[rests[column] + y] | shape.rows[y] << column) == FULL
                action = turns * COLUMNS + column
                seen.rests[action] = <uint8_t> rests[column]
                seen.covers[action] = <uint8_t> min(under[column] + rests[column] * shape.width,
                                                    MOST_COVERED)
                seen.clears[action] = <uint8_t> clears
        return some

    cdef object picture_of(self, Py_ssize_t environment):
        """uint8 (20, 10 + PANEL): 0 the well, 1 blocks, 2 the panel, 3 + piece what is in it."""
        cdef State* state = <State*> self.state_of(environment)
        cells = np.full((LINES, COLUMNS + PANEL), 2, np.uint8)
        for line in range(LINES):
            cells[LINES - 1 - line, :COLUMNS] = [state.lines[line] >> x & 1 for x in range(COLUMNS)]
        for top, piece in ((1, state.piece), (5, state.next_piece)):
            for y, row in enumerate(turned(piece, 0)):
                for x, block in enumerate(row):
                    if block == "#":
                        cells[top + y, COLUMNS + 1 + x] = 3 + piece
        return cells

    def ansi(self, Py_ssize_t environment):
        """The well, and beside it the piece to place and the next one."""
        return "".join("".join(f".# {NAMES}"[cell] for cell in line).rstrip() + "\n"
                       for line in self.picture_of(environment).tolist())

    def render(self, Py_ssize_t environment):
        """The well, the piece to place and the next one: uint8 (480, 384, 3)."""
        palette = np.array([
            (16, 20, 34), (150, 158, 178), (38, 44, 64), (80, 208, 230), (244, 208, 63),
            (175, 96, 214), (104, 204, 96), (232, 80, 76), (70, 110, 230), (240, 150, 50)],
            np.uint8)
        cells = self.picture_of(environment)
        picture = palette[cells].repeat(BLOCK_PIXELS, 0).repeat(BLOCK_PIXELS, 1)
        edges = np.zeros(BLOCK_PIXELS, bool)
        edges[0] = True                                   # dark lines between the blocks
        edges = np.tile(edges, LINES)[:, None] | np.tile(edges, COLUMNS + PANEL)
        picture[edges & (cells != 2).repeat(BLOCK_PIXELS, 0).repeat(BLOCK_PIXELS, 1)] = 12
        return picture
