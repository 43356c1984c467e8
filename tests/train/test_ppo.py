"""The losses against the oracle, and whole training runs."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from train import oracle

from pufferlib_cy.envs.squared import Squared
from pufferlib_cy.train import (
    NonFiniteError,
    Spread,
    TrainConfig,
    checkpoint,
    evaluate,
    load_config,
    ppo,
    train,
)
from pufferlib_cy.train.log import Episodes
from pufferlib_cy.train.report import PHASES


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def uniform_weights(rows):
    return torch.full((rows,), 1 / rows)


# ---- losses --------------------------------------------------------------------------------------

@pytest.mark.parametrize(("ratio", "advantage", "dual_clip", "loss"), [
    (1.1, 2.0, 3.0, -2.2),        # inside the clip
    (1.5, 2.0, 3.0, -2.4),        # clipped at 1.2
    (0.5, 2.0, 3.0, -1.0),        # a gain may be given up
    (0.5, -2.0, 3.0, 1.6),        # clipped at 0.8
    (2.0, -2.0, 3.0, 4.0),        # a loss counts in full ...
    (9.0, -2.0, 3.0, 6.0),        # ... up to the dual clip
    (9.0, -2.0, None, 18.0),
])
def test_policy_loss_in_numbers(ratio, advantage, dual_clip, loss):
    args = torch.tensor([ratio]), torch.tensor([advantage])
    assert ppo.policy_loss(*args, uniform_weights(1), 0.2, dual_clip).item() == pytest.approx(loss)
    assert oracle.policy_loss([ratio], [advantage], 0.2, dual_clip) == pytest.approx(loss)


@pytest.mark.parametrize("dual_clip", [3.0, None])
def test_policy_loss_and_its_gradient_are_the_papers(dual_clip):
    ratios = torch.exp(torch.randn(500, generator=generator(1)))
    advantages = torch.randn(500, generator=generator(2))
    mine, theirs = ratios.clone().requires_grad_(), ratios.clone().requires_grad_()
    loss = ppo.policy_loss(mine, advantages, uniform_weights(500), 0.2, dual_clip)
    expected = oracle.policy_loss(ratios.tolist(), advantages.tolist(), 0.2, dual_clip)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    objective = torch.min(theirs * advantages, theirs.clamp(0.8, 1.2) * advantages)
    if dual_clip is not None:
        dual = torch.max(objective, dual_clip * advantages)
        objective = torch.where(advantages < 0, dual, objective)
    loss.backward()
    (-objective.mean()).backward()
    torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("clip", [None, 0.3])
def test_value_loss(clip):
    values, old_values, returns = torch.randn(3, 200, generator=generator())
    loss = ppo.value_loss(values, old_values, returns, uniform_weights(200), clip)
    expected = oracle.value_loss(values.tolist(), old_values.tolist(), returns.tolist(), clip)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_advantages_are_normalised_over_live_rows():
    weights = torch.tensor([0.25, 0.0, 0.25, 0.25, 0.25])
    advantages = torch.tensor([1.0, 1e9, 2.0, 4.0, 9.0])
    live = advantages[weights > 0]
    expected = (live - live.mean()) / live.std(correction=0)
    torch.testing.assert_close(ppo.normalise(advantages, weights)[weights > 0], expected)


@pytest.mark.parametrize("env", ["crowd", "foraging"])
@pytest.mark.parametrize("value_clip", [None, 0.1])
def test_rows_that_do_not_act_have_no_part_in_the_gradient(rollouts, collect, value_clip, env):
    """Loss and gradient are those of the live rows alone, whatever the others hold."""
    policy, rollout = rollouts(env, horizon=12, num_envs=16)
    collect(policy, rollout)
    collect(policy, rollout)
    dead = ~rollout.acting
    assert 0.1 < dead.float().mean() < 0.9
    rollout.advantages[dead], rollout.returns[dead], rollout.log_probs[dead] = 50.0, -90.0, -3.0
    config = TrainConfig(env=env, value_clip=value_clip)
    batch = rollout.minibatch(torch.arange(rollout.rows))

    def loss_and_gradient(batch):
        with torch.no_grad():                 # as after an update: ratios differ from 1
            policy.outputs.bias[0] += 0.3
        new = policy(batch.observations, batch.actions, action_masks=batch.action_masks)
        loss, _ = ppo.ppo_loss(new, batch, config)
        policy.zero_grad()
        loss.backward()
        with torch.no_grad():
            policy.outputs.bias[0] -= 0.3
        return torch.cat([loss.detach().view(1), *(p.grad.flatten() for p in policy.parameters())])

    live = batch.weights > 0
    alone = batch._replace(**{
        name: getattr(batch, name).flatten(0, 1)[live].unsqueeze(0)
        for name in ("observations", "actions", "action_masks")
        if getattr(batch, name) is not None}, **{
        name: getattr(batch, name)[live]
        for name in ("log_probs", "values", "advantages", "returns", "weights")})
    expected = loss_and_gradient(alone)
    difference = (loss_and_gradient(batch) - expected).abs()
    assert difference[0] < 1e-6 * expected[0].abs().clamp(min=1.0)
    assert difference[1:].max() < 1e-6 * expected[1:].abs().max().clamp(min=1.0)
    assert expected[1:].abs().max() > 1e-3


def test_an_update_is_adam_on_the_clipped_gradient(rollouts, collect):
    """Joining the parameters changes nothing: one pass is that of a plain torch optimizer."""
    config = TrainConfig(env="cartpole", minibatches=2, max_grad_norm=0.1)
    results = []
    for joined in (True, False):
        policy, rollout = rollouts("cartpole", horizon=8, num_envs=32)
        ppo.collect(rollout, policy, generator(), ppo.Clock())
        rollout.estimate(0.99, 0.95)
        if joined:
            weights = ppo.join_parameters(policy)
            optimizer = torch.optim.Adam([weights], eps=1e-5)
            losses = ppo.update(policy, weights, optimizer, 1e-2, rollout, config, generator(),
                                ppo.Clock())
            assert tuple(losses) == ppo.LOSSES
            assert all(map(math.isfinite, losses.values()))
        else:
            optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2, eps=1e-5)
            for segments in torch.randperm(32, generator=generator()).tensor_split(2):
                batch = rollout.minibatch(segments)
                loss, _ = ppo.ppo_loss(policy(batch.observations, batch.actions), batch, config)
                optimizer.zero_grad()
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.1)
                assert norm > 0.1
                optimizer.step()
        results.append([p.detach().clone() for p in policy.parameters()])
    for mine, plain in zip(*results, strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-5, rtol=1e-4)


def test_the_first_tensor_that_is_not_finite_is_named(rollouts, collect):
    policy, rollout = rollouts("cartpole")
    weights = ppo.join_parameters(policy)
    optimizer = torch.optim.Adam([weights])
    before = weights.detach().clone()
    collect(policy, rollout)

    def update():
        config = TrainConfig(env="cartpole", minibatches=1)
        ppo.update(policy, weights, optimizer, 1e-3, rollout, config, generator(), ppo.Clock())

    rollout.rewards[2, 3] = math.nan
    rollout.estimate(0.99, 0.95)
    with pytest.raises(NonFiniteError, match="the environment's rewards became NaN"):
        update()
    rollout.rewards[2, 3] = 0.0
    rollout.estimate(0.99, 0.95)
    rollout.ring[rollout.slot(1), 0, 2] = math.inf
    with pytest.raises(NonFiniteError, match="the environment's observations became NaN"):
        update()
    assert torch.equal(weights, before)
    with torch.no_grad():
        policy.hidden[0].weight[0, 0] = math.nan
    with pytest.raises(NonFiniteError, match="log-probabilities at step 0"):
        collect(policy, rollout)


# ---- whole runs ----------------------------------------------------------------------------------

@pytest.fixture
def config(tmp_path):
    return TrainConfig(env="cartpole", num_envs=32, horizon=16, minibatches=2,
                       total_timesteps=4096, evaluation_episodes=5, checkpoint_dir=tmp_path)


def weights_of(summary):
    return (checkpoint.Path(summary.checkpoint) / checkpoint.WEIGHTS).read_bytes()


@pytest.mark.parametrize("changes", [
    {}, {"env": "foraging", "num_envs": 4, "normalize_observations": True},
    {"env": "squared", "epochs": 3, "value_clip": 0.2, "activation": "tanh"},
    {"num_envs": 600, "backend": "threads", "num_workers": 3, "total_timesteps": 20_000}])
def test_same_config_same_bytes(config, changes):
    config = dataclasses.replace(config, **changes)
    first = train(config)
    torch.randn(3), np.random.default_rng().random()
    assert weights_of(train(config)) == weights_of(first)
    assert weights_of(train(dataclasses.replace(config, seed=2))) != weights_of(first)


def test_backends_give_the_same_bytes(config):
    config = dataclasses.replace(config, backend="serial")
    weights = weights_of(train(config))
    for backend in ("threads", "processes"):
        other = dataclasses.replace(config, backend=backend, num_workers=3)
        assert weights_of(train(other)) == weights, backend


def test_summary_and_reports(config):
    reports = []
    summary = train(dataclasses.replace(config, log_interval=0.0, target_return=99.0,
                                        total_timesteps=4000),
                    lambda report: reports.append(report) and None)
    said = json.loads(json.dumps(summary.to_json()))
    assert said["env"] == "cartpole"
    assert said["seed"] == 1
    assert said["solved"] is (said["evaluation"]["mean_return"] >= 99.0)
    assert said["steps"] % (32 * 16) == 0
    assert said["sps"] == said["steps"] / said["seconds"]
    assert said["evaluation"]["episodes"] == 5
    assert not said["stopped"]
    assert reports[0].steps == 512
    assert reports[-1].steps == said["steps"]
    for report in reports:
        assert report.total_steps == 4000
        assert report.sps >= 0
        assert report.memory_mb > 1
        assert tuple(report.times) == PHASES
        assert sum(report.times.values()) == pytest.approx(1.0)
        assert tuple(report.losses) == ppo.LOSSES
    for report in reports[:-1]:
        assert 0 < report.latency_us["p50"] <= report.latency_us["p99"] <= report.latency_us["max"]
    episodes = sum(report.stats["episodes"] for report in reports)
    assert episodes > 20
    assert reports[-1].remaining == 0.0
    assert sum(said["times"].values()) == pytest.approx(1.0)


def test_training_ends_when_it_was_asked_for_steps(config):
    summary = train(dataclasses.replace(config, total_timesteps=1025))
    assert summary.steps == 3 * 512
    assert summary.target_return is None
    assert summary.solved is None


def test_the_target_must_be_confirmed(config, monkeypatch):
    """Training ends early if the evaluation has the margin, and goes on if it has not."""
    config = dataclasses.replace(config, target_return=10.0)
    seeds = []

    def steps(std):
        def evaluate(policy, env, episodes, seed, **_):
            seeds.append(seed)
            return ppo.EvalSummary(episodes, 11.0, std, 0.0, 20.0, 11.0,
                                   {"episode_return": Spread(11.0, std, episodes)})

        monkeypatch.setattr(ppo, "evaluate", evaluate)
        summary = train(config)
        assert summary.solved                 # the mean of 11 is above 10 in any case
        return summary.steps

    assert steps(std=0.5) < 4096
    assert len(seeds) == 2                    # one to confirm, and the final one
    seeds.clear()
    assert steps(std=0.6) == 4096             # 3 * sqrt(2) * 0.6 / sqrt(5) > 1
    assert len(seeds) > 3
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 2**32


def test_the_target_can_be_a_statistic_of_the_environments_own(tmp_path):
    config = TrainConfig(env="breakout", env_kwargs={"max_ticks": 240}, num_envs=16, horizon=16,
                         total_timesteps=2048, evaluation_episodes=4, hidden_sizes=(4,),
                         target_stat="score", checkpoint_dir=tmp_path)
    summary = train(dataclasses.replace(config, target_return=-1.0))
    assert summary.solved
    assert summary.steps < 2048               # confirmed on the way
    assert summary.evaluation.stats["score"].mean == summary.evaluation.mean_return
    assert summary.evaluation.mean_length <= 60       # of four ticks
    assert not train(dataclasses.replace(config, target_return=1e6)).solved
    with pytest.raises(ValueError, match="has no statistic 'scor', but episode_return, episode_le"):
        train(dataclasses.replace(config, target_stat="scor"))


@pytest.mark.parametrize("who", ["should_stop", "observer"])
def test_stopping_saves_a_checkpoint(config, who):
    calls = []

    def stop(*_):
        calls.append(1)
        return len(calls) == 3

    config = dataclasses.replace(config, total_timesteps=10**9, log_interval=0.0)
    summary = train(config, should_stop=stop) if who == "should_stop" else train(config, stop)
    assert summary.stopped
    assert summary.evaluation is None
    assert summary.solved is None
    assert summary.steps == 3 * 512
    assert checkpoint.load(summary.checkpoint).steps == summary.steps


def test_checkpoints_on_the_way(config):
    summary = train(dataclasses.replace(config, checkpoint_interval=1024))
    saved = sorted(checkpoint.load(path).steps for path in config.checkpoint_dir.iterdir())
    assert saved == [1024, 2048, 3072, 4096]
    assert summary.steps == 4096


def test_torch_threads_are_put_back(config):
    before = torch.get_num_threads()
    seen = []
    config = dataclasses.replace(config, torch_threads=before + 1, log_interval=0.0)
    train(config, lambda _: seen.append(torch.get_num_threads()) or True)
    assert seen[0] == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="no environment is called 'cartpoole'"):
        train(dataclasses.replace(config, env="cartpoole"))
    assert torch.get_num_threads() == before


def test_target_kl_ends_the_epochs(config):
    """A pass that moved too far is the last one of its rollout."""
    losses = []

    def entropy(target_kl):
        changed = dataclasses.replace(config, epochs=10, learning_rate=1e-2, target_kl=target_kl,
                                      total_timesteps=512, log_interval=0.0)
        train(changed, lambda report: losses.append(report.losses["approx_kl"]) and None)
        return losses[-1]

    assert entropy(1e-9) < 0.1 * entropy(None)


def test_learning_rate_is_annealed(config):
    config = dataclasses.replace(config, learning_rate=0.1, total_timesteps=1000)
    assert ppo.anneal(config, 0) == 0.1
    assert ppo.anneal(config, 750) == pytest.approx(0.025)
    assert ppo.anneal(dataclasses.replace(config, anneal_learning_rate=False), 750) == 0.1


def test_means_over_episodes():
    episodes = Episodes(window=10)
    episodes.add({"episodes": 0.0})
    assert episodes.recent() == {"episodes": 0.0}
    for count, value in ((8, 1.0), (4, 4.0), (4, 6.0), (4, 8.0)):
        episodes.add({"episodes": count, "episode_return": value, "episode_length": 2 * value})
    # The last three are at least 10, and so the first is forgotten.
    assert episodes.recent() == {"episodes": 12.0, "episode_return": 6.0, "episode_length": 12.0}
    assert episodes.drain_interval()["episodes"] == 20.0
    assert episodes.drain_interval() == {"episodes": 0.0}
    assert episodes.fresh == 20


# ---- learning ------------------------------------------------------------------------------------

def test_bandit_is_solved(tmp_path):
    summary = train(dataclasses.replace(load_config("bandit", environ={}), checkpoint_dir=tmp_path))
    assert summary.solved
    assert summary.steps <= 500_000
    assert summary.evaluation.mean_return == pytest.approx(0.8, abs=0.06)


def test_cartpole_is_solved(tmp_path):
    summary = train(dataclasses.replace(load_config("cartpole", environ={}),
                                        checkpoint_dir=tmp_path))
    assert summary.solved
    assert summary.evaluation.mean_return >= 475


def test_squared_improves(tmp_path):
    config = dataclasses.replace(load_config("squared", environ={}), checkpoint_dir=tmp_path,
                                 total_timesteps=600_000)
    env = Squared()
    policy = checkpoint.make_policy(config, env.observation_space, env.action_space, generator())
    before = evaluate(policy, "squared", 1000, 0)
    assert train(config).evaluation.mean_return > before.mean_return + 0.3


def test_memory_needs_memory(tmp_path):
    config = dataclasses.replace(load_config("memory", environ={}), checkpoint_dir=tmp_path,
                                 total_timesteps=100_000, evaluation_episodes=1000)
    summary = train(config)
    assert abs(summary.evaluation.mean_return) < 0.2
    assert not summary.solved
