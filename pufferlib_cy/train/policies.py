"""Policies: what the trainer asks of one, and the default one for every observation and action.

Letters: R rows, N rows of the vector environment, T steps, S segments, H parts of one action.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import torch
from gymnasium.spaces import Space
from torch import Tensor, nn
from torch.nn import functional

from pufferlib_cy.train.distributions import Distribution, distribution
from pufferlib_cy.train.encoders import Kind, ObservationEncoder

State = tuple[Tensor, ...]    # what a policy remembers, rows first; () for one without memory

ACTIVATIONS = {"relu": functional.relu_, "tanh": torch.tanh_}


class Decision(NamedTuple):
    """What a policy does for R rows."""

    actions: Tensor      # (R, H), of the distribution's dtype: as sampled, not yet clipped to a Box
    log_probs: Tensor    # (R,)
    values: Tensor       # (R,)


class Assessment(NamedTuple):
    """What a policy thinks of actions already taken in R rows; differentiable."""

    log_probs: Tensor    # (R,)
    entropies: Tensor    # (R,)
    values: Tensor       # (R,)


class Policy(nn.Module):
    """What the trainer asks of a policy: `act` in a rollout, `forward` in training.

    Both see where episodes begin, so that a recurrent policy can zero its state there: in `act`
    for each row, in `forward` for each step of each segment. A policy without memory ignores
    `starts`, and its state is ().

    Attributes
    ----------
    distribution: over the actions of one row.
    """

    distribution: Distribution

    def initial_state(self, rows: int) -> State:
        """The state before the first observation of `rows` rows."""
        return ()

    def act(self, observations: Tensor, state: State = (), starts: Tensor | None = None, *,
            action_masks: Tensor | None = None, generator: torch.Generator | None = None,
            ) -> tuple[Decision, State]:
        """Choose actions for observations (N, ...), and say what the next call's state is.

        starts: bool (N,), rows whose episode begins with this observation.
        action_masks: bool (N, choices), the legal ones; the others have probability exactly 0.
        generator: draws the actions; None: the most probable ones.
        """
        raise NotImplementedError

    def forward(self, observations: Tensor, actions: Tensor, state: State = (),
                starts: Tensor | None = None, *, action_masks: Tensor | None = None) -> Assessment:
        """Assess actions (T, S, H) after observations (T, S, ...); results are (T * S,), flat.

        state: of the S segments before their first observation.
        starts: bool (T, S), observations with which an episode begins.
        action_masks: bool (T, S, choices), as `act` saw them.
        """
        raise NotImplementedError

    def value(self, observations: Tensor, state: State = ()) -> Tensor:
        """Values (R,) of observations (R, ...)."""
        raise NotImplementedError

    def update_statistics(self, observations: Tensor) -> None:
        """Take note of observations (R, ...), after they were learned from: only of rows that
        acted. For a policy that normalises what it sees; nothing else changes its statistics."""


class MLP(Policy):
    """An encoder of the observations, hidden layers that policy and value share, and one linear
    layer with the outputs of both.

    Weights are orthogonal with gain sqrt(2), 0.01 for the action outputs and 1 for the value;
    biases start at 0 (Andrychowicz et al. 2021, "What matters in on-policy reinforcement
    learning?").

    observation_space, action_space: of one agent as the environment declares them, nested or not.
    encoder, normalise: how observations become numbers, see `pufferlib_cy.train.encoders`.
    generator: draws the initial weights; None: torch's global one.

    Raises SpaceError, naming the leaf, for spaces that have no rows.
    """

    def __init__(self, observation_space: Space[Any], action_space: Space[Any], *,
                 hidden_sizes: Sequence[int] = (64, 64), activation: str = "relu",
                 encoder: Kind = "auto", normalise: bool = False,
                 generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.encoder = ObservationEncoder(observation_space, encoder, normalise, generator)
        self.distribution = distribution(action_space)
        widths = [self.encoder.width, *hidden_sizes]
        self.hidden = nn.ModuleList(
            nn.Linear(width, following)
            for width, following in zip(widths, hidden_sizes, strict=False))
        self.outputs = nn.Linear(widths[-1], self.distribution.width + 1)
        with torch.no_grad():
            for layer in cast(Iterable[nn.Linear], self.hidden):
                nn.init.orthogonal_(layer.weight, math.sqrt(2), generator)
                layer.bias.zero_()
            nn.init.orthogonal_(self.outputs.weight[:-1], 0.01, generator)
            nn.init.orthogonal_(self.outputs.weight[-1:], 1.0, generator)
            self.outputs.bias.zero_()

    def compute(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters (width, R) of the action distribution and values (R,), for (R, ...)."""
        first, *others = cast(Iterable[nn.Linear], self.hidden)
        # As layer(x), but for a few inputs the gradient of the weight is then several times
        # faster: it becomes x^T @ g, where that of layer(x) is g^T @ x.
        x = self.encoder.project(observations, first.weight.t().contiguous(), first.bias)
        for layer in others:
            x = torch.addmm(layer.bias, self.activation(x), layer.weight.t().contiguous())
        y = self.outputs(self.activation(x)).t().contiguous()                   # (width + 1, R)
        return y[:-1], y[-1]

    def act(self, observations: Tensor, state: State = (), starts: Tensor | None = None, *,
            action_masks: Tensor | None = None, generator: torch.Generator | None = None,
            ) -> tuple[Decision, State]:
        parameters, values = self.compute(observations)
        actions, log_probs = self.distribution.sample(parameters, action_masks, generator)
        return Decision(actions, log_probs, values), ()

    def forward(self, observations: Tensor, actions: Tensor, state: State = (),
                starts: Tensor | None = None, *, action_masks: Tensor | None = None) -> Assessment:
        parameters, values = self.compute(observations.flatten(0, 1))
        masks = None if action_masks is None else action_masks.flatten(0, 1)
        log_probs, entropies = self.distribution.assess(parameters, masks, actions.flatten(0, 1))
        return Assessment(log_probs, entropies, values)

    def value(self, observations: Tensor, state: State = ()) -> Tensor:
        return self.compute(observations)[1]

    def update_statistics(self, observations: Tensor) -> None:
        self.encoder.update(observations)
