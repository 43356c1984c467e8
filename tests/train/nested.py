"""A vector of agents with nested observations, hybrid actions and a population that changes: the
part of `VectorEnv` that a rollout needs, in NumPy."""

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Tuple

from pufferlib_cy import ActionTree, SpaceTree


class Nested:
    """Rewarded is the choice that the role, the picture or the board tells, and a value near the
    vitals. Rows live and die at random; choice 2 is illegal for every third role."""

    env_observation_space = Dict(
        board=Box(0, 2, (3, 3), np.int8), picture=Box(0, 255, (16, 16, 1), np.uint8),
        role=Discrete(3, start=1), vitals=Box(-np.inf, np.inf, (2,), np.float32))
    env_action_space = Tuple((Discrete(3), Box(-1.0, 1.0, (1,))))

    def __init__(self, num_agents):
        self.num_agents = self.num_envs = self.batch_size = num_agents
        self.tree = SpaceTree(self.env_observation_space)
        self.single_observation_space = self.tree.flat_space
        self.single_action_space = ActionTree(self.env_action_space).flat_space
        self.rng = np.random.default_rng(0)
        self.action_masks = np.ones((num_agents, 3), np.bool_)
        self.action_mask_size = 3
        self.steps = 0
        self.taken = []                       # (choices, values) of every step
        self.vitals_of_live = []

    def allocate(self, shape, dtype):
        return np.zeros(shape, dtype)

    def attach(self, **rows):
        self.rings = rows

    def reset(self, seed):
        self.observe()

    def observe(self):
        N = self.num_agents
        self.acting = self.rng.random(N) < 0.6
        ring = self.rings["observations"]
        slot = self.steps % len(ring)
        self.roles = self.rng.integers(1, 4, N)
        self.vitals = self.rng.normal([5.0, 0.0], [1.0, 3.0], (N, 2)).astype(np.float32)
        for n in range(N):
            board = np.zeros((3, 3), np.int8)
            board[self.rng.integers(3), self.rng.integers(3)] = self.roles[n] % 3
            picture = np.full((16, 16, 1), 80 * self.roles[n], np.uint8)
            ring[slot, n] = self.tree.flatten({
                "board": board, "picture": picture, "role": int(self.roles[n]),
                "vitals": self.vitals[n]}) if self.acting[n] else 0
        self.rings["action_masks"][slot] = True
        self.rings["action_masks"][slot, :, 2] = self.roles != 3

    def step(self, actions):
        choices, values = actions
        self.taken.append((choices, values))
        self.vitals_of_live.append(self.vitals[self.acting])
        assert self.rings["action_masks"][
            self.steps % len(self.rings["action_masks"]), np.arange(self.num_agents),
            choices[:, 0]].all()
        slot = self.steps % len(self.rings["rewards"])
        rewards = 2.0 * (choices[:, 0] == self.roles % 3) - np.abs(
            values[:, 0] - 0.2 * self.vitals[:, 1].clip(-3, 3))
        self.rings["rewards"][slot] = np.where(self.acting, rewards, 0.0)
        self.rings["terminations"][slot] = self.acting
        self.rings["truncations"][slot] = False
        self.steps += 1
        self.observe()
        none = self.rings["terminations"][slot]
        return None, self.rings["rewards"][slot], none, self.rings["truncations"][slot], {}
