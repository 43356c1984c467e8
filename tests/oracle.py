"""The slow, obvious oracle: the rules of the environments and of a vector in plain Python.

Every path of the package (serial, threads, staggered, checked, attached) is held against it.
Nothing here is shared with the package.
"""

import math
from types import MappingProxyType

import numpy as np

WORD = 2**64


class Stream:
    """SplitMix64 as published: the stream that Java's ``new SplittableRandom(seed).split()`` is."""

    def __init__(self, seed):
        golden = 0x9E3779B97F4A7C15
        self.state = self.mix((seed + golden) % WORD)
        z = (seed + 2 * golden) % WORD
        z = (z ^ (z >> 33)) * 0xFF51AFD7ED558CCD % WORD
        z = (z ^ (z >> 33)) * 0xC4CEB9FE1A85EC53 % WORD
        z = (z ^ (z >> 33)) | 1
        self.gamma = z ^ 0xAAAAAAAAAAAAAAAA if (z ^ (z >> 1)).bit_count() < 24 else z

    @staticmethod
    def mix(z):
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
        return z ^ (z >> 31)

    def next(self):
        self.state = (self.state + self.gamma) % WORD
        return self.mix(self.state)

    def integer(self, n):
        """Lemire's: the high half of a 32 x 32 bit product, rejecting what would be biased."""
        while True:
            product = (self.next() >> 32) * n
            if product % 2**32 >= 2**32 % n:
                return product >> 32

    def uniform(self, low, high):
        return low + (high - low) * ((self.next() >> 11) * 2.0**-53)


# ---- games: reset(rng) -> observations; step(actions) fills self.reward and flags per slot -------


class Game:
    """One environment. `live` says which slots have an agent; one slot unless a game says more."""

    agents = 1
    choices = 0
    stats = MappingProxyType({})

    def __init__(self, rng):
        self.rng = rng
        self.begin_step([True])

    def begin_step(self, live):
        self.live = list(live)
        self.reward = [0.0] * self.agents
        self.terminated = [False] * self.agents
        self.truncated = [False] * self.agents


class Squared(Game):
    def __init__(self, rng, size=11):
        super().__init__(rng)
        self.size = size

    def reset(self):
        n = self.size
        self.cell = [n // 2, n // 2]
        others = [(y, x) for y in range(n) for x in range(n) if [y, x] != self.cell]
        self.target = others[self.rng.integer(len(others))]
        self.ticks = 0

    def step(self, actions):
        y, x = self.cell
        y, x = {0: (y, x), 1: (y + 1, x), 2: (y - 1, x), 3: (y, x - 1), 4: (y, x + 1)}[actions[0]]
        self.ticks += 1
        if y not in range(self.size) or x not in range(self.size) or self.ticks > 3 * self.size:
            self.reward[0], self.terminated[0] = -1.0, True
        else:
            self.cell = [y, x]
            if (y, x) == self.target:
                self.reward[0], self.terminated[0] = 1.0, True

    def observe(self):
        grid = np.zeros((self.size, self.size), np.uint8)
        grid[self.target] = 2
        grid[tuple(self.cell)] = 1
        return [grid.ravel()]


class CartPole(Game):
    def __init__(self, rng, continuous=False, max_steps=500):
        super().__init__(rng)
        self.continuous = continuous
        self.max_steps = max_steps

    def reset(self):
        self.state = [self.rng.uniform(-0.05, 0.05) for _ in range(4)]
        self.steps = 0

    def step(self, actions):
        x, x_dot, theta, theta_dot = self.state
        if self.continuous:
            force = 10.0 * float(np.float32(actions[0]))
        else:
            force = 10.0 if actions[0] == 1 else -10.0
        cos, sin = math.cos(theta), math.sin(theta)
        total = 0.1 + 1.0
        push = (force + 0.1 * 0.5 * theta_dot**2 * sin) / total
        theta_acc = (9.8 * sin - cos * push) / (0.5 * (4.0 / 3.0 - 0.1 * cos**2 / total))
        x_acc = push - 0.1 * 0.5 * theta_acc * cos / total
        self.state = [x + 0.02 * x_dot, x_dot + 0.02 * x_acc,
                      theta + 0.02 * theta_dot, theta_dot + 0.02 * theta_acc]
        self.steps += 1
        self.reward[0] = 1.0
        self.terminated[0] = abs(self.state[0]) > 2.4 or abs(self.state[2]) > math.radians(12)
        self.truncated[0] = self.steps >= self.max_steps

    def observe(self):
        return [np.array(self.state, np.float32)]


class CartPoleFast(CartPole):
    """The same in float32, operation by operation in the order of the rules."""

    def reset(self):
        super().reset()
        self.state = [np.float32(value) for value in self.state]

    def step(self, actions):
        f = np.float32
        x, x_dot, theta, theta_dot = self.state
        square = theta * theta
        sin = theta + theta * square * (f(-1 / 6) + square * f(1 / 120))
        cos = f(1) + square * (f(-1 / 2) + square * (f(1 / 24) - square * f(1 / 720)))
        moment_per_mass = f(0.1 * 0.5 / 1.1)
        push = f(1 / 1.1) * (f(10) * f(2 * actions[0] - 1)
                             + f(0.1 * 0.5) * (theta_dot * theta_dot) * sin)
        theta_acc = (f(9.8) * sin - cos * push) / (f(2 / 3) - moment_per_mass * (cos * cos))
        x_acc = push - moment_per_mass * theta_acc * cos
        self.state = [x + f(0.02) * x_dot, x_dot + f(0.02) * x_acc,
                      theta + f(0.02) * theta_dot, theta_dot + f(0.02) * theta_acc]
        self.steps += 1
        self.reward[0] = 1.0
        self.terminated[0] = abs(self.state[0]) > f(2.4) or abs(self.state[2]) > f(np.pi / 15)
        self.truncated[0] = self.steps >= self.max_steps


class Bandit(Game):
    def reset(self):
        pass

    def step(self, actions):
        chance = [0.2, 0.4, 0.6, 0.8][actions[0]]
        self.reward[0], self.terminated[0] = float(self.rng.uniform(0.0, 1.0) < chance), True

    def observe(self):
        return [np.ones(1, np.float32)]


class Memory(Game):
    def __init__(self, rng, delay=4, digits=2):
        super().__init__(rng)
        self.delay, self.digits = delay, digits

    def show(self, digit=None, goal=False, answer=False):
        one_hot = [float(d == digit) for d in range(self.digits)]
        self.view = np.array([*one_hot, goal, answer], np.float32)

    def reset(self):
        self.goal = self.rng.integer(self.digits)
        self.steps = 0
        self.show(self.goal, goal=True)

    def step(self, actions):
        self.steps += 1
        if self.steps <= self.delay:
            self.show(self.rng.integer(self.digits))
        elif self.steps == self.delay + 1:
            self.show(answer=True)
        else:
            self.show()
            self.reward[0] = 1.0 if actions[0] == self.goal else -1.0
            self.terminated[0] = True

    def observe(self):
        return [self.view]


class Crowd(Game):
    """The rules of ``native/crowd.pyx``."""

    agents = 4
    choices = 5

    def reset(self):
        self.tick = 0
        self.energy = [1 + self.rng.integer(3) for _ in range(4)]
        self.live = [True, True, True, False]
        self.stats = {"spent": 0, "first_energy": self.energy[0]}

    def step(self, actions):
        self.tick += 1
        for a in range(4):
            if self.live[a]:
                self.energy[a] -= actions[a][0]
                self.stats["spent"] += actions[a][0]
                self.reward[a] = float(self.energy[a])
                self.terminated[a] = self.energy[a] <= 0
                self.truncated[a] = self.tick >= 6
            elif self.tick == 3:
                self.live[a] = True
                self.energy[a] = 2

    def observe(self):
        return [np.array([a, self.energy[a], self.tick], np.float32) for a in range(4)]

    def action_masks(self):
        return [[True, True, self.energy[a] >= 2, True, True] for a in range(4)]


class Lanes(Game):
    """The rules of ``native/lanes.pyx``."""

    agents = 3

    def reset(self):
        self.draw = self.rng.uniform(0.0, 1.0)
        self.steps_before = [0] * 3
        self.steps = 0

    def step(self, actions):
        self.steps_before = [self.steps] * 3
        self.steps += 1
        for a in range(3):
            if self.live[a]:
                self.reward[a] = float(actions[a][0])
                self.terminated[a] = actions[a][0] == 1

    def observe(self):
        return [np.array([self.draw, n, n], np.float32) for n in self.steps_before]


GAMES = {"squared": Squared, "cartpole": CartPole, "cartpole_fast": CartPoleFast, "bandit": Bandit,
         "memory": Memory, "crowd": Crowd, "lanes": Lanes}


class Vector:
    """E games stepped one after the other, with the rules of masks, autoreset and statistics.

    After reset and step: observations, rewards, terminations, truncations, masks, action_masks,
    acting, final_observations (only rows that ended have meaning), each with N rows.
    """

    def __init__(self, game, seeds, autoreset="same_step", **kwargs):
        self.games = [game(Stream(seed), **kwargs) for seed in seeds]
        self.autoreset = autoreset
        self.A = game.agents
        self.over = [False] * len(self.games)
        self.episodes = []                        # (return, length) of every agent that ended
        self.stats = []                           # a game's own, of every environment that ended
        self.final = {}
        self.totals = {}                          # row -> [return, length]

    def reset(self, selected=None):
        for e, game in enumerate(self.games):
            if selected is None or selected[e]:
                game.begin_step([True] * self.A)
                self.begin_episode(e)
        self.collect()

    def begin_episode(self, e):
        game = self.games[e]
        game.live = [True] * self.A
        game.reset()
        self.over[e] = False
        game.waiting = list(game.live)            # slots whose next action counts
        game.visible = list(game.live)            # slots that show an observation
        game.masked_in = list(game.live)          # the mask
        for a in range(self.A):
            self.totals[e * self.A + a] = [0.0, 0]

    def step(self, actions):
        self.final = {}
        for e, game in enumerate(self.games):
            own = actions[e * self.A:(e + 1) * self.A]
            if self.over[e]:
                assert self.autoreset == "next_step"
                game.begin_step([True] * self.A)
                self.begin_episode(e)
                continue
            before = game.waiting
            game.begin_step(before)
            game.step(own if self.A > 1 else own[0])
            views = game.observe()
            game.visible = game.masked_in = list(game.live)
            game.waiting = [False] * self.A
            for a in range(self.A):
                row = e * self.A + a
                if not game.live[a]:
                    continue
                if before[a]:
                    self.totals[row][0] += game.reward[a]
                    self.totals[row][1] += 1
                else:
                    self.totals[row] = [game.reward[a], 0]
                if game.terminated[a] or game.truncated[a]:
                    self.final[row] = views[a]
                    self.episodes.append(tuple(self.totals[row]))
                else:
                    game.waiting[a] = True
            if not any(game.waiting):
                self.over[e] = True
                self.stats.append(game.stats)
                if self.autoreset == "same_step":
                    self.begin_episode(e)
                    game.masked_in = [new or t or c for new, t, c in
                                      zip(game.live, game.terminated, game.truncated, strict=True)]
        self.collect()

    def collect(self):
        views, flags = [], []
        for game in self.games:
            for a, view in enumerate(game.observe()):
                views.append(view if game.visible[a] else np.zeros_like(view))
                flags.append((game.reward[a], game.terminated[a], game.truncated[a],
                              game.masked_in[a], game.waiting[a]))
        self.observations = np.stack(views)
        columns = list(zip(*flags, strict=True))
        self.rewards = np.array(columns[0], np.float32)
        self.terminations, self.truncations, self.masks, self.acting = (
            np.array(column, bool) for column in columns[1:])
        if self.games[0].choices:
            self.action_masks = np.array([m for g in self.games for m in g.action_masks()], bool)


def replay(vec, slow, seed, steps, choose, atol=0.0):
    """Play both, with the actions that `choose(observations)` gives: at every step all that the
    vector tells is the oracle's, byte by byte, and so are the statistics in the end, which this
    returns. `seed` is that of the oracle's first environment; `atol` is for means near 0."""
    observations, _ = vec.reset(seed=seed)
    slow.reset()
    names = ["observations", "rewards", "terminations", "truncations", "masks", "acting"]
    if vec.action_masks is not None:
        names.append("action_masks")
    np.testing.assert_array_equal(observations, slow.observations)
    for step in range(steps):
        actions = choose(observations)
        observations, *rest = vec.step(actions)[:4]
        slow.step(actions.reshape(len(actions), -1))
        told = observations, *rest, vec.masks, vec.acting, vec.action_masks
        for name, rows in zip(names, told, strict=False):
            theirs = getattr(slow, name)
            np.testing.assert_array_equal(rows, theirs, err_msg=f"{name}, step {step}")
            assert rows.tobytes() == theirs.tobytes(), f"{name}, step {step}: the sign of a zero"
        for row, last in slow.final.items():
            assert vec.final_observations[row].tobytes() == last.tobytes()
    stats = vec.episode_stats()
    assert stats["episodes"] == len(slow.episodes)
    if not slow.episodes:
        return stats
    returns, lengths = np.array(slow.episodes).T
    expected = {"episodes": len(returns), "episode_return": returns.mean(),
                "episode_length": lengths.mean(),
                **{key: np.mean([own[key] for own in slow.stats]) for key in slow.stats[0]}}
    assert stats.keys() == expected.keys()
    for name, mean in expected.items():
        np.testing.assert_allclose(stats[name], mean, rtol=1e-6, atol=atol, err_msg=name)
    return stats
