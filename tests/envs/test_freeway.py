"""freeway against an oracle with rectangles, its rules one by one, and two scripted players."""

from fractions import Fraction

import numpy as np
import oracle
import pytest

from pufferlib_cy import make
from pufferlib_cy.envs.freeway import Freeway

STAY, UP, DOWN = range(3)
STATE = np.dtype([("cars", np.int32, 10), ("y", np.int32), ("knocked", np.int32),
                  ("crossings", np.int32)])
# Eighths of a pixel a tick, the lowest lane first, and of a car's way through the field.
SPEEDS = [8, 12, 10, 16, 22, 24, 14, 18, 11, 9]
WAY = 8 * (160 + 16)


class Field(oracle.Game):
    """The rules on the x and y of things; every car is held against the chicken in every tick."""

    def __init__(self, rng, frameskip=4, max_ticks=3600):
        super().__init__(rng)
        self.frameskip, self.max_ticks = frameskip, max_ticks

    def reset(self):
        self.stats = {"crossings": 0, "hits": 0}
        self.y = self.knocked = self.steps = 0
        self.xs = []
        for lane in range(10):
            front = Fraction(self.rng.integer(WAY), 8)
            self.xs.append(front - 16 if lane < 5 else 160 - front)

    def step(self, actions):
        self.steps += 1
        for _ in range(self.frameskip):
            self.tick({STAY: 0, UP: 4, DOWN: -4}[int(actions[0])])
        self.truncated[0] = self.steps * self.frameskip >= self.max_ticks

    def tick(self, way):
        for lane, speed in enumerate(SPEEDS):
            if lane < 5:
                self.xs[lane] += Fraction(speed, 8)
                if self.xs[lane] >= 160:
                    self.xs[lane] -= 176
            else:
                self.xs[lane] -= Fraction(speed, 8)
                if self.xs[lane] <= -16:
                    self.xs[lane] += 176
        if self.knocked:
            self.knocked -= 1
            self.y = max(self.y - 4, 0)
            return
        self.y = max(self.y + way, 0)
        if any(self.overlaps(lane) for lane in range(10)):
            self.knocked = 8
            self.stats["hits"] += 1
        elif self.y >= 176:
            self.y = 0
            self.reward[0] += 1.0
            self.stats["crossings"] += 1

    def overlaps(self, lane):
        x, y = self.xs[lane], 16 + 16 * lane + 2
        return x < 84 and x + 16 > 76 and y < self.y + 12 and y + 12 > self.y

    def observe(self):
        ahead = next(lane for lane in range(10) if self.y < 16 + 16 * lane + 2 + 12)
        order = [*range(ahead, 10), *range(ahead)]
        ways = [x + 16 if lane < 5 else 160 - x for lane, x in enumerate(self.xs)]
        return [np.array([self.y / 176, (self.y - 16 * ahead) / 32, self.knocked / 8,
                          *(float(ways[lane] / 176) for lane in order),
                          *(SPEEDS[lane] / 24 for lane in order)], np.float32)]


def states(vec):
    return vec._engine.envs[0].state_array[:, :STATE.itemsize].view(STATE)[:, 0]


def mostly_up(rng, E):
    return np.where(rng.random(E) < 0.7, UP, rng.integers(0, 3, E))


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize(("frameskip", "max_ticks"), [(4, 3600), (1, 500), (7, 1000)])
def test_trajectories_equal_the_slow_rules(frameskip, max_ticks, autoreset):
    E = 4
    rng = np.random.default_rng(0)
    kwargs = {"frameskip": frameskip, "max_ticks": max_ticks}
    slow = oracle.Vector(Field, range(5, 5 + E), autoreset, **kwargs)
    with make(Freeway, E, env_kwargs=kwargs, autoreset=autoreset) as vec:
        observations, _ = vec.reset(seed=5)
        slow.reset()
        assert observations.tobytes() == slow.observations.tobytes()
        for _ in range(4000 // frameskip):
            actions = mostly_up(rng, E)
            observations, rewards, terminations, truncations, _ = vec.step(actions)
            slow.step(actions.reshape(-1, 1))
            assert observations.tobytes() == slow.observations.tobytes()
            assert rewards.tobytes() == slow.rewards.tobytes()
            assert not terminations.any()
            assert (truncations == slow.truncations).all()
            for row, last in slow.final.items():
                assert vec.final_observations[row].tobytes() == last.tobytes()
        stats = vec.episode_stats()
    returns, lengths = np.array(slow.episodes).T
    assert stats["crossings"] == stats["episode_return"] > 1
    assert stats == pytest.approx({
        "episodes": len(returns), "episode_return": returns.mean(),
        "episode_length": lengths.mean(),
        **{key: np.mean([own[key] for own in slow.stats]) for key in slow.stats[0]}})


# ---- one rule at a time --------------------------------------------------------------------------

def after(action=STAY, frameskip=1, max_ticks=3600, cars=None, **state):
    """State, observation, reward and truncation after one step; cars: their places by lane, all
    others are far from the chicken."""
    kwargs = {"frameskip": frameskip, "max_ticks": max_ticks}
    with make(Freeway, 1, autoreset="disabled", env_kwargs=kwargs) as vec:
        vec.reset(seed=0)
        here = states(vec)
        here["cars"] = 0
        for lane, place in (cars or {}).items():
            here["cars"][0, lane] = place
        for name, value in state.items():
            here[name][0] = value
        observations, rewards, terminations, truncations, _ = vec.step([action])
        assert not terminations.any()
        stats = vec._engine.stats[0].tolist()
        return states(vec)[0].copy(), observations[0].copy(), rewards[0], truncations[0], stats


@pytest.mark.parametrize(("action", "y", "there"), [
    (STAY, 40, 40), (UP, 40, 44), (DOWN, 40, 36), (DOWN, 0, 0), (DOWN, 4, 0), (UP, 168, 172)])
def test_the_chicken_walks(action, y, there):
    state, observation, reward, *_ = after(action, y=y)
    assert (state["y"], reward) == (there, 0)
    assert observation[0] == np.float32(there / 176)


def test_a_crossing_gives_one_and_begins_anew():
    state, observation, reward, _, stats = after(UP, y=172)
    assert (state["y"], reward, observation[0]) == (0, 1, 0)
    assert stats == [1, 0]
    state, _, reward, _, stats = after(UP, frameskip=88, y=0,
                                      cars={1: 800, 5: 800, 7: 400, 9: 800})
    assert (state["y"], reward) == (0, 2)                # nothing in the way: 44 ticks each
    assert stats == [2, 0]


@pytest.mark.parametrize("lane", range(10))
def test_cars_go_their_way_and_come_again(lane):
    state, observation, *_ = after(cars={lane: 100})
    assert state["cars"][lane] == 100 + SPEEDS[lane]
    assert observation[3 + lane] == np.float32((100 + SPEEDS[lane]) / WAY)
    assert observation[13 + lane] == np.float32(SPEEDS[lane] / 24)
    assert after(cars={lane: WAY - 1})[0]["cars"][lane] == SPEEDS[lane] - 1
    assert after(cars={lane: WAY - SPEEDS[lane]})[0]["cars"][lane] == 0


@pytest.mark.parametrize("lane", range(10))
@pytest.mark.parametrize(("front", "hit"), [(76 * 8, False), (76 * 8 + 1, True),
                                            (100 * 8 - 1, True), (100 * 8, False)])
def test_a_car_hits_what_it_overlaps_in_x(lane, front, hit):
    state, observation, _, _, stats = after(y=18 + 16 * lane, cars={lane: front - SPEEDS[lane]})
    assert state["knocked"] == 8 * hit
    assert observation[2] == float(hit)
    assert stats == [0, int(hit)]


@pytest.mark.parametrize(("above", "hit"), [(-12, False), (-11, True), (0, True), (11, True),
                                            (12, False)])
def test_a_car_hits_what_it_overlaps_in_y(above, hit):
    state, *_ = after(y=18 + 16 * 3 + above, cars={3: 700})
    assert state["knocked"] == 8 * hit


def test_a_hit_takes_the_chicken_back_whatever_it_wants():
    cars = {4: 700 - SPEEDS[4], 3: 600, 2: 600}          # those below are on its way back
    for ticks, y, knocked, hits in ((1, 84, 8, 1), (4, 72, 5, 1), (9, 52, 0, 1), (10, 56, 8, 2)):
        state, _, reward, _, stats = after(UP, ticks, cars=cars, y=80)
        assert (state["y"], state["knocked"], reward) == (y, knocked, 0)
        assert stats == [0, hits]
    assert after(UP, 3, y=8, knocked=8)[0]["y"] == 0      # the kerb
    assert after(UP, 9, y=8, knocked=8)[0]["y"] == 4


@pytest.mark.parametrize(("frameskip", "limit", "steps"), [(4, 12, 3), (4, 13, 4), (1, 1, 1)])
def test_time_runs_out(frameskip, limit, steps):
    kwargs = {"frameskip": frameskip, "max_ticks": limit}
    with make(Freeway, 1, env_kwargs=kwargs) as vec:
        vec.reset(seed=0)
        flags = [vec.step([UP])[3][0] for _ in range(2 * steps)]
    assert flags == 2 * [*[False] * (steps - 1), True]


def test_cars_begin_anywhere():
    with make(Freeway, 4000) as vec:
        observations, _ = vec.reset(seed=0)
        assert (observations[:, :3] == 0).all()
        places = observations[:, 3:13]
    np.testing.assert_allclose(places.mean(0), 0.5, atol=0.02)
    np.testing.assert_allclose(places.std(0), 12**-0.5, atol=0.01)
    assert np.abs(np.corrcoef(places.T) - np.eye(10)).max() < 0.07


def test_the_lane_ahead_is_seen_first():
    cars = {lane: 100 * lane for lane in range(10)}
    for y, ahead in ((0, 0), (28, 0), (32, 1), (44, 1), (48, 2), (156, 8), (160, 9), (172, 9)):
        _, observation, *_ = after(y=y, cars=cars)
        order = (np.arange(10) + ahead) % 10
        speeds = np.take(SPEEDS, order)
        np.testing.assert_array_equal(observation[3:13], np.float32(100 * order + speeds) / WAY)
        np.testing.assert_array_equal(observation[13:], np.float32(speeds / 24))
        assert observation[1] == (y - 16 * ahead) / 32


# ---- players -------------------------------------------------------------------------------------

def places(observations):
    """y and the cars' places, the lowest lane first: (E,) and (E, 10)."""
    y = np.rint(176 * observations[:, 0]).astype(int)
    ahead = np.rint((y - 32 * observations[:, 1]) / 16).astype(int)
    order = (np.arange(10) - ahead[:, None]) % 10
    return y, np.rint(WAY * np.take_along_axis(observations[:, 3:13], order, 1)).astype(int)


def would_be_hit(y, cars, way, ticks):
    """Of chickens at y (E,) that walk `way` px a tick, cars (E, 10): who is hit within `ticks`."""
    low = 18 + 16 * np.arange(10)
    hit = np.zeros(len(y), bool)
    for _ in range(ticks):
        cars = (cars + SPEEDS) % WAY
        y = np.clip(y + way, 0, 176)
        hit |= ((y[:, None] < low + 12) & (low < y[:, None] + 12) & (cars > 8 * 76)
                & (cars < 8 * 100)).any(1)
    return hit


def look_ahead(observations, rng):
    """The scripted baseline: up where that is safe for the next two steps, else stay where that is,
    else down."""
    y, cars = places(observations)
    up, stay = would_be_hit(y, cars, 4, 8), would_be_hit(y, cars, 0, 8)
    return np.where(~up, UP, np.where(~stay, STAY, DOWN))


def play(policy, E=300):
    rng = np.random.default_rng(0)
    with make(Freeway, E) as vec:
        observations, _ = vec.reset(seed=0)
        for _ in range(900):
            observations = vec.step(policy(observations, rng))[0]
        stats = vec.episode_stats()
    assert stats["episodes"] == E
    assert stats["episode_length"] == 900
    return stats


def test_looking_ahead_crosses_more_often_than_running_and_chance_hardly_ever():
    chance = play(lambda seen, rng: rng.integers(0, 3, len(seen)))
    running = play(lambda seen, rng: np.full(len(seen), UP))
    looking = play(look_ahead)
    assert chance["crossings"] < 0.5
    assert running["crossings"] == pytest.approx(34, abs=1)
    assert looking["crossings"] == pytest.approx(47.7, abs=1)
    assert running["hits"] > 100 > 10 > looking["hits"]


def test_a_random_player_does_as_in_the_oracle():
    """Other streams, the same odds."""
    E, rng = 40, np.random.default_rng(1)
    slow = oracle.Vector(Field, range(10_000, 10_000 + E), max_ticks=400)
    slow.reset()
    for _ in range(100):
        slow.step(mostly_up(rng, E).reshape(-1, 1))
    with make(Freeway, 2000, env_kwargs={"max_ticks": 400}) as vec:
        vec.reset(seed=0)
        for _ in range(100):
            vec.step(mostly_up(rng, 2000))
        fast = vec.episode_stats()
    for name in ("crossings", "hits"):
        sample = [own[name] for own in slow.stats]
        assert len(sample) == E
        error = np.std(sample) / E**0.5
        assert fast[name] == pytest.approx(np.mean(sample), abs=4.5 * error), name


def test_same_bytes_with_threads():
    def rollout(**backend):
        rng = np.random.default_rng(0)
        with make(Freeway, 70, env_kwargs={"max_ticks": 400}, **backend) as vec:
            vec.reset(seed=3)
            return [b"".join(a.tobytes() for a in vec.step(mostly_up(rng, 70))[:4])
                    for _ in range(250)], vec.episode_stats()
    assert rollout(backend="threads", num_workers=3) == rollout(backend="serial")


@pytest.mark.parametrize("argument", ["frameskip", "max_ticks"])
def test_refuses(argument):
    with pytest.raises(ValueError, match=f"freeway: {argument} is at least 1, not 0"):
        Freeway(**{argument: 0})


def test_pictures():
    pytest.importorskip("PIL")
    with make(Freeway, 2, env_kwargs={"frameskip": 2}) as vec:
        assert vec.render_fps == 30
        vec.reset(seed=0)
        state = states(vec)
        state["cars"], state["y"], state["crossings"] = 8 * 40, [0, 84], [0, 12]
        state["knocked"][1] = 3
        free, hit = vec.render(0), vec.render(1)
        text = vec.ansi(0).splitlines(), vec.ansi(1).splitlines()
    assert free.shape == (624, 480, 3)
    assert free.dtype == np.uint8
    assert (free[624 - 3 * 6, 240] == [245, 245, 240]).all()        # the chicken on its kerb
    assert (hit[624 - 3 * 90, 240] == [255, 150, 140]).all()
    assert (free[:48] != hit[:48]).any()
    road = free[624 - 3 * 20, 3 * 100]
    for lane in range(10):
        middle = 624 - 3 * (24 + 16 * lane)
        for x in (32, 128):                          # 24 to 40 from the left, or from the right
            assert (free[middle, 3 * x] != road).any() == ((x == 32) == (lane < 5))
    assert text[0][0] == " crossings 0"
    assert text[1][0] == " crossings 12"
    assert {len(line) for lines in text for line in lines[1:]} == {42}
    assert text[0][-2][20:22] == "YY"
    assert [line.count("x") for line in text[1]].index(2) == 2 + 11 - 90 // 16
    assert [line.count(">") + line.count("<") for line in text[0][2:-1]] == [0, *[4] * 10, 0]
