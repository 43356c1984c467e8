"""Staggered rollouts, and rollouts collected while others are learned from: what they hold, that
nothing depends on who comes first, and how they end."""

import dataclasses
import math
import threading
import time

import numpy as np
import psutil
import pytest
import torch

from pufferlib_cy import EnvError, VectorEnv, make
from pufferlib_cy.train import (
    MLP,
    ConfigError,
    NonFiniteError,
    TrainConfig,
    checkpoint,
    ppo,
    train,
)
from pufferlib_cy.train.log import LATENCIES, Clock

CPU = torch.device("cpu")


def generators(groups, seed=0):
    return ppo.action_generators(seed, groups, CPU)


@pytest.fixture(autouse=True)
def nothing_left():
    before = threading.active_count()
    yield
    assert threading.active_count() == before
    assert not psutil.Process().children()


@pytest.fixture
def config(tmp_path):
    return TrainConfig(env="cartpole", num_envs=32, horizon=16, minibatches=2, backend="serial",
                       total_timesteps=4096, evaluation_episodes=5, checkpoint_dir=tmp_path)


def weights_of(summary):
    return (checkpoint.Path(summary.checkpoint) / checkpoint.WEIGHTS).read_bytes()


# ---- what staggered rollouts hold ----------------------------------------------------------------

SHORT = {"env_kwargs": {"max_steps": 5}}
VILLAGE = {"env_kwargs": {"masks": True, "timetable": {
    "a_0": (0, 4, "terminated"), "b_1": (2, 6, "truncated")}}}


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize(("env", "kwargs"), [
    ("cartpole", SHORT), ("squared", {}), ("crowd", {}), ("continuous", {}), ("foraging", {}),
    ("toys:Village", VILLAGE), ("toys:Village", VILLAGE | {"backend": "processes"})])
def test_rows_are_those_of_a_synchronous_vector(rollouts, env, kwargs, overlap):
    """The stored actions, played again with all environments at once, give every stored row."""
    policy, rollout = rollouts(env, horizon=6, num_envs=6, batch_size=2, overlap=overlap,
                               **{"backend": "threads", "num_workers": 3} | kwargs)
    _, replay = rollouts(env, horizon=6, num_envs=6, **kwargs | {"backend": "serial"})
    play = generators(3)
    truncated = 0
    for _ in range(5):
        ppo.collect_staggered(rollout, policy, play, Clock())
        assert not rollout.vec._engine.pending
        rollout.estimate(0.9, 0.8)
        replay.begin()
        for t in range(6):
            observations, masks, starts = replay.observe(t)
            assert torch.equal(rollout.ring[rollout.slot(t)], observations)
            assert torch.equal(rollout.starts[t], starts)
            if masks is not None:
                assert torch.equal(rollout.action_masks[rollout.slot(t)], masks)
            np.testing.assert_array_equal(rollout.acting[t], replay.vec.acting)
            actions = policy.distribution.for_environment(rollout.actions[t])
            _, rewards, terminations, truncations, _ = replay.vec.step(actions)
            replay._acting[t] = rollout.acting[t]
            replay.advance(t, terminations, truncations)
            np.testing.assert_array_equal(rollout.rewards[t], rewards)
            np.testing.assert_array_equal(rollout.terminations[t], terminations)
            np.testing.assert_array_equal(rollout.truncations[t], truncations)
            with torch.no_grad():
                final_values = policy.value(torch.from_numpy(replay.vec.final_observations))
            torch.testing.assert_close(rollout.final_values[t][truncations],
                                       final_values[truncations])
            truncated += truncations.sum()
        assert torch.equal(rollout.ring[rollout.slot(6)], replay.ring[replay.slot(6)])
        assert rollout.vec.episode_stats() == replay.vec.episode_stats()
        batch = rollout.minibatch(torch.arange(rollout.rows))
        new = policy(batch.observations, batch.actions, action_masks=batch.action_masks)
        torch.testing.assert_close(new.log_probs, batch.log_probs, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(new.values, batch.values, atol=1e-5, rtol=1e-5)
        rollout = rollout.other
    assert truncated or not (kwargs is SHORT or env == "toys:Village")


def test_staggered_minibatches_are_cut_from_what_the_environments_write(rollouts):
    _, rollout = rollouts("cartpole", horizon=4, num_envs=6, batch_size=3)
    rollout.begin()
    rollout.vec.release()
    batch = rollout.vec.recv()
    assert batch.observations.ctypes.data == rollout.ring.data_ptr()
    rollout.vec.send([0, 0, 0])


def test_a_row_of_a_batch_without_a_legal_action(rollouts):
    policy, rollout = rollouts("crowd", batch_size=2)
    rollout.action_masks[0, 13] = False
    with pytest.raises(ValueError, match="action_masks: row 13 has no legal action"):
        ppo.collect_staggered(rollout, policy, generators(3), Clock())


def test_states_stay_with_their_rows(rollouts):
    class Counting(MLP):
        """Remembers of each row how often it was asked, and begins at its number."""

        def initial_state(self, rows):
            return (torch.arange(0, 100 * rows, 100),)

        def act(self, observations, state=(), starts=None, **kwargs):
            return super().act(observations, **kwargs)[0], (state[0] + 1,)

    _, rollout = rollouts("cartpole", num_envs=6, batch_size=2, horizon=5)
    vec = rollout.vec
    policy = Counting(vec.env_observation_space, vec.env_action_space)
    rollout.state = policy.initial_state(6)
    for k in range(3):
        ppo.collect_staggered(rollout, policy, generators(3), Clock())
        assert rollout.first_state[0].tolist() == [100 * n + 5 * k for n in range(6)]
        assert rollout.state[0].tolist() == [100 * n + 5 * k + 5 for n in range(6)]


def test_every_group_draws_its_own_actions():
    draws = [torch.rand(8, generator=each) for each in generators(50)]
    assert len({tuple(draw.tolist()) for draw in draws}) == 50
    assert torch.equal(draws[0], torch.rand(8, generator=torch.Generator().manual_seed(0)))


# ---- who comes first decides nothing -------------------------------------------------------------

BACKENDS = [("serial", None), ("threads", 2), ("threads", 5), ("processes", 2), ("processes", 3)]


@pytest.mark.parametrize("changes", [
    {"batch_size": 8}, {"overlap": True}, {"batch_size": 4, "overlap": True, "epochs": 2},
    {"env": "foraging", "num_envs": 8, "batch_size": 2, "normalize_observations": True},
    {"env": "foraging", "num_envs": 8, "batch_size": 2, "normalize_observations": True,
     "overlap": True}], ids=repr)
def test_backends_give_the_same_bytes(config, changes):
    config = dataclasses.replace(config, **changes)
    expected = train(config)
    for backend, workers in BACKENDS[1:]:
        other = dataclasses.replace(config, backend=backend, num_workers=workers)
        assert weights_of(train(other)) == weights_of(expected), (backend, workers)
    assert weights_of(train(dataclasses.replace(config, seed=2))) != weights_of(expected)
    assert expected.steps >= 4096


@pytest.mark.parametrize("overlap", [False, True])
def test_the_order_of_batches_changes_nothing(config, overlap, monkeypatch):
    """Environments of which nobody knows how long they take, truncations and statistics."""
    orders = []
    recv = VectorEnv.recv

    def watched(vec, *args):
        batch = recv(vec, *args)
        orders[-1].append(int(batch.env_ids[0]))
        return batch

    monkeypatch.setattr(VectorEnv, "recv", watched)
    config = dataclasses.replace(
        config, env="toys:Jittery", num_envs=12, batch_size=2, horizon=8, total_timesteps=700,
        normalize_observations=True, overlap=overlap)
    results = set()
    for backend, workers in [("processes", 3), ("processes", 3), ("processes", 2),
                             ("serial", None)]:
        orders.append([])
        results.add(weights_of(train(
            dataclasses.replace(config, backend=backend, num_workers=workers))))
    assert len(results) == 1
    assert len({tuple(order) for order in orders}) == 4     # though they came in another each time


@pytest.mark.parametrize("slow", ["learning", "environment"])
def test_who_takes_longer_decides_nothing(config, slow, monkeypatch):
    config = dataclasses.replace(config, overlap=True, total_timesteps=3000)
    expected = weights_of(train(config))
    if slow == "learning":
        loss = ppo.ppo_loss
        monkeypatch.setattr(ppo, "ppo_loss", lambda *args: time.sleep(0.02) or loss(*args))
    else:
        store = ppo.Rollout.store
        monkeypatch.setattr(ppo.Rollout, "store", lambda *args: time.sleep(0.004) or store(*args))
    assert weights_of(train(config)) == expected


# ---- overlap -------------------------------------------------------------------------------------

@pytest.mark.parametrize("batch_size", [None, 8])
def test_rollouts_are_by_the_policy_before_the_last_update(config, batch_size, monkeypatch):
    """Of one policy from begin to end, and that one: log-probabilities and values are its."""
    weights, update = [], ppo.update

    def checked(policy, joined, optimizer, learning_rate, rollout, *args):
        now = joined.detach().clone()
        weights.append(now)
        joined.detach().copy_(weights[max(0, len(weights) - 2)])
        batch = rollout.minibatch(torch.arange(rollout.rows))
        with torch.no_grad():
            then = policy(batch.observations, batch.actions)
            torch.testing.assert_close(then.log_probs, batch.log_probs, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(then.values, batch.values, atol=1e-4, rtol=1e-4)
            joined.detach().copy_(now)
            if len(weights) > 2:              # and not the one of now
                assert (policy(batch.observations, batch.actions).values
                        - batch.values).abs().max() > 0.01
        before = [rollout.ring[rollout.slot(t)].clone() for t in range(rollout.horizon + 1)]
        result = update(policy, joined, optimizer, learning_rate, rollout, *args)
        time.sleep(0.05)                      # so that the next one is collected by now
        for t, rows in enumerate(before):
            assert torch.equal(rollout.ring[rollout.slot(t)], rows)
        return result

    monkeypatch.setattr(ppo, "update", checked)
    train(dataclasses.replace(config, overlap=True, batch_size=batch_size, learning_rate=0.01))
    assert len(weights) == 4096 // 512


def test_checkpoints_are_of_the_weights_and_steps_they_name(config):
    """They hold what update number k left, though the next rollout is under way."""
    whole = train(dataclasses.replace(config, overlap=True, checkpoint_interval=1024,
                                      anneal_learning_rate=False))
    saved = sorted(config.checkpoint_dir.iterdir())
    assert [checkpoint.load(path).steps for path in saved] == [1024, 2048, 3072, 4096]
    assert str(saved[-1]) == whole.checkpoint
    half = train(dataclasses.replace(config, overlap=True, total_timesteps=2048,
                                     anneal_learning_rate=False))
    assert weights_of(half) == (saved[1] / checkpoint.WEIGHTS).read_bytes()


def test_reports_with_overlap(config):
    reports = []
    summary = train(dataclasses.replace(config, overlap=True, log_interval=0.0),
                    lambda report: reports.append(report) and None)
    assert [report.steps for report in reports] == [512 * k for k in range(1, 9)] + [4096]
    for report in reports[:-1]:
        assert sum(report.times.values()) == pytest.approx(1.0)
        assert report.times["inference"] == 0.0
        assert 0 < report.latency_us["p50"] <= report.latency_us["max"]
    assert sum(report.stats["episodes"] for report in reports) > 20
    assert summary.evaluation.episodes == 5


def test_latencies_go_from_clock_to_clock():
    one, other = Clock(), Clock()
    for clock, steps in ((one, LATENCIES - 2), (other, 5)):
        for _ in range(steps):
            clock.step()
    one.take_steps(other)
    assert one._steps == LATENCIES + 3
    assert other.latency_us() == {}
    assert one.latency_us()["max"] > 0
    assert (one._latencies > 0).all()


# ---- ends ----------------------------------------------------------------------------------------

def slowly(config, **changes):
    """Steps of a tenth of a second."""
    return dataclasses.replace(
        config, env="toys:Jittery", env_kwargs={"seconds": 0.04}, num_envs=4, horizon=4,
        overlap=True, **changes)


@pytest.mark.parametrize(("backend", "batch_size"), [
    ("serial", None), ("processes", None), ("processes", 1)])
@pytest.mark.parametrize("error", [KeyboardInterrupt, NonFiniteError])
def test_what_ends_learning_ends_collecting(config, backend, batch_size, error, monkeypatch):
    """As soon as the step that is under way is over."""
    times = []

    def update(*_):
        time.sleep(0.1)                       # the thread is in the next rollout
        times.append(time.monotonic())
        raise error("now")

    monkeypatch.setattr(ppo, "update", update)
    with pytest.raises(error, match="now"):
        train(slowly(config, backend=backend, batch_size=batch_size))
    assert time.monotonic() - times[0] < 2.0
    assert not list(config.checkpoint_dir.iterdir())


def test_stopping_does_not_wait_for_a_rollout(config):
    asked = []

    def stop():
        asked.append(time.monotonic())
        return True

    summary = train(dataclasses.replace(slowly(config), horizon=16), should_stop=stop)
    assert time.monotonic() - asked[0] < 0.5
    assert summary.stopped
    assert summary.steps == 4 * 16
    assert checkpoint.load(summary.checkpoint).steps == summary.steps


@pytest.mark.parametrize("batch_size", [None, 1])
def test_an_environment_that_fails_in_the_thread(config, batch_size):
    config = dataclasses.replace(
        config, env="toys:Jittery", env_kwargs={"seconds": 0.0, "fails_after": 20}, num_envs=4,
        overlap=True, batch_size=batch_size)
    with pytest.raises(EnvError, match="it fell apart"):
        train(config)


@pytest.mark.parametrize("overlap", [False, True])
def test_a_policy_that_is_no_longer_finite_in_the_thread(config, overlap, monkeypatch):
    update = ppo.update

    def spoil(policy, weights, *args):
        losses = update(policy, weights, *args)
        weights.detach().fill_(math.nan)
        return losses

    monkeypatch.setattr(ppo, "update", spoil)
    with pytest.raises(NonFiniteError, match=r"log-probabilities at step 0|became NaN"):
        train(dataclasses.replace(config, overlap=overlap, batch_size=8))


def test_the_target_ends_an_overlapped_run(config):
    summary = train(dataclasses.replace(config, overlap=True, batch_size=8, target_return=5.0,
                                        total_timesteps=10**6))
    assert summary.solved
    assert summary.steps < 10**5


def test_batches_that_do_not_divide_are_refused(config):
    with pytest.raises(ConfigError, match=r"batch_size: expected a divisor of num_envs \(32\), "
                                          "got 12"):
        train(dataclasses.replace(config, batch_size=12))
    with pytest.raises(ConfigError, match="batch_size: expected a divisor"):
        train(dataclasses.replace(config, batch_size=64))
    with pytest.raises(ConfigError, match="batch_size: expected at least 1, got 0"):
        dataclasses.replace(config, batch_size=0)


def test_a_batch_of_all_is_synchronous(config):
    assert weights_of(train(dataclasses.replace(config, batch_size=32))) == weights_of(
        train(config))


def test_the_vector_of_a_collector_can_be_used_again_without_overlap():
    """Only a thread that is still collecting has to be told."""
    with make("cartpole", 4, backend="serial") as vec:
        config = TrainConfig(env="cartpole", num_envs=4, horizon=4)
        policy = MLP(vec.env_observation_space, vec.env_action_space)
        with ppo.Collector(vec, policy, config, CPU) as collector:
            collector.next(Clock())
        vec.step([0] * 4)
