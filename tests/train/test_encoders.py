"""Encoders of observations, each against its features written out in a row."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple

from pufferlib_cy import SpaceError, SpaceTree
from pufferlib_cy.train.encoders import (
    Choices,
    Convolutions,
    Indicators,
    Normalised,
    Numbers,
    ObservationEncoder,
    leaf_encoder,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def box(low, high, shape, dtype):
    return Box(low, high, shape, dtype)


@pytest.mark.parametrize(("space", "kind", "encoder", "width"), [
    (box(-1, 1, (3, 4), np.float32), "auto", Numbers, 12),
    (box(-1, 1, (), np.float64), "auto", Numbers, 1),
    (box(0, 255, (84, 84, 3), np.uint8), "auto", Convolutions, 32 * 9 * 9),
    (box(0, 255, (4, 84, 84), np.uint8), "auto", Convolutions, 32 * 9 * 9),
    (box(0, 255, (16, 20, 1), np.uint8), "auto", Convolutions, 32 * 3 * 4),
    (box(0, 255, (15, 20, 1), np.uint8), "auto", Numbers, 300),
    (box(0, 255, (84, 84, 3), np.float32), "auto", Numbers, 84 * 84 * 3),
    (box(0, 255, (84, 84, 3), np.uint8), "flat", Numbers, 84 * 84 * 3),
    (box(0, 2, (121,), np.uint8), "auto", Indicators, 2 * 121),
    (box(0, 2, (121,), np.uint8), "flat", Numbers, 121),
    (box(-1, 1, (3, 3), np.int64), "auto", Indicators, 27),
    (box(0, 1, (9,), np.int8), "auto", Numbers, 9),
    (box(0, 8, (9,), np.int8), "auto", Numbers, 9),
    (box(0, 8, (9,), np.int8), "one_hot", Indicators, 72),
    (box(0, 256, (9,), np.int32), "one_hot", Numbers, 9),
    (box(0, 2, (64, 65), np.int32), "auto", Numbers, 4160),
    (box(0, 2, (4,), np.uint16), "one_hot", Numbers, 4),
    (MultiBinary((2, 3)), "auto", Numbers, 6),
    (Discrete(500, start=7), "flat", Choices, 500),
    (MultiDiscrete([[2, 3], [4, 5]]), "auto", Choices, 14),
], ids=str)
def test_which_leaf_has_which_encoder(space, kind, encoder, width):
    made = leaf_encoder(space, kind, False, generator())
    assert type(made) is encoder
    assert made.width == width
    normalised = type(leaf_encoder(space, kind, True, generator()))
    can = encoder is Numbers and not isinstance(space, MultiBinary)
    assert normalised is (Normalised if can else encoder)


def one_hot(rows, values):
    """(R, D) to (R, D * values): element after element, value after value."""
    return (rows.flatten(1).long().unsqueeze(-1) == torch.tensor(values)).flatten(1).float()


def check_projection(encoder, leaves, features):
    """The projection and the gradient of the weight are those of the features' matrix product."""
    weight = torch.randn(encoder.width, 6, generator=generator(8), requires_grad=True)
    bias = torch.randn(6, generator=generator(9))
    projected = encoder.project(leaves, weight, bias)
    torch.testing.assert_close(projected, bias + features @ weight)
    downstream = torch.randn(projected.shape, generator=generator(10))
    gradient, = torch.autograd.grad(projected, weight, downstream)
    torch.testing.assert_close(gradient, features.t() @ downstream)


@pytest.mark.parametrize(("low", "high", "dtype", "values"), [
    (0, 3, torch.uint8, [1, 2, 3]), (0, 7, torch.int8, [1, 2, 3, 4, 5, 6, 7]),
    (-2, 1, torch.int64, [-2, -1, 0, 1]), (2, 4, torch.int32, [2, 3, 4])])
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_indicators(low, high, dtype, values, density):
    encoder = Indicators(10, low, high)
    rows = torch.randint(low, high + 1, (40, 2, 5), generator=generator()).to(dtype)
    rows *= torch.rand(rows.shape, generator=generator(1)) < density
    features = one_hot(rows, values) * (rows != 0).flatten(1).repeat_interleave(len(values), 1)
    check_projection(encoder, rows, features)


def test_choices():
    encoder = leaf_encoder(MultiDiscrete([3, 2, 4], start=[5, 0, -1]), "auto", False, None)
    rows = torch.tensor([[5, 0, -1], [7, 1, 2], [6, 0, 0]], dtype=torch.int32)
    features = torch.cat([one_hot(rows[:, :1], [5, 6, 7]), one_hot(rows[:, 1:2], [0, 1]),
                          one_hot(rows[:, 2:], [-1, 0, 1, 2])], 1)
    check_projection(encoder, rows, features)
    # A row without an agent is 0, which is no choice of the first element: it must not fail.
    assert encoder.project(torch.zeros(2, 3, dtype=torch.int32), torch.ones(9, 6),
                           torch.zeros(6)).tolist() == [[3.0] * 6] * 2


def test_numbers():
    rows = torch.tensor([[0, -51, 255], [102, 153, -204]], dtype=torch.int16)
    encoder = leaf_encoder(box(-200, 255, (3,), np.int16), "auto", False, None)
    check_projection(encoder, rows, rows / 255)
    floats = torch.randn(5, 2, 2, generator=generator(), dtype=torch.float64)
    check_projection(leaf_encoder(box(-9, 9, (2, 2), np.float64), "auto", False, None), floats,
                     floats.flatten(1).float())


@pytest.mark.parametrize("shape", [(20, 24, 3), (3, 20, 24), (84, 84, 1), (4, 84, 84)])
def test_convolutions(shape):
    encoder = Convolutions(shape, generator())
    images = torch.randint(256, (5, *shape), generator=generator(1)).to(torch.uint8)
    x = (images if shape[0] < shape[2] else images.permute(0, 3, 1, 2)) / 255
    first, second = (layer for layer in encoder.layers if isinstance(layer, torch.nn.Conv2d))
    stride = (4, 2) if shape[1] == 84 else (2, 2)
    for layer, step in zip((first, second), stride, strict=True):
        x = torch.conv2d(x, layer.weight, layer.bias, stride=step).relu()
    with torch.no_grad():
        weight = torch.randn(encoder.width, 6, generator=generator(2)) / encoder.width**0.5
        projected = encoder.project(images, weight, torch.ones(6))
        torch.testing.assert_close(projected, 1 + x.flatten(1) @ weight)
    other = Convolutions(shape, generator())
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), other.parameters(),
                                                 strict=True))


NESTED = Dict(
    picture=box(0, 255, (17, 19, 3), np.uint8),
    inner=Tuple((Discrete(4, start=2), box(-1, 1, (2, 2), np.float64),
                 Dict(board=box(0, 3, (5, 5), np.int8), bits=MultiBinary(3)))),
    vitals=box(-np.inf, np.inf, (3,), np.float32))


def samples(space, count, seed=0):
    space.seed(seed)
    return [space.sample() for _ in range(count)]


def flat_rows(space, sampled):
    tree = SpaceTree(space)
    return torch.from_numpy(np.stack([tree.flatten(sample) for sample in sampled]))


def test_a_tree_is_its_leaves_side_by_side():
    encoder = ObservationEncoder(NESTED, generator=generator())
    sampled = samples(NESTED, 8)
    leaves = [[sample[key] for sample in sampled] for key in ("picture", "vitals")]
    inner = list(zip(*(sample["inner"] for sample in sampled), strict=True))
    columns = [leaves[0], inner[0], inner[1], [last["board"] for last in inner[2]],
               [last["bits"] for last in inner[2]], leaves[1]]
    weight = torch.randn(encoder.width, 7, generator=generator(1))
    bias = torch.randn(7, generator=generator(2))
    expected = bias
    for part, column, rows in zip(encoder.encoders, columns, weight.split(encoder.widths),
                                  strict=True):
        expected = part.project(torch.from_numpy(np.stack(column)), rows, expected)
    with torch.no_grad():
        projected = encoder.project(flat_rows(NESTED, sampled), weight, bias)
    torch.testing.assert_close(projected, expected)
    assert sorted(type(part).__name__ for part in encoder.encoders) == [
        "Choices", "Convolutions", "Indicators", "Numbers", "Numbers", "Numbers"]


def test_a_space_without_rows():
    with pytest.raises(SpaceError, match=r"observation\['mission'\]: a Text has no fixed layout"):
        ObservationEncoder(Dict(mission=Text(9), x=Discrete(2)))


# ---- normalisation -------------------------------------------------------------------------------

def test_statistics_are_numpy_s():
    """Whatever the parts are that the rows come in, and far from 0 as well."""
    encoder = Normalised(3, 1.0)
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(1000, 3)) * [1.0, 1e-3, 1e4] + [0.0, 1e3, -5.0]).astype(np.float32)
    before = torch.from_numpy(rows[:5].copy())
    check_projection(encoder, before, before.clamp(-10, 10))
    for part in np.split(rows, [1, 2, 2, 50, 400]):
        encoder.update(torch.from_numpy(part))
    wide = rows.astype(np.float64)
    np.testing.assert_allclose(encoder.mean, wide.mean(0), rtol=1e-12)
    np.testing.assert_allclose(encoder.variance, wide.var(0), rtol=1e-9)
    assert encoder.count == 1000
    features = (wide - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-8)
    check_projection(encoder, torch.from_numpy(rows), torch.from_numpy(features).float())
    outlier = torch.tensor([[1e9, 1e3, -1e9]])
    assert encoder.features(outlier)[0, ::2].tolist() == [10.0, -10.0]


def test_integers_are_scaled_before_they_are_normalised():
    encoder = leaf_encoder(box(0, 200, (1,), np.uint8), "flat", True, None)
    encoder.update(torch.tensor([[100], [200]], dtype=torch.uint8))
    assert (encoder.mean.item(), encoder.variance.item()) == pytest.approx((0.75, 0.0625))


def test_only_numbers_of_a_tree_have_statistics():
    encoder = ObservationEncoder(NESTED, normalise=True, generator=generator())
    rows = flat_rows(NESTED, samples(NESTED, 50))
    encoder.update(rows)
    names = {name.rpartition(".")[2] for name in encoder.state_dict()}
    assert names == {"weight", "bias", "mean", "variance", "count"}
    counts = [part.count for part in encoder.encoders if isinstance(part, Normalised)]
    assert counts == [50, 50]
