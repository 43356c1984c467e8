"""commons against an oracle with a dict of cells, its rules one by one, and scripted harvesters."""

import numpy as np
import oracle
import pytest

from pufferlib_cy import make
from pufferlib_cy.envs.commons import Commons

SIZE, VISION = 14, 3
EMPTY, FOOD, WALL, AGENT = range(4)
STAY, UP, DOWN, LEFT, RIGHT = range(5)
MOVES = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]
CHANCES = [0.0, 0.01, 0.01, 0.05, 0.05, 0.1]
MIDDLES = [(3, 3), (3, 10), (10, 3), (10, 10)]


def near(one, other):
    return (one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2 <= 4


CELLS = [(y, x) for y in range(SIZE) for x in range(SIZE)]
PLACES = [cell for cell in CELLS if any(near(cell, middle) for middle in MIDDLES)]


class Field(oracle.Game):
    """The rules on a dict from (y, x) to FOOD or AGENT."""

    def __init__(self, rng, shared=True, growth=1.0, max_ticks=256):
        super().__init__(rng)
        self.shared, self.growth, self.max_ticks = shared, growth, max_ticks

    def reset(self):
        self.things = dict.fromkeys(PLACES, FOOD)
        self.cells, self.meals, self.ticks = [], [[] for _ in range(self.agents)], 0
        self.stats = {}
        for _ in range(self.agents):
            while self.at(cell := divmod(self.rng.integer(SIZE * SIZE), SIZE)) != EMPTY:
                pass
            self.cells.append(cell)
            self.things[cell] = AGENT

    def at(self, cell):
        inside = 0 <= cell[0] < SIZE and 0 <= cell[1] < SIZE
        return self.things.get(cell, EMPTY) if inside else WALL

    def food(self):
        return [cell for cell, thing in self.things.items() if thing == FOOD]

    def step(self, actions):
        self.ticks += 1
        for a in range(self.agents):
            y, x = self.cells[a]
            dy, dx = MOVES[int(np.ravel(actions)[a])]
            there = self.at((y + dy, x + dx))
            if there in (WALL, AGENT):
                continue
            if there == FOOD:
                self.meals[a].append(self.ticks)
                for b in range(self.agents):
                    self.reward[b] += 1 / self.agents if self.shared else float(a == b)
            del self.things[self.cells[a]]
            self.cells[a] = (y + dy, x + dx)
            self.things[self.cells[a]] = AGENT
        food = self.food()
        for cell in PLACES:
            around = sum(near(cell, one) for one in food)
            if self.at(cell) == EMPTY and around > 0:
                chance = self.growth * CHANCES[min(around, 5)]
                if self.rng.uniform(0.0, 1.0) < chance:
                    self.things[cell] = FOOD
        self.terminated = [not self.food()] * self.agents
        self.truncated = [bool(self.food()) and self.ticks == self.max_ticks] * self.agents
        meals = [tick for one in self.meals for tick in one]
        eaten = np.array([len(one) for one in self.meals])
        differences = abs(eaten - eaten[:, None]).sum()
        self.stats = {"eaten": len(meals), "left": len(self.food()) / len(PLACES),
                      "sustainability": np.mean(meals) if meals else 0,
                      "equality": (1 - differences / (2 * self.agents * len(meals))
                                   if meals else 1)}

    def observe(self):
        around = range(-VISION, VISION + 1)
        return [np.array([self.at((y + v, x + u)) for v in around for u in around], np.uint8)
                for y, x in self.cells]


def rules(num_agents):
    return type("Field", (Field,), {"agents": num_agents})


def harvest(observations, rng, least):
    """A scripted harvester: towards the nearest food in sight with at least `least` more food near
    it, without eating other food on the way; without such food, anywhere. With 0 it is greedy."""
    views = observations.reshape(-1, 7, 7)
    food = np.pad(views == FOOD, ((0, 0), (2, 2), (2, 2)))
    around = sum(food[:, 2 + y:9 + y, 2 + x:9 + x] for y in range(-2, 3) for x in range(-2, 3)
                 if near((y, x), (0, 0)) and (y, x) != (0, 0))
    wanted = (views == FOOD) & (around >= least)
    actions = rng.integers(1, 5, len(views))
    for n, view in enumerate(views):
        ys, xs = np.nonzero(wanted[n])
        if len(ys):
            nearest = np.argmin(abs(ys - VISION) + abs(xs - VISION))
            y, x = ys[nearest] - VISION, xs[nearest] - VISION
            ahead = (DOWN if y > 0 else UP) if abs(y) > abs(x) else (RIGHT if x > 0 else LEFT)
            if view[VISION + MOVES[ahead][0], VISION + MOVES[ahead][1]] < WALL:
                actions[n] = ahead
        y, x = VISION + MOVES[actions[n]][0], VISION + MOVES[actions[n]][1]
        if view[y, x] == FOOD and not wanted[n, y, x]:
            actions[n] = STAY
    return actions


FIELDS = {
    "usual": (6, {}),
    "selfish": (3, {"shared": False, "max_ticks": 90}),
    "poor": (4, {"growth": 0.2, "max_ticks": 150}),
    "crowd": (16, {"growth": 4.0, "max_ticks": 60}),
    "alone": (1, {"max_ticks": 100, "growth": 0.0}),
}


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize("name", FIELDS)
def test_harvests_are_the_oracles(name, autoreset):
    agents, kwargs = FIELDS[name]
    slow = oracle.Vector(rules(agents), [5, 6], autoreset, **kwargs)
    rng = np.random.default_rng(0)

    def act(observations):
        actions = harvest(observations, rng, 0 if name != "usual" else 2)
        chance = rng.random(len(actions)) < 0.2
        actions[chance] = rng.integers(0, 5, chance.sum())
        return actions

    with make(Commons, 2, env_kwargs={"num_agents": agents, **kwargs}, autoreset=autoreset) as vec:
        oracle.replay(vec, slow, 5, 300, act)
    shortest = min(length for _, length in slow.episodes)
    assert len(slow.stats) >= 2
    assert (shortest < kwargs.get("max_ticks", 256)) == (name not in ("usual", "alone"))


# ---- positions made by hand ----------------------------------------------------------------------

STATE = np.dtype([("agents", [("cell", np.int32), ("eaten", np.int32)], 16),
                  ("cells", np.uint8, (20, 20)), ("near", np.uint8, (20, 20)),
                  ("ticks", np.int32), ("food", np.int32)])


class Map:
    """Environment e of a vector, its state as arrays, cells counted without the border."""

    def __init__(self, vec, e=0):
        self.state = vec._engine.envs[0].state_array[e].view(STATE)[0]
        inside = slice(VISION, -VISION)
        self.cells = self.state["cells"][inside, inside]

    def put(self, food, *agents):
        """Have food and agents on these (y, x) cells, and nothing elsewhere."""
        self.cells[:] = EMPTY
        self.state["near"] = 0
        self.state["food"] = len(food)
        for cell in food:
            self.cells[cell] = FOOD
            for y, x in CELLS:
                if near(cell, (y, x)) and cell != (y, x):
                    self.state["near"][y + VISION, x + VISION] += 1
        for slot, (y, x) in enumerate(agents):
            self.cells[y, x] = AGENT
            self.state["agents"]["cell"][slot] = (y + VISION) * 20 + x + VISION

    def where(self, thing):
        return [tuple(cell) for cell in np.argwhere(self.cells == thing).tolist()]


@pytest.fixture
def field():
    """Make a vector of one environment and its `Map`."""
    made = []

    def build(num_agents, **kwargs):
        vec = make(Commons, 1, env_kwargs={"num_agents": num_agents, **kwargs}, seed=0)
        made.append(vec)
        vec.reset()
        return vec, Map(vec)
    yield build
    for vec in made:
        vec.close()


def test_an_episode_begins_with_four_whole_patches(field):
    _, there = field(6)
    assert there.where(FOOD) == PLACES
    assert len(PLACES) == 52
    assert len(there.where(AGENT)) == 6


@pytest.mark.parametrize(("shared", "rewards"), [(True, [1.0, 1.0]), (False, [2.0, 0.0])])
def test_food_is_the_eaters_or_everybodys(field, shared, rewards):
    vec, there = field(2, shared=shared, growth=0)
    there.put([(3, 3), (3, 4), (10, 10)], (3, 2), (8, 8))
    got = vec.step([RIGHT, UP])[1] + vec.step([RIGHT, UP])[1]
    np.testing.assert_array_equal(got, rewards)
    assert there.where(FOOD) == [(10, 10)]


def test_walls_and_agents_are_in_the_way_and_the_lower_slot_comes_first(field):
    vec, there = field(3, shared=False, growth=0)
    there.put([(3, 3), (10, 10)], (3, 2), (3, 4), (0, 0))
    rewards = vec.step([RIGHT, LEFT, UP])[1]
    assert rewards.tolist() == [1, 0, 0]
    assert there.where(AGENT) == [(0, 0), (3, 3), (3, 4)]
    vec.step([LEFT, LEFT, LEFT])                          # the higher slot may follow at once
    assert there.where(AGENT) == [(0, 0), (3, 2), (3, 3)]
    vec.step([RIGHT, RIGHT, UP])                          # the lower one is a step late
    assert there.where(AGENT) == [(0, 0), (3, 2), (3, 4)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 8])
def test_food_grows_by_what_is_near(count):
    E = 4000
    food = [cell for cell in PLACES if near(cell, (3, 3)) and cell != (3, 3)][:count]
    with make(Commons, E, env_kwargs={"num_agents": 1}, seed=0) as vec:
        vec.reset()
        for e in range(E):
            Map(vec, e).put([*food, (10, 10)], (0, 0))
        vec.step([STAY] * E)
        grown = np.mean([Map(vec, e).cells[3, 3] == FOOD for e in range(E)])
    chance = CHANCES[min(count, 5)]
    assert grown == pytest.approx(chance, abs=4 * (chance / E) ** 0.5)


def test_food_grows_in_the_patches_only_and_not_under_an_agent(field):
    vec, there = field(2, growth=10)
    patch = [cell for cell in PLACES if near(cell, (3, 3)) and cell != (3, 2)]
    there.put(patch[::2], (3, 2), (6, 6))
    for _ in range(100):
        vec.step([STAY, STAY])
    assert there.where(FOOD) == patch


def test_what_grows_does_not_help_in_the_same_step(field):
    vec, there = field(1, growth=10)
    for _ in range(200):
        there.put([(1, 3)], (13, 13))
        vec.step([STAY])
        assert all(near(cell, (1, 3)) for cell in there.where(FOOD))


def test_the_last_food_ends_it_for_all(field):
    vec, there = field(2, shared=False)
    there.put([(3, 3)], (3, 2), (8, 8))
    there.state["agents"]["eaten"] = 0
    _, rewards, terminations, truncations, _ = vec.step([RIGHT, STAY])
    assert rewards.tolist() == [1, 0]
    assert terminations.all()
    assert not truncations.any()
    assert there.where(FOOD) == PLACES
    stats = vec.episode_stats()
    assert (stats["eaten"], stats["left"], stats["sustainability"], stats["equality"]) == (
        1, 0, 1, 0.5)


def test_time_ends_it_truncated(field):
    vec, _ = field(2, max_ticks=3)
    for _ in range(2):
        assert not np.any(vec.step([STAY, STAY])[2:4])
    _, _, terminations, truncations, _ = vec.step([STAY, STAY])
    assert not terminations.any()
    assert truncations.all()
    stats = vec.episode_stats()
    assert (stats["eaten"], stats["left"], stats["equality"]) == (0, 1, 1)


# ---- the dilemma ---------------------------------------------------------------------------------

def play(policy, num_envs=16, **env_kwargs):
    rng = np.random.default_rng(1)
    with make(Commons, num_envs, env_kwargs=env_kwargs) as vec:
        observations, _ = vec.reset(seed=0)
        for _ in range(512):
            observations = vec.step(policy(observations, rng))[0]
        return vec.episode_stats()


def at_random(observations, rng):
    return rng.integers(0, 5, len(observations))


def test_greed_kills_the_commons_and_restraint_feeds_all():
    random = play(at_random)
    greedy = play(lambda seen, rng: harvest(seen, rng, 0))
    sparing = play(lambda seen, rng: harvest(seen, rng, 4))
    assert greedy["episode_length"] < 40 < random["episode_length"] == 256
    assert greedy["left"] == 0 < sparing["left"]
    assert greedy["episode_return"] < 12 < 18 < random["episode_return"] < 26
    assert sparing["episode_return"] > 42
    assert sparing["sustainability"] > 100 > greedy["sustainability"]


def test_random_agents_fare_as_the_oracles():
    fast = play(at_random, 64)
    slow = oracle.Vector(rules(6), range(1000, 1006))
    rng = np.random.default_rng(2)
    slow.reset()
    for _ in range(256):
        slow.step(rng.integers(0, 5, (36, 1)))
    for name in ("eaten", "left", "sustainability", "equality"):
        values = np.array([own[name] for own in slow.stats])
        assert len(values) == 6
        assert fast[name] == pytest.approx(values.mean(), abs=5 * values.std() / 6**0.5)


@pytest.mark.parametrize(("bad", "message"), [
    ({"num_agents": 0}, "num_agents is 1 to 16, not 0"),
    ({"num_agents": 17}, "num_agents is 1 to 16, not 17"),
    ({"growth": -0.1}, "growth is 0 to 10, not -0.1"),
    ({"growth": float("nan")}, "growth is 0 to 10, not nan"),
    ({"max_ticks": 0}, "max_ticks is at least 1, not 0"),
])
def test_refuses(bad, message):
    with pytest.raises(ValueError, match=f"commons: {message}"):
        make("commons", env_kwargs=bad)


def test_pictures_show_the_map(field):
    vec, there = field(1)
    there.put([(3, 3)], (0, 13))
    picture = vec.render()
    assert picture.shape == (14 * 24, 14 * 24, 3)
    assert picture.dtype == np.uint8
    colors = {tuple(picture[24 * y + 12, 24 * x + 12])
              for y, x in ((0, 0), (3, 3), (3, 4), (0, 13))}
    assert len(colors) == 4
    lines = vec.ansi().splitlines()
    assert lines[0] == 13 * " " + "@"
    assert lines[3] == " ..o..  ..... "
