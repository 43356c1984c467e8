"""Evaluation: how well a policy plays, over whole episodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pufferlib_cy import NativeEnv, VectorEnv, make
from pufferlib_cy.train.policies import MLP, Policy


@dataclass(frozen=True)
class Spread:
    """A statistic over episodes."""

    mean: float
    std: float                    # of the episodes, not of their mean
    episodes: int                 # agents' or, for statistics of the environment's own, its own


@dataclass(frozen=True)
class EvalSummary:
    """Undiscounted returns and lengths, in steps, of evaluation episodes.

    stats: episode_return, episode_length and the environment's own statistics, by the names that
        ``vec.episode_stats`` has for them. Its own are of whole environments: there only if all of
        these have ended.
    """

    episodes: int
    mean_return: float
    std_return: float             # of the episodes, not of their mean
    min_return: float
    max_return: float
    mean_length: float
    stats: dict[str, Spread]

    def to_json(self) -> dict[str, Any]:
        """The fields as a dict that JSON can hold."""
        return dataclasses.asdict(self)


@torch.inference_mode()
def evaluate(policy: Policy, env: str | type[NativeEnv], episodes: int, seed: int, *,
             env_kwargs: Mapping[str, Any] | None = None, deterministic: bool = True,
             target_stat: str = "episode_return", max_steps: int = 1_000_000,
             watch: Callable[[VectorEnv], bool] | None = None) -> EvalSummary:
    """Play `episodes` episodes and summarise them.

    Each agent slot of each environment plays one episode, its first: taking the episodes that end
    first out of a stream would favour short ones. A slot that has had no agent when its environment
    ends is left out, so that there may be fewer. Environment i has the seed ``seed + i``.

    deterministic: take the most probable action (the mean of a Box), else draw actions.
    target_stat: the statistic that matters. If it is one of the environment's own, play goes on
        until all environments have ended, not only the agents' first episodes.
    max_steps: of one episode.
    watch: is called with the vector environment at the beginning and after every step of the first
        environment's episode, until it returns False.

    Raises ValueError for fewer than one episode and for a `target_stat` that there is not;
    RuntimeError if an episode has not ended after `max_steps`.
    """
    if episodes < 1:
        raise ValueError(f"episodes: expected at least 1, got {episodes}")
    device = next(policy.parameters()).device
    generator = None if deterministic else torch.Generator(device).manual_seed(seed)
    with make(env, env_kwargs=env_kwargs) as one:
        agents = one.agents_per_env
        check_target_stat(one, target_stat)
    # On the step that ends it, an environment still shows the end, for those who watch.
    with make(env, -(-episodes // agents), seed=seed, env_kwargs=env_kwargs,
              autoreset="next_step") as vec:
        observations, _ = vec.reset()
        N = vec.num_agents
        state = policy.initial_state(N)
        starts = np.ones(N, np.bool_)
        unfinished = np.ones(N, np.bool_)
        unfinished[episodes:] = False
        played = np.zeros(N, np.bool_)
        returns, lengths = np.zeros(N), np.zeros(N)
        ends = FirstEnds(vec)
        wanted = target_stat in vec.stat_names
        watched = watch is not None and watch(vec)
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
            ends.note()
            played |= unfinished & (acting | ended)
            unfinished &= ~ended & (played | ~ends.over.repeat(agents))
            if watch is not None and watched:
                watched = watch(vec) and not ends.over[0]
            if not (unfinished.any() or watched or (wanted and not ends.over.all())):
                break
        else:
            left = (f"{unfinished.sum()} of {episodes} episodes" if unfinished.any() else
                    f"{(~ends.over).sum()} of {vec.num_envs} environments")
            raise RuntimeError(f"evaluate: {left} have not ended after {max_steps} steps")
    returns, lengths = returns[played], lengths[played]
    stats = {"episode_return": _spread(returns), "episode_length": _spread(lengths)}
    if ends.over.all():
        stats |= {name: _spread(values) for name, values in
                  zip(vec.stat_names, ends.stats.T, strict=True)}
    return EvalSummary(len(returns), float(returns.mean()), float(returns.std()),
                       float(returns.min()), float(returns.max()), float(lengths.mean()), stats)


class FirstEnds:
    """The environments' own statistics, of the first episode of each and of no other.

    over: (E,) bool, that episode has ended. stats: (E, statistics) float64, where it has.
    """

    def __init__(self, vec: VectorEnv) -> None:
        vec.episode_stats()                   # forgets what was before
        self.vec = vec
        self.over = np.zeros(vec.num_envs, np.bool_)
        self.stats: NDArray[np.float64] = np.zeros((vec.num_envs, len(vec.stat_names)))

    def note(self) -> None:
        """To be called after every step: an environment then has ended at most once since."""
        finished = self.vec.finished
        fresh = (finished[:, 3] > 0) & ~self.over
        if fresh.any():
            self.stats[fresh] = finished[fresh, 4:]
            self.over |= fresh


def check_target_stat(vec: VectorEnv, name: str) -> None:
    """Raise ValueError if the environment has no such statistic."""
    names = ("episode_return", "episode_length", *vec.stat_names)
    if name not in names:
        raise ValueError(f"target_stat: the environment has no statistic {name!r}, but "
                         f"{', '.join(names)}")


def random_policy(env: str | type[NativeEnv],
                  env_kwargs: Mapping[str, Any] | None = None) -> Policy:
    """A policy for which all legal actions are as likely; of a Box, normal around 0.

    To look at an environment before there is a trained one, with ``deterministic=False``.
    """
    with make(env, env_kwargs=env_kwargs) as vec:
        policy = MLP(vec.single_observation_space, vec.single_action_space, hidden_sizes=(1,))
    for parameter in policy.parameters():
        nn.init.zeros_(parameter)
    return policy.eval()


def _spread(values: NDArray[np.float64]) -> Spread:
    return Spread(float(values.mean()), float(values.std()), len(values))


def _tensor(rows: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(rows).to(device)
