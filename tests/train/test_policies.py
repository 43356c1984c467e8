"""The default policy: its layers, and its training on nested observations and hybrid actions."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, Tuple
from train.nested import Nested

from pufferlib_cy.train import MLP, TrainConfig, ppo
from pufferlib_cy.train.rollout import Rollout


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


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
@pytest.mark.parametrize("hidden_sizes", [(8,), (8, 5), (8, 5, 6)])
def test_mlp_is_layer_after_layer(activation, hidden_sizes):
    policy = MLP(Box(-1, 1, (2, 3)), Discrete(2), hidden_sizes=hidden_sizes, activation=activation)
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


def test_a_small_board_sees_values_not_magnitudes():
    """As numbers 1, 2 and 3 lie on a line; with indicators any function of them can be had."""
    space, rows = Box(0, 3, (1,), np.int8), torch.tensor([[1], [2], [3]], dtype=torch.int8)
    auto, flat = (MLP(space, Discrete(2), encoder=encoder, hidden_sizes=(1,),
                      generator=generator()) for encoder in ("auto", "flat"))
    assert auto.hidden[0].weight.shape == (1, 3)
    assert flat.hidden[0].weight.shape == (1, 1)
    torch.testing.assert_close(
        auto.encoder.project(rows, auto.hidden[0].weight.t(), auto.hidden[0].bias)[:, 0],
        auto.hidden[0].weight[0])


# ---- nested observations, hybrid actions, a population that changes ------------------------------

@pytest.fixture
def start():
    def make(horizon=12, num_agents=24, **policy):
        vec = Nested(num_agents)
        policy = MLP(vec.env_observation_space, vec.env_action_space, generator=generator(),
                     **policy)
        return vec, policy, Rollout(vec, policy, horizon, 1, torch.device("cpu"))
    return make


def test_the_fixture_is_nested_and_hybrid(start):
    vec, policy, _ = start()
    assert isinstance(vec.env_observation_space, Dict)
    assert isinstance(vec.env_action_space, Tuple)
    assert sorted(type(part).__name__ for part in policy.encoder.encoders) == [
        "Choices", "Convolutions", "Indicators", "Numbers"]


def test_what_is_stored_is_what_was_done(start):
    """Both halves of an action; and log-probabilities on unchanged weights equal the stored."""
    vec, policy, rollout = start()
    ppo.collect(rollout, policy, generator(1), ppo.Clock())
    choices, values = (np.stack(column) for column in zip(*vec.taken, strict=True))
    assert choices.dtype.kind == "i"
    np.testing.assert_array_equal(choices, rollout.actions[..., :1])
    np.testing.assert_array_equal(values, rollout.actions[..., 1:].clamp(-1, 1))
    assert np.abs(rollout.actions[..., 1:].numpy()).max() > 1        # stored as they were sampled
    rollout.estimate(0.9, 0.8)
    batch = rollout.minibatch(torch.arange(rollout.rows))
    new = policy(batch.observations, batch.actions, action_masks=batch.action_masks)
    torch.testing.assert_close(new.log_probs, batch.log_probs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(new.values, batch.values, atol=1e-5, rtol=1e-5)


def test_padding_changes_neither_loss_nor_gradient(start):
    """Equal to 1e-6 to those of the live rows alone, whatever the other rows hold."""
    _, policy, rollout = start(normalise=True)
    for _ in range(2):
        ppo.collect(rollout, policy, generator(1), ppo.Clock())
        policy.update_statistics(rollout.live_observations())
    ppo.collect(rollout, policy, generator(1), ppo.Clock())
    rollout.estimate(0.9, 0.8)
    dead = ~rollout.acting
    assert 0.1 < dead.float().mean() < 0.9
    assert (rollout.acting.any(0) & dead.any(0)).any()               # agents come and go
    rollout.advantages[dead], rollout.returns[dead], rollout.log_probs[dead] = 50.0, -90.0, -3.0
    batch = rollout.minibatch(torch.arange(rollout.rows))
    live = batch.weights > 0
    alone = batch._replace(**{
        name: getattr(batch, name).flatten(0, 1)[live].unsqueeze(0)
        for name in ("observations", "actions", "action_masks")}, **{
        name: getattr(batch, name)[live]
        for name in ("log_probs", "values", "advantages", "returns", "weights")})
    with torch.no_grad():                     # as after an update: ratios differ from 1
        policy.outputs.bias[0] += 0.3

    def outcome(batch):
        new = policy(batch.observations, batch.actions, action_masks=batch.action_masks)
        loss, losses = ppo.ppo_loss(new, batch, TrainConfig(env="nested"))
        policy.zero_grad()
        loss.backward()
        return loss.detach(), losses, torch.cat([p.grad.flatten() for p in policy.parameters()])

    for padded, bare in zip(outcome(batch), outcome(alone), strict=True):
        assert (padded - bare).abs().max() < 1e-6 * bare.abs().max().clamp(min=1.0)
    assert outcome(alone)[2].abs().max() > 1e-3


def test_statistics_count_live_rows_only_and_nothing_else_changes_them(start):
    vec, policy, rollout = start(normalise=True)
    ppo.collect(rollout, policy, generator(1), ppo.Clock())
    vitals = next(part for part in policy.encoder.encoders if hasattr(part, "mean"))
    assert vitals.count == 0                  # neither a rollout ...
    policy.update_statistics(rollout.live_observations())
    assert vitals.count == rollout.acting.sum() > 0
    seen = np.concatenate(vec.vitals_of_live)
    np.testing.assert_allclose(vitals.mean, seen.mean(0), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(vitals.variance, seen.var(0), rtol=1e-6)
    before = vitals.mean.clone()
    rollout.estimate(0.9, 0.8)                # ... nor an update or a play with the policy does
    weights = ppo.join_parameters(policy)
    ppo.update(policy, weights, torch.optim.Adam([weights]), 1e-3, rollout,
               TrainConfig(env="nested"), generator(), ppo.Clock())
    policy.act(rollout.ring[0])
    assert torch.equal(vitals.mean, before)


def test_ppo_learns_it(start):
    """Both halves of the action, from a Discrete, a board, a picture and numbers."""
    _, policy, rollout = start(horizon=16, num_agents=64, hidden_sizes=(32,))
    weights = ppo.join_parameters(policy)
    optimizer = torch.optim.Adam([weights])
    config = TrainConfig(env="nested", epochs=4, entropy_coefficient=0.0)
    play, rewards = generator(2), []
    for _ in range(25):
        ppo.collect(rollout, policy, play, ppo.Clock())
        rollout.estimate(0.0, 0.0)
        ppo.update(policy, weights, optimizer, 1e-2, rollout, config, play, ppo.Clock())
        rewards.append(rollout.rewards[rollout.acting].mean().item())
    assert rewards[-1] > rewards[0] + 1.0
