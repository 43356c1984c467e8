"""minesweeper: uncover all cells without a mine, by what the numbers tell."""

cimport cython
from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memcpy, memset
from pufferlib_cy cimport NativeEnv, Rng, Rows, Slice, first_rows, next_rows, uniform_int

import numpy as np
from gymnasium.spaces import Box, Discrete

cdef enum Cell: COVERED, NUMBER   # as it is seen; NUMBER + n: uncovered, beside n mines
cdef enum: WINS, UNCOVERED        # the statistics
cdef enum:
    SIDES = 8                 # cells that touch one
    OUTSIDE = 255             # what is seen of the border, which nothing uncovers
    MOST_CELLS = 256          # of a side
    CELL_PIXELS = 40

cdef double REWARD_WIN = 1.0
cdef double REWARD_LOSS = -1.0

cdef struct Board:
    # The head of a state. There follow, for every cell of the board and of a border around it, row
    # by row, an int32 (room for the list of cells that `uncover` has yet to go on from), then a
    # byte that is 1 for a mine, and then a byte with what is seen there.
    int32_t uncovered         # cells so far; the first one lays the mines
    int32_t lost              # the cell with which the game was lost, else 0 (of the border)


@cython.final
cdef class Minesweeper(NativeEnv):
    """Mines lie under some cells of a board; uncovering all others wins, uncovering one loses.

    An uncovered cell shows how many of the up to eight cells around it have a mine; where that is
    0, they are uncovered too, and so on. The mines are laid at the first click, with equal chance
    on every cell but that one.

    Reward: of the cells without a mine the share that a click uncovers, and 1 more with the last of
    them; -1 for a mine. Both end the episode (terminated). Action: Discrete(width * height), the
    cell to uncover, row by row. Action masks: covered cells; an uncovered one loses at once, as a
    mine does. Observation: uint8 (height, width), 0 covered, 1 + n uncovered beside n mines. A mine
    stays covered. Statistics: wins (1 or 0), and uncovered, the share of the cells without a mine.
    """
    cdef int32_t width, height, mines
    cdef int32_t safe         # cells without a mine
    cdef int32_t stride       # cells of one row of the board with its border
    cdef int32_t area         # cells of the board with its border
    cdef int32_t[SIDES] around  # from a cell to those that touch it

    def __init__(self, int32_t width=6, int32_t height=6, int32_t mines=5):
        for name, side in (("width", width), ("height", height)):
            if not 1 <= side <= MOST_CELLS:
                raise ValueError(f"minesweeper: {name} is 1 to {MOST_CELLS}, not {side}")
        if not 1 <= mines < width * height:
            raise ValueError("minesweeper: mines is at least 1 and less than width * height, "
                             f"{width * height}, not {mines}")
        self.width, self.height, self.mines = width, height, mines
        self.safe = width * height - mines
        self.stride = width + 2
        self.area = self.stride * (height + 2)
        self.around = [-self.stride - 1, -self.stride, -self.stride + 1, -1,
                       1, self.stride - 1, self.stride, self.stride + 1]
        size = sizeof(Board) + self.area * (sizeof(int32_t) + 2)
        super().__init__(Box(0, NUMBER + SIDES, (height, width), np.uint8),
                         Discrete(width * height), -(-size // sizeof(Board)) * sizeof(Board),
                         action_masks=True, stats=("wins", "uncovered"))

    cdef inline int32_t* waiting_of(self, Board* board) noexcept nogil:
        return <int32_t*> (board + 1)

    cdef inline uint8_t* mines_of(self, Board* board) noexcept nogil:
        return <uint8_t*> (self.waiting_of(board) + self.area)

    cdef inline uint8_t* seen_of(self, Board* board) noexcept nogil:
        return self.mines_of(board) + self.area

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_rows(&rows):
            if rows.starting:
                self.reset(<Board*> rows.state)
            else:
                self.step(<Board*> rows.state, &rows)
            self.observe(<Board*> rows.state, &rows)

    cdef inline void reset(self, Board* board) noexcept nogil:
        cdef uint8_t* seen = self.seen_of(board)
        cdef int32_t y
        board.uncovered = board.lost = 0
        memset(self.mines_of(board), 0, self.area)
        memset(seen, OUTSIDE, self.area)
        for y in range(1, self.height + 1):
            memset(seen + y * self.stride + 1, COVERED, self.width)

    cdef inline void step(self, Board* board, Rows* rows) noexcept nogil:
        cdef int32_t cell = self.cell_of(rows.actions[0]), before = board.uncovered
        if before == 0:
            self.lay_mines(board, rows.actions[0], rows.rng)
        if self.mines_of(board)[cell] or self.seen_of(board)[cell] != COVERED:
            board.lost = cell
            rows.rewards[0], rows.terminations[0] = REWARD_LOSS, True
            return
        self.uncover(board, cell)
        rows.rewards[0] = <float> (board.uncovered - before) / self.safe
        rows.stats[UNCOVERED] = <double> board.uncovered / self.safe
        if board.uncovered == self.safe:
            rows.rewards[0] += REWARD_WIN
            rows.terminations[0] = True
            rows.stats[WINS] = 1

    cdef inline int32_t cell_of(self, int32_t action) noexcept nogil:
        return (action // self.width + 1) * self.stride + action % self.width + 1

    cdef inline void lay_mines(self, Board* board, int32_t first, Rng* rng) noexcept nogil:
        """A random set of the actions but `first`, by Floyd's algorithm (Bentley and Floyd 1987,
        "Programming pearls: a sample of brilliance"): a draw for every mine, none in vain."""
        cdef uint8_t* mines = self.mines_of(board)
        cdef int32_t last, action, cell
        for last in range(self.safe - 1, self.safe + self.mines - 1):
            action = <int32_t> uniform_int(rng, <uint32_t> (last + 1))
            cell = self.cell_of(action + (action >= first))
            if mines[cell]:
                cell = self.cell_of(last + (last >= first))
            mines[cell] = 1

    cdef inline void uncover(self, Board* board, int32_t cell) noexcept nogil:
        """Uncover a cell, and what is around those without a mine beside them."""
        cdef int32_t* waiting = self.waiting_of(board)
        cdef const uint8_t* seen = self.seen_of(board)
        cdef int32_t count = self.show(board, cell, 0), i, beside
        while count > 0:
            count -= 1
            cell = waiting[count]
            for i in range(SIDES):
                beside = cell + self.around[i]
                if seen[beside] == COVERED:
                    count = self.show(board, beside, count)

    cdef inline int32_t show(self, Board* board, int32_t cell, int32_t count) noexcept nogil:
        """Uncover one cell. `count` others wait to be gone on from; the count with this one, if it
        has no mine beside it."""
        cdef const uint8_t* mines = self.mines_of(board)
        cdef int32_t number = 0, i
        for i in range(SIDES):
            number += mines[cell + self.around[i]]
        self.seen_of(board)[cell] = NUMBER + number
        board.uncovered += 1
        self.waiting_of(board)[count] = cell
        return count + (number == 0)

    cdef inline void observe(self, Board* board, Rows* rows) noexcept nogil:
        cdef const uint8_t* seen = self.seen_of(board) + self.stride + 1
        cdef uint8_t* view = <uint8_t*> rows.observations
        cdef uint8_t* legal = rows.action_masks
        cdef int32_t _y, x
        for _y in range(self.height):
            memcpy(view, seen, self.width)
            for x in range(self.width):
                legal[x] = seen[x] == COVERED
            view += self.width
            legal += self.width
            seen += self.stride

    cdef list picture_of(self, Py_ssize_t environment):
        """The board, a string per row: '.' covered, a space for 0, digits; when the game is over,
        '*' mines and 'X' the cell with which it was lost."""
        cdef Board* board = <Board*> self.state_of(environment)
        cdef bint over = board.lost != 0 or board.uncovered == self.safe
        cdef int32_t y, x, cell
        lines = []
        for y in range(1, self.height + 1):
            line = ""
            for x in range(1, self.width + 1):
                cell = y * self.stride + x
                if cell == board.lost:
                    line += "X"
                elif over and self.mines_of(board)[cell]:
                    line += "*"
                else:
                    line += ". 12345678"[self.seen_of(board)[cell]]
            lines.append(line)
        return lines

    def ansi(self, Py_ssize_t environment):
        """The board: covered cells are '.', mines (when the game is over) '*', the one hit 'X'."""
        return "".join(" ".join(line) + "\n" for line in self.picture_of(environment))

    def render(self, Py_ssize_t environment):
        """The board, 40 pixels a cell: uint8 (40 * height, 40 * width, 3)."""
        try:
            from PIL import Image, ImageDraw, ImageFont
        except ImportError as error:
            raise ImportError('minesweeper: rendering needs Pillow: '
                              'pip install "pufferlib_cy[render]"') from error
        colors = ((64, 140, 246), (120, 214, 92), (246, 96, 120), (170, 110, 244), (250, 186, 60),
                  (80, 216, 206), (240, 236, 220), (160, 160, 160))
        image = Image.new("RGB", (self.width * CELL_PIXELS, self.height * CELL_PIXELS),
                          (12, 16, 28))
        draw, font = ImageDraw.Draw(image), ImageFont.load_default(0.6 * CELL_PIXELS)
        for y, line in enumerate(self.picture_of(environment)):
            for x, cell in enumerate(line):
                left, top = x * CELL_PIXELS, y * CELL_PIXELS
                middle = left + CELL_PIXELS // 2, top + CELL_PIXELS // 2
                ground = (200, 60, 70) if cell == "X" else (84, 100, 136) if cell in ".*" \
                    else (28, 36, 58)
                draw.rounded_rectangle((left + 1, top + 1, left + CELL_PIXELS - 2,
                                        top + CELL_PIXELS - 2), 4, fill=ground)
                if cell in "X*":
                    draw.circle(middle, 0.24 * CELL_PIXELS, (12, 16, 28))
                elif cell in "12345678":
                    draw.text(middle, cell, colors[int(cell) - 1], font, anchor="mm")
        return np.asarray(image)
