"""Evaluation counts each environment's first episode, and nothing else."""

import json

import numpy as np
import pytest
import torch

from pufferlib_cy import make
from pufferlib_cy.envs.cartpole import CartPole
from pufferlib_cy.train import MLP, evaluate, random_policy
from pufferlib_cy.train.policies import Decision


@pytest.fixture
def policy():
    env = CartPole()
    policy = MLP(env.observation_space, env.action_space,
                 generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        policy.outputs.weight[:-1] *= 50
    return policy


def first_episodes(policy, episodes, seed):
    """Returns of one environment after the other, each alone."""
    returns = []
    for i in range(episodes):
        with make("cartpole", seed=seed + i) as vec:
            observations, _ = vec.reset()
            total, over = 0.0, False
            while not over:
                with torch.no_grad():
                    logits, _ = policy.compute(torch.from_numpy(observations))
                observations, rewards, terminations, truncations, _ = vec.step(
                    logits.argmax(0).numpy())
                total += rewards[0]
                over = terminations[0] or truncations[0]
            returns.append(total)
    return np.array(returns)


def test_the_first_episode_of_each_environment(policy):
    expected = first_episodes(policy, 12, 5)
    summary = evaluate(policy, "cartpole", 12, 5)
    assert np.ptp(expected) > 5
    assert summary.episodes == 12
    assert summary.mean_return == summary.mean_length == expected.mean()
    assert summary.std_return == pytest.approx(expected.std())
    assert (summary.min_return, summary.max_return) == (expected.min(), expected.max())
    assert json.loads(json.dumps(summary.to_json()))["mean_return"] == expected.mean()


def test_seeds_and_drawn_actions(policy):
    drawn = evaluate(policy, CartPole, 20, 1, deterministic=False)
    assert drawn == evaluate(policy, CartPole, 20, 1, deterministic=False)
    assert drawn != evaluate(policy, CartPole, 20, 1)
    assert drawn != evaluate(policy, CartPole, 20, 2, deterministic=False)


def test_several_agents(native):
    """crowd: four slots, of which three are live from the start; they live six steps at most."""
    env = native["crowd"].Crowd
    with make(env) as vec:
        policy = MLP(vec.env_observation_space, vec.env_action_space)
    summary = evaluate(policy, env, 7, 0)
    assert summary.episodes == 7
    assert 1 <= summary.mean_length <= 6


def test_slots_that_get_no_agent_are_left_out():
    """foraging without food: nobody is born, and those that are there starve."""
    env_kwargs = {"max_agents": 8, "starting": 2, "num_food": 0, "regrowth": 0}
    policy = random_policy("foraging", env_kwargs)
    summary = evaluate(policy, "foraging", 20, 0, env_kwargs=env_kwargs, deterministic=False)
    assert summary.episodes == 3 * 2
    assert summary.stats["births"].mean == 0


def own_statistics(policy, env, environments, seed):
    """Of each environment's first episode, alone and with nothing after it: (environments, names).
    """
    rows = []
    for i in range(environments):
        with make(env, seed=seed + i, autoreset="disabled") as vec:
            observations, _ = vec.reset()
            while vec.acting.any():
                decision, _ = policy.act(torch.from_numpy(observations), action_masks=None
                                         if vec.action_masks is None
                                         else torch.from_numpy(vec.action_masks))
                actions = policy.distribution.for_environment(decision.actions)
                observations = vec.step(actions)[0]
            stats = vec.episode_stats()
            rows.append([stats[name] for name in vec.stat_names])
    return np.array(rows)


@pytest.mark.parametrize(("name", "episodes", "environments"), [
    ("breakout", 6, 6), ("crowd", 21, 6)])
def test_the_environments_own_statistics_are_of_first_episodes(native, name, episodes,
                                                               environments):
    env = native["crowd"].Crowd if name == "crowd" else name
    with make(env) as vec:
        names = vec.stat_names
        policy = MLP(vec.single_observation_space, vec.single_action_space,
                     generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        policy.outputs.weight[:-1] *= 50
    expected = own_statistics(policy, env, environments, 7)
    assert expected.std(0).max() > 0.1
    summary = evaluate(policy, env, episodes, 7, target_stat=names[0])
    for name, values in zip(names, expected.T, strict=True):
        spread = summary.stats[name]
        assert spread.mean == pytest.approx(values.mean())
        assert spread.std == pytest.approx(values.std())
        assert spread.episodes == environments
    assert summary.stats["episode_return"].mean == summary.mean_return
    assert summary.stats["episode_length"].mean == summary.mean_length


def test_a_statistic_that_there_is_not(policy):
    with pytest.raises(ValueError, match="no statistic 'score', but episode_return, episode_len"):
        evaluate(policy, "cartpole", 2, 0, target_stat="score")


def test_who_watches_sees_the_first_environments_episode_to_its_end():
    """On the last picture the walker to the left stands at the edge; no new episode follows."""
    size = 5
    env = make("squared", env_kwargs={"size": size})
    left = MLP(env.single_observation_space, env.single_action_space)
    with torch.no_grad():
        left.outputs.weight.zero_()
        left.outputs.bias[3] = 1.0
    seen = []

    def watch(vec):
        seen.append(vec.ansi().split())
        return True

    summary = evaluate(left, "squared", 20, 0, env_kwargs={"size": size}, watch=watch)
    columns = [text.index("1") % size for text in seen]
    assert columns in ([2, 1, 0, 0], [2, 1], [2, 1, 0])
    assert len({text.index("2") for text in seen if "2" in text}) == 1
    seen.clear()
    assert evaluate(left, "squared", 20, 0, env_kwargs={"size": size},
                    watch=lambda vec: watch(vec) and len(seen) < 2) == summary
    assert len(seen) == 2


def test_random_actions_are_legal_and_as_likely():
    policy = random_policy("squared", {"size": 3})
    observations = torch.zeros(20_000, 9, dtype=torch.uint8)
    masks = torch.tensor([True, True, False, True, True]).expand(20_000, 5)
    decision, _ = policy.act(observations, action_masks=masks,
                             generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(decision.actions[:, 0], minlength=5)
    assert counts[2] == 0
    assert (counts[[0, 1, 3, 4]] - 5000).abs().max() < 300
    assert evaluate(random_policy("pendulum"), "pendulum", 4, 1, deterministic=False).episodes == 4


class Idle(MLP):
    """Never pulls the lever that ends an episode."""

    def act(self, observations, state=(), starts=None, **_):
        rows = len(observations)
        return Decision(torch.zeros(rows, 1, dtype=torch.int64), torch.zeros(rows),
                        torch.zeros(rows)), ()


def test_limits():
    env = CartPole()
    idle = Idle(env.observation_space, env.action_space)
    with pytest.raises(RuntimeError, match="2 of 2 episodes have not ended after 3 steps"):
        evaluate(idle, "cartpole", 2, 0, max_steps=3)
    with pytest.raises(ValueError, match="episodes: expected at least 1, got 0"):
        evaluate(idle, "cartpole", 0, 0)
