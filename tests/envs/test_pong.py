"""pong: every trajectory is that of the slow rules below, and each rule is seen at work."""

import numpy as np
import oracle
import pytest

from pufferlib_cy import make
from pufferlib_cy.envs.pong import Pong

STATE = np.dtype([("paddle_y", np.int32, 2), ("ball_x", np.int32), ("ball_y", np.int32),
                  ("ball_vx", np.int32), ("ball_vy", np.int32), ("score", np.int32, 2),
                  ("frames", np.int32)])
STAY, UP, DOWN = range(3)
RIGHT, LEFT = range(2)


def states(vec):
    return vec._engine.envs[0].state_array.view(STATE)[:, 0]


def clip(value, low, high):
    return min(max(value, low), high)


class Game(oracle.Game):
    """One agent, the right paddle, against the tracking opponent."""

    def __init__(self, rng, frameskip=8, max_frames=108_000):
        super().__init__(rng)
        self.frameskip, self.max_frames = frameskip, max_frames

    def reset(self):
        self.points = {"right": 0, "left": 0}
        self.stats = {"score": 0}
        self.frames = 0
        self.serve()

    def serve(self):
        self.paddle = {"right": 285.0, "left": 285.0}
        self.x, self.y, self.vx = 100.0, 304.0, 10.0
        self.vy = [-1.0, 1.0][self.rng.integer(2)]

    def left_speed(self, actions):
        return clip(self.y - (self.paddle["left"] + 35), -8, 8)

    def step(self, actions):
        turn = {"right": [0, 1, -1][actions[0][0] if self.agents > 1 else actions[0]]}
        if self.agents > 1:
            turn["left"] = [0, 1, -1][actions[1][0]]
        for _ in range(self.frameskip):
            self.frames += 1
            speed = {"right": 8 * turn["right"], "left": self.left_speed(turn)}
            for side in self.paddle:
                self.paddle[side] = clip(self.paddle[side] + speed[side], -35, 605)
            self.x += self.vx
            self.y += self.vy
            if self.y < 0 or self.y + 32 > 640:
                self.y = clip(self.y, 0, 640 - 32)
                self.vy *= -1
            if self.x < 0 or self.x + 32 > 500:
                side, other = ("left", "right") if self.x < 0 else ("right", "left")
                low = self.paddle[side]
                if not (self.y < low + 70 and low < self.y + 32):
                    self.win_point(other)
                    break
                self.x = clip(self.x, 0, 500 - 32)
                self.vx *= -1
                if side in turn:
                    self.vy = clip(self.vy + 3 * turn[side], -13, 13)
                    if abs(self.vy) < 0.01:
                        self.vy = 3.0
                    if self.agents == 1:
                        self.reward[0] = 0.1
        self.truncated = [self.frames >= self.max_frames] * self.agents

    def win_point(self, side):
        self.points[side] += 1
        self.stats = {"score": self.points["right"] - self.points["left"]}
        gain = 1.0 if side == "right" else -1.0
        self.reward = [gain, -gain][:self.agents]
        self.terminated = [self.points[side] == 21] * self.agents
        self.serve()

    def observe(self):
        views = []
        for own, other in [("right", "left"), ("left", "right")][:self.agents]:
            x, vx = (self.x, self.vx) if own == "right" else (500 - 32 - self.x, -self.vx)
            views.append([(self.paddle[own] + 35) / 640, (self.paddle[other] + 35) / 640, x / 500,
                          self.y / 640, (vx + 10) / 20, (self.vy + 13) / 26,
                          self.points[own] / 21, self.points[other] / 21])
        return list(np.array(views, np.float32))


class TwoPlayerGame(Game):
    agents = 2

    def left_speed(self, turn):
        return 8 * turn["left"]


def actions_like(observations, rng):
    """Follow the ball now and then, else anything: rallies, points for both, all the spins."""
    follow = np.where(observations[:, 3] * 640 + 16 > observations[:, 0] * 640, UP, DOWN)
    anything = rng.integers(0, 3, len(observations))
    return np.where(rng.random(len(observations)) < 0.3, follow, anything)


@pytest.mark.parametrize("frameskip", [1, 8])
@pytest.mark.parametrize("rules", [Game, TwoPlayerGame])
def test_trajectories_equal_the_slow_rules(rules, frameskip):
    E = 6
    rng = np.random.default_rng(0)
    slow = oracle.Vector(rules, range(5, 5 + E), frameskip=frameskip)
    kwargs = {"frameskip": frameskip, "two_player": rules is TwoPlayerGame}
    with make(Pong, E, env_kwargs=kwargs) as vec:
        oracle.replay(vec, slow, 5, 10_000 // frameskip,
                      lambda observations: actions_like(observations, rng), atol=1e-4)
    assert len(slow.episodes) >= E


# ---- one rule at a time --------------------------------------------------------------------------

def after(action, frameskip=1, two_player=False, **state):
    """State, rewards, terminations and truncations after one step from a state of our making."""
    kwargs = {"frameskip": frameskip, "two_player": two_player, "max_frames": 1000}
    with make(Pong, 1, autoreset="disabled", env_kwargs=kwargs) as vec:
        vec.reset(seed=0)
        for name, value in state.items():
            states(vec)[name][0] = value
        _, rewards, terminations, truncations, _ = vec.step(action)
        return (states(vec)[0].copy(), rewards.tolist(), terminations.tolist(),
                truncations.tolist())


@pytest.mark.parametrize(("action", "before", "vy"), [
    (STAY, 5, 5), (UP, 5, 8), (DOWN, 5, 2), (UP, 12, 13), (DOWN, -12, -13), (DOWN, 3, 3),
    (UP, -3, 3)])
def test_a_moving_paddle_gives_spin(action, before, vy):
    state, rewards, *_ = after([action], ball_x=460, ball_y=300, ball_vy=before)
    assert (state["ball_x"], state["ball_vx"], state["ball_vy"]) == (468, -10, vy)
    assert rewards == [np.float32(0.1)]


def test_the_opponent_gives_neither_spin_nor_reward():
    state, rewards, *_ = after([UP], ball_x=4, ball_y=330, ball_vx=-10, ball_vy=5)
    assert (state["ball_x"], state["ball_vx"], state["ball_vy"]) == (0, 10, 5)
    assert state["paddle_y"][LEFT] == 285 + 8
    assert rewards == [0.0]


@pytest.mark.parametrize(("ball_y", "hit"), [(253, False), (254, True), (354, True), (355, False)])
def test_the_paddle_reaches_what_it_overlaps(ball_y, hit):
    """The paddle is at 285 to 355."""
    state, rewards, *_ = after([STAY], ball_x=460, ball_y=ball_y, ball_vy=0)
    assert rewards == ([np.float32(0.1)] if hit else [-1.0])
    assert state["score"].tolist() == ([0, 0] if hit else [0, 1])


@pytest.mark.parametrize(("ball_y", "vy", "there"), [(3, -13, 0), (600, 13, 608), (0, -1, 0)])
def test_the_ball_bounces_off_the_sides(ball_y, vy, there):
    state, *_ = after([STAY], ball_x=200, ball_y=ball_y, ball_vy=vy)
    assert (state["ball_y"], state["ball_vy"], state["ball_x"]) == (there, -vy, 210)


@pytest.mark.parametrize(("action", "end"), [(UP, 605), (DOWN, -35)])
def test_paddles_leave_the_field_by_half(action, end):
    state, *_ = after([action], frameskip=100, ball_x=0, ball_vx=0)
    assert state["paddle_y"][RIGHT] == end


def test_a_point_serves_again_and_ends_the_step():
    state, rewards, terminations, _ = after([UP], frameskip=8, ball_x=468, ball_y=0,
                                            score=[3, 19])
    assert rewards == [-1.0]
    assert terminations == [False]
    assert state["frames"] == 1
    assert state["score"].tolist() == [3, 20]
    assert state["paddle_y"].tolist() == [285, 285]
    assert (state["ball_x"], state["ball_y"], state["ball_vx"]) == (100, 304, 10)
    assert abs(state["ball_vy"]) == 1


@pytest.mark.parametrize("score", [[20, 7], [7, 20]])
def test_twenty_one_points_end_the_episode(score):
    winner = int(np.argmax(score))
    ball = {"ball_x": 468, "ball_vx": 10} if winner == LEFT else {"ball_x": 0, "ball_vx": -10}
    won = 1.0 if winner == RIGHT else -1.0
    for two_player in (False, True):
        _, rewards, terminations, _ = after(
            [STAY] * (1 + two_player), two_player=two_player, score=score, ball_y=0,
            paddle_y=[400, 400], **ball)
        assert rewards == ([won, -won] if two_player else [won])
        assert terminations == [True] * (1 + two_player)


def test_both_paddles_of_two_players_give_spin_and_no_reward():
    for ball, actions in (({"ball_x": 460}, [UP, DOWN]), ({"ball_x": 4, "ball_vx": -10},
                                                         [DOWN, UP])):
        state, rewards, *_ = after(actions, two_player=True, ball_y=300, ball_vy=1, **ball)
        assert state["ball_vy"] == 4
        assert rewards == [0.0, 0.0]


@pytest.mark.parametrize("two_player", [False, True])
def test_an_endless_rally_is_cut_off(two_player):
    for frames, over in ((990, False), (992, True)):
        *_, terminations, truncations = after(
            [STAY] * (1 + two_player), frameskip=8, two_player=two_player, frames=frames)
        assert terminations == [False] * (1 + two_player)
        assert truncations == [over] * (1 + two_player)


def test_players_see_mirror_images():
    with make(Pong, 1, env_kwargs={"two_player": True}) as vec:
        vec.reset(seed=0)
        state = states(vec)
        state["score"], state["ball_x"], state["paddle_y"] = [5, 9], 300, [100, 200]
        right, left = vec.step([UP, DOWN])[0]
    np.testing.assert_array_equal(left[[1, 0, 3, 5, 7, 6]], right[[0, 1, 3, 5, 6, 7]])
    assert left[2] + right[2] == pytest.approx(468 / 500)
    assert (right[4], left[4]) == (1.0, 0.0)


# ---- as a whole ----------------------------------------------------------------------------------

def test_a_random_player_loses():
    with make(Pong, 500) as vec:
        vec.reset(seed=0)
        rng = np.random.default_rng(0)
        for _ in range(600):
            observations = vec.step(rng.integers(0, 3, 500))[0]
            assert observations.min() >= 0.0
            assert observations.max() <= 1.0
        stats = vec.episode_stats()
    assert stats["score"] == pytest.approx(-21.0, abs=0.02)
    # Rewards are the score and a tenth for every bounce.
    assert stats["episode_return"] == pytest.approx(-20.30, abs=0.05)
    assert stats["episode_length"] == pytest.approx(188, abs=4)


@pytest.mark.parametrize("argument", ["frameskip", "max_frames"])
def test_refuses(argument):
    with pytest.raises(ValueError, match=f"pong: {argument} is at least 1, not 0"):
        make(Pong, env_kwargs={argument: 0})


def test_pictures():
    pytest.importorskip("PIL")
    with make(Pong, 2) as vec:
        vec.reset(seed=0)
        states(vec)["score"][1], states(vec)["ball_x"][1] = [7, 12], 400
        picture = vec.render(1)
        assert picture.shape == (760, 620, 3)
        assert picture.dtype == np.uint8
        assert (picture[80 + 320, 60 + 400 + 16] == [245, 245, 240]).all()
        assert (vec.render(0)[80 + 320, 60 + 400 + 16] != [245, 245, 240]).any()
        text = vec.ansi(1).splitlines()
    assert text[0].strip() == "12 : 7"
    assert len(text) == 23
    assert [line.index("OOO") for line in text if "O" in line] == [41]
    assert sum(line.startswith("#") for line in text) == sum(line.endswith("#") for line in text)
