"""breakout: knock a wall of bricks down with a ball and a paddle, twice."""

cimport cython
from libc.math cimport INFINITY, cos, sin
from libc.stdint cimport uint8_t
from libc.string cimport memset
from pufferlib_cy cimport NativeEnv, Rows, Slice, first_rows, next_rows, uniform_int

import numpy as np
from gymnasium.spaces import Box, Discrete

# Lengths in pixels, speeds in pixels per second. x grows to the right and y downwards; the position
# of a thing is its left and upper edge.
cdef enum:
    WIDTH = 576
    HEIGHT = 330
    BRICK_ROWS = 6
    BRICK_COLUMNS = 18
    BRICKS = 108
    BRICK_WIDTH = 32
    BRICK_HEIGHT = 12
    WALL_TOP = 50
    WALL_BOTTOM = 122
    FAST_BRICKS = 54          # those of the three upper rows
    BALL = 32                 # width and height
    BALL_START_Y = 135        # between wall and paddle
    SLOWEST = 256
    FASTEST = 448
    FASTER = 64               # the gain of speed every
    HITS_TO_FASTER = 4        # paddle hits
    PADDLE_WIDTH = 62
    PADDLE_HEIGHT = 8
    PADDLE_Y = 312
    PADDLE_SPEED = 620
    SPARE_BALLS = 5
    WALL_SCORE = 432          # of all bricks
    LAST_SCORE = 864          # of two walls
    OBSERVATION = 118

cdef double TICK = 1.0 / 60                         # s
cdef double LAUNCH_ANGLE = 3.141592653589793 / 3.25  # from the vertical, rad
cdef double BOUNCE_ANGLE = 3.141592653589793 / 4    # at the ends of the paddle, rad
cdef double TOUCHING = 1e-9                         # px of overlap that are rounding

cdef enum Action: STAY, LEFT, RIGHT
cdef enum Obstacle: SIDE_WALL = -3, BACK_WALL, PADDLE, FIRST_BRICK   # bricks count on, row by row

cdef struct State:
    double ball_x, ball_y
    double ball_vx, ball_vy
    double speed
    double paddle_x, paddle_width
    int hits                  # of the ball on the paddle, in this round
    int fired                 # 1: the ball is flying, 0: it is launched in the next tick
    int score, balls          # balls left after this one
    int ticks                 # since the reset
    uint8_t[BRICKS] gone      # row by row, from the upper left: 1 is gone

cdef struct Contact:
    double time               # in parts of the tick's motion; 1 or more: none in this tick
    double overlap            # how much of the ball's edge touches
    int obstacle              # an Obstacle
    bint sideways             # it turns the ball's vx, else vy
    double position           # of the ball along that axis

cdef struct Passage:
    double enter, leave       # in parts of the tick's motion


@cython.final
cdef class Breakout(NativeEnv):
    """Six rows of 18 bricks, a ball, a paddle, five more balls. Rewards are the points scored.

    The rows give 7, 7, 4, 4, 1, 1 points from the top. When all bricks are gone, the next hit on
    the paddle rebuilds the wall; the second wall ends the episode, as does losing the last ball.
    `max_ticks`, half an hour at 60 a second as for Atari games, cuts off a game that goes in
    circles.

    A round begins with the paddle and the ball in the middle, the ball under the wall; the next
    tick launches it downwards at pi / 3.25 from the vertical, to the left or right at random. It
    flies 256 px/s, 64 more with every fourth hit on the paddle up to 448, and 448 at once when it
    hits one of the three upper rows. Off the paddle it flies upwards at up to pi / 4 from the
    vertical, in proportion to where its centre is between the paddle's middle and end, or beyond.
    Hitting the back wall halves the paddle towards its middle for the rest of the round. The ball
    is lost when all of it is below the paddle.

    In a tick the paddle moves first, then the ball. It stops at the first thing that it touches
    along its way, turns, and goes on in the next tick. Of several at once it hits the one that
    touches the longest piece of its edge (of equals: walls, paddle, then bricks row by row); a
    brick met corner to corner counts as met from above or below. Of the paddle only the upper side
    counts.

    Action: Discrete(3), stay, left, right at 620 px/s, held for `frameskip` ticks. Observation:
    float32 (118,): paddle x, y; ball x, y; ball vx, vy / 512; fired / 5; score / 864; balls / 5;
    paddle width / 62; then 108 bricks row by row, 1 is gone. Positions are divided by the field's
    width, 576, or height, 330. Statistic: score.
    """
    cdef int frameskip
    cdef int max_ticks
    action_names = ("stay", "left", "right")

    def __init__(self, int frameskip=4, int max_ticks=108_000):
        if frameskip < 1:
            raise ValueError(f"breakout: frameskip is at least 1, not {frameskip}")
        if max_ticks < 1:
            raise ValueError(f"breakout: max_ticks is at least 1, not {max_ticks}")
        self.frameskip = frameskip
        self.max_ticks = max_ticks
        super().__init__(Box(-1.0, 1.0, (OBSERVATION,), np.float32), Discrete(3), sizeof(State),
                         stats=("score",))

    @property
    def render_fps(self):
        """60 ticks a second."""
        return 60.0 / self.frameskip

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        while next_rows(&rows):
            if rows.starting:
                reset(<State*> rows.state)
            else:
                self.step(<State*> rows.state, &rows)
            observe(<State*> rows.state, <float*> rows.observations)

    cdef inline void step(self, State* state, Rows* rows) noexcept nogil:
        cdef int action = rows.actions[0]
        cdef double distance = ((action == RIGHT) - (action == LEFT)) * PADDLE_SPEED * TICK
        cdef int before = state.score
        cdef int _tick
        for _tick in range(self.frameskip):
            state.ticks += 1
            if not state.fired:
                launch(state, rows)
            state.paddle_x = clamp(state.paddle_x + distance, 0.0, WIDTH - state.paddle_width)
            move_ball(state)
            if state.score == LAST_SCORE:
                rows.terminations[0] = True
                break
            if state.ball_y >= PADDLE_Y + PADDLE_HEIGHT:
                if state.balls == 0:
                    rows.terminations[0] = True
                    break
                state.balls -= 1
                begin_round(state)
        rows.truncations[0] = state.ticks >= self.max_ticks
        rows.rewards[0] = state.score - before
        rows.stats[0] = state.score

    def render(self, Py_ssize_t environment):
        """The field with the score and the balls left above: uint8 (370, 576, 3)."""
        try:
            from PIL import Image, ImageDraw, ImageFont
        except ImportError as error:
            raise ImportError('breakout: drawing needs Pillow: '
                              'pip install "pufferlib_cy[render]"') from error
        cdef State* state = <State*> self.state_of(environment)
        cdef int header = 40, brick
        image = Image.new("RGB", (WIDTH, header + HEIGHT), (13, 17, 28))
        draw = ImageDraw.Draw(image)

        def box(double x, double y, double width, double height, colour, int radius):
            draw.rounded_rectangle((x, header + y, x + width - 1, header + y + height - 1), radius,
                                   fill=colour)

        box(0, 0, WIDTH, HEIGHT, (22, 28, 45), 0)
        colours = ((235, 77, 96), (243, 120, 80), (248, 165, 70), (250, 208, 90), (110, 205, 120),
                   (80, 165, 235))
        for brick in range(BRICKS):
            if not state.gone[brick]:
                row, column = divmod(brick, BRICK_COLUMNS)
                box(BRICK_WIDTH * column + 1, WALL_TOP + BRICK_HEIGHT * row + 1, BRICK_WIDTH - 2,
                    BRICK_HEIGHT - 2, colours[row], 2)
        box(state.paddle_x, PADDLE_Y, state.paddle_width, PADDLE_HEIGHT, (64, 224, 190), 4)
        box(state.ball_x, state.ball_y, BALL, BALL, (245, 245, 240), 8)
        draw.text((14, header // 2), str(state.score), fill=(245, 245, 240),
                  font=ImageFont.load_default(24), anchor="lm")
        for ball in range(state.balls):
            draw.rounded_rectangle((WIDTH - 26 - 20 * ball, 14, WIDTH - 15 - 20 * ball, 25), 4,
                                   fill=(245, 245, 240))
        return np.asarray(image)

    def ansi(self, Py_ssize_t environment):
        """The score and the field in characters, 8 by 12 pixels each."""
        cdef State* state = <State*> self.state_of(environment)
        cdef int columns = WIDTH // 8, lines = HEIGHT // 12 + 1
        picture = [[" "] * columns for _ in range(lines)]

        def fill(double x, double y, double width, double height, text):
            for line in range(<int> (y / 12), min(lines, <int> ((y + height - 1) / 12) + 1)):
                for column in range(<int> (x / 8), min(columns, <int> ((x + width - 1) / 8) + 1)):
                    picture[line][column] = text

        for brick in range(BRICKS):
            if not state.gone[brick]:
                fill(BRICK_WIDTH * (brick % BRICK_COLUMNS),
                     WALL_TOP + BRICK_HEIGHT * (brick // BRICK_COLUMNS), BRICK_WIDTH, 1,
                     "774411"[brick // BRICK_COLUMNS])
        fill(state.paddle_x, PADDLE_Y, state.paddle_width, PADDLE_HEIGHT, "=")
        fill(state.ball_x, state.ball_y, BALL, BALL, "O")
        edge = "+" + "-" * columns + "+"
        return "\n".join([f" score {state.score}   balls {state.balls}", edge,
                          *("|" + "".join(line) + "|" for line in picture), edge, ""])


# ---- rounds --------------------------------------------------------------------------------------

cdef inline void reset(State* state) noexcept nogil:
    state.score, state.balls, state.ticks = 0, SPARE_BALLS, 0
    memset(state.gone, 0, BRICKS)
    begin_round(state)


cdef inline void begin_round(State* state) noexcept nogil:
    state.paddle_width, state.paddle_x = PADDLE_WIDTH, (WIDTH - PADDLE_WIDTH) // 2
    state.ball_x, state.ball_y = (WIDTH - BALL) // 2, BALL_START_Y
    state.ball_vx = state.ball_vy = 0.0
    state.speed = SLOWEST
    state.hits = state.fired = 0


cdef inline void launch(State* state, Rows* rows) noexcept nogil:
    state.fired = 1
    state.ball_vx, state.ball_vy = state.speed * sin(LAUNCH_ANGLE), state.speed * cos(LAUNCH_ANGLE)
    if uniform_int(rows.rng, 2):
        state.ball_vx = -state.ball_vx

# ---- the ball's way ------------------------------------------------------------------------------

cdef inline void move_ball(State* state) noexcept nogil:
    cdef double dx = state.ball_vx * TICK, dy = state.ball_vy * TICK
    cdef double x = state.ball_x + dx, y = state.ball_y + dy
    cdef Contact contact
    # Between wall and paddle, away from the sides, there is nothing to touch.
    if WALL_BOTTOM <= y <= PADDLE_Y - BALL and 0.0 <= x <= WIDTH - BALL \
            and state.ball_y >= WALL_BOTTOM:
        state.ball_x, state.ball_y = x, y
        return
    contact.time, contact.overlap = 1.0, 0.0
    meet_walls(&contact, state, dx, dy)
    meet_paddle(&contact, state, dx, dy)
    meet_bricks(&contact, state, dx, dy)
    state.ball_x += contact.time * dx
    state.ball_y += contact.time * dy
    if contact.time < 1.0:
        bounce(state, &contact)


cdef inline void meet(Contact* contact, double time, double overlap, int obstacle, bint sideways,
                      double position) noexcept nogil:
    """Keep the earlier of two contacts; at the same time, that with the larger overlap."""
    if time < contact.time or (time == contact.time and overlap > contact.overlap):
        contact.time, contact.overlap = time, overlap
        contact.obstacle = obstacle
        contact.sideways, contact.position = sideways, position


cdef inline void meet_walls(Contact* contact, State* state, double dx, double dy) noexcept nogil:
    cdef double x = state.ball_x, y = state.ball_y
    if x + dx < 0.0:
        meet(contact, ahead(x) / -dx, BALL, SIDE_WALL, True, 0.0)
    elif x + dx > WIDTH - BALL:
        meet(contact, ahead(WIDTH - BALL - x) / dx, BALL, SIDE_WALL, True, WIDTH - BALL)
    if y + dy < 0.0:
        meet(contact, ahead(y) / -dy, BALL, BACK_WALL, False, 0.0)


cdef inline void meet_paddle(Contact* contact, State* state, double dx, double dy) noexcept nogil:
    cdef double gap = ahead(PADDLE_Y - BALL - state.ball_y)
    cdef double time, overlap
    if 0.0 <= gap < dy:
        time = gap / dy
        overlap = common(state.ball_x + time * dx, BALL, state.paddle_x, state.paddle_width)
        if overlap > 0.0:
            meet(contact, time, overlap, PADDLE, False, PADDLE_Y - BALL)


cdef inline void meet_bricks(Contact* contact, State* state, double dx, double dy) noexcept nogil:
    """Only the bricks in the box that the ball sweeps: at most 3 columns and 5 rows, not all 108.

    The ball moves less than 8 px in a tick; columns are 32 px wide and rows 12 px high.
    """
    cdef double x = state.ball_x, y = state.ball_y
    cdef double upper = y + dy if dy < 0.0 else y, lower = y + BALL + (dy if dy > 0.0 else 0.0)
    if upper > WALL_BOTTOM or lower < WALL_TOP:
        return
    cdef double left = x + dx if dx < 0.0 else x, right = x + BALL + (dx if dx > 0.0 else 0.0)
    cdef int first_row = max(0, <int> ((upper - WALL_TOP) / BRICK_HEIGHT))
    cdef int last_row = min(BRICK_ROWS - 1, <int> ((lower - WALL_TOP) / BRICK_HEIGHT))
    cdef int first_column = max(0, <int> (left / BRICK_WIDTH))
    cdef int last_column = min(BRICK_COLUMNS - 1, <int> (right / BRICK_WIDTH))
    cdef Passage across, along                       # of the brick's column, of its row
    cdef int row, column, brick
    cdef double brick_x, brick_y, enter
    for row in range(first_row, last_row + 1):
        brick_y = WALL_TOP + BRICK_HEIGHT * row
        along = passage(y, dy, brick_y, brick_y + BRICK_HEIGHT)
        for column in range(first_column, last_column + 1):
            brick = BRICK_COLUMNS * row + column
            if state.gone[brick]:
                continue
            brick_x = BRICK_WIDTH * column
            across = passage(x, dx, brick_x, brick_x + BRICK_WIDTH)
            enter = max(across.enter, along.enter)
            if not (0.0 <= enter < 1.0 and enter < min(across.leave, along.leave)):
                continue
            if across.enter > along.enter:
                meet(contact, enter, common(y + enter * dy, BALL, brick_y, BRICK_HEIGHT),
                     FIRST_BRICK + brick, True,
                     brick_x - BALL if dx > 0.0 else brick_x + BRICK_WIDTH)
            else:
                meet(contact, enter, common(x + enter * dx, BALL, brick_x, BRICK_WIDTH),
                     FIRST_BRICK + brick, False,
                     brick_y - BALL if dy > 0.0 else brick_y + BRICK_HEIGHT)


cdef inline Passage passage(double x, double d, double low, double high) noexcept nogil:
    """When, along one axis, a ball that moves from x by d begins and ceases to overlap [low, high].
    """
    cdef Passage when
    if d > 0.0:
        when.enter, when.leave = ahead(low - BALL - x) / d, (high - x) / d
    elif d < 0.0:
        when.enter, when.leave = ahead(x - high) / -d, (x + BALL - low) / -d
    elif low - BALL < x < high:
        when.enter, when.leave = -INFINITY, INFINITY
    else:
        when.enter, when.leave = INFINITY, -INFINITY
    return when


cdef inline double ahead(double gap) noexcept nogil:
    """The way to an obstacle, where one that rounding made negative is none."""
    return 0.0 if -TOUCHING < gap < 0.0 else gap


cdef inline double common(double a, double a_size, double b, double b_size) noexcept nogil:
    """The length that [a, a + a_size] and [b, b + b_size] have in common."""
    return min(a + a_size, b + b_size) - max(a, b)

# ---- the end of the way --------------------------------------------------------------------------

cdef inline void bounce(State* state, Contact* contact) noexcept nogil:
    if contact.sideways:
        state.ball_x = contact.position
        state.ball_vx = -state.ball_vx
    else:
        state.ball_y = contact.position
        state.ball_vy = -state.ball_vy
    if contact.obstacle >= FIRST_BRICK:
        hit_brick(state, contact.obstacle - FIRST_BRICK)
    elif contact.obstacle == PADDLE:
        hit_paddle(state)
    elif contact.obstacle == BACK_WALL and state.paddle_width == PADDLE_WIDTH:
        state.paddle_width = PADDLE_WIDTH / 2.0
        state.paddle_x += PADDLE_WIDTH / 4.0


cdef inline void hit_brick(State* state, int brick) noexcept nogil:
    state.gone[brick] = 1
    state.score += 7 - 3 * (brick // (2 * BRICK_COLUMNS))
    if brick < FAST_BRICKS:
        state.ball_vx *= FASTEST / state.speed
        state.ball_vy *= FASTEST / state.speed
        state.speed = FASTEST


cdef inline void hit_paddle(State* state) noexcept nogil:
    cdef double half = 0.5 * state.paddle_width
    cdef double off_centre = (state.ball_x + 0.5 * BALL - (state.paddle_x + half)) / half
    cdef double angle = BOUNCE_ANGLE * clamp(off_centre, -1.0, 1.0)
    state.hits += 1
    if state.hits % HITS_TO_FASTER == 0:
        state.speed = min(state.speed + FASTER, FASTEST)
    state.ball_vx, state.ball_vy = state.speed * sin(angle), -state.speed * cos(angle)
    if state.score == WALL_SCORE:
        memset(state.gone, 0, BRICKS)


cdef inline double clamp(double value, double low, double high) noexcept nogil:
    return low if value < low else high if value > high else value


cdef inline void observe(State* state, float* observation) noexcept nogil:
    cdef int brick
    observation[0] = <float> (state.paddle_x / WIDTH)
    observation[1] = <float> (<double> PADDLE_Y / HEIGHT)
    observation[2] = <float> (state.ball_x / WIDTH)
    observation[3] = <float> (state.ball_y / HEIGHT)
    observation[4] = <float> (state.ball_vx / 512)
    observation[5] = <float> (state.ball_vy / 512)
    observation[6] = <float> (state.fired / 5.0)
    observation[7] = <float> (state.score / 864.0)
    observation[8] = <float> (state.balls / 5.0)
    observation[9] = <float> (state.paddle_width / PADDLE_WIDTH)
    for brick in range(BRICKS):
        observation[10 + brick] = state.gone[brick]
