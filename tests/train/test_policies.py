"""Distributions and the multi-layer perceptron, against torch's own distributions."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from torch import distributions
from train import oracle

from pufferlib_cy.train.policies import MLP, Categorical, Gaussian


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


def test_actions_as_the_environment_counts_them():
    actions = torch.tensor([[0], [2]])
    assert Categorical(Discrete(3, start=5)).for_environment(actions).tolist() == [[5], [7]]
    head = Categorical(MultiDiscrete([3, 3], start=[1, -1]))
    assert head.for_environment(torch.tensor([[0, 2]])).tolist() == [[1, 1]]
    box = Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 9.0], np.float32))
    assert Gaussian(box).for_environment(torch.tensor([[-3.0, 4.0]])).tolist() == [[-1.0, 4.0]]


def test_initial_weights_are_orthogonal():
    policy = MLP(Box(-1, 1, (4,)), Discrete(3), hidden_sizes=(32, 16), generator=generator())
    wide, narrow = (layer.weight.detach() for layer in policy.hidden)
    torch.testing.assert_close(wide.t() @ wide, 2 * torch.eye(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(narrow @ narrow.t(), 2 * torch.eye(16), atol=1e-5, rtol=0)
    actor, critic = policy.outputs.weight.detach().split([3, 1])
    torch.testing.assert_close(actor @ actor.t(), 1e-4 * torch.eye(3), atol=1e-8, rtol=0)
    torch.testing.assert_close(critic @ critic.t(), torch.ones(1, 1))
    assert not any(layer.bias.any() for layer in (*policy.hidden, policy.outputs))


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_mlp_is_layer_after_layer(activation):
    policy = MLP(Box(-1, 1, (2, 3)), Discrete(2), hidden_sizes=(8, 5), activation=activation)
    observations = torch.randn(7, 2, 3)
    x = observations.flatten(1)
    for layer in policy.hidden:
        x = getattr(torch, activation)(layer(x))
    expected = policy.outputs(x)
    parameters, values = policy.compute(observations)
    torch.testing.assert_close(parameters, expected[:, :2].t())
    torch.testing.assert_close(values, expected[:, 2])


def test_integer_observations_are_scaled():
    policy = MLP(Box(0, 255, (3,), np.uint8), Discrete(2), generator=generator())
    same = MLP(Box(0.0, 1.0, (3,)), Discrete(2), generator=generator())
    rows = torch.tensor([[0, 51, 255], [102, 153, 204]], dtype=torch.uint8)
    torch.testing.assert_close(policy.value(rows), same.value(rows / 255))


def test_spaces_without_a_policy():
    with pytest.raises(TypeError, match="an MLP takes observations of a Box, not of Dict"):
        MLP(Dict({}), Discrete(2))
    with pytest.raises(TypeError, match=r"no distribution over actions of MultiBinary\(3\)"):
        MLP(Box(0, 1, (2,)), MultiBinary(3))
