"""Distributions over actions: discrete choices, continuous values, or both in one action.

They work on tensors whose last dimension is the rows, (parameters, R): a softmax over two or five
choices then runs along whole vectors of rows, several times faster than row by row.

Letters: R rows, H parts of one action.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space, Tuple
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pufferlib_cy import ActionTree

# Actions of R rows for a vector environment: integers (R, H) or floats (R, H), or both as a pair.
ActionRows = NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]

# log(0), but finite: exp of it is exactly 0, and 0 times it is 0 and not NaN.
IMPOSSIBLE = torch.finfo(torch.float32).min


class Distribution(nn.Module):
    """What a policy asks of a distribution over actions.

    Attributes
    ----------
    width: parameters of one row, outputs of the policy.
    parts: H, of one action.
    dtype: of actions (R, H).
    """

    width: int
    parts: int
    dtype: torch.dtype

    def sample(self, parameters: Tensor, masks: Tensor | None, generator: torch.Generator | None,
               ) -> tuple[Tensor, Tensor]:
        """Actions (R, H) and their log-probabilities (R,); the most probable without a generator.

        parameters: (width, R). masks: bool (R, choices of all parts), the legal ones.
        """
        raise NotImplementedError

    def assess(self, parameters: Tensor, masks: Tensor | None, actions: Tensor,
               ) -> tuple[Tensor, Tensor]:
        """Log-probabilities (R,) of actions (R, H), and the distribution's entropies (R,)."""
        raise NotImplementedError

    def for_environment(self, actions: Tensor) -> ActionRows:
        """Actions (R, H) as a vector environment takes them."""
        raise NotImplementedError

    def require_legal(self, masks: Tensor, first_row: int = 0) -> None:
        """Raise ValueError, naming the row, where masks (R, choices) leave a part no choice.

        first_row: the number of the first of them.
        """


class Categorical(Distribution):
    """H independent discrete choices: Discrete (H = 1) and MultiDiscrete.

    Parameters are logits (choices of all parts, R). Log-probabilities and entropies are summed over
    the parts.
    """

    dtype = torch.int64

    def __init__(self, space: Discrete | MultiDiscrete) -> None:
        super().__init__()
        sizes = [space.n] if isinstance(space, Discrete) else space.nvec.ravel()
        starts = [space.start] if isinstance(space, Discrete) else space.start.ravel()
        self.sizes = [int(size) for size in sizes]
        self.starts = np.array(starts, np.int64)
        self.width = sum(self.sizes)
        self.parts = len(self.sizes)

    def log_softmax(self, logits: Tensor, masks: Tensor | None) -> list[Tensor]:
        """Log-probabilities of each part, (choices, R) each; `masks` (R, choices) bool: legal."""
        if masks is not None:
            logits = logits.masked_fill(~masks.t(), IMPOSSIBLE)
        return [functional.log_softmax(part, 0) for part in logits.split(self.sizes)]

    def sample(self, parameters: Tensor, masks: Tensor | None, generator: torch.Generator | None,
               ) -> tuple[Tensor, Tensor]:
        """Inverse of the distribution function: the first choice whose cumulative probability
        exceeds a uniform number. A choice of probability 0 adds nothing to it, and is never the
        first.
        """
        actions, log_probs = [], []
        for log_p in self.log_softmax(parameters, masks):
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

    def assess(self, parameters: Tensor, masks: Tensor | None, actions: Tensor,
               ) -> tuple[Tensor, Tensor]:
        log_probs, entropies = [], []
        for part, log_p in enumerate(self.log_softmax(parameters, masks)):
            log_probs.append(log_p.gather(0, actions[:, part].unsqueeze(0))[0])
            entropies.append(-(log_p.exp() * log_p).sum(0))
        return _sum(log_probs), _sum(entropies)

    def for_environment(self, actions: Tensor) -> NDArray[Any]:
        """Integers (R, H) as the environment's space counts them."""
        rows = actions.cpu().numpy()
        return rows + self.starts if self.starts.any() else rows

    def require_legal(self, masks: Tensor, first_row: int = 0) -> None:
        for part, legal in enumerate(masks.split(self.sizes, 1)):
            if not (some := legal.any(1)).all():
                row = first_row + int(some.logical_not().nonzero()[0])
                of = f" in part {part}" if self.parts > 1 else ""
                raise ValueError(f"action_masks: row {row} has no legal action{of}")


class Gaussian(Distribution):
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

    def sample(self, parameters: Tensor, masks: Tensor | None, generator: torch.Generator | None,
               ) -> tuple[Tensor, Tensor]:
        actions = parameters.t().contiguous()
        if generator is not None:
            noise = torch.randn(actions.shape, generator=generator, device=actions.device)
            actions = actions + noise * self.log_std.exp()
        return actions, self.assess(parameters, masks, actions)[0]

    def assess(self, parameters: Tensor, masks: Tensor | None, actions: Tensor,
               ) -> tuple[Tensor, Tensor]:
        deviations = (actions - parameters.t()) * (-self.log_std).exp()
        log_std = self.log_std.sum()
        # log N(x; m, s) = -((x - m) / s)^2 / 2 - log s - log(2 pi) / 2; entropy: log s + (1 +
        # log(2 pi)) / 2; both summed over the dimensions.
        constant = 0.5 * self.width * math.log(2 * math.pi)
        log_probs = deviations.square().sum(-1) * -0.5 - log_std - constant
        return log_probs, (log_std + constant + 0.5 * self.width).expand(len(actions))

    def for_environment(self, actions: Tensor) -> NDArray[Any]:
        """Floats (R, H) clipped to the Box."""
        clipped: NDArray[Any] = actions.cpu().numpy().clip(self.low, self.high)
        return clipped


class Hybrid(Distribution):
    """Discrete choices and continuous values in one action, independent of each other.

    Log-probabilities and entropies are the sums of those of the two. Actions are one row of floats,
    the choices first: float32 holds integers up to 2**24 exactly, more than any part has choices.
    """

    dtype = torch.float32

    def __init__(self, choices: MultiDiscrete, values: Box) -> None:
        super().__init__()
        self.choices, self.values = Categorical(choices), Gaussian(values)
        self.width = self.choices.width + self.values.width
        self.parts = self.choices.parts + self.values.parts

    def sample(self, parameters: Tensor, masks: Tensor | None, generator: torch.Generator | None,
               ) -> tuple[Tensor, Tensor]:
        logits, means = parameters.split([self.choices.width, self.values.width])
        choices, log_p = self.choices.sample(logits, masks, generator)
        values, log_density = self.values.sample(means, None, generator)
        return torch.cat((choices.float(), values), 1), log_p + log_density

    def assess(self, parameters: Tensor, masks: Tensor | None, actions: Tensor,
               ) -> tuple[Tensor, Tensor]:
        logits, means = parameters.split([self.choices.width, self.values.width])
        choices, values = self._apart(actions)
        log_p, entropy = self.choices.assess(logits, masks, choices)
        log_density, more = self.values.assess(means, None, values)
        return log_p + log_density, entropy + more

    def for_environment(self, actions: Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
        """Integers (R, parts of the choices), and floats (R, values) clipped to the Box."""
        choices, values = self._apart(actions)
        return self.choices.for_environment(choices), self.values.for_environment(values)

    def require_legal(self, masks: Tensor, first_row: int = 0) -> None:
        self.choices.require_legal(masks, first_row)

    def _apart(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        choices, values = actions.split([self.choices.parts, self.values.parts], 1)
        return choices.long(), values


def distribution(space: Space[Any]) -> Distribution:
    """The distribution over the actions of an environment's space, nested ones too.

    Raises SpaceError, naming the leaf, for a space that has no rows.
    """
    flat = ActionTree(space).flat_space
    if isinstance(flat, Tuple):
        choices, values = flat.spaces
        assert isinstance(choices, MultiDiscrete)
        assert isinstance(values, Box)
        return Hybrid(choices, values)
    if isinstance(flat, Box):
        return Gaussian(flat)
    assert isinstance(flat, (Discrete, MultiDiscrete))
    return Categorical(flat)


def _sum(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
