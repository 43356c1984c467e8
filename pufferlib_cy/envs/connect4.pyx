"""connect4: four in a row on seven columns of six, as two agents or against a scripted opponent."""

cimport cython
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy
from pufferlib_cy cimport NativeEnv, Rows, Slice, first_rows, next_rows, uniform_int

import numpy as np
from gymnasium.spaces import Box, Discrete

cdef enum:
    COLUMNS = 7
    LINES = 6                 # of the board; line 0 is the bottom
    CELLS = 42
    PASS = 7                  # the action of an agent that waits for the other's move
    ACTIONS = 8
    VALUES = 85               # of one observation
    LINE_BITS = 8             # from one line to the next: seven columns and one that stays empty
    TOP = 40                  # first bit of the top line
    CELL_PIXELS = 80

cdef struct State:
    # A board is a set of cells, bit 8 * line + column. No line of four can run from one edge to
    # the other, as it would have to cross the empty eighth column.
    uint64_t[2] stones        # of each player
    int turn                  # the player to move. Player 0 is agent 0; 1 is agent 1 or the script
    int over                  # 1: the game has ended

# Byte b of SPREAD[bits] is bit b.
cdef uint8_t[256][8] SPREAD
for _bits in range(256):
    for _b in range(8):
        SPREAD[_bits][_b] = _bits >> _b & 1


cdef inline uint64_t column_cells(int column) noexcept nogil:
    return 0x010101010101ULL << column


cdef inline uint64_t landing_cells(State* state) noexcept nogil:
    """Where a stone can come to rest: the lowest empty cell of every column that has one."""
    cdef uint64_t taken = state.stones[0] | state.stones[1]
    return (taken << LINE_BITS | 0x7FULL) & ~taken & 0x7F7F7F7F7F7FULL


cdef inline uint64_t along(uint64_t b, int d) noexcept nogil:
    """Where a stone is the fourth in a row of cells d bits apart, with three of the board b."""
    cdef uint64_t below = b << d & b << 2 * d
    cdef uint64_t above = b >> d & b >> 2 * d
    return below & (b << 3 * d | b >> d) | above & (b >> 3 * d | b << d)


cdef inline uint64_t winning_cells(uint64_t b) noexcept nogil:
    """Where a stone makes four in a row with the board b, and cells that are not on the board."""
    return (along(b, 1) | along(b, LINE_BITS) | along(b, LINE_BITS - 1)
            | along(b, LINE_BITS + 1))


@cython.final
cdef class Connect4(NativeEnv):
    """Drop a stone into one of seven columns of six; four in a row, in any direction, win.

    With ``opponent="scripted"`` (the default) there is one agent. The opponent answers in the same
    step: it makes four if it can, else prevents the agent's four if it must, and else, as where
    it has a choice, drops its stone at random. With ``opponent="self"`` there are two agents that
    move in turn, one per step. Who begins is drawn for every game. Spaces are the same in both.

    Reward: 1 for a win, -1 for a loss, 0 for a draw (the full board); each terminates. Action:
    Discrete(8), a column or 7, pass. Action masks: the one to move may choose the columns that are
    not full, the other only pass. A full column or a pass from the one to move loses at once; what
    the other chooses has no effect. Observation: uint8 (85,), the agent's own stones (6 lines from
    the top, 7 columns), the other's stones likewise, and 1 if it is the agent's move. When the
    game is over nobody moves. Statistics: score and wins (1 or 0) of agent 0.
    """
    action_names = (*map("column {}".format, range(COLUMNS)), "pass")
    cdef bint scripted

    def __init__(self, str opponent="scripted"):
        if opponent not in ("scripted", "self"):
            raise ValueError(f'connect4: opponent is "scripted" or "self", not {opponent!r}')
        self.scripted = opponent == "scripted"
        super().__init__(Box(0, 1, (VALUES,), np.uint8), Discrete(ACTIONS), sizeof(State),
                         agents_per_env=1 if self.scripted else 2, action_masks=True,
                         stats=("score", "wins"))

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_rows(&rows):
            if rows.starting:
                self.reset(<State*> rows.state, &rows)
            else:
                self.step(<State*> rows.state, &rows)
            self.observe(<State*> rows.state, &rows)

    cdef inline void reset(self, State* state, Rows* rows) noexcept nogil:
        state.stones[0] = state.stones[1] = 0
        state.over = False
        state.turn = uniform_int(rows.rng, 2)
        if self.scripted and state.turn == 1:
            self.play(state, rows, self.answer(state, rows))

    cdef inline void step(self, State* state, Rows* rows) noexcept nogil:
        cdef int action = rows.actions[state.turn]
        cdef uint64_t cell = 0
        if action != PASS:
            cell = landing_cells(state) & column_cells(action)
        self.play(state, rows, cell)
        if self.scripted and not state.over:
            self.play(state, rows, self.answer(state, rows))

    cdef inline void play(self, State* state, Rows* rows, uint64_t cell) noexcept nogil:
        """The player to move puts a stone on a landing cell; 0, no cell, loses."""
        cdef int mover = state.turn
        cdef float score = 1.0 if mover == 0 else -1.0      # of player 0, if the mover wins
        if cell == 0:
            self.end(state, rows, -score)
        elif winning_cells(state.stones[mover]) & cell:
            self.end(state, rows, score)
        state.stones[mover] |= cell
        if landing_cells(state) == 0 and not state.over:
            self.end(state, rows, 0.0)
        state.turn = 1 - mover

    cdef inline void end(self, State* state, Rows* rows, float score) noexcept nogil:
        state.over = True
        rows.rewards[0], rows.terminations[0] = score, True
        if not self.scripted:
            rows.rewards[1], rows.terminations[1] = -score, True
        rows.stats[0] = score
        rows.stats[1] = score > 0

    cdef inline uint64_t answer(self, State* state, Rows* rows) noexcept nogil:
        """The scripted opponent's cell: one that wins, or blocks, or any."""
        cdef uint64_t landing = landing_cells(state), counted, cells
        cdef int count = 0
        cells = winning_cells(state.stones[1]) & landing
        if cells == 0:
            cells = winning_cells(state.stones[0]) & landing
        if cells == 0:
            cells = landing
        counted = cells
        while counted:
            counted &= counted - 1                          # without its lowest cell
            count += 1
        for _ in range(<int> uniform_int(rows.rng, count)):
            cells &= cells - 1
        return cells & ~(cells - 1)

    cdef inline void observe(self, State* state, Rows* rows) noexcept nogil:
        cdef int a, line
        cdef bint to_move
        cdef uint64_t own, other
        cdef uint8_t* view = <uint8_t*> rows.observations
        for a in range(1 if self.scripted else 2):
            own, other = state.stones[a], state.stones[1 - a]
            to_move = state.turn == a and not state.over
            for line in range(LINES):                       # from the top
                memcpy(view + COLUMNS * line,
                       SPREAD[own >> (TOP - LINE_BITS * line) & 0x7F], COLUMNS)
                memcpy(view + CELLS + COLUMNS * line,
                       SPREAD[other >> (TOP - LINE_BITS * line) & 0x7F], COLUMNS)
            view[2 * CELLS] = to_move
            if not state.over:
                memcpy(rows.action_masks + ACTIONS * a,
                       SPREAD[~((own | other) >> TOP) & 0x7F if to_move else 1 << PASS], ACTIONS)
            view += VALUES

    cdef str stone(self, Py_ssize_t environment, int line, int column):
        """What lies on a cell: X, player 0's; O, player 1's; or a dot."""
        cdef State* state = <State*> self.state_of(environment)
        cdef uint64_t cell = 1ULL << (LINE_BITS * line + column)
        return "X" if state.stones[0] & cell else "O" if state.stones[1] & cell else "."

    def ansi(self, Py_ssize_t environment):
        """The board from the top; X is agent 0, O the other."""
        lines = [" ".join(self.stone(environment, line, column) for column in range(COLUMNS))
                 for line in reversed(range(LINES))]
        return "\n".join([*lines, " ".join(map(str, range(COLUMNS))), ""])

    def render(self, Py_ssize_t environment):
        """The board: uint8 (480, 560, 3). Yellow is agent 0, red the other."""
        try:
            from PIL import Image, ImageDraw
        except ImportError as error:
            raise ImportError('connect4: rendering needs Pillow: '
                              'pip install "pufferlib_cy[render]"') from error
        colors = {"X": (250, 204, 61), "O": (226, 72, 66), ".": (16, 24, 48)}
        # Drawn twice as large and scaled down, so that the circles are smooth.
        size = 2 * CELL_PIXELS
        image = Image.new("RGB", (COLUMNS * size, LINES * size), (38, 84, 176))
        draw = ImageDraw.Draw(image)
        for line in range(LINES):
            for column in range(COLUMNS):
                x, y = (column + 0.5) * size, (LINES - line - 0.5) * size
                stone = self.stone(environment, line, column)
                draw.circle((x, y), 0.42 * size, colors[stone], (24, 58, 130), 6)
                if stone != ".":
                    shade = tuple(int(0.85 * value) for value in colors[stone])
                    draw.circle((x, y), 0.28 * size, None, shade, 8)
        return np.asarray(image.resize((COLUMNS * CELL_PIXELS, LINES * CELL_PIXELS),
                                       Image.Resampling.LANCZOS))
