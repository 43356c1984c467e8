"""A script in CleanRL's style trains on `SyncVectorEnv` and `AsyncVectorEnv` in place of
Gymnasium's, and logs every episode."""

from __future__ import annotations

from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from pufferlib_cy.bridges.gymnasium import AsyncVectorEnv, SyncVectorEnv, make_native_vec

torch = pytest.importorskip("torch")


def make_env(env_id):
    return lambda: gymnasium.make(env_id)


def train(envs, *, seed, iterations, num_steps=64, num_epochs=2, gamma=0.99, gae_lambda=0.95,
          clip=0.2, learning_rate=2.5e-3):
    """PPO on envs; what its log says: (return, length) of each episode, in order."""
    torch.manual_seed(seed)
    envs = gymnasium.wrappers.vector.RecordEpisodeStatistics(envs)
    num_inputs = int(np.prod(envs.single_observation_space.shape))

    def network(num_outputs):
        return torch.nn.Sequential(torch.nn.Linear(num_inputs, 64), torch.nn.Tanh(),
                                   torch.nn.Linear(64, num_outputs))

    actor, critic = network(int(envs.single_action_space.n)), network(1)
    optimizer = torch.optim.Adam([*actor.parameters(), *critic.parameters()], learning_rate)
    log = []
    T, E = num_steps, envs.num_envs
    storage = {name: torch.zeros(T, E) for name in ("actions", "logprobs", "rewards", "dones",
                                                    "values", "reset")}
    observations = torch.zeros(T, E, num_inputs)
    next_obs = torch.as_tensor(envs.reset(seed=seed)[0], dtype=torch.float32).reshape(E, -1)
    next_done = torch.zeros(E)
    for _ in range(iterations):
        for t in range(T):
            observations[t] = next_obs
            storage["dones"][t] = next_done
            with torch.no_grad():
                policy = torch.distributions.Categorical(logits=actor(next_obs))
                action = policy.sample()
                storage["values"][t] = critic(next_obs)[:, 0]
            storage["actions"][t], storage["logprobs"][t] = action, policy.log_prob(action)
            obs, reward, terminations, truncations, infos = envs.step(action.numpy())
            if "episode" in infos:
                log += [(float(infos["episode"]["r"][e]), int(infos["episode"]["l"][e]))
                        for e in np.flatnonzero(infos["_episode"])]
            storage["rewards"][t] = torch.as_tensor(reward, dtype=torch.float32)
            next_obs = torch.as_tensor(obs, dtype=torch.float32).reshape(E, -1)
            next_done = torch.as_tensor(terminations | truncations, dtype=torch.float32)
        with torch.no_grad():
            advantages, last = torch.zeros(T, E), torch.zeros(E)
            value, done = critic(next_obs)[:, 0], next_done
            for t in reversed(range(T)):
                delta = (storage["rewards"][t] + gamma * value * (1 - done)
                         - storage["values"][t])
                advantages[t] = last = delta + gamma * gae_lambda * (1 - done) * last
                value, done = storage["values"][t], storage["dones"][t]
            returns = advantages + storage["values"]
        for _ in range(num_epochs):
            policy = torch.distributions.Categorical(logits=actor(observations))
            ratio = (policy.log_prob(storage["actions"]) - storage["logprobs"]).exp()
            scaled = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
            loss = (torch.max(-scaled * ratio, -scaled * ratio.clamp(1 - clip, 1 + clip)).mean()
                    + 0.5 * ((critic(observations)[..., 0] - returns) ** 2).mean()
                    - 0.01 * policy.entropy().mean())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    envs.close()
    return log


@pytest.mark.parametrize(("kind", "mode"), [
    (SyncVectorEnv, AutoresetMode.NEXT_STEP),
    (partial(AsyncVectorEnv, context="forkserver", num_workers=2), AutoresetMode.SAME_STEP)])
def test_the_log_is_that_on_gymnasiums_own(kind, mode):
    """Episode by episode, while training on both."""
    env_fns = [make_env("CartPole-v1")] * 4
    expected = train(gymnasium.vector.SyncVectorEnv(env_fns, autoreset_mode=mode), seed=1,
                     iterations=10)
    assert len(expected) > 30
    assert train(kind(env_fns, autoreset_mode=mode), seed=1, iterations=10) == expected


def test_native_environments():
    log = train(make_native_vec("cartpole", 4), seed=1, iterations=12)
    assert len(log) > 30
    assert all(total == length for total, length in log)
