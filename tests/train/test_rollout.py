"""Rollout storage: whose memory, which rows, what is bootstrapped, what counts."""

import numpy as np
import pytest
import torch
from train import oracle

from pufferlib_cy import make
from pufferlib_cy.envs.cartpole import CartPole
from pufferlib_cy.train import MLP
from pufferlib_cy.train.rollout import Rollout

ENVS = ["cartpole", "squared", "crowd", "continuous", "foraging"]


def play(rollout, policy, generator):
    """A rollout step by step; copies of what the vector environment gave at each step."""
    vec, seen = rollout.vec, []
    rollout.begin()
    with torch.inference_mode():
        for t in range(rollout.horizon):
            observations, action_masks, starts = rollout.observe(t)
            decision, _ = policy.act(observations, (), starts, action_masks=action_masks,
                                     generator=generator)
            before = [observations.numpy().copy(), vec.acting.copy(), decision]
            result = vec.step(rollout.store(t, decision))
            rollout.advance(t, result[2], result[3])
            seen.append((*before, [a.copy() for a in result[1:4]], vec.final_observations.copy()))
    rollout.estimate(0.9, 0.8)
    return seen


def test_no_copy_between_the_environment_and_the_minibatches(rollouts, collect):
    """What vec.step returns is the memory that `minibatch` gathers from, in every rollout."""
    policy, rollout = rollouts("cartpole", horizon=5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(7):                        # more than once round the ring
        rollout.begin()
        for t in range(5):
            observations, *_ = rollout.observe(t)
            assert observations.data_ptr() == rollout.ring[rollout.slot(t)].data_ptr()
            with torch.inference_mode():
                actions = rollout.store(t, policy.act(observations, generator=generator)[0])
            stepped = rollout.vec.step(actions)
            arrays = (rollout.ring[rollout.slot(t + 1)], rollout.rewards[t],
                      rollout.terminations[t], rollout.truncations[t])
            for given, stored in zip(stepped[:4], arrays, strict=True):
                assert given.ctypes.data == stored.data_ptr()
                assert given.shape == stored.shape
            rollout.advance(t, stepped[2], stepped[3])
    segments = torch.tensor([4, 1])
    before = rollout.minibatch(segments).observations.clone()
    rollout.vec.step(actions)                 # overwrites the oldest slot only: step 0 of 5
    after = rollout.minibatch(segments).observations
    assert torch.equal(after[1:], before[1:])
    assert not torch.equal(after[0], before[0])


@pytest.mark.parametrize("env", ENVS)
def test_minibatches_hold_what_happened(rollouts, env):
    """Every row and step of several rollouts, in the rows' order given."""
    policy, rollout = rollouts(env, horizon=6, num_envs=5)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(rollout.rows, generator=generator)
    ended = np.ones(rollout.rows, np.bool_)
    for _ in range(9):
        seen = play(rollout, policy, generator)
        for segments in order.tensor_split(2):
            batch = rollout.minibatch(segments)
            flat = [column.view(6, -1) for column in batch[5:]]
            weights = flat[-1]
            live = np.stack([acting for _, acting, *_ in seen])[:, segments]
            np.testing.assert_array_equal(weights > 0, live)
            np.testing.assert_allclose(weights[live], 1 / live.sum(), rtol=1e-6)
            for t, (observations, _, decision, *_) in enumerate(seen):
                np.testing.assert_array_equal(batch.observations[t], observations[segments])
                assert torch.equal(batch.actions[t], decision.actions[segments])
                assert torch.equal(flat[0][t], decision.log_probs[segments])
                assert torch.equal(flat[1][t], decision.values[segments])
                torch.testing.assert_close(flat[3][t], flat[1][t] + flat[2][t])
        for t, (_, acting, _, (_, terminations, truncations), _) in enumerate(seen):
            np.testing.assert_array_equal(rollout.starts[t], ended)
            ended = terminations | truncations | ~acting
        assert rollout.live_steps == sum(acting.sum() for _, acting, *_ in seen)


@pytest.mark.parametrize("env", ENVS)
def test_log_probs_on_unchanged_weights_equal_the_stored_ones(rollouts, collect, env):
    policy, rollout = rollouts(env, horizon=16, num_envs=9)
    for _ in range(3):
        collect(policy, rollout)
        batch = rollout.minibatch(torch.arange(rollout.rows))
        new = policy(batch.observations, batch.actions, batch.state, batch.starts,
                     action_masks=batch.action_masks)
        assert new.log_probs.std() > 0.01
        torch.testing.assert_close(new.log_probs, batch.log_probs, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(new.values, batch.values, atol=1e-5, rtol=1e-5)


def test_truncations_bootstrap_from_the_final_observation():
    with make(CartPole, 4, env_kwargs={"max_steps": 5}) as vec:
        policy = MLP(vec.env_observation_space, vec.env_action_space,
                     generator=torch.Generator().manual_seed(0))
        rollout = Rollout(vec, policy, 12, 1, torch.device("cpu"))
        seen = play(rollout, policy, torch.Generator().manual_seed(0))
        rewards, terminations, truncations = (
            np.stack(columns) for columns in zip(*(step[3] for step in seen), strict=True))
        assert truncations.sum() == 8
        assert not terminations.any()
        with torch.no_grad():
            values = np.stack([policy.value(torch.from_numpy(step[0])).numpy() for step in seen]
                              + [policy.value(rollout.ring[rollout.slot(12)]).numpy()])
            final_values = np.stack([policy.value(torch.from_numpy(step[4])).numpy()
                                     for step in seen])
        assert not np.allclose(final_values[truncations], values[1:][truncations], atol=1e-3)
        expected = oracle.gae(rewards, values, terminations, truncations, final_values, 0.9, 0.8)
        np.testing.assert_allclose(rollout.advantages, expected, rtol=1e-4, atol=1e-4)


def test_a_row_without_a_legal_action(rollouts):
    _, rollout = rollouts("crowd")
    rollout.begin()
    rollout.action_masks[rollout.slot(0), 3] = False
    with pytest.raises(ValueError, match="action_masks: row 3 has no legal action"):
        rollout.observe(0)


def test_masks_of_python_environments(rollouts):
    """They are there if an environment gives some: those of Village leave two actions or less."""
    timetable = {"a_0": (0, 4, "terminated"), "b_1": (2, 6, "terminated")}
    policy, rollout = rollouts("toys:Village",
                               env_kwargs={"timetable": timetable, "masks": True})
    play(rollout, policy, torch.Generator().manual_seed(0))
    slots = [rollout.slot(t) for t in range(rollout.horizon)]
    assert not rollout.action_masks[slots][rollout.acting][:, 3].any()
    taken = rollout.action_masks[slots].gather(2, rollout.actions)
    assert taken[rollout.acting].all()
    _, rollout = rollouts("CartPole-v1")
    assert rollout.action_masks is None
