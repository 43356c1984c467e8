"""Vector environments against the oracle: every backend, sharding, batch size, autoreset mode."""

import functools
import gc
import threading
import time

import numpy as np
import oracle
import pytest
from gymnasium.error import (
    AlreadyPendingCallError,
    ClosedEnvironmentError,
    InvalidAction,
    NoAsyncCallError,
    ResetNeeded,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pufferlib_cy
from pufferlib_cy import make

ROWS = ("observations", "rewards", "terminations", "truncations", "masks")
GAMES = {
    "squared": {}, "squared-small": {"size": 3}, "cartpole": {}, "cartpole-short": {"max_steps": 9},
    "cartpole-continuous": {"continuous": True}, "cartpole_fast": {},
    "cartpole_fast-short": {"max_steps": 9}, "bandit": {}, "memory": {"delay": 2, "digits": 3},
    "crowd": {}, "lanes": {},
}


def environment(native, name):
    """What `make` takes for a name in oracle.GAMES."""
    return getattr(native[name], name.capitalize()) if name in native else name


def actions_for(vec, rng, steps):
    """Random actions, (steps, rows, ...), of the dtype that the space samples."""
    space, N = vec.single_action_space, vec.num_agents
    if hasattr(space, "n"):
        return rng.integers(0, space.n, (steps, N))
    if hasattr(space, "nvec"):
        return rng.integers(0, space.nvec, (steps, N, len(space.nvec)))
    return rng.uniform(space.low, space.high, (steps, N, *space.shape)).astype(space.dtype)


def rollout(vec, actions, seed=3):
    """All rows of all steps as bytes, so that two runs can be compared with ==."""
    record = [vec.reset(seed=seed)[0].tobytes()]
    for action in actions:
        record += [rows.tobytes() for rows in vec.step(action)[:4]]
        record += [vec.masks.tobytes(), vec.acting.tobytes()]
        ended = np.flatnonzero(vec._engine.rows[4][0] | vec._engine.rows[5][0])
        record.append(vec.final_observations[ended].tobytes())
    record.append(repr(vec.episode_stats()))
    return record


def assert_rows_equal(vec, slow, got):
    observations, rewards, terminations, truncations, infos = got
    for name, value in zip(ROWS, (observations, rewards, terminations, truncations, vec.masks),
                           strict=True):
        expected = getattr(slow, name)
        assert value.dtype == expected.dtype, name
        np.testing.assert_array_equal(value, expected, err_msg=name)
    np.testing.assert_array_equal(vec.acting, slow.acting)
    for row, observation in slow.final.items():
        np.testing.assert_array_equal(vec.final_observations[row], observation)
    if vec.action_masks is not None:
        np.testing.assert_array_equal(vec.action_masks, slow.action_masks)
    assert infos == {}


@pytest.mark.parametrize("autoreset", ["same_step", "next_step", "disabled"])
@pytest.mark.parametrize("game", GAMES)
def test_rows_equal_the_oracle(native, game, autoreset):
    kwargs = GAMES[game]
    name = game.split("-")[0]
    env = environment(native, name)
    E = 5
    slow = oracle.Vector(oracle.GAMES[name], range(7, 7 + E), autoreset, **kwargs)
    with make(env, E, autoreset=autoreset, env_kwargs=kwargs) as vec:
        observations, infos = vec.reset(seed=7)
        slow.reset()
        np.testing.assert_array_equal(observations, slow.observations)
        assert infos == {}
        for action in actions_for(vec, np.random.default_rng(1), 150):
            slow.step(action.reshape(vec.num_agents, -1))
            assert_rows_equal(vec, slow, vec.step(action))
            if autoreset == "disabled" and any(slow.over):
                mask = np.array(slow.over)
                slow.reset(mask)
                observations, _ = vec.reset(options={"reset_mask": mask})
                np.testing.assert_array_equal(observations, slow.observations)
        stats = vec.episode_stats()
        returns, lengths = np.array(slow.episodes).T
        assert len(returns) > 5
        assert stats["episodes"] == len(returns)
        assert stats["episode_return"] == pytest.approx(returns.mean())
        assert stats["episode_length"] == pytest.approx(lengths.mean())
        for name in slow.stats[0]:
            assert stats[name] == pytest.approx(np.mean([own[name] for own in slow.stats]))
        assert vec.episode_stats() == {"episodes": 0.0}


@pytest.mark.parametrize("steps", [1, 400])
@pytest.mark.parametrize("game", ["cartpole", "cartpole_fast", "squared", "crowd", "lanes"])
def test_same_bytes_whatever_the_workers(native, game, steps):
    env = environment(native, game)
    E = 64
    with make(env, E, backend="serial") as vec:
        actions = actions_for(vec, np.random.default_rng(0), steps)
        expected = rollout(vec, actions)
    for workers in (1, 2, 3, 7):
        with make(env, E, backend="threads", num_workers=workers) as vec:
            assert rollout(vec, actions) == expected, workers
    with make(env, E, backend="serial") as vec:
        assert rollout(vec, actions, seed=4) != expected


def assert_staggered_episodes_are_serial(make_staggered, E, B, steps=30):
    """Each environment goes through the same rows as in a serial vector, also after a reset that
    cuts off what is out. `make_staggered` takes what `make` does, but for the backend."""
    actions = np.random.default_rng(E).integers(0, 5, (steps, E))
    kwargs = dict(env_kwargs={"size": 3})
    with make("squared", E, backend="serial", **kwargs) as vec:
        expected = [(vec.reset(seed=5)[0].copy(), np.zeros(E))]
        for action in actions:
            observations, rewards, *_ = vec.step(action)
            expected.append((observations.copy(), rewards.copy()))
    with make_staggered("squared", E, batch_size=B, **kwargs) as vec:
        for _ in range(2):
            vec.async_reset(seed=5)
            count = np.zeros(E, int)
            while count.max() < steps:
                batch = vec.recv()
                assert len(batch.env_ids) == B == len(set(batch.env_ids))
                for row, e in enumerate(batch.env_ids):
                    observations, rewards = expected[count[e]]
                    np.testing.assert_array_equal(batch.observations[row], observations[e])
                    assert batch.rewards[row] == rewards[e]
                vec.send(np.array([actions[count[e]][e] for e in batch.env_ids]))
                count[batch.env_ids] += 1
            vec.recv()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_staggered_batches_give_the_same_episodes(data):
    """Any E, W and B."""
    E = data.draw(st.integers(1, 24), label="num_envs")
    B = data.draw(st.integers(1, E), label="batch_size")
    W = data.draw(st.integers(1, 5), label="num_workers")
    backend = data.draw(st.sampled_from(["serial", "threads"])) if W == 1 else "threads"
    assert_staggered_episodes_are_serial(
        functools.partial(make, backend=backend, num_workers=W), E, B)


def assert_staggered_statistics_are_of_what_was_received(make_staggered, E=12, B=4):
    """However often they are asked for, and whatever is stepped meanwhile."""
    with make_staggered("cartpole", E, batch_size=B, env_kwargs={"max_steps": 9}) as vec:
        vec.async_reset(seed=0)
        lengths, finished, total = np.zeros(E), [], 0
        for k in range(300):
            batch = vec.recv()
            ids = batch.env_ids
            lengths[ids] += batch.rewards
            over = batch.terminations | batch.truncations
            finished += lengths[ids[over]].tolist()
            lengths[ids[over]] = 0
            if k % 7 == 0 or k > 250:
                np.testing.assert_array_equal(vec.finished[:, 0].sum(), len(finished))
                stats = vec.episode_stats()
                assert stats["episodes"] == len(finished)
                if finished:
                    assert stats["episode_return"] == pytest.approx(np.mean(finished))
                    assert stats["episode_length"] == pytest.approx(np.mean(finished))
                total += len(finished)
                finished = []
            vec.send(ids % 2)
        assert total > 100


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_staggered_statistics_are_of_what_was_received(workers):
    assert_staggered_statistics_are_of_what_was_received(functools.partial(
        make, backend="serial" if workers == 1 else "threads", num_workers=workers))


def test_staggered_serial_is_fair():
    with make("bandit", 12, backend="serial", batch_size=5) as vec:
        vec.async_reset(seed=0)
        served = np.zeros(12, int)
        for _ in range(120):
            batch = vec.recv()
            served[batch.env_ids] += 1
            vec.send(np.zeros(5, int))
        assert served.max() - served.min() <= 1


def test_async_use_of_a_synchronous_vector():
    with make("squared", 6, backend="threads", num_workers=3) as vec:
        expected = vec.reset(seed=1)[0].copy()
        vec.async_reset(seed=1)
        batch = vec.recv(timeout=5)
        np.testing.assert_array_equal(batch.observations, expected)
        np.testing.assert_array_equal(batch.env_ids, np.arange(6))
        vec.send(np.zeros(6, int))
        assert vec.recv().rewards.shape == (6,)


def test_different_kwargs_per_environment():
    limits = [3, 3, 5, 9, 9, 9, 4]
    with make("cartpole", 7, env_kwargs=[{"max_steps": n} for n in limits], backend="threads",
              num_workers=3) as vec:
        vec.reset(seed=0)
        first_end = np.zeros(7, int)
        for k in range(1, 10):
            truncations = vec.step(np.arange(7) % 2)[3]
            first_end[(first_end == 0) & truncations] = k
        assert first_end.tolist() == limits


# ---- rows in the caller's memory -----------------------------------------------------------------


@pytest.mark.parametrize("backend", ["serial", "threads"])
def test_attached_rows_are_written_in_place(native, backend):
    T, E = 5, 6
    env = native["crowd"].Crowd
    with make(env, E, backend="serial") as plain, make(env, E, backend=backend) as vec:
        N = vec.num_agents
        storage = dict(
            observations=np.full((T + 1, N, 3), 9, np.float32),
            masks=np.zeros((T + 1, N), bool), action_masks=np.zeros((T + 1, N, 5), bool),
            rewards=np.full((T, N), 9, np.float32), terminations=np.ones((T, N), bool),
            truncations=np.ones((T, N), bool))
        vec.attach(**storage)
        with pytest.raises(ResetNeeded):
            vec.step(np.zeros((N, 2), int))
        expected, _ = plain.reset(seed=2)
        got, _ = vec.reset(seed=2)
        assert got.__array_interface__["data"] == storage["observations"][0].__array_interface__[
            "data"]
        np.testing.assert_array_equal(got, expected)
        actions = actions_for(vec, np.random.default_rng(0), 3 * T)
        for k, action in enumerate(actions, 1):
            expected = plain.step(action)
            got = vec.step(action)
            slots = [storage[name] for name in
                     ("observations", "rewards", "terminations", "truncations")]
            for i, (rows, slot) in enumerate(zip(got, slots, strict=False)):
                here = slot[k % (T + 1)] if i == 0 else slot[(k - 1) % T]
                assert rows.ctypes.data == here.ctypes.data
                np.testing.assert_array_equal(rows, expected[i])
            np.testing.assert_array_equal(storage["masks"][k % (T + 1)], plain.masks)
            np.testing.assert_array_equal(storage["action_masks"][k % (T + 1)], plain.action_masks)


def assert_attached_to_staggered(make_staggered, env, T=5):
    """Every environment goes round the slots by its own steps; rows are those of a serial vector.
    `make_staggered` takes what `make` does, but for the backend."""
    E, B = 6, 2
    with make(env, E, backend="serial") as plain, make_staggered(env, E, batch_size=B) as vec:
        N, R = vec.num_agents, vec.num_agents // E * B
        storage = dict(
            observations=vec.allocate((T + 1, N, 3), np.float32),
            masks=vec.allocate((T + 1, N), np.bool_),
            action_masks=vec.allocate((T + 1, N, 5), np.bool_),
            rewards=vec.allocate((T, N), np.float32), terminations=vec.allocate((T, N), np.bool_),
            truncations=vec.allocate((T, N), np.bool_))
        vec.attach(**storage)
        actions = actions_for(vec, np.random.default_rng(0), 3 * T)
        before = ("observations", "masks", "action_masks")
        expected = [{"observations": plain.reset(seed=2)[0].copy(), "masks": plain.masks.copy(),
                     "action_masks": plain.action_masks.copy()}]
        for action in actions:
            names = ("observations", "rewards", "terminations", "truncations")
            rows = dict(zip(names, plain.step(action), strict=False))
            rows |= {"masks": plain.masks, "action_masks": plain.action_masks}
            expected.append({name: array.copy() for name, array in rows.items()})
        steps = np.zeros(E // B, int)
        vec.async_reset(seed=2)
        while steps.min() < 3 * T:
            batch = vec.recv()
            group = int(batch.env_ids[0]) // B
            rows, k = slice(group * R, (group + 1) * R), steps[group]
            for name, array in expected[k].items():
                here = storage[name][k % (T + 1) if name in before else (k - 1) % T, rows]
                np.testing.assert_array_equal(here, array[rows], err_msg=name)
                given = getattr(batch, name)
                assert given.__array_interface__ == here.__array_interface__
            if k == 3 * T:
                vec.hold()
            else:
                vec.send(actions[k][rows])
                steps[group] += 1
            if steps.min() == 3 * T and not vec._engine.pending:
                break


@pytest.mark.parametrize("workers", [1, 3])
def test_attached_rows_of_staggered_batches(native, workers):
    assert_attached_to_staggered(
        functools.partial(make, backend="threads", num_workers=workers), native["crowd"].Crowd)


def test_attach_refuses_what_does_not_fit():
    with make("cartpole", 4) as vec:
        good = np.zeros((3, 4, 4), np.float32)
        read_only = good.copy()
        read_only.flags.writeable = False
        for bad in (good.astype(np.float64), good[:, :3], good[:, :, ::2], good[:0], read_only,
                    good.tolist()):
            with pytest.raises(ValueError, match=r"observations: expected .*float32.*got"):
                vec.attach(observations=bad)
        with pytest.raises(ValueError, match="no rows named 'values'"):
            vec.attach(values=good)
        with pytest.raises(ValueError, match="no rows named 'action_masks'"):
            vec.attach(action_masks=good)
    with make("cartpole", 4, batch_size=2) as vec:
        vec.async_reset(seed=0)
        vec.recv()
        with pytest.raises(AlreadyPendingCallError, match="attach before the first reset"):
            vec.attach(observations=good)     # the other two are under way


def test_views_and_copies():
    with make("squared", 3) as views, make("squared", 3, copy=True) as copies:
        assert views.reset(seed=0)[0] is views.step([0, 0, 0])[0]
        kept = copies.reset(seed=0)[0]
        before = kept.copy()
        assert kept is not copies.step([1, 1, 1])[0]
        np.testing.assert_array_equal(kept, before)


def test_stale_views_are_poisoned_where_that_is_asked_for(monkeypatch):
    monkeypatch.setenv("PUFFERLIB_CY_POISON", "1")
    with make("cartpole", 3, seed=0) as vec, make("cartpole", 3, copy=True, seed=0) as copies:
        stale, valid = vec.reset()[0], copies.reset()[0]
        masks = vec.masks
        np.testing.assert_array_equal(stale, valid)
        for _ in range(3):
            observations, rewards, terminations, _, _ = vec.step([0, 1, 0])
            expected = copies.step([0, 1, 0])
            assert np.isnan(stale).all()
            assert masks.all()
            np.testing.assert_array_equal(observations, expected[0])
            np.testing.assert_array_equal(rewards, expected[1])
            stale = observations
        vec.step([0, 1, 0])
        assert np.isnan(rewards).all()
        assert terminations.all()
        with pytest.raises(InvalidAction):
            vec.step([2, 1, 0])                # steps nothing: the views are still valid
    with make("cartpole", 4, batch_size=2, seed=0) as vec:
        vec.async_reset()
        batch = vec.recv()
        assert np.isfinite(batch.observations).all()
        vec.send([0, 1])
        assert np.isfinite(batch.observations).all()
        vec.recv()
        assert np.isnan(batch.observations).all()


# ---- actions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u4", "u8", ">i4"])
def test_integer_actions_are_converted(dtype):
    """Never reinterpreted: int64 [2, 3] stays 2 and 3."""
    with make("squared", 4) as vec:
        vec.reset(seed=0)
        vec.step(np.array([1, 2, 3, 4], dtype))
        assert vec._engine.action_rows.discrete.ravel().tolist() == [1, 2, 3, 4]
        vec.step(np.array([[1, 9], [2, 9], [3, 9], [0, 9]], dtype)[:, 0])      # strided
        assert vec._engine.action_rows.discrete.ravel().tolist() == [1, 2, 3, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_float_actions_are_converted(dtype):
    with make("cartpole", 3, env_kwargs={"continuous": True}) as vec:
        vec.reset(seed=0)
        for actions in (np.array([[-1], [0.5], [1]], dtype), np.array([-1, 0.5, 1], dtype)):
            vec.step(actions)
            assert vec._engine.action_rows.continuous.ravel().tolist() == [-1, 0.5, 1]


BAD_DISCRETE = [
    (np.array([0, 1, 2, 0]), r"row 2 \(environment 2\) is 2, .*Discrete\(2\)"),
    (np.array([0, -1, 5, 0], np.int32), r"row 1 \(environment 1\) is -1"),
    (np.array([0, 1, 2**32, 0]), "row 2"),
    (np.array([0, 1, 1, 2**64 - 1], np.uint64), "row 3"),
    (np.zeros(3, int), r"shape \(4,\).*got a int64 array of shape \(3,\)"),
    (np.zeros((4, 2), int), r"shape \(4,\)"),
    (np.zeros((1, 4), int), r"shape \(4,\)"),
    (np.zeros(4), "expected integers, got a float64"),
    (np.full(4, np.nan), "expected integers"),
    (np.zeros(4, bool), "expected integers, got a bool"),
    (np.array(["a"] * 4), "expected integers"),
    ([[0], [1, 2]], "expected an array"),
    (None, "expected integers"),
]
BAD_CONTINUOUS = [
    (np.array([0, np.nan, 0, 0]), r"row 1 \(environment 1\) is nan"),
    (np.array([0, 0, 0, 1.5], np.float32), "row 3"),
    (np.array([np.inf, 0, 0, 0]), "row 0"),
    (np.zeros(4, int), "expected floats, got a int64"),
    (np.zeros((4, 2)), r"shape \(4,\)"),
]


@pytest.mark.parametrize("backend", ["serial", "threads"])
@pytest.mark.parametrize(("continuous", "bad", "words"),
                         [(False, *case) for case in BAD_DISCRETE]
                         + [(True, *case) for case in BAD_CONTINUOUS])
def test_bad_actions_step_nothing(backend, continuous, bad, words):
    with make("cartpole", 4, backend=backend, env_kwargs={"continuous": continuous}) as vec:
        vec.reset(seed=0)
        states = vec._engine.envs[0].state_array.copy()
        with pytest.raises(InvalidAction, match=words):
            vec.step(bad)
        np.testing.assert_array_equal(vec._engine.envs[0].state_array, states)
        vec.step(np.zeros(4) if continuous else np.zeros(4, int))       # and it still works


def test_actions_of_rows_without_an_agent_are_ignored(native):
    with make(native["crowd"].Crowd, 2) as vec, make(native["crowd"].Crowd, 2) as other:
        for each in (vec, other):
            each.reset(seed=0)
        actions = np.ones((8, 2), int)
        wild = actions.copy()
        wild[3] = wild[7] = 99                          # slot 3 of each environment is empty
        vec.step(wild)
        other.step(actions)
        np.testing.assert_array_equal(vec._engine.envs[0].state_array,
                                      other._engine.envs[0].state_array)
        wild[2] = 99
        with pytest.raises(InvalidAction, match=r"row 2 \(environment 0, agent slot 2\)"):
            vec.step(wild)


# ---- order of calls, arguments, life cycle -------------------------------------------------------


def test_wrong_order_of_calls():
    with make("squared", 2) as vec:
        with pytest.raises(ResetNeeded, match="reset"):
            vec.step([0, 0])
        with pytest.raises(NoAsyncCallError, match="async_reset first"):
            vec.recv()
        with pytest.raises(ResetNeeded, match="first reset is of all"):
            vec.reset(options={"reset_mask": np.array([True, False])})
        vec.async_reset(seed=0)
        for call in (lambda: vec.send([0, 0]), vec.async_reset, vec.reset, vec.episode_stats,
                     lambda: vec.attach(rewards=np.zeros((1, 2), np.float32)),
                     lambda: vec.step([0, 0])):
            with pytest.raises(AlreadyPendingCallError, match="call recv"):
                call()
        vec.recv()
        with pytest.raises(NoAsyncCallError, match="call send"):
            vec.recv()
        vec.step([0, 0])


def test_disabled_autoreset_refuses_to_step_an_ended_environment():
    with make("bandit", 3, autoreset="disabled") as vec:
        vec.reset(seed=0)
        vec.step([0, 0, 0])
        vec.reset(options={"reset_mask": np.array([True, False, True])})
        with pytest.raises(ResetNeeded, match="environment 1 has ended"):
            vec.step([0, 0, 0])
        vec.reset(options={"reset_mask": np.array([False, True, False])})
        vec.step([0, 0, 0])


def test_staggered_vectors_have_no_step():
    with make("squared", 4, batch_size=2) as vec:
        with pytest.raises(ValueError, match="async_reset"):
            vec.reset()
        with pytest.raises(ValueError, match="recv and send"):
            vec.step([0, 0, 0, 0])
        vec.async_reset(seed=0)
        vec.recv()
        with pytest.raises(InvalidAction, match=r"shape \(2,\)"):
            vec.send([0, 0, 0, 0])


@pytest.mark.parametrize("backend", ["serial", "threads"])
def test_what_is_held_stands_still(backend):
    with make("squared", 6, backend=backend, batch_size=2) as vec:
        with pytest.raises(NoAsyncCallError, match="hold without a batch"):
            vec.hold()
        vec.async_reset(seed=0)
        held = {}
        for _ in range(3):
            batch = vec.recv()
            held[int(batch.env_ids[0])] = batch.observations.copy()
            vec.hold()
        assert sorted(held) == [0, 2, 4]      # those held are not given again
        assert vec.episode_stats() == {"episodes": 0.0}       # nothing is under way
        for call, words in ((vec.recv, "call release first"), (vec.hold, "hold without a batch")):
            with pytest.raises(NoAsyncCallError, match=words):
                call()
        with pytest.raises(AlreadyPendingCallError, match="call recv before"):
            vec.send([0, 0])
        vec.release()
        for first in (0, 2, 4):               # now they are, in the order of environments
            batch = vec.recv()
            assert batch.env_ids.tolist() == [first, first + 1]
            np.testing.assert_array_equal(batch.observations, held[first])
            vec.send([0, 0])
        for _ in range(2):                    # a reset takes along what is held
            vec.recv()
            vec.hold()
        vec.recv()
        vec.async_reset(seed=0)
        again = []
        for _ in range(3):
            batch = vec.recv()
            again.append(int(batch.env_ids[0]))
            np.testing.assert_array_equal(batch.observations, held[again[-1]])
            vec.hold()
        assert sorted(again) == [0, 2, 4]


def test_so_many_held_that_there_is_no_batch():
    """12 groups of one environment, five a batch: after two that are held there are two left."""
    with make("bandit", 12, backend="serial", batch_size=5) as vec:
        vec.async_reset(seed=0)
        for _ in range(2):
            vec.recv()
            vec.hold()
        with pytest.raises(NoAsyncCallError, match="call release first"):
            vec.recv()
        vec.release()
        assert len(set(vec.recv().env_ids)) == 5


def test_cancel_ends_a_call_of_another_thread():
    with make("squared", 4, backend="threads", num_workers=2) as vec:
        vec.reset(seed=0)
        raised = []

        def go_on():
            try:
                while True:
                    vec.step([0] * 4)
            except ClosedEnvironmentError as error:
                raised.append(str(error))

        thread = threading.Thread(target=go_on)
        thread.start()
        time.sleep(0.02)
        vec.cancel("enough is enough")
        thread.join(1.0)
        assert not thread.is_alive()
        assert "closed (since enough is enough)" in raised[0]


@pytest.mark.parametrize(("arguments", "error", "words"), [
    (dict(env="cartpool"), ValueError, "did you mean cartpole"),
    (dict(env="zzz"), ValueError, "no environment is called 'zzz'.*acrobot, bandit"),
    (dict(env=3), TypeError, "env: expected"),
    (dict(num_envs=0), ValueError, "num_envs: expected at least 1, got 0"),
    (dict(num_envs=-3), ValueError, "num_envs"),
    (dict(num_envs=2.5), TypeError, "num_envs: expected a positive int"),
    (dict(num_envs=True), TypeError, "num_envs"),
    (dict(num_workers=0), ValueError, "num_workers"),
    (dict(batch_size=0), ValueError, "batch_size"),
    (dict(batch_size=5), ValueError, "batch_size: 5 .* only 4"),
    (dict(backend="fast"), ValueError, "backend: 'fast' is not one of auto, serial, threads"),
    (dict(backend="serial", num_workers=2), ValueError, "num_workers"),
    (dict(autoreset="always"), ValueError, "autoreset: 'always'"),
    (dict(timeout=0), ValueError, "timeout"),
    (dict(env_kwargs={"size": 3}), ValueError, r"env_kwargs: CartPole\(size=3\): .*size"),
    (dict(env_kwargs={"max_steps": 0}), ValueError, "max_steps is at least 1"),
    (dict(env_kwargs=[{}]), ValueError, "env_kwargs: expected a dict or one per environment"),
    (dict(env_kwargs=[{}, {}, {}, {"continuous": True}]), ValueError, "equal spaces"),
])
def test_bad_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        make(**{"env": "cartpole", "num_envs": 4, **arguments})


@pytest.mark.parametrize(("seed", "words"), [
    (-1, "environment 0 would get -1"), (2**64 - 1, "environment 1"), ([1], "one per environment"),
])
def test_bad_seeds(seed, words):
    with make("cartpole", 2) as vec, pytest.raises(ValueError, match=words):
        vec.reset(seed=seed)


def test_bad_reset_options():
    with make("cartpole", 2) as vec:
        vec.reset()
        for mask in (np.ones(3, bool), np.ones(2, int), [True]):
            with pytest.raises(ValueError, match="reset_mask: expected a bool array"):
                vec.reset(options={"reset_mask": mask})
        with pytest.raises(ValueError, match="unknown options"):
            vec.reset(options={"low": 0})
        with pytest.raises(ValueError, match="seed"):
            vec.reset(seed=0, options={"reset_mask": np.ones(2, bool)})


def test_seeds():
    """An int s seeds environment i with s + i; None goes on; the first None is random."""
    with make("cartpole", 3) as vec, make("cartpole", 1) as one:
        rows = vec.reset(seed=10)[0].copy()
        for i in range(3):
            np.testing.assert_array_equal(one.reset(seed=10 + i)[0][0], rows[i])
        again = vec.reset()[0].copy()
        assert (again != rows).any()
        np.testing.assert_array_equal(vec.reset(seed=[10, 11, 12])[0], rows)
        mixed = vec.reset(seed=[10, None, None])[0]
        np.testing.assert_array_equal(mixed[0], rows[0])
        np.testing.assert_array_equal(mixed[1:], again[1:])
    with make("cartpole", 2) as a, make("cartpole", 2) as b, make("cartpole", 2, seed=9) as c:
        assert (a.reset()[0] != b.reset()[0]).any()
        np.testing.assert_array_equal(c.reset()[0], a.reset(seed=9)[0])


def helper_threads():
    return [t for t in threading.enumerate() if t.name.startswith("pufferlib_cy")]


def test_close_and_collection_leave_no_thread():
    vec = make("squared", 8, backend="threads", num_workers=4)
    vec.reset(seed=0)
    assert len(helper_threads()) == 3
    vec.close()
    vec.close()
    assert not helper_threads()
    for call in (lambda: vec.step([0] * 8), vec.reset, vec.recv, vec.async_reset,
                 lambda: vec.send([0] * 8),
                 lambda: vec.attach(rewards=np.zeros((1, 8), np.float32))):
        with pytest.raises(ClosedEnvironmentError, match="closed"):
            call()
    forgotten = make("squared", 8, backend="threads", num_workers=4)
    forgotten.async_reset(seed=0)
    del forgotten
    gc.collect()
    assert not helper_threads()


def test_a_class_can_be_made_but_an_instance_serves_one_vector():
    from pufferlib_cy.envs.squared import Squared
    with make(Squared, 2) as vec:
        assert vec.reset(seed=0)[0].shape == (2, 121)
        with pytest.raises(ValueError, match="already belongs"):
            pufferlib_cy.Serial(vec._engine.envs, [2], num_workers=1, batch_size=2,
                                autoreset="same_step", seed=None, timeout=1, copy=False)


def test_parked_helpers_are_woken():
    """Pauses longer than any spin, so that both sides sleep in between."""
    with make("squared", 512, backend="threads", num_workers=4) as vec:
        vec.reset(seed=0)
        for _ in range(30):
            time.sleep(0.002)
            vec.step(np.zeros(512, int))


def test_idle_helpers_sleep():
    with make("squared", 64, backend="threads", num_workers=4) as vec:
        vec.reset(seed=0)
        time.sleep(0.05)
        before = time.process_time()
        time.sleep(1.0)
        assert time.process_time() - before < 0.02 * 3        # of a core for each


@pytest.mark.parametrize("game", ["cartpole", "cartpole_fast", "squared", "crowd", "lanes"])
@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_a_saved_state_goes_on_to_the_last_bit(native, game, autoreset):
    env = environment(native, game)
    with (make(env, 6, autoreset=autoreset) as vec,
          make(env, 6, backend="threads", num_workers=2, autoreset=autoreset) as other):
        vec.reset(seed=0)
        actions = actions_for(vec, np.random.default_rng(0), 60)
        for action in actions[:25]:
            vec.step(action)
        state = vec.save_state()
        other.reset(seed=99)
        other.load_state(state)
        for action in actions[25:]:
            for a, b in zip(vec.step(action)[:4], other.step(action)[:4], strict=True):
                assert a.tobytes() == b.tobytes()
        assert vec.episode_stats() == other.episode_stats()


def test_state_of_another_kind_is_refused():
    with make("cartpole", 2) as vec, make("cartpole", 3) as other:
        with pytest.raises(ResetNeeded, match="after a reset"):
            vec.save_state()
        vec.reset()
        other.reset()
        with pytest.raises(ValueError, match=r"load_state: .* is \(2.* there and \(3"):
            other.load_state(vec.save_state())


def test_memory_per_environment():
    with make("cartpole", 1024) as vec:
        assert vec.bytes_per_env < 200


def test_repr_and_attributes():
    with make("cartpole", 3, backend="threads", num_workers=2) as vec:
        assert repr(vec) == ("Threads(CartPole, num_envs=3, agents_per_env=1, num_workers=2, "
                             "batch_size=3, autoreset='same_step')")
        assert vec.single_observation_space.shape == (4,)
        assert (vec.num_envs, vec.agents_per_env, vec.num_agents) == (3, 1, 3)
