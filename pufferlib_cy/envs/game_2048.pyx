"""2048: slide tiles on a board of four by four; two that are equal become one."""

cimport cython
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from pufferlib_cy cimport NativeEnv, Rng, Rows, Slice, first_rows, next_rows, uniform_int

import numpy as np
from gymnasium.spaces import Box, Discrete

cdef enum: UP, DOWN, LEFT, RIGHT                     # the actions
cdef enum: SCORE, HIGHEST                             # the statistics
cdef enum:
    SIDE = 4                  # cells
    CELLS = 16
    LARGEST = 15              # exponent of a tile: 32768. Two of these do not merge
    TILE_BITS = 4             # of a cell; the exponent of its tile, 0: none
    ROW_BITS = 16
    ROWS = 1 << 16            # contents of one row
    FOUR_ODDS = 10            # one new tile of so many is a 4, the others are 2
    CELL_PIXELS = 100
    GAP = 12                  # pixels between cells

cdef double REWARD_POINT = 1e-3

# Cell (y, x) of a board is its bits 4 * (4 * y + x) to 4 * (4 * y + x) + 3.
cdef uint64_t EACH = 0x1111111111111111ULL            # the lowest bit of every cell
cdef uint64_t NOT_LAST_COLUMN = 0x0111011101110111ULL
cdef uint64_t NOT_LAST_ROW = 0x0000111111111111ULL

cdef struct State:
    uint64_t board

# What becomes of a row that slides to the left, its leftmost cell lowest, and the points for it.
cdef uint16_t[ROWS] SLID
cdef uint32_t[ROWS] POINTS


cdef void fill_tables() noexcept nogil:
    cdef uint32_t row, tile, last, slid, points
    cdef int x, length
    for row in range(<uint32_t> ROWS):
        slid = points = length = last = 0             # last: the tile that may still merge
        for x in range(SIDE):
            tile = row >> TILE_BITS * x & 15
            if tile == 0:
                continue
            if tile == last and tile < LARGEST:
                slid += 1U << TILE_BITS * (length - 1)
                points += 2U << tile
                last = 0
            else:
                slid |= tile << TILE_BITS * length
                length += 1
                last = tile
        SLID[row] = <uint16_t> slid
        POINTS[row] = points


fill_tables()


cdef inline uint64_t occupied(uint64_t board) noexcept nogil:
    """The lowest bit of every cell that is not 0."""
    return (board | board >> 1 | board >> 2 | board >> 3) & EACH


cdef inline int count_cells(uint64_t cells) noexcept nogil:
    """How many of the lowest bits of cells are set."""
    return <int> (((cells + (cells >> TILE_BITS)) & 0x0F0F0F0F0F0F0F0FULL)
                  * 0x0101010101010101ULL >> 56)


cdef inline uint64_t transposed(uint64_t board) noexcept nogil:
    # First within the four quarters of two by two cells, then the quarters.
    board = (board & 0xF0F00F0FF0F00F0FULL | (board & 0x0000F0F00000F0F0ULL) << 12
             | (board & 0x0F0F00000F0F0000ULL) >> 12)
    return (board & 0xFF00FF0000FF00FFULL | (board & 0x00FF00FF00000000ULL) >> 24
            | (board & 0x00000000FF00FF00ULL) << 24)


cdef inline uint64_t mirrored(uint64_t board) noexcept nogil:
    board = (board & 0x00FF00FF00FF00FFULL) << 8 | (board >> 8 & 0x00FF00FF00FF00FFULL)
    return (board & 0x0F0F0F0F0F0F0F0FULL) << 4 | (board >> 4 & 0x0F0F0F0F0F0F0F0FULL)


cdef inline uint64_t chosen(bint condition, uint64_t one, uint64_t other) noexcept nogil:
    """`one` if the condition is 1, else `other`; a branch would mostly be guessed wrong."""
    return other ^ ((one ^ other) & (<uint64_t> 0 - <uint64_t> condition))


@cython.final
cdef class Game2048(NativeEnv):
    """All tiles slide as far as they can; two equal ones that meet become one of their sum.

    Observation: uint8 (16,), the cells row by row from the top: 0 empty, else the exponent n of the
    tile 2**n, at most 15. Action: Discrete(4), up, down, left, right. Action masks: the moves that
    slide a tile; any other has no effect.

    A tile merges once in a move, and where three are equal the two farthest in its direction do.
    Each merge scores the points of its new tile; the reward is a thousandth of the points. Then a
    new tile comes to a random empty cell: 2, or in one case of ten 4. A game begins with two of
    these, and terminates when no move slides a tile. After `max_steps` steps (0: never) it is
    truncated, for those who do without the masks.

    Statistics: score (points) and highest (the largest tile).
    """
    cdef int32_t max_steps
    action_names = ("up", "down", "left", "right")

    def __init__(self, int32_t max_steps=50_000):
        if max_steps < 0:
            raise ValueError(f"2048: max_steps is at least 0, not {max_steps}")
        self.max_steps = max_steps
        super().__init__(Box(0, LARGEST, (CELLS,), np.uint8), Discrete(4), sizeof(State),
                         action_masks=True, stats=("score", "highest"))

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_rows(&rows):
            if rows.starting:
                self.reset(<State*> rows.state, &rows)
            else:
                self.step(<State*> rows.state, &rows)
            self.observe(<State*> rows.state, &rows)

    cdef inline void reset(self, State* state, Rows* rows) noexcept nogil:
        state.board = 0
        self.add_tile(state, rows.rng)
        self.add_tile(state, rows.rng)

    cdef inline void step(self, State* state, Rows* rows) noexcept nogil:
        cdef int action = rows.actions[0], y
        cdef bint vertical = action <= DOWN, backwards = action & 1
        cdef uint64_t board = state.board, slid = 0, row
        cdef uint32_t points = 0
        # Turned so that the move is to the left.
        board = chosen(vertical, transposed(board), board)
        board = chosen(backwards, mirrored(board), board)
        for y in range(SIDE):
            row = board >> ROW_BITS * y & 0xFFFF
            slid |= <uint64_t> SLID[row] << ROW_BITS * y
            points += POINTS[row]
        if slid != board:
            slid = chosen(backwards, mirrored(slid), slid)
            state.board = chosen(vertical, transposed(slid), slid)
            self.add_tile(state, rows.rng)
        rows.rewards[0] = <float> (REWARD_POINT * points)
        rows.stats[SCORE] += points
        rows.truncations[0] = rows.lengths[0] + 1 == self.max_steps

    cdef inline void add_tile(self, State* state, Rng* rng) noexcept nogil:
        """Put a new tile on a random one of the empty cells, of which there is one."""
        cdef uint64_t empty = EACH & ~occupied(state.board)
        for _ in range(<int> uniform_int(rng, count_cells(empty))):
            empty &= empty - 1                        # without its first cell
        state.board |= (empty & ~(empty - 1)) << (uniform_int(rng, FOUR_ODDS) == 0)

    cdef inline void observe(self, State* state, Rows* rows) noexcept nogil:
        """The cells, the legal moves, and whether the game is over."""
        cdef uint64_t board = state.board, taken = occupied(board), merging
        cdef uint64_t right = taken >> TILE_BITS, below = taken >> ROW_BITS     # of each cell
        cdef uint64_t largest = board & board >> 1 & board >> 2 & board >> 3
        cdef uint8_t* view = <uint8_t*> rows.observations
        cdef int i
        cdef bint up, down, to_left, to_right
        for i in range(CELLS):
            view[i] = board >> TILE_BITS * i & 15
        # A tile slides to an empty cell beside it, or into its like there.
        merging = taken & ~occupied(board ^ board >> TILE_BITS) & ~largest
        to_left = ((right & ~taken | merging) & NOT_LAST_COLUMN) != 0
        to_right = ((taken & ~right | merging) & NOT_LAST_COLUMN) != 0
        merging = taken & ~occupied(board ^ board >> ROW_BITS) & ~largest
        up = ((below & ~taken | merging) & NOT_LAST_ROW) != 0
        down = ((taken & ~below | merging) & NOT_LAST_ROW) != 0
        if up | down | to_left | to_right:
            rows.action_masks[UP], rows.action_masks[DOWN] = up, down
            rows.action_masks[LEFT], rows.action_masks[RIGHT] = to_left, to_right
        else:
            rows.terminations[0] = True
            rows.truncations[0] = False
        # At a reset the flags may still be those of the game before.
        if not rows.starting and rows.terminations[0] | rows.truncations[0]:
            for i in range(CELLS):
                rows.stats[HIGHEST] = max(rows.stats[HIGHEST], <double> (1 << view[i]))

    cdef object tiles_of(self, Py_ssize_t environment):
        """The tiles, a list of rows; 0: no tile."""
        cdef uint64_t board = (<State*> self.state_of(environment)).board
        exponents = [board >> TILE_BITS * i & 15 for i in range(CELLS)]
        return [[1 << n if n else 0 for n in exponents[SIDE * y:SIDE * (y + 1)]]
                for y in range(SIDE)]

    def ansi(self, Py_ssize_t environment):
        """The tiles; a dot is an empty cell."""
        return "".join("".join(f"{tile or '.':>6}" for tile in line) + "\n"
                       for line in self.tiles_of(environment))

    def render(self, Py_ssize_t environment):
        """The board in the colours of the game: uint8 (460, 460, 3)."""
        try:
            from PIL import Image, ImageDraw, ImageFont
        except ImportError as error:
            raise ImportError('2048: rendering needs Pillow: '
                              'pip install "pufferlib_cy[render]"') from error
        colors = {0: (205, 193, 180), 2: (238, 228, 218), 4: (237, 224, 200), 8: (242, 177, 121),
                  16: (245, 149, 99), 32: (246, 124, 95), 64: (246, 94, 59), 128: (237, 207, 114),
                  256: (237, 204, 97), 512: (237, 200, 80), 1024: (237, 197, 63),
                  2048: (237, 194, 46)}
        step = CELL_PIXELS + GAP
        image = Image.new("RGB", (SIDE * step + GAP, SIDE * step + GAP), (187, 173, 160))
        draw = ImageDraw.Draw(image)
        for y, line in enumerate(self.tiles_of(environment)):
            for x, tile in enumerate(line):
                left, top = GAP + x * step, GAP + y * step
                draw.rounded_rectangle((left, top, left + CELL_PIXELS, top + CELL_PIXELS), 6,
                                       colors.get(tile, (60, 58, 50)))
                if tile:
                    font = ImageFont.load_default(48 if tile < 100 else 38 if tile < 1000 else 30)
                    draw.text((left + CELL_PIXELS // 2, top + CELL_PIXELS // 2), str(tile),
                              (119, 110, 101) if tile < 8 else (249, 246, 242), font, "mm")
        return np.asarray(image)
