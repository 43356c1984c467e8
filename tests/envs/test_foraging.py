"""foraging against an oracle with dicts of cells and lists of agents, and its scripted baseline."""

import numpy as np
import oracle
import pytest

from pufferlib_cy import make
from pufferlib_cy.envs.foraging import Foraging

SIZE, VISION = 20, 3
EMPTY, FOOD, WALL, AGENT = range(4)
MOVES = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]
SIDES = MOVES[1:]
ROW = np.dtype([("map", np.uint8, (7, 7)), ("role", np.int32), ("vitals", np.float32, 4)],
               align=True)


class Field(oracle.Game):
    """The rules on a dict from (y, x) to FOOD or AGENT; agents are dicts."""

    def __init__(self, rng, starting, num_food, regrowth, max_ticks):
        super().__init__(rng)
        self.starting, self.num_food = starting, num_food
        self.regrowth, self.max_ticks = regrowth, max_ticks

    def reset(self):
        self.things, self.ticks, self.lived = {}, 0, 0
        self.stats = {"eaten": 0, "births": 0, "deaths": 0, "population": 0.0}
        self.foragers = [None] * self.agents
        self.live = [a < self.starting for a in range(self.agents)]
        for a in range(self.starting):
            self.settle(a, self.empty_cell(), 20)
        while self.food() < self.num_food:
            self.things[self.empty_cell()] = FOOD

    def food(self):
        return list(self.things.values()).count(FOOD)

    def at(self, cell):
        inside = 0 <= cell[0] < SIZE and 0 <= cell[1] < SIZE
        return self.things.get(cell, EMPTY) if inside else WALL

    def random_cell(self):
        return divmod(self.rng.integer(SIZE * SIZE), SIZE)

    def empty_cell(self):
        while self.at(cell := self.random_cell()) != EMPTY:
            pass
        return cell

    def settle(self, a, cell, energy):
        self.foragers[a] = {"cell": cell, "energy": energy, "role": self.rng.integer(2),
                            "move": (0, 0)}
        self.things[cell] = AGENT

    def step(self, actions):
        self.ticks += 1
        over = self.ticks == self.max_ticks
        for a, forager in enumerate(self.foragers):
            if not self.live[a]:
                continue
            self.lived += 1
            self.act(a, forager, int(actions[a][0]))
            if forager["energy"] <= 0:
                forager["energy"] = 0
                del self.things[forager["cell"]]
                self.reward[a] -= 1.0
                self.terminated[a] = True
                self.stats["deaths"] += 1
            else:
                self.truncated[a] = over
        if not over:
            self.multiply()
        for _ in range(self.regrowth):
            cell = self.random_cell()
            if self.food() < self.num_food and self.at(cell) == EMPTY:
                self.things[cell] = FOOD
        self.stats["population"] = self.lived / self.ticks

    def act(self, a, forager, action):
        move = forager["move"] = MOVES[action]
        forager["energy"] -= 1 + forager["role"] * (action != 0)
        for _ in range(1 + forager["role"]):
            cell = (forager["cell"][0] + move[0], forager["cell"][1] + move[1])
            if self.at(cell) not in (EMPTY, FOOD):
                return
            if self.at(cell) == FOOD:
                forager["energy"] = min(forager["energy"] + 8, 40)
                self.reward[a] += 1.0
                self.stats["eaten"] += 1
            del self.things[forager["cell"]]
            self.things[cell] = AGENT
            forager["cell"] = cell

    def multiply(self):
        for a, forager in enumerate(self.foragers):
            if not self.live[a] or forager["energy"] < 32:
                continue
            if all(self.live):
                return
            y, x = forager["cell"]
            free = [(y + dy, x + dx) for dy, dx in SIDES if self.at((y + dy, x + dx)) == EMPTY]
            if free:
                child = self.live.index(False)
                self.settle(child, free[0], forager["energy"] // 2)
                forager["energy"] -= forager["energy"] // 2
                self.live[child] = True
                self.stats["births"] += 1

    def observe(self):
        rows = np.zeros(self.agents, ROW)
        for a, forager in enumerate(self.foragers):
            if forager is not None:
                y, x = forager["cell"]
                around = range(-VISION, VISION + 1)
                dy, dx = forager["move"]
                rows[a] = ([[self.at((y + v, x + u)) for u in around] for v in around],
                           forager["role"],
                           [np.float32(forager["energy"]) / np.float32(40), dx, dy,
                            np.float32(self.ticks) / np.float32(self.max_ticks)])
        return list(rows.view(np.uint8).reshape(self.agents, ROW.itemsize))


def rules(num_agents):
    return type("Field", (Field,), {"agents": num_agents})


def forage(observations, rng):
    """The scripted baseline: towards the nearest food in sight; without, straight on, and in a new
    direction where something is in the way, or by chance once in ten steps. Observations nested."""
    around = observations["map"]
    actions = np.zeros(len(around), np.int64)
    for n, view in enumerate(around):
        ys, xs = np.nonzero(view == FOOD)
        if len(ys):
            nearest = np.argmin(abs(ys - VISION) + abs(xs - VISION))
            y, x = ys[nearest] - VISION, xs[nearest] - VISION
            actions[n] = (2 if y > 0 else 1) if abs(y) > abs(x) else (4 if x > 0 else 3)
            continue
        dx, dy = observations["vitals"][n, 1:3].astype(int)
        free = view[VISION + dy, VISION + dx] == EMPTY and (dx or dy)
        actions[n] = (MOVES.index((dy, dx)) if free and rng.random() < 0.9
                      else rng.integers(1, 5))
    return actions


WORLDS = {
    "usual": (16, {"starting": 6, "num_food": 40, "regrowth": 1, "max_ticks": 256}),
    "plenty": (7, {"starting": 3, "num_food": 200, "regrowth": 9, "max_ticks": 60}),
    "famine": (3, {"starting": 3, "num_food": 2, "regrowth": 0, "max_ticks": 256}),
}


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize("name", WORLDS)
def test_lives_are_the_oracles(name, autoreset):
    agents, kwargs = WORLDS[name]
    slow = oracle.Vector(rules(agents), [5, 6], autoreset, **kwargs)
    rng = np.random.default_rng(0)

    def act(observations):
        actions = forage(vec.space_tree.unflatten(observations), rng)
        actions[rng.random(len(actions)) < 0.1] = 0
        return actions

    with make(Foraging, 2, env_kwargs={"max_agents": agents, **kwargs},
              autoreset=autoreset) as vec:
        stats = oracle.replay(vec, slow, 5, 300, act)
    assert len(slow.stats) >= 2
    assert (stats["births"] > 0) == (name != "famine")


def play(policy, num_envs=16, steps=256):
    rng = np.random.default_rng(1)
    with make("foraging", num_envs) as vec:
        observations, _ = vec.reset(seed=0)
        for _ in range(steps):
            observations = vec.step(policy(vec.space_tree.unflatten(observations), rng))[0]
        return vec.episode_stats()


def test_the_baseline_lives_where_random_agents_starve():
    random = play(lambda seen, rng: rng.integers(0, 5, len(seen["role"])))
    scripted = play(forage)
    assert random["population"] < 5 < scripted["population"]
    assert scripted["eaten"] > 10 * random["eaten"]


def test_a_struct_that_is_not_the_space_is_refused():
    from gymnasium.spaces import Box, Dict, Discrete

    from pufferlib_cy import NativeEnv

    space = Dict(map=Box(0, 3, (3,), "u1"), role=Discrete(2))
    NativeEnv(space, Discrete(2), 8, observation_size=8)
    with pytest.raises(ValueError, match=r"has 7 bytes, but the space 8: .*role \(int32 \(\) at"):
        NativeEnv(space, Discrete(2), 8, observation_size=7)


@pytest.mark.parametrize("bad", [{"max_agents": 0}, {"max_agents": 65}, {"starting": 17},
                                 {"num_food": 201}, {"regrowth": -1}, {"max_ticks": 0}])
def test_refuses(bad):
    with pytest.raises(ValueError, match="foraging"):
        make("foraging", env_kwargs=bad)


def test_pictures_show_the_map():
    with make("foraging") as vec:
        vec.reset(seed=0)
        text = vec.ansi()
        assert text.count(".") == 40
        assert text.count("w") + text.count("r") == 6
        picture = vec.render()
        assert picture.shape == (320, 320, 3)
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) == len(set(text) - {"\n"})
