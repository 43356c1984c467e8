"""breakout: every trajectory is that of the slow rules below, and each rule is seen at work."""

import math

import numpy as np
import oracle
import pytest

from pufferlib_cy import make
from pufferlib_cy.envs.breakout import Breakout

STATE = np.dtype([("ball_x", float), ("ball_y", float), ("ball_vx", float), ("ball_vy", float),
                  ("speed", float), ("paddle_x", float), ("paddle_width", float),
                  ("hits", np.int32), ("fired", np.int32), ("score", np.int32),
                  ("balls", np.int32), ("ticks", np.int32), ("gone", np.uint8, 108)], align=True)
STAY, LEFT, RIGHT = range(3)
POINTS = [7, 7, 4, 4, 1, 1]


def states(vec):
    return vec._engine.envs[0].state_array.view(STATE)[:, 0]


class Game(oracle.Game):
    """The ball is held against everything there is: both sides, the back, the paddle, 108 bricks.
    """

    def __init__(self, rng, frameskip=4, max_ticks=108_000):
        super().__init__(rng)
        self.frameskip, self.max_ticks = frameskip, max_ticks

    def reset(self):
        self.stats = {"score": 0}
        self.balls, self.ticks = 5, 0
        self.bricks = self.wall()
        self.begin_round()

    def wall(self):
        return {18 * row + column: (32.0 * column, 50.0 + 12 * row, 32.0, 12.0)
                for row in range(6) for column in range(18)}

    def begin_round(self):
        self.paddle_x, self.paddle_width = 257.0, 62.0
        self.ball, self.velocity, self.speed = [272.0, 135.0], [0.0, 0.0], 256
        self.hits, self.fired = 0, False

    def step(self, actions):
        before = self.stats["score"]
        for _ in range(self.frameskip):
            self.ticks += 1
            self.tick([0, -1, 1][actions[0]])
            if self.terminated[0]:
                break
        self.truncated[0] = self.ticks >= self.max_ticks
        self.reward[0] = float(self.stats["score"] - before)

    def tick(self, direction):
        if not self.fired:
            self.fired = True
            sign = [1, -1][self.rng.integer(2)]
            self.velocity = [sign * self.speed * math.sin(math.pi / 3.25),
                             self.speed * math.cos(math.pi / 3.25)]
        self.paddle_x += direction * 620 * (1 / 60)
        self.paddle_x = min(max(self.paddle_x, 0.0), 576 - self.paddle_width)
        self.move_ball()
        if self.stats["score"] == 864:
            self.terminated[0] = True
        elif self.ball[1] >= 320:
            if self.balls == 0:
                self.terminated[0] = True
            else:
                self.balls -= 1
                self.begin_round()

    def move_ball(self):
        way = [v * (1 / 60) for v in self.velocity]
        contacts = []                     # (time, -overlap, order), axis, position, what to do

        def meet(time, overlap, axis, position, then):
            if time < 1:
                contacts.append(((time, -overlap, len(contacts)), axis, position, then))

        (x, y), (dx, dy) = self.ball, way
        for axis, ahead, limit, then in ((0, dx < 0, 0.0, self.hit_side),
                                         (0, dx > 0, 544.0, self.hit_side),
                                         (1, dy < 0, 0.0, self.hit_back)):
            if ahead:
                meet(near(abs(limit - self.ball[axis])) / abs(way[axis]), 32, axis, limit, then)
        if dy > 0 and near(280 - y) >= 0:
            time = near(280 - y) / dy
            left = x + time * dx
            overlap = min(left + 32, self.paddle_x + self.paddle_width) - max(left, self.paddle_x)
            if overlap > 0:
                meet(time, overlap, 1, 280.0, self.hit_paddle)
        for brick, (bx, by, width, height) in self.bricks.items():
            enters_x, leaves_x = passage(x, dx, bx, bx + width)
            enters_y, leaves_y = passage(y, dy, by, by + height)
            time = max(enters_x, enters_y)
            if time < 0 or time >= min(leaves_x, leaves_y):
                continue
            if enters_x > enters_y:
                top = y + time * dy
                meet(time, min(top + 32, by + height) - max(top, by), 0,
                     bx - 32 if dx > 0 else bx + width, lambda brick=brick: self.hit_brick(brick))
            else:
                left = x + time * dx
                meet(time, min(left + 32, bx + width) - max(left, bx), 1,
                     by - 32 if dy > 0 else by + height, lambda brick=brick: self.hit_brick(brick))
        if not contacts:
            self.ball = [x + dx, y + dy]
            return
        (time, *_), axis, position, then = min(contacts, key=lambda contact: contact[0])
        self.ball = [x + time * dx, y + time * dy]
        self.ball[axis] = position
        self.velocity[axis] *= -1
        then()

    def hit_side(self):
        pass

    def hit_back(self):
        if self.paddle_width == 62:
            self.paddle_width, self.paddle_x = 31.0, self.paddle_x + 15.5

    def hit_brick(self, brick):
        del self.bricks[brick]
        self.stats["score"] += POINTS[brick // 18]
        if brick // 18 < 3:
            self.velocity = [v * (448 / self.speed) for v in self.velocity]
            self.speed = 448

    def hit_paddle(self):
        self.hits += 1
        if self.hits % 4 == 0:
            self.speed = min(self.speed + 64, 448)
        half = self.paddle_width / 2
        where = (self.ball[0] + 16 - (self.paddle_x + half)) / half
        angle = math.pi / 4 * min(max(where, -1.0), 1.0)
        self.velocity = [self.speed * math.sin(angle), -self.speed * math.cos(angle)]
        if self.stats["score"] == 432:
            self.bricks = self.wall()

    def observe(self):
        gone = [brick not in self.bricks for brick in range(108)]
        return [np.array([self.paddle_x / 576, 312 / 330, self.ball[0] / 576, self.ball[1] / 330,
                          self.velocity[0] / 512, self.velocity[1] / 512, self.fired / 5,
                          self.stats["score"] / 864, self.balls / 5, self.paddle_width / 62, *gone],
                         np.float32)]


def near(gap):
    """A gap that rounding made negative is none."""
    return 0.0 if -1e-9 < gap < 0 else gap


def passage(x, d, low, high):
    """When, in parts of the way d, the ball at x comes to overlap [low, high], and ceases to."""
    if d == 0:
        return (-math.inf, math.inf) if low - 32 < x < high else (math.inf, -math.inf)
    if d > 0:
        return near(low - 32 - x) / d, (high - x) / d
    return near(x - high) / -d, (x + 32 - low) / -d


def actions_like(observations, rng, skill):
    """Bring the paddle under the ball, off its middle by chance; or do anything."""
    aim = rng.uniform(-30, 30, len(observations))
    middle = observations[:, 0] * 576 + observations[:, 9] * 31
    off = observations[:, 2] * 576 + 16 + aim - middle
    follow = np.select([off < -15, off > 15], [LEFT, RIGHT], STAY)
    return np.where(rng.random(len(observations)) < skill, follow, rng.integers(0, 3, len(aim)))


@pytest.mark.parametrize(("frameskip", "skill", "steps"), [(4, 1.0, 1000), (4, 0.0, 400),
                                                          (1, 0.8, 1000)])
def test_trajectories_equal_the_slow_rules(frameskip, skill, steps):
    E = 5
    rng = np.random.default_rng(0)
    slow = oracle.Vector(Game, range(5, 5 + E), frameskip=frameskip)
    with make(Breakout, E, env_kwargs={"frameskip": frameskip}) as vec:
        stats = oracle.replay(vec, slow, 5, steps,
                              lambda observations: actions_like(observations, rng, skill))
    if skill == 1.0:
        so_far = sum(slow.totals[e][0] for e in range(E))
        assert so_far + sum(r for r, _ in slow.episodes) > 80 * E     # the walls are full of holes
    if skill == 0.0:
        assert stats["episodes"] >= 2 * E
        assert stats["score"] == stats["episode_return"] == np.mean([r for r, _ in slow.episodes])


# ---- one rule at a time --------------------------------------------------------------------------

def after(action=STAY, frameskip=1, max_ticks=1000, gone=(), **state):
    """State, reward, termination and truncation after one step with the ball in flight.

    gone: bricks, or all but one as its negative minus one.
    """
    kwargs = {"frameskip": frameskip, "max_ticks": max_ticks}
    with make(Breakout, 1, autoreset="disabled", env_kwargs=kwargs) as vec:
        vec.reset(seed=0)
        here = states(vec)
        here["fired"], here["ball_vy"], here["ball_x"], here["ball_y"] = 1, 60.0, 200.0, 200.0
        here["gone"][0][list(gone)] = 1
        for name, value in state.items():
            here[name][0] = value
        _, rewards, terminations, truncations, _ = vec.step([action])
        return states(vec)[0].copy(), rewards[0], terminations[0], truncations[0]


def all_but(*bricks):
    return [brick for brick in range(108) if brick not in bricks]


def test_a_round_begins_with_a_launch_downwards():
    with make(Breakout, 1000, env_kwargs={"frameskip": 1}) as vec:
        observations, _ = vec.reset(seed=0)
        first = [257 / 576, 312 / 330, 272 / 576, 135 / 330, 0, 0, 0, 0, 1, 1, *[0] * 108]
        assert (observations == np.array(first, np.float32)).all()
        observations = vec.step(np.zeros(1000, int))[0]
        state = states(vec)
        assert (observations[:, 6] == np.float32(0.2)).all()
    angles = np.arctan2(state["ball_vx"], state["ball_vy"])
    assert np.unique(angles.round(12)) == pytest.approx([-math.pi / 3.25, math.pi / 3.25])
    assert np.hypot(state["ball_vx"], state["ball_vy"]) == pytest.approx(256)
    assert (angles > 0).mean() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("row", range(6))
def test_bricks_give_points_and_the_upper_rows_speed(row):
    brick = 18 * row + 5
    state, reward, *_ = after(gone=all_but(brick), ball_x=160.0, ball_vx=20.0, ball_vy=-60.0,
                              ball_y=50.0 + 12 * row + 12.5)
    assert reward == state["score"] == POINTS[row]
    assert state["gone"].all()
    speed = 448 if row < 3 else 256
    assert state["speed"] == speed
    assert (state["ball_vx"], state["ball_vy"]) == pytest.approx(
        (20.0 * speed / 256, 60.0 * speed / 256))
    assert (state["ball_x"], state["ball_y"]) == pytest.approx((160 + 1 / 6, 50 + 12 * row + 12))


@pytest.mark.parametrize(("ball_x", "brick"), [(150.0, 94), (145.0, 95), (144.0, 94), (143.0, 94)])
def test_of_two_bricks_at_once_the_larger_overlap_is_hit(ball_x, brick):
    """Bricks 94 and 95 of the lowest row are at 128 to 160 and 160 to 192."""
    state, reward, *_ = after(ball_x=ball_x, ball_vy=-60.0, ball_y=122.5)
    assert reward == 1.0
    larger = 94 if 160 - ball_x >= ball_x + 32 - 160 else 95
    assert np.flatnonzero(state["gone"]).tolist() == [larger]
    assert state["ball_vy"] == 60.0


def test_the_earlier_of_two_contacts_counts_though_its_overlap_is_smaller():
    """A brick beside the ball, 0.2 px away, before the one above, 0.5 px away."""
    state, *_ = after(gone=all_but(94, 77), ball_x=127.8 - 32, ball_y=110.5, ball_vx=60.0,
                      ball_vy=-60.0)
    assert np.flatnonzero(state["gone"] == 0).tolist() == [77]
    assert (state["ball_vx"], state["ball_vy"]) == (-60.0, -60.0)
    assert (state["ball_x"], state["ball_y"]) == pytest.approx((96.0, 110.3))


def test_a_brick_is_hit_from_above_and_from_both_sides():
    for x, y, vx, vy, turned in ((160.0, 49.5 - 32 + 36, 0.0, 60.0, (0.0, -60.0)),
                                 (127.5, 80.0, 60.0, 0.0, (-60.0, 0.0)),
                                 (192.5, 80.0, -60.0, 0.0, (60.0, 0.0))):
        state, reward, *_ = after(gone=all_but(59), ball_x=x, ball_y=y, ball_vx=vx, ball_vy=vy,
                                  speed=448)
        assert reward == 4.0
        assert (state["ball_vx"], state["ball_vy"]) == turned


def test_the_ball_stops_at_what_it_touches_until_the_next_tick():
    state, *_ = after(ball_x=543.5, ball_vx=240.0, ball_vy=120.0)
    assert (state["ball_x"], state["ball_y"]) == (544.0, 200.25)
    assert (state["ball_vx"], state["ball_vy"]) == (-240.0, 120.0)
    state, *_ = after(ball_x=0.5, ball_vx=-240.0)
    assert (state["ball_x"], state["ball_vx"]) == (0.0, 240.0)


def test_the_back_wall_halves_the_paddle_for_the_round():
    back = {"ball_y": 0.5, "ball_vy": -60.0, "gone": range(108)}
    state, *_ = after(paddle_x=100.0, **back)
    assert (state["ball_y"], state["ball_vy"]) == (0.0, 60.0)
    assert (state["paddle_x"], state["paddle_width"]) == (115.5, 31.0)
    state, *_ = after(paddle_x=100.0, paddle_width=31.0, **back)
    assert (state["paddle_x"], state["paddle_width"]) == (100.0, 31.0)
    state, *_ = after(paddle_width=31.0, ball_y=320.0)
    assert state["paddle_width"] == 62.0


@pytest.mark.parametrize("width", [62.0, 31.0])
@pytest.mark.parametrize("where", [-1.2, -1.0, -0.5, 0.0, 0.25, 1.0, 1.4])
def test_the_paddle_sends_the_ball_by_where_it_hits(where, width):
    state, *_ = after(paddle_x=200.0, paddle_width=width, ball_y=279.5,
                      ball_x=200 + width / 2 * (1 + where) - 16, hits=1)
    angle = math.atan2(state["ball_vx"], -state["ball_vy"])
    assert angle == pytest.approx(max(-1, min(1, where)) * math.pi / 4)
    assert math.hypot(state["ball_vx"], state["ball_vy"]) == pytest.approx(256)
    assert (state["hits"], state["ball_y"]) == (2, 280.0)


@pytest.mark.parametrize(("hits", "speed", "faster"), [
    (2, 256, 256), (3, 256, 320), (7, 320, 384), (11, 384, 448), (15, 448, 448)])
def test_every_fourth_paddle_hit_speeds_up_the_ball(hits, speed, faster):
    state, *_ = after(paddle_x=200.0, ball_x=215.0, ball_y=279.5, hits=hits, speed=speed)
    assert state["speed"] == faster
    assert math.hypot(state["ball_vx"], state["ball_vy"]) == pytest.approx(faster)


@pytest.mark.parametrize(("paddle_x", "hit"), [(138.0, False), (138.5, True), (231.5, True),
                                               (232.0, False)])
def test_the_paddle_misses_what_it_does_not_overlap(paddle_x, hit):
    """The ball is at 200 to 232, the paddle 62 wide."""
    state, *_ = after(paddle_x=paddle_x, ball_y=279.5, paddle_width=62.0)
    assert state["hits"] == hit


def test_the_wall_is_rebuilt_at_the_next_paddle_hit():
    state, *_ = after(gone=range(108), score=432, frameskip=4)
    assert state["gone"].all()
    for score in (431, 432):
        state, reward, *_ = after(gone=range(108), score=score, paddle_x=200.0, ball_y=279.5)
        assert state["gone"].all() == (score == 431)
        assert reward == 0.0
    assert not state["gone"].any()
    assert state["score"] == 432


def test_the_second_wall_ends_the_episode():
    for score, over in ((862, False), (863, True)):
        state, reward, terminated, _ = after(gone=all_but(95), score=score, ball_x=160.0,
                                             ball_y=122.5, ball_vy=-60.0, frameskip=4)
        assert (reward, terminated) == (1.0, over)
        assert state["score"] == score + 1
        assert state["ticks"] == (1 if over else 4)


def test_the_last_ball_ends_the_episode():
    for balls in (1, 0):
        state, reward, terminated, _ = after(balls=balls, ball_y=319.5, gone=[3, 7], score=14)
        assert (reward, terminated) == (0.0, balls == 0)
        assert state["balls"] == 0
        assert np.flatnonzero(state["gone"]).tolist() == [3, 7]
        assert state["score"] == 14
        assert state["fired"] == (balls == 0)
    state, *_ = after(ball_y=318.5)                 # 319.5: a part of it is not yet below
    assert (state["balls"], state["fired"]) == (5, 1)


@pytest.mark.parametrize(("action", "paddle_x", "there"), [
    (STAY, 100.0, 100.0), (LEFT, 100.0, 100 - 620 / 60), (RIGHT, 100.0, 100 + 620 / 60),
    (LEFT, 5.0, 0.0), (RIGHT, 510.0, 514.0)])
def test_the_paddle_moves_and_stays_in_the_field(action, paddle_x, there):
    assert after(action, paddle_x=paddle_x)[0]["paddle_x"] == pytest.approx(there)


def test_a_game_without_end_is_cut_off():
    assert not after(frameskip=4, ticks=990)[3]
    state, _, terminated, truncated = after(frameskip=4, ticks=996)
    assert (state["ticks"], terminated, truncated) == (1000, False, True)


# ---- as a whole ----------------------------------------------------------------------------------

def test_the_ball_never_enters_what_stands():
    E, steps = 200, 1500
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(32.0 * np.arange(18), 50 + 12.0 * np.arange(6))
    x, y = x.ravel(), y.ravel()                                                  # (108,)
    with make(Breakout, E, env_kwargs={"frameskip": 1}) as vec:
        observations, _ = vec.reset(seed=0)
        state = states(vec)
        # Holes in the wall, and balls that fly up into it.
        state["gone"] = rng.random((E, 108)) < 0.7
        state["ball_y"], state["ball_vy"], state["ball_vx"] = 200, -300.0, rng.uniform(-300, 300, E)
        state["fired"] = 1
        hits = 0
        for _ in range(steps):
            observations, rewards, *_ = vec.step(actions_like(observations, rng, 1.0))
            ball_x, ball_y = state["ball_x"][:, None], state["ball_y"][:, None]
            inside = ((np.minimum(ball_x + 32, x + 32) - np.maximum(ball_x, x) > 1e-9)
                      & (np.minimum(ball_y + 32, y + 12) - np.maximum(ball_y, y) > 1e-9))
            assert not (inside & (state["gone"] == 0)).any()
            assert ball_x.min() > -1e-9
            assert ball_x.max() < 544 + 1e-9
            assert ball_y.min() > -1e-9
            hits += (rewards > 0).sum()
    assert hits > 10 * E


def test_a_random_player_scores_little():
    with make(Breakout, 1000) as vec:
        vec.reset(seed=0)
        rng = np.random.default_rng(0)
        for _ in range(800):
            observations = vec.step(rng.integers(0, 3, 1000))[0]
        assert vec.single_observation_space.contains(observations[0])
        stats = vec.episode_stats()
    assert stats["score"] == stats["episode_return"] == pytest.approx(0.87, abs=0.05)
    assert stats["episode_length"] == pytest.approx(135, abs=2)


@pytest.mark.parametrize("argument", ["frameskip", "max_ticks"])
def test_refuses(argument):
    with pytest.raises(ValueError, match=f"breakout: {argument} is at least 1, not 0"):
        make(Breakout, env_kwargs={argument: 0})


def test_pictures():
    pytest.importorskip("PIL")
    with make(Breakout, 2) as vec:
        vec.reset(seed=0)
        states(vec)["gone"][1, 0], states(vec)["score"][1] = 1, 7
        whole, picture = vec.render(0), vec.render(1)
        text = vec.ansi(1).splitlines()
    assert picture.shape == (370, 576, 3)
    assert picture.dtype == np.uint8
    hole = picture[40 + 56, 16]
    assert (picture[40 + 200, 16] == hole).all()
    assert (whole[40 + 56, 16] != hole).any()
    assert (picture[40 + 135 + 16, 288] == [245, 245, 240]).all()
    assert text[0] == " score 7   balls 5"
    assert len({len(line) for line in text[1:]}) == 1
    assert sum(line.count("7") for line in text[1:]) == (2 * 18 - 1) * 4
