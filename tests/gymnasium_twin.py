"""Gymnasium's environments as games of the oracle: the same streams, states, actions and bits."""

import gymnasium
import numpy as np
from oracle import Game, Vector

from pufferlib_cy import make


class Twin(Game):
    """A Gymnasium environment whose first state is drawn from the stream of ours."""

    name: str

    def __init__(self, rng, **kwargs):
        super().__init__(rng)
        self.env = gymnasium.make(self.name, **kwargs)

    def reset(self):
        self.env.reset(seed=0)
        self.env.unwrapped.state = self.first_state()
        self.view = self.first_view(self.env.unwrapped)

    def step(self, actions):
        self.view, self.reward[0], self.terminated[0], self.truncated[0], _ = (
            self.env.step(self.action(actions)))

    def observe(self):
        assert self.view.dtype == np.float32
        return [self.view]

    def first_state(self):
        raise NotImplementedError

    def first_view(self, env):
        raise NotImplementedError

    def action(self, actions):
        return actions[0]


def assert_equal_bits(kind, twin, policy, *, num_envs, steps, ours=None, theirs=None):
    """Step both for `steps` steps and compare everything; return how many episodes terminated, and
    how many were truncated. ``policy(observations)`` gives actions (num_envs, 1)."""
    terminated = truncated = 0
    with make(kind, num_envs, env_kwargs=ours) as vec:
        reference = Vector(twin, range(5, 5 + num_envs), **(theirs or {}))
        vec.reset(seed=5)
        reference.reset()
        observations = reference.observations
        for _ in range(steps):
            actions = policy(observations)
            discrete = actions.dtype.kind == "i"
            observations, rewards, terminations, truncations, _ = vec.step(
                actions[:, 0] if discrete else actions)
            reference.step(actions)
            assert observations.tobytes() == reference.observations.tobytes()
            assert rewards.tobytes() == reference.rewards.tobytes()
            assert terminations.tobytes() == reference.terminations.tobytes()
            assert truncations.tobytes() == reference.truncations.tobytes()
            for row, view in reference.final.items():
                assert vec.final_observations[row].tobytes() == view.tobytes()
            terminated += int(terminations.sum())
            truncated += int(truncations.sum())
    return terminated, truncated


def states(vec, values):
    """float64 (E, values): the first fields of the states inside, which are lanes; not a copy."""
    states = vec._engine.envs[0].state_array                 # (E, bytes) in name
    return states.reshape(-1).view(np.float64).reshape(-1, vec.num_envs)[:values].T
