"""Evaluation counts each environment's first episode, and nothing else."""

import json

import numpy as np
import pytest
import torch

from pufferlib_cy import make
from pufferlib_cy.envs.cartpole import CartPole
from pufferlib_cy.train import MLP, evaluate
from pufferlib_cy.train.policies import Decision


@pytest.fixture
def policy():
    env = CartPole()
    policy = MLP(env.observation_space, env.action_space,
                 generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        policy.outputs.weight[:-1] *= 50
    return policy


def first_episodes(policy, episodes, seed):
    """Returns of one environment after the other, each alone."""
    returns = []
    for i in range(episodes):
        with make("cartpole", seed=seed + i) as vec:
            observations, _ = vec.reset()
            total, over = 0.0, False
            while not over:
                with torch.no_grad():
                    logits, _ = policy.compute(torch.from_numpy(observations))
                observations, rewards, terminations, truncations, _ = vec.step(
                    logits.argmax(0).numpy())
                total += rewards[0]
                over = terminations[0] or truncations[0]
            returns.append(total)
    return np.array(returns)


def test_the_first_episode_of_each_environment(policy):
    expected = first_episodes(policy, 12, 5)
    summary = evaluate(policy, "cartpole", 12, 5)
    assert np.ptp(expected) > 5
    assert summary.episodes == 12
    assert summary.mean_return == summary.mean_length == expected.mean()
    assert summary.std_return == pytest.approx(expected.std())
    assert (summary.min_return, summary.max_return) == (expected.min(), expected.max())
    assert json.loads(json.dumps(summary.to_json()))["mean_return"] == expected.mean()


def test_seeds_and_drawn_actions(policy):
    drawn = evaluate(policy, CartPole, 20, 1, deterministic=False)
    assert drawn == evaluate(policy, CartPole, 20, 1, deterministic=False)
    assert drawn != evaluate(policy, CartPole, 20, 1)
    assert drawn != evaluate(policy, CartPole, 20, 2, deterministic=False)


def test_several_agents(native):
    """crowd: four slots, of which three are live from the start; they live six steps at most."""
    env = native["crowd"].Crowd
    with make(env) as vec:
        policy = MLP(vec.single_observation_space, vec.single_action_space)
    summary = evaluate(policy, env, 7, 0)
    assert summary.episodes == 7
    assert 1 <= summary.mean_length <= 6


class Idle(MLP):
    """Never pulls the lever that ends an episode."""

    def act(self, observations, state=(), starts=None, **_):
        rows = len(observations)
        return Decision(torch.zeros(rows, 1, dtype=torch.int64), torch.zeros(rows),
                        torch.zeros(rows)), ()


def test_limits():
    env = CartPole()
    idle = Idle(env.observation_space, env.action_space)
    with pytest.raises(RuntimeError, match="2 of 2 episodes have not ended after 3 steps"):
        evaluate(idle, "cartpole", 2, 0, max_steps=3)
    with pytest.raises(ValueError, match="episodes: expected at least 1, got 0"):
        evaluate(idle, "cartpole", 0, 0)
