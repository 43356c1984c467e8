"""Evaluation: how well a policy plays, over whole episodes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pufferlib_cy import NativeEnv, make
from pufferlib_cy.train.policies import Policy


@dataclass(frozen=True)
class EvalSummary:
    """Undiscounted returns and lengths, in steps, of evaluation episodes."""

    episodes: int
    mean_return: float
    std_return: float             # of the episodes, not of their mean
    min_return: float
    max_return: float
    mean_length: float

    def to_json(self) -> dict[str, float]:
        """The fields as a dict that JSON can hold."""
        return dataclasses.asdict(self)


@torch.inference_mode()
def evaluate(policy: Policy, env: str | type[NativeEnv], episodes: int, seed: int, *,
             deterministic: bool = True, max_steps: int = 1_000_000) -> EvalSummary:
    """Play `episodes` episodes and summarise them.

    Each agent slot of each environment plays one episode, its first: taking the episodes that end
    first out of a stream would favour short ones. Environment i has the seed ``seed + i``.

    deterministic: take the most probable action (the mean of a Box), else draw actions.
    max_steps: of one episode.

    Raises ValueError for fewer than one episode; RuntimeError if an episode has not ended after
    `max_steps`.
    """
    if episodes < 1:
        raise ValueError(f"episodes: expected at least 1, got {episodes}")
    device = next(policy.parameters()).device
    generator = None if deterministic else torch.Generator(device).manual_seed(seed)
    with make(env) as one:
        agents = one.agents_per_env
    with make(env, -(-episodes // agents), seed=seed) as vec:
        observations, _ = vec.reset()
        N = vec.num_agents
        state = policy.initial_state(N)
        starts = np.ones(N, np.bool_)
        unfinished = np.ones(N, np.bool_)
        unfinished[episodes:] = False
        returns, lengths = np.zeros(N), np.zeros(N)
        for _ in range(max_steps):
            acting = vec.acting.copy()
            decision, state = policy.act(
                _tensor(observations, device), state, _tensor(starts, device),
                action_masks=None if vec.action_masks is None
                else _tensor(vec.action_masks, device), generator=generator)
            actions = policy.distribution.for_environment(decision.actions)
            observations, rewards, terminations, truncations, _ = vec.step(actions)
            returns[unfinished] += rewards[unfinished]
            lengths[unfinished & acting] += 1
            ended = terminations | truncations
            starts = ended | ~acting
            unfinished &= ~ended
            if not unfinished.any():
                break
        else:
            raise RuntimeError(f"evaluate: {unfinished.sum()} of {episodes} episodes have not "
                               f"ended after {max_steps} steps")
    returns, lengths = returns[:episodes], lengths[:episodes]
    return EvalSummary(episodes, float(returns.mean()), float(returns.std()),
                       float(returns.min()), float(returns.max()), float(lengths.mean()))


def _tensor(rows: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(rows).to(device)
