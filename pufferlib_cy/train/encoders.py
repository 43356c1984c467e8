"""Encoders: how observations, nested ones too, enter the first layer of a policy.

Every leaf of the observation space has an encoder and a share of the first layer's weights, as if
the features of all leaves stood side by side in one row. What the features are, by the setting
`encoder`:

==========================================  =======================  ===========================
leaf                                        "auto"                   else
==========================================  =======================  ===========================
uint8 Box (H, W, C) or (C, H, W) with       convolutions             as the next two lines say
H and W at least 16
integer Box of 3 to 8 values, with at most  an indicator of every    "one_hot": indicators;
4096 indicators                             value but 0              "flat": numbers
other integer Box of at most 256 values     numbers                  "one_hot": indicators
any other Box, MultiBinary                  numbers                  numbers
Discrete, MultiDiscrete                     an embedding             an embedding
==========================================  =======================  ===========================

uint16, uint32 and uint64 are always numbers. Numbers of an integer Box are scaled by the largest
magnitude that it allows, floats are taken as they are; if normalised, then both to mean 0 and
standard deviation 1. An indicator times its weight is an embedding, and the product a sum of rows
of the weight: only the rows of those that are 1 are read. A board with few stones costs less than
as numbers.

Letters: R rows, D elements of a leaf, K values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from torch import Tensor, nn
from torch.nn import functional

from pufferlib_cy import SpaceTree

Kind = Literal["auto", "flat", "one_hot"]

IMAGE_SIDE = 16               # pixels, the smallest that convolutions see
LARGE_IMAGE_SIDE = 36         # pixels, from which on they have larger kernels
FEW_VALUES = 8                # of an integer Box, which "auto" gives indicators
MOST_VALUES = 256             # of an integer Box, which "one_hot" does
MOST_INDICATORS = 4096        # of one leaf, which "auto" does not exceed
NORMALISED_BOUND = 10.0       # standard deviations, to which normalised numbers are clipped


class Encoder(nn.Module):
    """Of one leaf.

    Attributes
    ----------
    width: features, and so rows of its weight.
    """

    width: int

    def project(self, leaves: Tensor, weight: Tensor, onto: Tensor) -> Tensor:
        """``onto + features @ weight``.

        leaves: (R, *its shape). weight: (width, hidden). onto: (hidden,) or (R, hidden).
        """
        raise NotImplementedError

    def update(self, leaves: Tensor) -> None:
        """Take note of leaves (R, *its shape), for running statistics."""


class Numbers(Encoder):
    """Elements as they are, times `scale`."""

    def __init__(self, size: int, scale: float) -> None:
        super().__init__()
        self.width, self.scale = size, scale

    def features(self, leaves: Tensor) -> Tensor:
        """float32 (R, width)."""
        x = leaves.flatten(1)
        if x.dtype != torch.float32:
            x = x.float().mul_(self.scale) if self.scale != 1.0 else x.float()
        return x

    def project(self, leaves: Tensor, weight: Tensor, onto: Tensor) -> Tensor:
        return torch.addmm(onto, self.features(leaves), weight)


class Normalised(Numbers):
    """Numbers with mean 0 and standard deviation 1 over all rows taken note of so far.

    The statistics are buffers, in float64, and so a part of checkpoints; nothing but `update`
    changes them. Before the first one, numbers are as they are.
    """

    mean: Tensor              # (D,)
    variance: Tensor          # (D,)
    count: Tensor             # () rows

    def __init__(self, size: int, scale: float) -> None:
        super().__init__(size, scale)
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def features(self, leaves: Tensor) -> Tensor:
        # Two floats hold the mean to twice the digits: where it is far from 0 by the standard
        # deviation, those of one would not do.
        mean = self.mean.float()
        x = (super().features(leaves) - mean).sub_((self.mean - mean).float())
        scale = (self.variance + 1e-8).rsqrt().float()
        return x.mul_(scale).clamp_(-NORMALISED_BOUND, NORMALISED_BOUND)

    def update(self, leaves: Tensor) -> None:
        """Merge the mean and variance of the leaves with those before (Chan, Golub and LeVeque
        1979, "Updating formulae and a pairwise algorithm for computing sample variances")."""
        if not len(leaves):
            return
        variance, mean = torch.var_mean(super().features(leaves).double(), 0, correction=0)
        share = len(leaves) / (self.count + len(leaves))            # of these among all
        difference = mean - self.mean
        self.variance += share * (variance - self.variance + (1 - share) * difference.square())
        self.mean += share * difference
        self.count += len(leaves)


class Indicators(Encoder):
    """For every element and value but 0: 1 if the element has the value, else 0.

    Values are `low` to `high`. 0, mostly the empty cell of a board, is what the bias stands for.
    """

    def __init__(self, size: int, low: int, high: int) -> None:
        super().__init__()
        self.low = low or 1
        self.values = high - self.low + 1
        self.width = size * self.values

    def project(self, leaves: Tensor, weight: Tensor, onto: Tensor) -> Tensor:
        x = leaves.flatten(1)                                                   # (R, D)
        rows, elements = x.nonzero(as_tuple=True)
        indicators = elements * self.values + (x[rows, elements].long() - self.low)
        counts = torch.bincount(rows, minlength=len(x))
        return onto + functional.embedding_bag(indicators, weight, counts.cumsum(0) - counts,
                                               mode="sum")


class Choices(Encoder):
    """For every element and each of its choices: 1 if it is the one chosen, else 0."""

    starts: Tensor            # (D,) the first choice of each element
    sizes: Tensor             # (D,) how many it has
    offsets: Tensor           # (D,) features of the elements before

    def __init__(self, starts: Sequence[int], sizes: Sequence[int]) -> None:
        super().__init__()
        self.width = sum(sizes)
        for name, values in {"starts": starts, "sizes": sizes,
                             "offsets": [0, *np.cumsum(sizes)[:-1]]}.items():
            self.register_buffer(name, torch.tensor(values), persistent=False)

    def project(self, leaves: Tensor, weight: Tensor, onto: Tensor) -> Tensor:
        choices = leaves.reshape(len(leaves), -1).long() - self.starts          # (R, D)
        # A row without a live agent is 0, which need not be a choice.
        choices = choices.clamp_(min=0).minimum(self.sizes - 1)
        return onto + functional.embedding_bag(choices + self.offsets, weight, mode="sum")


class Convolutions(Encoder):
    """Two convolutions of 16 and 32 channels, as in Mnih et al. 2013 ("Playing Atari with deep
    reinforcement learning"); for small images with kernels of 3 by 3 and strides of 2.

    Images are uint8 (R, height, width, channels), or (R, channels, height, width) where the first
    side is shorter than the last; they are scaled to [0, 1].
    """

    def __init__(self, shape: Sequence[int], generator: torch.Generator | None) -> None:
        super().__init__()
        self.channels_last = shape[2] <= shape[0]
        channels, height, width = (shape[2], *shape[:2]) if self.channels_last else shape
        kernels = ((8, 4), (4, 2)) if min(height, width) >= LARGE_IMAGE_SIDE else ((3, 2), (3, 2))
        layers: list[nn.Module] = []
        for outputs, (kernel, stride) in zip((16, 32), kernels, strict=True):
            layer = nn.Conv2d(channels, outputs, kernel, stride)
            nn.init.orthogonal_(layer.weight, math.sqrt(2), generator)
            layer.bias = nn.Parameter(torch.zeros(outputs))
            layers += [layer, nn.ReLU()]
            channels, height, width = (outputs, (height - kernel) // stride + 1,
                                       (width - kernel) // stride + 1)
        self.layers = nn.Sequential(*layers)
        self.width = channels * height * width

    def project(self, leaves: Tensor, weight: Tensor, onto: Tensor) -> Tensor:
        x = leaves.permute(0, 3, 1, 2) if self.channels_last else leaves
        images = x.to(torch.float32, memory_format=torch.contiguous_format).mul_(1 / 255)
        return torch.addmm(onto, self.layers(images).flatten(1), weight)


def leaf_encoder(space: Space[Any], kind: Kind, normalise: bool,
                 generator: torch.Generator | None) -> Encoder:
    """The encoder of one leaf, by the rules at the top of this file."""
    if isinstance(space, Discrete):
        return Choices([int(space.start)], [int(space.n)])
    if isinstance(space, MultiDiscrete):
        return Choices(space.start.ravel().tolist(), space.nvec.ravel().tolist())
    if isinstance(space, MultiBinary):
        return Numbers(math.prod(space.shape), 1.0)
    assert isinstance(space, Box)
    size = math.prod(space.shape)
    numbers = Normalised if normalise else Numbers
    if space.dtype.kind not in "iu":
        return numbers(size, 1.0)
    if kind == "auto" and space.dtype == np.uint8 and _is_image(space.shape):
        return Convolutions(space.shape, generator)
    low, high = int(space.low.min()), int(space.high.max())
    values = high - low + 1
    searchable = space.dtype.kind == "i" or space.dtype == np.uint8     # by torch, for non-zeros
    if searchable and ((kind == "one_hot" and values <= MOST_VALUES) or (
            kind == "auto" and 3 <= values <= FEW_VALUES
            and size * (values - 1) <= MOST_INDICATORS)):
        return Indicators(size, low, high)
    return numbers(size, 1.0 / max(-low, high, 1))


def _is_image(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and min(shape[1], max(shape[0], shape[2])) >= IMAGE_SIDE


class ObservationEncoder(nn.Module):
    """All leaves of one agent's observations, and the features of all of them.

    space: as the environment declares it: a Box, or whatever `SpaceTree` takes.
    kind, normalise: see the top of this file.

    Raises SpaceError, naming the leaf, for a space that has no rows.
    """

    def __init__(self, space: Space[Any], kind: Kind = "auto", normalise: bool = False,
                 generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.tree = None if isinstance(space, Box) else SpaceTree(space)
        spaces = [space] if self.tree is None else [leaf.space for leaf in self.tree.leaves]
        self.encoders = nn.ModuleList(leaf_encoder(leaf, kind, normalise, generator)
                                      for leaf in spaces)
        self.widths = [encoder.width for encoder in self._encoders()]
        self.width = sum(self.widths)

    def project(self, observations: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """``bias + features @ weight``, (R, hidden), of rows (R, ...) as a vector environment has
        them; weight: (width, hidden), bias: (hidden,)."""
        x = bias
        # A split costs an operation, and one more in the backward pass.
        parts = weight.split(self.widths) if len(self.widths) > 1 else [weight]
        for (encoder, leaf), part in zip(self._leaves(observations), parts, strict=True):
            x = encoder.project(leaf, part, x)
        return x

    @torch.no_grad()
    def update(self, observations: Tensor) -> None:
        """Take note of observations (R, ...), for running statistics."""
        for encoder, leaf in self._leaves(observations):
            encoder.update(leaf)

    def _encoders(self) -> Iterator[Encoder]:
        for encoder in self.encoders:
            assert isinstance(encoder, Encoder)
            yield encoder

    def _leaves(self, observations: Tensor) -> Iterator[tuple[Encoder, Tensor]]:
        leaves = ([observations] if self.tree is None
                  else _tensors(self.tree.unflatten(observations)))
        return zip(self._encoders(), leaves, strict=True)


def _tensors(nested: Any) -> list[Tensor]:
    """The leaves of nested dicts and tuples, in order."""
    if isinstance(nested, Tensor):
        return [nested]
    children = nested.values() if isinstance(nested, dict) else nested
    return [leaf for child in children for leaf in _tensors(child)]
