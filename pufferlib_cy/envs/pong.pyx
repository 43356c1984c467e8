"""pong: play the ball past the other paddle, a tracking opponent's or another agent's."""

cimport cython
from pufferlib_cy cimport NativeEnv, Rows, Slice, first_rows, next_rows, uniform_int

import numpy as np
from gymnasium.spaces import Box, Discrete

# Lengths in pixels, speeds in pixels per frame, all whole numbers. x grows to the right and y
# upwards; the position of a thing is its left and lower edge.
cdef enum:
    WIDTH = 500               # of the field between the paddles, which stand outside of it
    HEIGHT = 640
    PADDLE_WIDTH = 20
    PADDLE_HEIGHT = 70
    PADDLE_SPEED = 8
    LOWEST_PADDLE = -35       # half of it below the field, so that it reaches every ball
    BALL = 32                 # width and height
    BALL_SPEED_X = 10
    SERVE_X = 100
    SERVE_SPEED_Y = 1
    SPIN = 3                  # vertical speed that a moving paddle gives the ball
    TOP_SPEED_Y = 13
    LAST_POINT = 21

cdef enum Action: STAY, UP, DOWN
cdef enum: RIGHT, LEFT        # sides, in the order of the agents' slots

cdef struct State:
    int[2] paddle_y           # by side, as score
    int ball_x, ball_y
    int ball_vx, ball_vy
    int[2] score
    int frames                # since the reset


@cython.final
cdef class Pong(NativeEnv):
    """Two paddles, one ball, 21 points. The agent is the right paddle; with `two_player` there are
    two agents, the right paddle in slot 0 and the left one in slot 1.

    The ball bounces off the upper and lower side of the field. At the left and right side it
    bounces off the paddle if they overlap in height, else it is a point for the other side: +1
    and -1. Every point is served alike: paddles in the middle, the ball on the left, a fifth into
    the field, towards the right paddle, up or down at random. A bounce on an agent's paddle adds
    three times the paddle's direction to the ball's vertical speed, at most 13 and never 0 (then
    3). In a frame the paddles move first, then the ball; whatever it bounces off, it stays within
    the field.

    The opponent moves the centre of its paddle towards the ball's y by at most 8 a frame, the speed
    of the agent's paddle, and lends the ball no spin. Against it a bounce on the agent's paddle
    gives 0.1; between two agents rewards are zero-sum and only points count.

    Action: Discrete(3), stay, up, down, held for `frameskip` frames or until a point. Observation:
    float32 (8,) in [0, 1], own and opponent's paddle y, ball x, y, vx, vy, own and opponent's
    score / 21; the left player sees the field mirrored. 21 points end the episode; `max_frames`,
    half an hour at 60 a second as for Atari games, cuts off a rally without end. Statistic: score,
    points of the right paddle minus those of the left one.
    """
    cdef bint two_player
    cdef int frameskip
    cdef int max_frames
    action_names = ("stay", "up", "down")

    def __init__(self, int frameskip=8, bint two_player=False, int max_frames=108_000):
        if frameskip < 1:
            raise ValueError(f"pong: frameskip is at least 1, not {frameskip}")
        if max_frames < 1:
            raise ValueError(f"pong: max_frames is at least 1, not {max_frames}")
        self.frameskip = frameskip
        self.two_player = two_player
        self.max_frames = max_frames
        super().__init__(Box(0.0, 1.0, (8,), np.float32), Discrete(3), sizeof(State),
                         agents_per_env=1 + two_player, stats=("score",))

    @property
    def render_fps(self):
        """60 frames a second."""
        return 60.0 / self.frameskip

    cdef void run(self, Slice* slice) noexcept nogil:
        cdef Rows rows = first_rows(slice)
        cdef float* observations
        while next_rows(&rows):
            if rows.starting:
                self.reset(<State*> rows.state, &rows)
            else:
                self.step(<State*> rows.state, &rows)
            observations = <float*> rows.observations
            observe(<State*> rows.state, RIGHT, observations)
            if self.two_player:
                observe(<State*> rows.state, LEFT, observations + 8)

    cdef inline void reset(self, State* state, Rows* rows) noexcept nogil:
        state.score[RIGHT] = state.score[LEFT] = state.frames = 0
        serve(state, rows)

    cdef inline void step(self, State* state, Rows* rows) noexcept nogil:
        cdef int right = direction(rows.actions[RIGHT])
        cdef int left = direction(rows.actions[LEFT]) if self.two_player else 0
        cdef int _frame
        cdef int side
        for _frame in range(self.frameskip):
            state.frames += 1
            move_paddle(state, RIGHT, PADDLE_SPEED * right)
            if self.two_player:
                move_paddle(state, LEFT, PADDLE_SPEED * left)
            else:
                move_paddle(state, LEFT, clamp(
                    state.ball_y - (state.paddle_y[LEFT] + PADDLE_HEIGHT // 2),
                    -PADDLE_SPEED, PADDLE_SPEED))
            state.ball_x += state.ball_vx
            state.ball_y += state.ball_vy
            if not 0 <= state.ball_y <= HEIGHT - BALL:
                state.ball_y = clamp(state.ball_y, 0, HEIGHT - BALL)
                state.ball_vy = -state.ball_vy
            if not 0 <= state.ball_x <= WIDTH - BALL:
                side = LEFT if state.ball_x < 0 else RIGHT
                if not meets_paddle(state, side):
                    self.score_point(state, LEFT if side == RIGHT else RIGHT, rows)
                    break
                state.ball_x = clamp(state.ball_x, 0, WIDTH - BALL)
                state.ball_vx = -state.ball_vx
                if self.two_player:
                    spin(state, right if side == RIGHT else left)
                elif side == RIGHT:
                    spin(state, right)
                    rows.rewards[0] = <float> 0.1
        if state.frames >= self.max_frames:
            rows.truncations[RIGHT] = True
            if self.two_player:
                rows.truncations[LEFT] = True

    cdef inline void score_point(self, State* state, int side, Rows* rows) noexcept nogil:
        state.score[side] += 1
        rows.stats[0] = state.score[RIGHT] - state.score[LEFT]
        rows.rewards[RIGHT] = <float> 1.0 if side == RIGHT else <float> -1.0
        rows.terminations[RIGHT] = state.score[side] == LAST_POINT
        if self.two_player:
            rows.rewards[LEFT] = -rows.rewards[RIGHT]
            rows.terminations[LEFT] = rows.terminations[RIGHT]
        serve(state, rows)

    def render(self, Py_ssize_t environment):
        """The field with the paddles beside it and the score above: uint8 (760, 620, 3)."""
        try:
            from PIL import Image, ImageDraw, ImageFont
        except ImportError as error:
            raise ImportError('pong: drawing needs Pillow: pip install "pufferlib_cy[render]"') \
                from error
        cdef State* state = <State*> self.state_of(environment)
        cdef int margin = 60, header = 80
        image = Image.new("RGB", (WIDTH + 2 * margin, header + HEIGHT + 40), (13, 17, 28))
        draw = ImageDraw.Draw(image)
        font = ImageFont.load_default(52)

        def box(int x, int y, int width, int height, colour, int radius):
            cdef int top = header + HEIGHT - y - height
            draw.rounded_rectangle((margin + x, top, margin + x + width - 1, top + height - 1),
                                   radius, fill=colour)

        box(0, 0, WIDTH, HEIGHT, (22, 28, 45), 0)
        for y in range(8, HEIGHT, 32):
            box(WIDTH // 2 - 2, y, 4, 16, (52, 62, 92), 2)
        teal, coral = (64, 224, 190), (255, 122, 106)
        for side, x, colour in ((LEFT, -PADDLE_WIDTH, coral), (RIGHT, WIDTH, teal)):
            box(x, state.paddle_y[side], PADDLE_WIDTH, PADDLE_HEIGHT, colour, 6)
            draw.text((margin + (WIDTH // 4 if side == LEFT else WIDTH - WIDTH // 4), header // 2),
                      str(state.score[side]), fill=colour, font=font, anchor="mm")
        box(state.ball_x, state.ball_y, BALL, BALL, (245, 245, 240), 8)
        return np.asarray(image)

    def ansi(self, Py_ssize_t environment):
        """The score and the field in characters, 10 by 32 pixels each."""
        cdef State* state = <State*> self.state_of(environment)
        cdef int columns = WIDTH // 10, lines = HEIGHT // 32
        picture = [[" "] * (columns + 2) for _ in range(lines)]
        for side, column in ((LEFT, 0), (RIGHT, columns + 1)):
            for line in range(lines):
                if 0 <= 32 * line + 16 - state.paddle_y[side] < PADDLE_HEIGHT:
                    picture[line][column] = "#"
        for column in range(3):
            picture[(state.ball_y + BALL // 2) // 32][state.ball_x // 10 + 1 + column] = "O"
        edge = "+" + "-" * columns + "+"
        score = f"{state.score[LEFT]} : {state.score[RIGHT]}".center(columns + 2).rstrip()
        return "\n".join([score, edge, *("".join(line) for line in reversed(picture)), edge, ""])


cdef inline int clamp(int value, int low, int high) noexcept nogil:
    return low if value < low else high if value > high else value


cdef inline int direction(int action) noexcept nogil:
    return (action == UP) - (action == DOWN)


cdef inline void serve(State* state, Rows* rows) noexcept nogil:
    state.paddle_y[RIGHT] = state.paddle_y[LEFT] = (HEIGHT - PADDLE_HEIGHT) // 2
    state.ball_x, state.ball_y = SERVE_X, (HEIGHT - BALL) // 2
    state.ball_vx = BALL_SPEED_X
    state.ball_vy = SERVE_SPEED_Y if uniform_int(rows.rng, 2) else -SERVE_SPEED_Y


cdef inline void move_paddle(State* state, int side, int distance) noexcept nogil:
    state.paddle_y[side] = clamp(
        state.paddle_y[side] + distance, LOWEST_PADDLE, HEIGHT + LOWEST_PADDLE)


cdef inline bint meets_paddle(State* state, int side) noexcept nogil:
    return -BALL < state.ball_y - state.paddle_y[side] < PADDLE_HEIGHT


cdef inline void spin(State* state, int direction) noexcept nogil:
    state.ball_vy = clamp(state.ball_vy + SPIN * direction, -TOP_SPEED_Y, TOP_SPEED_Y)
    if state.ball_vy == 0:
        state.ball_vy = SPIN


cdef inline void observe(State* state, int side, float* observation) noexcept nogil:
    cdef int other = LEFT if side == RIGHT else RIGHT
    cdef int x = state.ball_x if side == RIGHT else WIDTH - BALL - state.ball_x
    cdef int vx = state.ball_vx if side == RIGHT else -state.ball_vx
    observation[0] = <float> (state.paddle_y[side] - LOWEST_PADDLE) / <float> HEIGHT
    observation[1] = <float> (state.paddle_y[other] - LOWEST_PADDLE) / <float> HEIGHT
    observation[2] = <float> x / <float> WIDTH
    observation[3] = <float> state.ball_y / <float> HEIGHT
    observation[4] = <float> (vx + BALL_SPEED_X) / <float> (2 * BALL_SPEED_X)
    observation[5] = <float> (state.ball_vy + TOP_SPEED_Y) / <float> (2 * TOP_SPEED_Y)
    observation[6] = <float> state.score[side] / <float> LAST_POINT
    observation[7] = <float> state.score[other] / <float> LAST_POINT
