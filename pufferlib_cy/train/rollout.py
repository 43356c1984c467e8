"""Rollout storage: T steps of N rows, which the vector environment writes in place.

The observations are a ring of L = T + 1 slots that the environment writes and the minibatches are
gathered from: nothing copies an observation in between. A rollout begins in the slot where the one
before it ended, so that its first observation is where it already stands. Of a rollout that begins
in slot s, row n at step t is row ``(s * N + t * N + n) mod (L * N)`` of the ring's memory. Where
the next rollout is collected while one is learned from, the ring has room for both: L = 2 T + 1.

Letters: T steps, N rows, S segments (the T steps of S of the rows), H parts of one action.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pufferlib_cy import VectorEnv
from pufferlib_cy._advantages import gae
from pufferlib_cy.train.distributions import ActionRows
from pufferlib_cy.train.policies import Decision, Policy, State


class Minibatch(NamedTuple):
    """S segments of a rollout, on the policy's device."""

    observations: Tensor           # (T, S, ...)
    actions: Tensor                # (T, S, H)
    action_masks: Tensor | None    # (T, S, choices) bool
    state: State                   # of the policy before the first step, rows (S,)
    starts: Tensor                 # (T, S) bool: an episode begins with this observation
    log_probs: Tensor              # (T * S,), as all that follow: step by step
    values: Tensor
    advantages: Tensor
    returns: Tensor                # advantages + values
    weights: Tensor                # 1 / live rows of the minibatch, or 0; they sum to 1


ALL = slice(0, None)


class Rings:
    """What a vector environment writes, of `rollouts` rollouts in turn: C of them. It is attached
    and reset; in staggered use all batches are then held.

    Attributes (tensors on the CPU)
    ----------
    observations: (C * T + 1, N, ...) in the environment's dtype.
    action_masks: (C * T + 1, N, choices) bool; None where there are none.
    rewards: (C * T, N) float32. terminations, truncations: (C * T, N) bool.
    """

    def __init__(self, vec: VectorEnv, horizon: int, seed: int, rollouts: int = 1) -> None:
        steps, N = rollouts * horizon, vec.num_agents
        space = vec.single_observation_space
        # What the environments write is in memory that all who step them can write to.
        rows = {"observations": vec.allocate((steps + 1, N, *(space.shape or ())),
                                             np.dtype(space.dtype)),
                "rewards": vec.allocate((steps, N), np.float32),
                "terminations": vec.allocate((steps, N), np.bool_),
                "truncations": vec.allocate((steps, N), np.bool_)}
        if vec.action_mask_size:
            rows["action_masks"] = vec.allocate((steps + 1, N, vec.action_mask_size), np.bool_)
        vec.attach(**rows)
        if vec.batch_size == vec.num_envs:
            vec.reset(seed=seed)
        else:
            vec.async_reset(seed=seed)
            for _ in range(vec.num_envs // vec.batch_size):
                vec.recv()
                vec.hold()
        if vec.action_masks is None:      # a Python environment, which could give some, does not
            rows.pop("action_masks", None)
        tensors = {name: torch.from_numpy(array) for name, array in rows.items()}
        self.observations, self.rewards = tensors["observations"], tensors["rewards"]
        self.terminations, self.truncations = tensors["terminations"], tensors["truncations"]
        self.action_masks = tensors.get("action_masks")


class Rollout:
    """The storage of a run's rollouts, or with `overlap` of every second one; `other` is that of
    those in between.

    Call `begin`, then for each step `observe`, let the policy decide, `store` and `advance`, then
    `estimate`; after that `minibatch` gathers from what was collected. These steps may be those of
    some of the rows, a slice, which then go on by themselves: in staggered use a batch's.

    policy: the one that decides.
    twin: for its `other` alone, which shares its rings.

    Attributes (tensors on the CPU)
    ----------
    ring: (L, N, ...) observations in the environment's dtype; the first is in slot `start`.
    action_masks: (L, N, choices) bool, a ring as well; None where there are none.
    actions: (T, N, H). log_probs, rewards, advantages, returns: (T, N) float32.
    values: (T + 1, N), the last of the observations after the rollout.
    final_values: (T, N), only where a row was truncated: of its episode's last observation.
    terminations, truncations: (T, N) bool.
    state: of the policy, at the next observation; `first_state`, at the first of the rollout.
    acting: (T, N) bool: rows whose action counted. Nothing else is trained on or counted.
    starts: (T + 1, N) bool: an episode begins with this observation.
    episodes: means over those that ended in the rollout, as ``vec.episode_stats()`` gives them.
    """

    def __init__(self, vec: VectorEnv, policy: Policy, horizon: int, seed: int,
                 device: torch.device, *, overlap: bool = False,
                 twin: Rollout | None = None) -> None:
        T, N = horizon, vec.num_agents
        self.vec, self.policy, self.device = vec, policy, device
        self.horizon, self.rows = T, N
        self.rings: Rings = twin.rings if twin else Rings(vec, T, seed, rollouts=1 + overlap)
        self.ring, self.action_masks = self.rings.observations, self.rings.action_masks
        own = slice(T, None) if twin else slice(T)
        self.rewards = self.rings.rewards[own]
        self.terminations = self.rings.terminations[own]
        self.truncations = self.rings.truncations[own]
        self.actions = torch.zeros(T, N, policy.distribution.parts,
                                   dtype=policy.distribution.dtype)
        self.values = torch.zeros(T + 1, N)
        # What minibatches need of every row, together: so they gather it in one go.
        self.learned = torch.zeros(5, T, N)
        self.log_probs, self.old_values, self.advantages, self.returns, self.live = self.learned
        self.final_values = torch.zeros(T, N)
        self.acting = torch.zeros(T, N, dtype=torch.bool)
        self.starts = torch.ones(T + 1, N, dtype=torch.bool)
        self.episodes: dict[str, float] = {}
        self.start = len(self.ring) - T       # so that the first `begin` arrives at slot 0
        self.state = self.first_state = policy.initial_state(N)
        # NumPy's views: per step they are cheaper than torch's.
        self._acting, self._starts = self.acting.numpy(), self.starts.numpy()
        self._final: list[tuple[int, NDArray[Any], NDArray[Any]]] = []
        self._twin = Rollout(vec, policy, T, seed, device, twin=self) if overlap else twin

    @property
    def other(self) -> Rollout:
        """The storage of the rollouts before and after: this one, without `overlap`."""
        return self._twin or self

    def slot(self, t: int) -> int:
        """The slot of the ring where the observations of step t, 0 to T, are."""
        return (self.start + t) % len(self.ring)

    def begin(self) -> None:
        """Start a rollout in the slot where the last one ended."""
        self.start = self.other.slot(self.horizon)
        self._starts[0] = self.other._starts[self.horizon]
        self._final.clear()
        self.first_state = self.state = self.other.state

    def observe(self, t: int, rows: slice = ALL) -> tuple[Tensor, Tensor | None, Tensor]:
        """Of step t: observations (N, ...), action masks (N, choices), starts (N,).

        Raises ValueError for a row that has no legal action.
        """
        slot = self.slot(t)
        masks = None
        if self.action_masks is not None:
            masks = self.action_masks[slot, rows]
            self.policy.distribution.require_legal(masks, rows.start)
            masks = masks.to(self.device)
        return self.ring[slot, rows].to(self.device), masks, self.starts[t, rows].to(self.device)

    def store(self, t: int, decision: Decision, rows: slice = ALL) -> ActionRows:
        """Keep what the policy decided at step t; return the actions for the environment."""
        self.actions[t, rows] = decision.actions
        self.log_probs[t, rows] = decision.log_probs
        self.values[t, rows] = decision.values
        self._acting[t, rows] = self.vec.acting[rows]
        return self.policy.distribution.for_environment(self.actions[t, rows])

    def advance(self, t: int, terminations: NDArray[np.bool_], truncations: NDArray[np.bool_],
                rows: slice = ALL) -> None:
        """Note where step t ended episodes, and the last observations of truncated ones, which are
        there until the rows are stepped again."""
        if truncations.any():
            truncated = truncations.nonzero()[0] + rows.start
            self._final.append((t, truncated, self.vec.final_observations[truncated]))
        starts = self._starts[t + 1, rows]
        np.logical_or(terminations, truncations, out=starts)
        # A row that did not act begins anew whenever it acts again.
        starts |= ~self._acting[t, rows]

    @torch.inference_mode()
    def estimate(self, gamma: float, gae_lambda: float) -> None:
        """Compute the values after the last step, the advantages and the returns."""
        T = self.horizon
        observations = self.ring[self.slot(T)].to(self.device)
        self.values[T] = self.policy.value(observations, self.state)
        if self._final:
            # Batches came in any order; what a product of matrices gives may depend on the rows'.
            self._final.sort(key=lambda final: (final[0], final[1][0]))
            steps = np.concatenate([np.full(len(rows), t) for t, rows, _ in self._final])
            rows = np.concatenate([rows for _, rows, _ in self._final])
            last = torch.from_numpy(np.concatenate([o for _, _, o in self._final]))
            self.final_values[steps, rows] = self.policy.value(last.to(self.device)).cpu()
        gae(self.rewards.numpy(), self.values.numpy(), self.terminations.numpy(),
            self.truncations.numpy(), self.final_values.numpy(), gamma, gae_lambda,
            self.advantages.numpy())
        self.old_values.copy_(self.values[:T])
        torch.add(self.advantages, self.old_values, out=self.returns)
        self.live.copy_(self.acting)

    @property
    def live_steps(self) -> int:
        """Steps of the rollout that count: those of rows that acted."""
        return int(self.acting.count_nonzero())

    def live_observations(self) -> Tensor:
        """Observations (live steps, ...) of the rows that acted, on the policy's device."""
        slots = torch.tensor([self.slot(t) for t in range(self.horizon)])
        return self.ring[slots][self.acting].to(self.device)

    def minibatch(self, segments: Tensor) -> Minibatch:
        """Gather the T steps of the rows `segments`, int64 (S,)."""
        T, N = self.horizon, self.rows
        steps = torch.arange(T).unsqueeze(1)
        flat = (steps * N + segments).flatten()                    # (T * S,) of T * N
        physical = (self.start * N + flat).remainder_(len(self.ring) * N)

        def gather(source: Tensor, index: Tensor) -> Tensor:
            return source.flatten(0, 1).index_select(0, index).to(self.device)

        def segmented(rows: Tensor) -> Tensor:
            return rows.view(T, len(segments), *rows.shape[1:])

        log_probs, values, advantages, returns, live = (
            self.learned.flatten(1, 2).index_select(1, flat).to(self.device))
        return Minibatch(
            observations=segmented(gather(self.ring, physical)),
            actions=segmented(gather(self.actions, flat)),
            action_masks=None if self.action_masks is None
            else segmented(gather(self.action_masks, physical)),
            state=tuple(part.index_select(0, segments.to(part.device))
                        for part in self.first_state),
            starts=segmented(gather(self.starts[:T], flat)),
            log_probs=log_probs, values=values, advantages=advantages, returns=returns,
            weights=live / live.sum().clamp(min=1.0))
