"""Fixtures for the training tests: policies and rollouts of small vectors."""

import pytest

pytest.importorskip("torch")

import torch

from pufferlib_cy import make
from pufferlib_cy.envs.cartpole import CartPole
from pufferlib_cy.train import MLP, ppo
from pufferlib_cy.train.log import Clock
from pufferlib_cy.train.rollout import Rollout


@pytest.fixture
def rollouts(native):
    """A function (env, horizon, num_envs, **make's arguments) that gives a policy and a rollout.

    "crowd" has several agents, action masks and a MultiDiscrete; "continuous" a Box of actions;
    "foraging" nested observations and a population that changes.
    """
    vectors = []

    def start(env, horizon=8, num_envs=6, overlap=False, **kwargs):
        if env == "crowd":
            env = native["crowd"].Crowd
        elif env == "continuous":
            env, kwargs["env_kwargs"] = CartPole, {"continuous": True}
        vec = make(env, num_envs, **kwargs)
        vectors.append(vec)
        policy = MLP(vec.env_observation_space, vec.env_action_space,
                     generator=torch.Generator().manual_seed(0))
        with torch.no_grad():                 # so that actions are not all as likely
            policy.outputs.weight[:-1] *= 100
        return policy, Rollout(vec, policy, horizon, 1, torch.device("cpu"), overlap=overlap)

    yield start
    for vec in vectors:
        vec.close()


@pytest.fixture
def collect():
    """A function that fills a rollout with a policy's play and estimates its advantages."""
    generator = torch.Generator().manual_seed(2)

    def run(policy, rollout):
        ppo.collect(rollout, policy, generator, Clock())
        rollout.estimate(0.9, 0.8)

    return run
