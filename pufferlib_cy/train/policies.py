"""Policies: what the trainer asks of one, action distributions, and the multi-layer perceptron.

Letters: R rows, N rows of the vector environment, T steps, S segments, H parts of one action.
Distributions work on tensors whose last dimension is the rows, (choices, R): a softmax over two or
five choices then runs along whole vectors of rows, several times faster than row by row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space
from torch import Tensor, nn
from torch.nn import functional

State = tuple[Tensor, ...]    # what a policy remembers, rows first; () for one without memory

ACTIVATIONS = {"relu": functional.relu_, "tanh": torch.tanh_}
# log(0), but finite: exp of it is exactly 0, and 0 times it is 0 and not NaN.
IMPOSSIBLE = torch.finfo(torch.float32).min


class Decision(NamedTuple):
    """What a policy does for R rows."""

    actions: Tensor      # (R, H) int64, or float32 of a Box: as sampled, not yet clipped to it
    log_probs: Tensor    # (R,)
    values: Tensor       # (R,)


class Assessment(NamedTuple):
    """What a policy thinks of actions already taken in R rows; differentiable."""

    log_probs: Tensor    # (R,)
    entropies: Tensor    # (R,)
    values: Tensor       # (R,)


# ---- distributions over actions ------------------------------------------------------------------

class Categorical(nn.Module):
    """H independent discrete choices: Discrete (H = 1) and MultiDiscrete.

    Parameters are logits (choices of all parts, R). Log-probabilities and entropies are summed over
    the parts.
    """

    dtype = torch.int64

    def __init__(self, space: Discrete | MultiDiscrete) -> None:
        super().__init__()
        sizes = [space.n] if isinstance(space, Discrete) else space.nvec
        starts = [space.start] if isinstance(space, Discrete) else space.start
        self.sizes = [int(size) for size in sizes]
        self.starts = np.array(starts, np.int64)
        self.width = sum(self.sizes)
        self.parts = len(self.sizes)

    def log_softmax(self, logits: Tensor, masks: Tensor | None) -> list[Tensor]:
        """Log-probabilities of each part, (choices, R) each; `masks` (R, choices) bool: legal."""
        if masks is not None:
            logits = logits.masked_fill(~masks.t(), IMPOSSIBLE)
        return [functional.log_softmax(part, 0) for part in logits.split(self.sizes)]

    def sample(self, logits: Tensor, masks: Tensor | None, generator: torch.Generator | None,
               ) -> tuple[Tensor, Tensor]:
        """Actions (R, H) and their log-probabilities (R,); the most probable without a generator.

        Inverse of the distribution function: the first choice whose cumulative probability exceeds
        a uniform number. A choice of probability 0 adds nothing to it, and is never the first.
        """
        actions, log_probs = [], []
        for log_p in self.log_softmax(logits, masks):
            if generator is None:
                action = log_p.argmax(0, keepdim=True)
            else:
                cumulative = log_p.exp().cumsum(0)
                uniform = torch.rand(1, log_p.shape[1], generator=generator, device=log_p.device)
                # Times the total, which rounding leaves beside 1: below it, whatever it is.
                action = (cumulative <= uniform.mul_(cumulative[-1])).sum(0, keepdim=True)
            actions.append(action[0])
            log_probs.append(log_p.gather(0, action)[0])
        return torch.stack(actions, -1), _sum(log_probs)

    def assess(self, logits: Tensor, masks: Tensor | None, actions: Tensor,
               ) -> tuple[Tensor, Tensor]:
        """Log-probabilities (R,) of actions (R, H), and the distribution's entropies (R,)."""
        log_probs, entropies = [], []
        for part, log_p in enumerate(self.log_softmax(logits, masks)):
            log_probs.append(log_p.gather(0, actions[:, part].unsqueeze(0))[0])
            entropies.append(-(log_p.exp() * log_p).sum(0))
        return _sum(log_probs), _sum(entropies)

    def for_environment(self, actions: Tensor) -> np.ndarray[Any, Any]:
        """Actions (R, H) as the environment's space counts them."""
        rows = actions.cpu().numpy()
        return rows + self.starts if self.starts.any() else rows


class Gaussian(nn.Module):
    """H continuous values with a normal distribution each, for Box: a diagonal Gaussian.

    Parameters are means (H, R); the standard deviations are learned, but do not depend on the
    observation. Log-probabilities are of the actions before they are clipped to the Box.
    """

    dtype = torch.float32

    def __init__(self, space: Box) -> None:
        super().__init__()
        self.low = space.low.astype(np.float32).reshape(-1)
        self.high = space.high.astype(np.float32).reshape(-1)
        self.width = self.parts = self.low.size
        self.log_std = nn.Parameter(torch.zeros(self.width))

    def sample(self, means: Tensor, masks: Tensor | None, generator: torch.Generator | None,
               ) -> tuple[Tensor, Tensor]:
        """Actions (R, H) and their log-probabilities (R,); the means without a generator."""
        actions = means.t().contiguous()
        if generator is not None:
            noise = torch.randn(actions.shape, generator=generator, device=actions.device)
            actions = actions + noise * self.log_std.exp()
        return actions, self.assess(means, masks, actions)[0]

    def assess(self, means: Tensor, masks: Tensor | None, actions: Tensor,
               ) -> tuple[Tensor, Tensor]:
        """Log-probabilities (R,) of actions (R, H), and the distribution's entropies (R,)."""
        deviations = (actions - means.t()) * (-self.log_std).exp()
        log_std = self.log_std.sum()
        # log N(x; m, s) = -((x - m) / s)^2 / 2 - log s - log(2 pi) / 2; entropy: log s + (1 +
        # log(2 pi)) / 2; both summed over the dimensions.
        constant = 0.5 * self.width * math.log(2 * math.pi)
        log_probs = deviations.square().sum(-1) * -0.5 - log_std - constant
        return log_probs, (log_std + constant + 0.5 * self.width).expand(len(actions))

    def for_environment(self, actions: Tensor) -> np.ndarray[Any, Any]:
        """Actions (R, H) clipped to the Box."""
        clipped: np.ndarray[Any, Any] = actions.cpu().numpy().clip(self.low, self.high)
        return clipped


def distribution(space: Space[Any]) -> Categorical | Gaussian:
    """The distribution over a space's actions; TypeError for a space that has none."""
    if isinstance(space, (Discrete, MultiDiscrete)):
        return Categorical(space)
    if isinstance(space, Box):
        return Gaussian(space)
    raise TypeError(f"no distribution over actions of {space!r}; there are some for Discrete, "
                    "MultiDiscrete and Box")


def _sum(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


# ---- policies ------------------------------------------------------------------------------------

class Policy(nn.Module):
    """What the trainer asks of a policy: `act` in a rollout, `forward` in training.

    Both see where episodes begin, so that a recurrent policy can zero its state there: in `act`
    for each row, in `forward` for each step of each segment. A policy without memory ignores
    `starts`, and its state is ().

    Attributes
    ----------
    distribution: over the actions of one row.
    """

    distribution: Categorical | Gaussian

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


class MLP(Policy):
    """Hidden layers that policy and value share, and one linear layer with the outputs of both.

    Integer observations are scaled by the largest magnitude that their space allows, floats are
    taken as they are. Weights are orthogonal with gain sqrt(2), 0.01 for the action outputs and 1
    for the value; biases start at 0 (Andrychowicz et al. 2021, "What matters in on-policy
    reinforcement learning?").

    generator: draws the initial weights; None: torch's global one.
    """

    def __init__(self, observation_space: Space[Any], action_space: Space[Any], *,
                 hidden_sizes: Sequence[int] = (64, 64), activation: str = "relu",
                 generator: torch.Generator | None = None) -> None:
        super().__init__()
        if not isinstance(observation_space, Box):
            raise TypeError(f"an MLP takes observations of a Box, not of {observation_space!r}")
        self.activation = ACTIVATIONS[activation]
        self.scale = 1.0
        if observation_space.dtype.kind in "iu":
            low, high = int(observation_space.low.min()), int(observation_space.high.max())
            self.scale = 1.0 / max(-low, high, 1)
        self.distribution = distribution(action_space)
        widths = [math.prod(observation_space.shape), *hidden_sizes]
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
        x = observations.flatten(1)
        if x.dtype != torch.float32:
            x = x.float().mul_(self.scale) if self.scale != 1.0 else x.float()
        for layer in cast(Iterable[nn.Linear], self.hidden):
            # As layer(x), but for a few inputs the gradient of the weight is then several times
            # faster: it becomes x^T @ g, where that of layer(x) is g^T @ x.
            x = torch.addmm(layer.bias, x, layer.weight.t().contiguous())       # (R, hidden)
            x = self.activation(x)
        y = self.outputs(x).t().contiguous()                                    # (width + 1, R)
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
