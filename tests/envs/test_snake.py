"""snake against an oracle with lists of cells, and its rules one by one."""

import itertools

import numpy as np
import oracle
import pytest

from pufferlib_cy import make
from pufferlib_cy.envs.snake import Snake

UP, DOWN, LEFT, RIGHT = range(4)
MOVES = [(-1, 0), (1, 0), (0, -1), (0, 1)]
EMPTY, FOOD, CORPSE, WALL, BODY = range(5)


class Field(oracle.Game):
    """The rules on a dict from (y, x) to what is there; a snake is a list of cells, tail first."""

    def __init__(self, rng, width, height, num_food, vision, max_ticks):
        super().__init__(rng)
        self.width, self.height, self.num_food = width, height, num_food
        self.vision, self.max_ticks = vision, max_ticks

    def reset(self):
        self.things = {}
        self.snakes = [[] for _ in range(self.agents)]
        self.heads = [None] * self.agents
        self.ticks = 0
        self.stats = {"deaths": 0, "eaten": 0, "death_length": 0, "longest": 1}
        self.dead_lengths = []
        for a in range(self.agents):
            while not self.bear(a):
                pass
        while self.food() < self.num_food:
            self.sow()

    def step(self, actions):
        actions = np.atleast_1d(actions.squeeze())
        self.ticks += 1
        for a in range(self.agents):
            if self.live[a]:
                self.move(a, int(actions[a]))
        for a in range(self.agents):
            if self.ticks == self.max_ticks:
                self.truncated[a] = self.live[a] and not self.terminated[a]
            elif not self.live[a]:
                self.live[a] = self.bear(a)
        for _ in range(self.num_food - self.food()):
            self.sow()

    def food(self):
        return list(self.things.values()).count(FOOD)

    def at(self, y, x):
        inside = 0 <= y < self.height and 0 <= x < self.width
        return self.things.get((y, x), EMPTY) if inside else WALL

    def move(self, a, action):
        snake = self.snakes[a]
        (y, x), neck = snake[-1], (snake[-2] if len(snake) > 1 else None)
        target = (y + MOVES[action][0], x + MOVES[action][1])
        if target == neck:
            target = (2 * y - neck[0], 2 * x - neck[1])
        found = self.at(*target)
        if found >= WALL:
            self.reward[a], self.terminated[a] = -1.0, True
            self.dead_lengths.append(len(snake))
            self.stats["deaths"] += 1
            self.stats["death_length"] = np.mean(self.dead_lengths)
            for i, cell in enumerate(snake):
                del self.things[cell]
                if i % 2 == 1:
                    self.things[cell] = CORPSE
            snake.clear()
            return
        snake.append(target)
        self.heads[a] = target
        self.things[target] = BODY + a % 4
        if found != EMPTY:
            self.reward[a] = 0.1
            self.stats["eaten"] += 1
        if found == EMPTY or len(snake) > 1024:
            del self.things[snake.pop(0)]
        self.stats["longest"] = max(self.stats["longest"], len(snake))

    def random_cell(self):
        return divmod(self.rng.integer(self.width * self.height), self.width)

    def bear(self, a):
        cell = self.random_cell()
        if self.at(*cell) != EMPTY:
            return False
        self.things[cell] = BODY + a % 4
        self.snakes[a] = [cell]
        self.heads[a] = cell
        return True

    def sow(self):
        cell = self.random_cell()
        if self.at(*cell) == EMPTY:
            self.things[cell] = FOOD

    def observe(self):
        reach = range(-self.vision, self.vision + 1)
        return [np.array([self.at(head[0] + dy, head[1] + dx) for dy in reach for dx in reach],
                         np.int8) for head in self.heads]


def rules(num_snakes):
    return type("Field", (Field,), {"agents": num_snakes})


MAPS = {
    "crowded": {"num_snakes": 9, "width": 13, "height": 8, "num_food": 20, "vision": 3,
                "max_ticks": 90},
    "usual vision": {"num_snakes": 6, "width": 16, "height": 12, "num_food": 40, "vision": 5,
                     "max_ticks": 70},
    "alone": {"num_snakes": 1, "width": 5, "height": 4, "num_food": 6, "vision": 2,
              "max_ticks": 50},
    "tiny": {"num_snakes": 2, "width": 3, "height": 2, "num_food": 1, "vision": 1,
             "max_ticks": 9},
}


def wary(observations, rng, vision):
    """Random moves, mostly onto free cells, so that snakes live and grow."""
    around = neighbours(observations, vision)
    return np.where(around < WALL, rng.random(around.shape) + (around > EMPTY), -0.8).argmax(1) \
        if rng.random() < 0.9 else rng.integers(0, 4, len(around))


def neighbours(observations, vision):
    """What lies up, down, left and right of the head: (N, 4)."""
    side = 2 * vision + 1
    middle = vision * side + vision
    return observations[:, [middle - side, middle + side, middle - 1, middle + 1]]


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize("name", MAPS)
def test_lives_are_the_oracles(name, autoreset):
    E = 3
    kwargs = dict(MAPS[name])
    slow = oracle.Vector(rules(kwargs["num_snakes"]), range(5, 5 + E), autoreset,
                         **{k: v for k, v in kwargs.items() if k != "num_snakes"})
    rng = np.random.default_rng(0)
    with make(Snake, E, env_kwargs=kwargs, autoreset=autoreset) as vec:
        oracle.replay(vec, slow, 5, 200,
                      lambda observations: wary(observations, rng, kwargs["vision"]))
    assert len(slow.stats) >= 2 * E


# ---- positions made by hand ----------------------------------------------------------------------

class Map:
    """Environment 0 of a vector, its state as arrays, cells counted without the border."""

    def __init__(self, vec, width, height, num_snakes, vision=1):
        raw = vec._engine.envs[0].state_array[0]
        self.stride, self.vision = width + 2 * vision, vision
        shape = (height + 2 * vision, self.stride)
        whole = np.dtype([
            ("ticks", np.int32), ("food", np.int32),
            ("snakes", [("head", np.int32), ("tail", np.int32), ("length", np.int32),
                        ("heading", np.int32)], num_snakes),
            ("cells", np.uint8, shape), ("directions", np.uint8, shape)])
        self.state = raw[:whole.itemsize].view(whole)[0]
        inside = slice(vision, -vision)
        self.cells = self.state["cells"][inside, inside]
        self.directions = self.state["directions"][inside, inside]
        self.cells[:] = EMPTY
        self.state["food"] = 0

    def put(self, slot, cells):
        """Lay a snake on (y, x) cells, tail first."""
        index = [(y + self.vision) * self.stride + x + self.vision for y, x in cells]
        headings = [MOVES.index((b[0] - a[0], b[1] - a[1]))
                    for a, b in itertools.pairwise(cells)]
        for cell in cells:
            self.cells[cell] = BODY + slot % 4
        for cell, heading in zip(cells, headings, strict=False):
            self.directions[cell] = heading
        self.state["snakes"][slot] = (index[-1], index[0], len(cells),
                                      headings[-1] if headings else UP)


@pytest.fixture
def field():
    """Make a vector of one map of 12 x 9 without food, and its `Map`."""
    made = []

    def build(num_snakes, **kwargs):
        kwargs = {"width": 12, "height": 9, "num_food": 0, "vision": 1, **kwargs}
        vec = make(Snake, 1, env_kwargs={"num_snakes": num_snakes, **kwargs}, seed=0)
        made.append(vec)
        vec.reset()
        return vec, Map(vec, kwargs["width"], kwargs["height"], num_snakes, kwargs["vision"])
    yield build
    for vec in made:
        vec.close()


def test_back_into_the_neck_is_straight_on(field):
    vec, there = field(2)
    there.put(0, [(4, 4), (4, 5), (4, 6)])
    there.put(1, [(0, 0)])
    vec.step([LEFT, DOWN])
    assert np.argwhere(there.cells == BODY).tolist() == [[4, 5], [4, 6], [4, 7]]
    there.put(1, [(1, 0)])
    vec.step([UP, UP])                                  # a snake of one cell has no neck
    assert there.cells[0, 0] == BODY + 1


def test_walls_kill_and_every_second_cell_becomes_a_corpse(field):
    vec, there = field(2)
    there.put(0, [(3, 2), (3, 1), (2, 1), (1, 1), (0, 1)])
    there.put(1, [(8, 8)])
    observations, rewards, terminations, _, _ = vec.step([UP, LEFT])
    assert rewards.tolist() == [-1, 0]
    assert terminations.tolist() == [True, False]
    assert np.argwhere(there.cells == CORPSE).tolist() == [[1, 1], [3, 1]]
    assert observations[0].reshape(3, 3).tolist() == [
        [WALL] * 3, [EMPTY] * 3, [EMPTY, CORPSE, EMPTY]]
    assert vec.masks.all()
    assert vec.acting.tolist() == [False, True]
    # The next step puts a new snake on the map, whatever the slot's action.
    for _ in range(20):
        observations, rewards, terminations, _, _ = vec.step([99, LEFT])
        assert not terminations.any()
        there.put(1, [(8, 8)])
        if vec.masks[0]:
            break
    assert there.state["snakes"]["length"].tolist() == [1, 1]
    assert observations[0, 4] == BODY
    assert rewards[0] == 0


def test_food_and_corpses_feed(field):
    vec, there = field(1)
    there.put(0, [(4, 4)])
    there.cells[4, 5:7] = FOOD, CORPSE
    there.state["food"] = 1
    for length in (2, 3, 3):
        observations, rewards, _, _, _ = vec.step([RIGHT])
        assert rewards[0] == pytest.approx(0.1 if vec._engine.lengths[0] < 3 else 0)
        assert there.state["snakes"]["length"] == length
    assert np.argwhere(there.cells == BODY).tolist() == [[4, 5], [4, 6], [4, 7]]
    assert there.state["food"] == 0
    assert observations[0].reshape(3, 3)[1].tolist() == [BODY, BODY, EMPTY]


def test_the_end_of_the_own_tail_kills(field):
    vec, there = field(2)
    there.put(0, [(4, 4), (4, 5), (5, 5), (5, 4)])
    there.put(1, [(0, 0)])
    assert vec.step([UP, DOWN])[2].tolist() == [True, False]


def test_who_moves_first_takes_the_cell(field):
    vec, there = field(3)
    there.put(0, [(4, 4)])
    there.put(1, [(4, 6)])
    there.put(2, [(8, 8)])
    there.cells[4, 5] = CORPSE
    _, rewards, terminations, _, _ = vec.step([RIGHT, LEFT, UP])
    assert rewards.tolist() == pytest.approx([0.1, -1, 0])
    assert terminations.tolist() == [False, True, False]


def test_a_snake_stops_growing_at_1024(field):
    vec, there = field(1, width=40, height=40)
    path = [(y, x if y % 2 == 0 else 39 - x) for y in range(26) for x in range(40)]
    there.put(0, path[:1023])
    there.cells[path[1023]] = there.cells[path[1024]] = there.cells[path[1025]] = CORPSE
    for step, cell in enumerate(path[1023:1026]):
        head = path[1022 + step]
        rewards = vec.step([MOVES.index((cell[0] - head[0], cell[1] - head[1]))])[1]
        assert rewards[0] == pytest.approx(0.1)
        assert there.state["snakes"]["length"] == 1024
        assert (there.cells == BODY).sum() == 1024
    assert (there.cells[0, :2] == EMPTY).all()


def test_a_slot_waits_until_its_cell_is_free(field):
    vec, there = field(2)
    there.put(0, [(0, 0)])
    there.put(1, [(4, 4)])
    vec.step([UP, RIGHT])
    for _ in range(5):
        there.cells[:] = CORPSE
        vec.step([0, RIGHT])
        assert vec.masks.tolist() == [False, True]
    there.cells[0] = EMPTY
    for _ in range(100):
        there.put(1, [(4, 4)])
        vec.step([0, RIGHT])
        if vec.masks[0]:
            break
    assert vec.masks.all()
    assert (there.cells == BODY).sum() == 1


@pytest.mark.parametrize("num_snakes", [1, 3])
def test_the_map_starts_anew_when_no_snake_is_left(field, num_snakes):
    vec, there = field(num_snakes)
    for slot in range(num_snakes):
        there.put(slot, [(0, 2 * slot)])
    there.cells[8] = CORPSE
    assert vec.step([UP] * num_snakes)[2].all()
    assert (there.cells != EMPTY).sum() == num_snakes
    assert there.state["ticks"] == 0
    assert vec.episode_stats()["deaths"] == num_snakes


def test_the_limit_truncates_who_is_alive_and_0_is_none(field):
    vec, there = field(2, max_ticks=1)
    there.put(0, [(0, 0)])
    there.put(1, [(4, 4)])
    _, _, terminations, truncations, _ = vec.step([UP, UP])
    assert terminations.tolist() == [True, False]
    assert truncations.tolist() == [False, True]
    vec, there = field(2, max_ticks=0)
    there.put(0, [(0, 0), (0, 1)])
    there.put(1, [(4, 4)])
    for _ in range(1500):
        there.put(0, [(0, 0), (0, 1)])
        there.put(1, [(4, 4)])
        there.cells[:] = EMPTY
        assert not np.any(vec.step([RIGHT, UP])[2:4])


# ---- many snakes ---------------------------------------------------------------------------------

def greedy(observations, vision=5):
    """The scripted baseline: towards the nearest food or corpse in sight, by a free cell; without
    one, to a free cell at random."""
    side = 2 * vision + 1
    dy, dx = np.mgrid[-vision:vision + 1, -vision:vision + 1].reshape(2, -1)
    scores = np.random.default_rng(observations.sum()).random((len(observations), 4))
    meals = (observations == FOOD) | (observations == CORPSE)
    for move, (my, mx) in enumerate(MOVES):
        distance = abs(dy - my) + abs(dx - mx)                       # from the cell moved to
        scores[:, move] -= np.where(meals, distance, 2 * side).min(1)
    return (scores - 1000 * (neighbours(observations, vision) >= WALL)).argmax(1)


def play(policy, steps=200):
    with make(Snake, 1, env_kwargs={"max_ticks": steps}) as vec:
        observations, _ = vec.reset(seed=0)
        for _ in range(steps):
            observations = vec.step(policy(observations))[0]
        return vec.episode_stats()


def test_a_greedy_snake_eats_and_a_random_one_dies_small():
    rng = np.random.default_rng(0)
    chance = play(lambda observations: rng.integers(0, 4, len(observations)))
    seeking = play(greedy)
    assert seeking["episode_return"] > 1.0 > 0.0 > chance["episode_return"]
    assert seeking["eaten"] > 8 * chance["eaten"]
    assert seeking["longest"] > 30
    assert 2 < chance["death_length"] < 5


def test_food_grows_again():
    with make(Snake, 1) as vec:
        observations, _ = vec.reset(seed=0)
        for _ in range(30):
            observations = vec.step(greedy(observations))[0]
        assert vec._engine.stats[0, 1] > 400
        assert 4096 - 10 < vec.ansi(0).count(".") <= 4096


def test_first_snakes_and_food_are_spread_evenly():
    with make(Snake, 4, env_kwargs={"num_food": 2000}) as vec:
        observations, _ = vec.reset(seed=0)
        assert observations.dtype == np.int8
        assert observations.shape == (1024, 121)
        assert (observations[:, 60] == BODY + np.arange(1024) % 4).all()
        lines = np.array([[" .x#abcd@".index(c) for c in line]
                          for line in vec.ansi(1).splitlines()])
    assert lines.shape == (360, 640)
    assert (lines == FOOD).sum() == 2000
    assert (lines == 8).sum() == 256
    quarters = [(part == FOOD).sum() for half in np.split(lines, 2) for part in
                np.split(half, 2, axis=1)]
    assert np.abs(np.array(quarters) - 500).max() < 90


@pytest.mark.parametrize(("bad", "message"), [
    ({"num_snakes": 0}, "num_snakes is at least 1"),
    ({"width": 0}, "width is at least 1"),
    ({"height": -3}, "height is at least 1"),
    ({"num_food": -1}, "num_food is at least 0"),
    ({"vision": 0}, "vision is at least 1"),
    ({"max_ticks": -1}, "max_ticks is at least 0"),
    ({"width": 2**20, "height": 2**20}, "at most 2"),
    ({"width": 10, "height": 10, "num_snakes": 30, "num_food": 30}, "num_snakes=30 and num_food"),
])
def test_refuses(bad, message):
    with pytest.raises(ValueError, match=f"snake: .*{message}"):
        Snake(**bad)


def test_pictures_show_the_map(field):
    vec, there = field(1)
    there.put(0, [(4, 4), (4, 5)])
    there.cells[0, 0] = FOOD
    picture = vec.render(0)
    assert picture.shape == (9 * 24, 12 * 24, 3)
    assert picture.dtype == np.uint8
    colors = {tuple(picture[24 * y + 12, 24 * x + 12]) for y, x in ((0, 0), (4, 4), (4, 5), (8, 8))}
    assert len(colors) == 4
    lines = vec.ansi(0).splitlines()
    assert lines[0] == "." + 11 * " "
    assert lines[4] == "    a@      "
