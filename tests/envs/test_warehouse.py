"""warehouse against an oracle with dicts of cells, its rules one by one, and a scripted carrier."""

from collections import deque

import numpy as np
import oracle
import pytest

from pufferlib_cy import make
from pufferlib_cy.envs.warehouse import Warehouse

STAY, FORWARD, TURN_LEFT, TURN_RIGHT, LIFT = range(5)
UP, RIGHT, DOWN, LEFT = range(4)
MOVES = [(-1, 0), (0, 1), (1, 0), (0, -1)]
ROAD, WALL, GOAL, PLACE, SHELF, REQUESTED = range(6)
NOTHING, ANY, ASKED, DELIVERED = range(4)
ROW = np.dtype([("floor", np.uint8, (5, 5)), ("robots", np.uint8, (5, 5)), ("load", np.int32),
                ("goal", np.int8, 2)], align=True)


class Hall(oracle.Game):
    """The rules on a dict from (y, x) to the number of the shelf that stands there; robots are
    dicts."""

    def __init__(self, rng, columns=2, lines=2, num_requests=4, shared=False, max_ticks=256):
        super().__init__(rng)
        self.width, self.height = 3 * columns + 1, 3 * lines + 1
        self.cells = set(np.ndindex(self.height, self.width))
        self.places = sorted((y, x) for y, x in self.cells if y % 3 and x % 3)
        self.goal = (self.height - 1, self.width // 2)
        self.num_requests, self.shared, self.max_ticks = num_requests, shared, max_ticks

    def reset(self):
        self.shelves = {cell: number for number, cell in enumerate(self.places)}
        self.requests, self.robots, self.ticks = [], [], 0
        self.stats = {"deliveries": 0, "returns": 0, "blocked": 0}
        for _ in range(self.num_requests):
            self.requests.append(self.another())
        for _ in range(self.agents):
            while (cell := divmod(self.rng.integer(len(self.cells)), self.width)) in self.taken():
                pass
            self.robots.append({"cell": cell, "heading": self.rng.integer(4), "shelf": None,
                                "delivered": False})

    def taken(self):
        return [robot["cell"] for robot in self.robots]

    def another(self):
        """A shelf that is not requested."""
        while (shelf := self.rng.integer(len(self.places))) in self.requests:
            pass
        return shelf

    def step(self, actions):
        self.ticks += 1
        for a, robot in enumerate(self.robots):
            self.act(a, robot, int(np.ravel(actions)[a]))
            if robot["cell"] == self.goal and robot["shelf"] in self.requests:
                self.requests.append(self.another())
                self.requests.remove(robot["shelf"])
                robot["delivered"] = True
                self.reward[a] += 0.5
                self.stats["deliveries"] += 1
        if self.shared:
            self.reward = [sum(self.reward) / self.agents] * self.agents
        self.truncated = [self.ticks == self.max_ticks] * self.agents

    def act(self, a, robot, action):
        cell, shelf = robot["cell"], robot["shelf"]
        if action == FORWARD:
            y, x = np.add(cell, MOVES[robot["heading"]]).tolist()
            if (y, x) in self.taken():
                self.stats["blocked"] += 1
            elif (y, x) in self.cells and (shelf is None or (y, x) not in self.shelves):
                robot["cell"] = (y, x)
        elif action == LIFT and shelf is None:
            robot["shelf"] = self.shelves.pop(cell, None)
            robot["delivered"] = False
        elif action == LIFT and cell in self.places:
            self.shelves[cell], robot["shelf"] = shelf, None
            if robot["delivered"]:
                self.reward[a] += 0.5
                self.stats["returns"] += 1
        elif action in (TURN_LEFT, TURN_RIGHT):
            robot["heading"] = (robot["heading"] + (1 if action == TURN_RIGHT else 3)) % 4

    def floor(self, cell):
        if cell not in self.cells:
            return WALL
        if cell in self.shelves:
            return REQUESTED if self.shelves[cell] in self.requests else SHELF
        return PLACE if cell in self.places else GOAL if cell == self.goal else ROAD

    def load(self, robot):
        if robot["shelf"] is None:
            return NOTHING
        return (ASKED if robot["shelf"] in self.requests else
                DELIVERED if robot["delivered"] else ANY)

    def observe(self):
        rows = np.zeros(self.agents, ROW)
        for a, robot in enumerate(self.robots):
            ahead = np.array(MOVES[robot["heading"]])
            right = np.array(MOVES[(robot["heading"] + 1) % 4])
            cells = [[tuple((robot["cell"] + forward * ahead + aside * right).tolist())
                      for aside in range(-2, 3)] for forward in range(2, -3, -1)]
            headings = {other["cell"]: 1 + (other["heading"] - robot["heading"]) % 4
                        for other in self.robots}
            way = np.subtract(self.goal, robot["cell"])
            rows[a] = ([[self.floor(cell) for cell in line] for line in cells],
                       [[headings.get(cell, 0) for cell in line] for line in cells],
                       self.load(robot), (way @ ahead, way @ right))
        return list(rows.view(np.uint8).reshape(self.agents, ROW.itemsize))


def rules(num_agents):
    return type("Hall", (Hall,), {"agents": num_agents})


def carry(hall, rng, mistakes=50):
    """The scripted carrier, who sees all: robots go to the nearest requested shelf, that to the
    goal, and then to the nearest place that is free, each by a shortest way around shelves and
    robots that stand there now, else as if there were none; one time in `mistakes` they do
    anything, as two in each other's way would otherwise wait for ever."""
    actions = []
    for robot in hall.robots:
        load = hall.load(robot)
        goals = {NOTHING: [cell for cell, shelf in hall.shelves.items() if shelf in hall.requests],
                 ASKED: [hall.goal]}.get(load, [c for c in hall.places if c not in hall.shelves])
        others = [cell for cell in hall.taken() if cell != robot["cell"]]
        action = first_action(hall, robot, goals, load, others)
        if action is None:
            action = first_action(hall, robot, goals, load, [])
        if rng.random() < 1 / mistakes or action is None:
            action = int(rng.integers(0, 4))
        actions.append(action)
    return actions


def first_action(hall, robot, goals, load, blocked):
    """Of the fewest actions that bring a robot onto one of the cells; LIFT there; None: no way."""
    start = (robot["cell"], robot["heading"])
    firsts, queue = {start: None}, deque([start])
    while queue:
        cell, heading = node = queue.popleft()
        if cell in goals:
            return firsts[node] if node != start else STAY if load == ASKED else LIFT
        ahead = tuple(np.add(cell, MOVES[heading]).tolist())
        steps = [(TURN_LEFT, (cell, (heading + 3) % 4)), (TURN_RIGHT, (cell, (heading + 1) % 4))]
        if ahead in hall.cells and ahead not in blocked and not (load and ahead in hall.shelves):
            steps.insert(0, (FORWARD, (ahead, heading)))
        for action, following in steps:
            if following not in firsts:
                firsts[following] = action if node == start else firsts[node]
                queue.append(following)
    return None


HALLS = {
    "usual": (3, {"max_ticks": 120}),
    "shared": (2, {"shared": True, "columns": 1, "lines": 2, "num_requests": 7, "max_ticks": 80}),
    "crowd": (9, {"columns": 3, "lines": 2, "num_requests": 10, "max_ticks": 120}),
    "alone": (1, {"columns": 1, "lines": 1, "num_requests": 1, "max_ticks": 100}),
    "large": (5, {"columns": 4, "lines": 4, "num_requests": 20, "max_ticks": 120}),
}


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize("name", HALLS)
def test_days_are_the_oracles(name, autoreset):
    agents, kwargs = HALLS[name]
    slow = oracle.Vector(rules(agents), [5, 6], autoreset, **kwargs)
    rng = np.random.default_rng(0)

    def act(observations):
        actions = np.array([carry(hall, rng) for hall in slow.games]).ravel()
        chance = rng.random(len(actions)) < 0.1
        actions[chance] = rng.integers(0, 5, chance.sum())
        return actions

    with make(Warehouse, 2, env_kwargs={"num_agents": agents, **kwargs},
              autoreset=autoreset) as vec:
        stats = oracle.replay(vec, slow, 5, 260, act)
    assert len(slow.stats) >= 4
    assert stats["returns"] > 0
    assert (stats["blocked"] > 0) == (agents > 1)


# ---- positions made by hand ----------------------------------------------------------------------

STATE = np.dtype([
    ("robots", [("cell", np.int32), ("heading", np.int32), ("shelf", np.int32),
                ("delivered", np.int32)], 16),
    ("cells", np.uint8, (17, 17)), ("headings", np.uint8, (17, 17)),
    ("shelves", np.uint8, (17, 17)), ("places", np.int32, 64), ("requested", np.uint8, 64),
    ("ticks", np.int32)], align=True)


class Map:
    """Environment 0 of a vector, its state as arrays, cells counted without the border. The map
    has one block of four shelves, 0 to 3, of which `requests` are requested."""

    def __init__(self, vec, robots, requests):
        self.state = vec._engine.envs[0].state_array[0].view(STATE)[0]
        inside = slice(2, 6)
        self.cells = self.state["cells"][inside, inside]
        headings = self.state["headings"][inside, inside]
        headings[:] = 0
        for slot, ((y, x), heading) in enumerate(robots):
            self.state["robots"][slot] = ((y + 2) * 17 + x + 2, heading, -1, 0)
            headings[y, x] = 1 + heading
        self.state["requested"][:4] = [shelf in requests for shelf in range(4)]
        self.cells[1:3, 1:3].flat = SHELF + self.state["requested"][:4]

    def robot(self, slot=0):
        one = self.state["robots"][slot]
        return (divmod(int(one["cell"]) - 2 * 17 - 2, 17), int(one["heading"]))


@pytest.fixture
def hall():
    """Make a vector of one environment of one block with robots at [((y, x), heading), ...], and
    its `Map`."""
    made = []

    def build(*robots, requests=(0,), **kwargs):
        kwargs = {"num_agents": len(robots), "columns": 1, "lines": 1, "num_requests":
                  len(requests), **kwargs}
        vec = make(Warehouse, 1, env_kwargs=kwargs, seed=0)
        made.append(vec)
        vec.reset()
        return vec, Map(vec, robots, requests)
    yield build
    for vec in made:
        vec.close()


def test_a_day_begins_with_a_shelf_on_every_place(hall):
    with make(Warehouse, 1, env_kwargs={"columns": 3, "lines": 2}) as vec:
        vec.reset(seed=0)
        text = vec.ansi()
    lines = [line[1::2] for line in text.splitlines()]
    assert [len(line) for line in lines] == [10] * 7
    assert [line.replace("!", "o") for line in lines] == [
        " " * 10, " oo oo oo ", " oo oo oo ", " " * 10, " oo oo oo ", " oo oo oo ", "     G    "]
    assert text.count("!") == 4
    assert sum(text.count(robot) for robot in "^>v<") == 3


def test_robots_turn_and_drive(hall):
    vec, there = hall(((3, 0), UP))
    for action, expected in [
            (FORWARD, ((2, 0), UP)), (TURN_RIGHT, ((2, 0), RIGHT)), (FORWARD, ((2, 1), RIGHT)),
            (STAY, ((2, 1), RIGHT)), (TURN_LEFT, ((2, 1), UP)), (TURN_LEFT, ((2, 1), LEFT)),
            (FORWARD, ((2, 0), LEFT)), (FORWARD, ((2, 0), LEFT)), (TURN_LEFT, ((2, 0), DOWN))]:
        vec.step([action])
        assert there.robot() == expected


def test_a_trip(hall):
    """Shelf 0, from the upper left place, to the goal below and back; under the shelves there."""
    vec, there = hall(((0, 1), DOWN))
    rewards, loads = [], []
    for action in [FORWARD, LIFT, TURN_RIGHT, FORWARD, TURN_LEFT, FORWARD, FORWARD, TURN_LEFT,
                   FORWARD, FORWARD, LIFT, TURN_LEFT, FORWARD, TURN_LEFT, TURN_LEFT, FORWARD]:
        observations, step_rewards, *_ = vec.step([action])
        rewards.append(step_rewards[0])
        loads.append(int(vec.space_tree.unflatten(observations)["load"][0]))
    assert loads == [NOTHING] + [ASKED] * 8 + [DELIVERED] * 7
    assert rewards == [0] * 9 + [0.5] + [0] * 6       # not at the goal's LIFT, which does nothing
    assert there.robot() == ((3, 2), DOWN)            # a standing shelf was in the way
    for action in [TURN_RIGHT, FORWARD, FORWARD, TURN_RIGHT, FORWARD, FORWARD, TURN_RIGHT,
                   FORWARD]:
        vec.step([action])
    assert there.robot() == ((1, 1), RIGHT)
    assert vec.step([LIFT])[1][0] == 0.5
    assert vec.step([LIFT])[1][0] == 0
    assert vec.step([LIFT])[1][0] == 0                # it was not delivered again
    assert vec._engine.stats[0].tolist() == [1, 1, 0]
    assert sorted(there.cells[1:3, 1:3].ravel()) == [SHELF] * 3 + [REQUESTED]


def test_a_shelf_that_is_not_requested_gives_nothing(hall):
    vec, there = hall(((2, 2), DOWN), requests=(0,))
    for action in (LIFT, FORWARD, TURN_LEFT, TURN_LEFT, FORWARD, LIFT):
        assert vec.step([action])[1][0] == 0
    assert there.robot() == ((2, 2), UP)
    assert there.state["robots"]["shelf"][0] == -1
    assert vec._engine.stats[0].tolist() == [0, 0, 0]


def test_a_load_that_is_requested_at_the_goal_is_delivered_there(hall):
    """Two robots, and two requested of four: the first delivers; sooner or later the shelf that the
    other one holds at the goal is requested."""
    vec, there = hall(((3, 2), UP), ((0, 0), UP), requests=(0,))
    there.state["robots"]["shelf"][0] = 3
    there.state["places"][3] = -1
    there.cells[2, 2] = PLACE
    assert vec.step([STAY, STAY])[1].tolist() == [0, 0]
    there.state["requested"][:4] = [0, 0, 0, 1]
    assert vec.step([STAY, STAY])[1].tolist() == [0.5, 0]
    assert vec.step([STAY, STAY])[1].tolist() == [0, 0]
    assert there.state["requested"][:4].sum() == 1
    assert not there.state["requested"][3]


def test_what_is_requested_next_is_another_and_evenly_drawn():
    E = 3000
    with make(Warehouse, E, env_kwargs={"num_agents": 1, "columns": 1, "lines": 1,
                                        "num_requests": 2}, seed=0) as vec:
        vec.reset()
        for e in range(E):
            state = vec._engine.envs[0].state_array[e].view(STATE)[0]
            state["requested"][:4] = [1, 0, 1, 0]
            state["robots"][0] = (5 * 17 + 4, UP, 2, 0)       # on the goal, with shelf 2
            state["places"][2] = -1
        assert (vec.step([STAY] * E)[1] == 0.5).all()
        requested = np.array([vec._engine.envs[0].state_array[e].view(STATE)[0]["requested"][:4]
                              for e in range(E)])
    assert (requested.sum(1) == 2).all()
    assert requested[:, 0].all()
    assert not requested[:, 2].any()
    assert requested[:, 1].mean() == pytest.approx(0.5, abs=0.04)


def test_robots_are_in_the_way_and_the_lower_slot_comes_first(hall):
    vec, there = hall(((0, 0), RIGHT), ((0, 2), LEFT))
    vec.step([FORWARD, FORWARD])
    assert [there.robot(a)[0] for a in range(2)] == [(0, 1), (0, 2)]
    assert vec._engine.stats[0, 2] == 1
    vec, there = hall(((0, 1), RIGHT), ((0, 0), RIGHT))       # the higher slot may follow at once
    vec.step([FORWARD, FORWARD])
    assert [there.robot(a)[0] for a in range(2)] == [(0, 2), (0, 1)]
    vec, there = hall(((0, 0), RIGHT), ((0, 1), RIGHT))       # the lower one is a step late
    vec.step([FORWARD, FORWARD])
    assert [there.robot(a)[0] for a in range(2)] == [(0, 0), (0, 2)]


def test_rewards_are_shared_if_asked_for(hall):
    for shared, expected in ((False, [0.5, 0]), (True, [0.25, 0.25])):
        vec, _ = hall(((2, 2), DOWN), ((0, 0), UP), requests=(3,), shared=shared)
        vec.step([LIFT, STAY])
        assert vec.step([FORWARD, STAY])[1].tolist() == expected


def test_a_robot_sees_what_lies_ahead_of_it_first(hall):
    vec, _ = hall(((3, 1), RIGHT), ((3, 3), UP), requests=(1,))
    seen = vec.space_tree.unflatten(vec.step([STAY, STAY])[0])
    W, R = WALL, ROAD
    assert seen["floor"][0].tolist() == [         # towards the right edge of the map
        [R, R, R, W, W], [REQUESTED, SHELF, GOAL, W, W], [SHELF, SHELF, R, W, W],
        [R, R, R, W, W], [W, W, W, W, W]]
    assert np.argwhere(seen["robots"][0]).tolist() == [[0, 2], [2, 2]]
    assert seen["robots"][0][0, 2] == 4           # it looks to the left of the one that sees it
    assert seen["robots"][0][2, 2] == 1
    assert seen["goal"][0].tolist() == [1, 0]
    assert seen["goal"][1].tolist() == [0, -1]
    assert seen["robots"][1][2, 0] == 2


def test_time_ends_it_truncated(hall):
    vec, _ = hall(((0, 0), UP), ((3, 3), UP), max_ticks=3)
    for _ in range(2):
        assert not np.any(vec.step([STAY, STAY])[2:4])
    _, _, terminations, truncations, _ = vec.step([STAY, STAY])
    assert not terminations.any()
    assert truncations.all()


# ---- how well it can be done ---------------------------------------------------------------------

def test_the_scripted_carrier_delivers_and_random_robots_hardly():
    rng = np.random.default_rng(1)
    with make(Warehouse, 64) as vec:
        vec.reset(seed=0)
        for _ in range(1024):
            vec.step(rng.integers(0, 5, vec.num_agents))
        random = vec.episode_stats()
    halls = oracle.Vector(rules(3), range(1000, 1016))
    halls.reset()
    for _ in range(256):
        halls.step(rng.integers(0, 5, (48, 1)))
    values = np.array([[own["deliveries"], own["blocked"]] for own in halls.stats])
    spread = 5 * (values.std(0) / 4 + 0.02)
    assert random["deliveries"] == pytest.approx(values[:, 0].mean(), abs=spread[0])
    assert random["blocked"] == pytest.approx(values[:, 1].mean(), abs=spread[1])
    assert random["deliveries"] < 1
    halls = oracle.Vector(rules(3), range(8))
    halls.reset()
    for _ in range(256):
        halls.step(np.array([carry(hall, rng) for hall in halls.games]).reshape(-1, 1))
    assert 28 < np.mean([own["deliveries"] for own in halls.stats]) < 36


@pytest.mark.parametrize(("bad", "message"), [
    ({"num_agents": 0}, "num_agents is 1 to 16, not 0"),
    ({"num_agents": 17}, "num_agents is 1 to 16, not 17"),
    ({"columns": 0}, "columns and lines are 1 to 4, not 0 and 2"),
    ({"lines": 5}, "columns and lines are 1 to 4, not 2 and 5"),
    ({"num_requests": 0}, "num_requests is at least 1 and less than the 16 shelves, not 0"),
    ({"num_requests": 16}, "num_requests is at least 1 and less than the 16 shelves, not 16"),
    ({"max_ticks": 0}, "max_ticks is at least 1, not 0"),
])
def test_refuses(bad, message):
    with pytest.raises(ValueError, match=f"warehouse: {message}"):
        make("warehouse", env_kwargs=bad)


def test_pictures_show_the_map(hall):
    vec, _ = hall(((0, 1), LEFT), ((2, 2), DOWN), requests=(0,))
    assert vec.ansi().splitlines() == ["  <     ", "   ! o  ", "   ovo  ", "     G  "]
    picture = vec.render()
    assert picture.shape == (4 * 32, 4 * 32, 3)
    assert picture.dtype == np.uint8
    vec.step([STAY, LIFT])
    assert vec.ansi().splitlines()[2] == "   ovs  "
