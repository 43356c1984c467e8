"""Distributions over actions, against torch's own."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple
from torch import distributions
from train import oracle

from pufferlib_cy import ActionTree, SpaceError
from pufferlib_cy.train.distributions import Categorical, Gaussian, Hybrid, distribution


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("space", [Discrete(5), MultiDiscrete([2, 3, 4])])
def test_categorical_is_torch_s(space):
    head = Categorical(space)
    logits = 3 * torch.randn(head.width, 50, generator=generator())
    actions, log_probs = head.sample(logits, None, generator(1))
    assert actions.shape == (50, head.parts)
    parts = [distributions.Categorical(logits=part.t()) for part in logits.split(head.sizes)]
    expected = sum(part.log_prob(actions[:, i]) for i, part in enumerate(parts))
    torch.testing.assert_close(log_probs, expected)
    assessed, entropies = head.assess(logits, None, actions)
    torch.testing.assert_close(assessed, expected)
    torch.testing.assert_close(entropies, sum(part.entropy() for part in parts))


def test_gaussian_is_torch_s():
    head = Gaussian(Box(-1.0, 1.0, (3,)))
    with torch.no_grad():
        head.log_std.copy_(torch.tensor([-1.0, 0.0, 0.5]))
    means = torch.randn(3, 50, generator=generator())
    actions, log_probs = head.sample(means, None, generator(1))
    normal = distributions.Normal(means.t(), head.log_std.exp())
    torch.testing.assert_close(log_probs, normal.log_prob(actions).sum(-1))
    assessed, entropies = head.assess(means, None, actions)
    torch.testing.assert_close(assessed, log_probs)
    torch.testing.assert_close(entropies, normal.entropy().sum(-1))


def test_hybrid_is_the_sum_of_both():
    head = distribution(Tuple((Discrete(3), Box(-1.0, 1.0, (2,)), MultiBinary(1))))
    assert isinstance(head, Hybrid)
    assert (head.width, head.parts, head.dtype) == (3 + 2 + 2, 2 + 2, torch.float32)
    with torch.no_grad():
        head.values.log_std.copy_(torch.tensor([-1.0, 0.5]))
    parameters = torch.randn(head.width, 50, generator=generator())
    masks = torch.rand(50, 5, generator=generator(3)) < 0.5
    masks[:, [0, 3]] = True
    logits = parameters[:5].masked_fill(~masks.t(), -torch.inf)
    parts = [distributions.Categorical(logits=logits[:3].t()),
             distributions.Categorical(logits=logits[3:].t()),
             distributions.Independent(
                 distributions.Normal(parameters[5:].t(), head.values.log_std.exp()), 1)]
    actions, log_probs = head.sample(parameters, masks, generator(1))
    assert actions.shape == (50, 4)
    assert actions.dtype == head.dtype
    expected = sum(part.log_prob(action) for part, action in zip(
        parts, (actions[:, 0], actions[:, 1], actions[:, 2:]), strict=True))
    torch.testing.assert_close(log_probs, expected)
    assessed, entropies = head.assess(parameters, masks, actions)
    torch.testing.assert_close(assessed, expected)
    torch.testing.assert_close(entropies, sum(part.entropy() for part in parts))
    likely, _ = head.sample(parameters, masks, None)
    assert torch.equal(likely[:, 0], logits[:3].argmax(0).float())
    assert torch.equal(likely[:, 2:], parameters[5:].t())


TREES = [
    Discrete(4, start=-2), MultiDiscrete([2, 5], start=[3, 0]), Box(-2.0, 3.0, (2, 2)),
    MultiBinary(3), MultiDiscrete([[2, 3], [4, 5]]),
    Dict(move=Discrete(3, start=1), turn=Tuple((MultiBinary(2), Discrete(2)))),
    Dict(a=Box(0.0, 1.0, (2,)), b=Box(-5.0, 5.0, (1,))),
    Tuple((Box(-1.0, 1.0, (2,)), Dict(b=Discrete(3, start=7), c=Box(0.0, 4.0, ())),
           MultiBinary((2, 2)))),
]


@pytest.mark.parametrize("space", TREES, ids=str)
def test_a_head_for_every_tree(space):
    """What is drawn is, once the tree has read it, in the space, and not always the same."""
    head, tree = distribution(space), ActionTree(space)
    parameters = torch.randn(head.width, 200, generator=generator())
    rows = head.for_environment(head.sample(parameters, None, generator(1))[0].detach())
    if not isinstance(rows, tuple):
        rows = (rows, None) if tree.heads else (None, rows)
    discrete, continuous = (None if part is None else part.astype(kind) for part, kind in
                            zip(rows, (np.int32, np.float32), strict=True))
    taken = []
    for i in range(200):
        action = tree.read(None if discrete is None else discrete[i],
                           None if continuous is None else continuous[i])
        assert space.contains(action)
        taken.append(str(action))
    assert len(set(taken)) > 2


def test_a_space_without_rows():
    with pytest.raises(SpaceError, match=r"action\['say'\]: a Text has no fixed layout"):
        distribution(Dict(say=Text(3)))


def test_choices_are_drawn_as_often_as_they_are_probable():
    logits = [1.0, -2.0, 0.5, 0.0]
    head = Categorical(Discrete(4))
    rows = torch.tensor(logits).unsqueeze(1).expand(4, 100_000)
    actions, _ = head.sample(rows, None, generator())
    frequencies = np.bincount(actions[:, 0].numpy(), minlength=4) / 100_000
    # Five standard deviations of a frequency are at most 0.008.
    np.testing.assert_allclose(frequencies, oracle.softmax(logits), atol=0.008)


def test_the_most_probable_action_without_a_generator():
    head = Categorical(MultiDiscrete([3, 2]))
    logits = torch.tensor([[0.0], [2.0], [1.0], [5.0], [4.0]])
    assert head.sample(logits, None, None)[0].tolist() == [[1, 0]]
    means = torch.tensor([[0.3], [-4.0]])
    assert Gaussian(Box(-1, 1, (2,))).sample(means, None, None)[0].tolist() == means.t().tolist()


def test_illegal_actions_have_probability_zero():
    """Exactly, even against logits that favour them beyond reason, and the gradient stays finite.
    """
    head = Categorical(MultiDiscrete([3, 2]))
    masks = torch.tensor([[True, False, True, False, True]]).expand(20_000, 5)
    logits = torch.zeros(5, 20_000)
    logits[1], logits[3] = 1e4, 1e30
    logits.requires_grad_()
    first, second = head.log_softmax(logits, masks)
    assert (first.exp()[1] == 0.0).all()
    assert (second.exp()[0] == 0.0).all()
    actions, log_probs = head.sample(logits.detach(), masks, generator())
    assert sorted(actions[:, 0].unique().tolist()) == [0, 2]
    assert actions[:, 1].unique().tolist() == [1]
    torch.testing.assert_close(log_probs.exp(), torch.full((20_000,), 0.5))
    assessed, entropies = head.assess(logits, masks, actions)
    torch.testing.assert_close(entropies, torch.full((20_000,), np.log(2.0), dtype=torch.float32))
    (assessed.sum() + entropies.sum()).backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[1] == 0.0).all()
    assert (logits.grad[3] == 0.0).all()


@pytest.mark.parametrize("hybrid", [False, True])
def test_a_million_draws_and_none_illegal(hybrid):
    """Under all masks there are and logits of every size; in the update as well, probability 0."""
    space = MultiDiscrete([7, 3])
    head = distribution(Tuple((space, Box(-1.0, 1.0, (1,)))) if hybrid else space)
    rows, draw = 500_000, generator(5)
    logits = torch.randn(head.width, rows, generator=draw)
    logits *= 10 ** (6 * torch.rand(rows, generator=draw) - 3)
    masks = torch.rand(rows, 10, generator=draw) < torch.rand(rows, 1, generator=draw)
    for part in masks.split([7, 3], 1):           # at least one choice each, wherever it is
        part.scatter_(1, torch.randint(part.shape[1], (rows, 1), generator=draw), True)
    assert (masks.sum(1) == 2).float().mean() > 0.1
    actions, log_probs = head.sample(logits, masks, draw)              # two choices a row
    choices = actions[:, :2].long() + torch.tensor([0, 7])
    assert masks.gather(1, choices).all()
    assert log_probs.isfinite().all()
    categorical = head.choices if hybrid else head
    illegal = ~masks.t()
    probabilities = torch.cat(categorical.log_softmax(logits[:10], masks)).exp()
    assert (probabilities[illegal] == 0.0).all()
    assert (probabilities[:, :1000].sum(0) - 2).abs().max() < 1e-5
    # An illegal action assessed, as no rollout stores one, has no probability either.
    taken = actions[:1000].clone()
    taken[:, 0] = (~masks[:1000, :7]).float().argmax(1)
    forbidden = ~masks[:1000, :7].gather(1, taken[:, :1].long())[:, 0]
    assert forbidden.sum() > 100
    assert (head.assess(logits[:, :1000], masks[:1000], taken)[0][forbidden].exp() == 0.0).all()


def test_the_smallest_and_the_largest_uniform_number_draw_what_is_legal(monkeypatch):
    """At both ends of the distribution function, too, where illegal choices lie."""
    head = Categorical(Discrete(4))
    masks = torch.tensor([[False, True, True, False]]).expand(1000, 4)
    logits = torch.randn(4, 1000, generator=generator())
    for uniform, expected in ((0.0, 1), (1 - 2**-24, 2)):
        monkeypatch.setattr(torch, "rand", lambda *shape, u=uniform, **_: torch.full(shape, u))
        assert head.sample(logits, masks, generator())[0].unique().tolist() == [expected]


def test_a_row_without_a_legal_choice_in_a_part():
    masks = torch.ones(4, 5, dtype=torch.bool)
    space = MultiDiscrete([3, 2])
    for head in (Categorical(space), Hybrid(space, Box(0.0, 1.0, (1,)))):
        head.require_legal(masks)
        without = masks.clone()
        without[2, 3:] = False
        with pytest.raises(ValueError, match="row 2 has no legal action in part 1"):
            head.require_legal(without)
    with pytest.raises(ValueError, match=r"row 0 has no legal action$"):
        Categorical(Discrete(5)).require_legal(~masks)


def test_actions_as_the_environment_counts_them():
    actions = torch.tensor([[0], [2]])
    assert Categorical(Discrete(3, start=5)).for_environment(actions).tolist() == [[5], [7]]
    head = Categorical(MultiDiscrete([3, 3], start=[1, -1]))
    assert head.for_environment(torch.tensor([[0, 2]])).tolist() == [[1, 1]]
    box = Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 9.0], np.float32))
    assert Gaussian(box).for_environment(torch.tensor([[-3.0, 4.0]])).tolist() == [[-1.0, 4.0]]
    both = Hybrid(MultiDiscrete([3, 3], start=[1, -1]), box)
    discrete, continuous = both.for_environment(torch.tensor([[0.0, 2.0, 0.5, 12.0]]))
    assert discrete.tolist() == [[1, 1]]
    assert discrete.dtype.kind == "i"
    assert continuous.tolist() == [[0.5, 9.0]]
    assert continuous.dtype == np.float32
