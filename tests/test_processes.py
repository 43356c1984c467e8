"""Worker processes: the same bytes as serial, and nothing that hangs or stays behind.

What all backends have in common is tested in test_vector.py; here is what can only go wrong with
processes. Most tests fork, which starts a worker in milliseconds.
"""

import contextlib
import functools
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_vector import (
    GAMES,
    actions_for,
    assert_attached_to_staggered,
    assert_staggered_episodes_are_serial,
    assert_staggered_statistics_are_of_what_was_received,
    rollout,
)
from toys import HERE, Nested, Village

from pufferlib_cy import ContractError, EnvError, WorkerDied, make, processes
from pufferlib_cy.bridges.gymnasium import as_gymnasium

if not hasattr(os, "fork"):
    pytest.skip("worker processes need POSIX", allow_module_level=True)

forked = functools.partial(make, backend="processes", context="fork")
spawned = functools.partial(make, backend="processes", context="spawn")


def footprint():
    """What must be as before once a vector is gone."""
    gc.collect()
    shm = Path("/dev/shm")
    return {
        "children": [(p.pid, p.status()) for p in psutil.Process().children(recursive=True)],
        "files": len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0,
        "segments": sorted(os.listdir(shm)) if shm.is_dir() else [],
        "threads": threading.active_count(),
        "handlers": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, []),
    }


@pytest.fixture(autouse=True)
def nothing_left():
    before = footprint()
    yield
    assert footprint() == before


@pytest.fixture
def trouble(native):
    return native["trouble"].Trouble


WORK, LEAVE, KILL, SEGV, HANG, HANG_WITH_GIL, BREAK = range(7)


def act(vec, **ways):
    """Actions of all environments: WORK, but e3=KILL for environment 3."""
    actions = np.zeros(vec.num_agents, int)
    for name, way in ways.items():
        actions[int(name[1:])] = way
    return actions


def keep_on(vec, actions):
    """Receive and send, until something happens or 5 seconds are over."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        vec.recv()
        vec.send(actions)


# ---- the same bytes ------------------------------------------------------------------------------


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize("game", ["cartpole-short", "cartpole-continuous", "squared", "crowd"])
def test_same_bytes_as_serial(native, game, autoreset):
    env = native["crowd"].Crowd if game == "crowd" else game.split("-")[0]
    kwargs = dict(autoreset=autoreset, env_kwargs=GAMES.get(game, {}))
    with make(env, 13, backend="serial", **kwargs) as vec:
        actions = actions_for(vec, np.random.default_rng(0), 100)
        expected = rollout(vec, actions)
    for workers in (1, 2, 3, 7, 20):
        with forked(env, 13, num_workers=workers, **kwargs) as vec:
            assert rollout(vec, actions) == expected, workers


def test_same_bytes_when_spawned():
    with make("squared", 8, backend="serial") as vec:
        actions = actions_for(vec, np.random.default_rng(0), 300)
        expected = rollout(vec, actions)
    with spawned("squared", 8, num_workers=3) as vec:
        assert rollout(vec, actions) == expected
        assert vec.num_workers == 3
        assert len(psutil.Process().children(recursive=True)) == 2


def test_disabled_autoreset_and_reset_masks():
    with (make("cartpole", 7, autoreset="disabled") as slow,
          forked("cartpole", 7, autoreset="disabled", num_workers=3) as vec):
        for each in (slow, vec):
            each.reset(seed=3)
        actions = np.arange(7) % 2
        for _ in range(60):
            for a, b in zip(slow.step(actions)[:4], vec.step(actions)[:4], strict=True):
                assert a.tobytes() == b.tobytes()
            over = slow._engine.ended.copy()
            if over.any():
                with pytest.raises(ResetNeeded, match=f"environment {over.argmax()} has ended"):
                    vec.step(actions)
                options = {"reset_mask": over}
                assert (slow.reset(options=options)[0].tobytes()
                        == vec.reset(options=options)[0].tobytes())


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_staggered_batches_give_the_same_episodes(data):
    """Any E, W and B."""
    E = data.draw(st.integers(1, 12), label="num_envs")
    B = data.draw(st.integers(1, E), label="batch_size")
    W = data.draw(st.integers(1, 4), label="num_workers")
    assert_staggered_episodes_are_serial(functools.partial(forked, num_workers=W), E, B)


def test_staggered_statistics_are_of_what_was_received():
    for workers in (1, 3):
        assert_staggered_statistics_are_of_what_was_received(
            functools.partial(forked, num_workers=workers))


def test_states_in_lanes_stay_where_they_are():
    """They are one array per field and NativeEnv: not to be cut as structs are."""
    with make("cartpole_fast", 7) as slow, forked("cartpole_fast", 7, num_workers=3) as vec:
        for each in (slow, vec):
            each.reset(seed=0)
        with pytest.raises(ValueError, match="load_state: state_sizes"):
            vec.load_state(slow.save_state())
        state = vec.save_state()
        expected = [rows.copy() for rows in vec.step(np.zeros(7, int))[:4]]
        vec.load_state(state)
        for before, after in zip(expected, vec.step(np.zeros(7, int))[:4], strict=True):
            np.testing.assert_array_equal(before, after)


def test_saved_states_move_between_backends(native):
    env = native["crowd"].Crowd
    with make(env, 7) as slow, forked(env, 7, num_workers=3) as vec:
        slow.reset(seed=0)
        vec.reset(seed=99)
        actions = actions_for(vec, np.random.default_rng(0), 60)
        for action in actions[:20]:
            slow.step(action)
        vec.load_state(slow.save_state())
        for action in actions[20:40]:
            assert [a.tobytes() for a in slow.step(action)[:4]] == [
                b.tobytes() for b in vec.step(action)[:4]]
        assert vec.bytes_per_env == slow.bytes_per_env
        state = vec.save_state()
        for action in actions[40:]:
            vec.step(action)
        slow.load_state(state)
        for action in actions[40:]:
            slow.step(action)
        for name, array in vec.save_state().items():
            np.testing.assert_array_equal(array, slow.save_state()[name], err_msg=name)


def test_rows_in_shared_storage(native):
    T, env = 4, native["crowd"].Crowd
    with make(env, 5) as plain, forked(env, 5, num_workers=3) as vec:
        N = vec.num_agents
        storage = dict(
            observations=vec.allocate((T + 1, N, 3), np.float32),
            action_masks=vec.allocate((T + 1, N, 5), bool),
            rewards=vec.allocate((T, N), np.float32), terminations=vec.allocate((T, N), bool))
        storage["observations"][:] = 7.0
        with pytest.raises(ValueError, match=r"rewards: .* vec\.allocate"):
            vec.attach(observations=storage["observations"], rewards=np.zeros((T, N), np.float32))
        assert (storage["observations"] == 7.0).all()
        actions = np.zeros((N, 2), int)
        vec.reset(seed=2)
        plain.reset(seed=2)
        for expected, got in zip(plain.step(actions)[:4], vec.step(actions)[:4], strict=True):
            np.testing.assert_array_equal(got, expected)      # refused: nothing has changed
        vec.attach(**storage)
        vec.reset(seed=2)
        plain.reset(seed=2)
        for k, action in enumerate(actions_for(vec, np.random.default_rng(0), 3 * T), 1):
            expected, got = plain.step(action), vec.step(action)
            assert got[0].ctypes.data == storage["observations"][k % (T + 1)].ctypes.data
            np.testing.assert_array_equal(storage["observations"][k % (T + 1)], expected[0])
            np.testing.assert_array_equal(storage["action_masks"][k % (T + 1)], plain.action_masks)
            np.testing.assert_array_equal(storage["rewards"][(k - 1) % T], expected[1])
            np.testing.assert_array_equal(storage["terminations"][(k - 1) % T], expected[2])
            np.testing.assert_array_equal(got[3], expected[3])
    assert storage["rewards"].sum() != 0                  # the memory outlives the vector


def test_staggered_rows_in_shared_storage(native):
    assert_attached_to_staggered(functools.partial(forked, num_workers=2), native["crowd"].Crowd)


def test_where_environments_live(trouble):
    """In synchronous use the caller is one of the workers; else all are processes."""
    with forked(trouble, 6, num_workers=3) as vec:
        pids = vec.reset(seed=0)[0][:, 1].tolist()
        assert pids[:2] == [os.getpid()] * 2
        assert len(set(pids)) == 3
    with forked(trouble, 6, num_workers=3, batch_size=2) as vec:
        vec.async_reset(seed=0)
        assert os.getpid() not in vec.recv().observations[:, 1]
        assert len(vec._workers) == 3


# ---- Python environments -------------------------------------------------------------------------

TIMETABLE = {"a_0": (0, 5, "terminated"), "b_1": (0, 3, "truncated"), "c_2": (2, 6, "terminated")}
PYTHON = {"cartpole": "CartPole-v1", "nested": functools.partial(Nested, 5),
          "village": functools.partial(Village, TIMETABLE, masks=True)}


def sampled(vec, steps):
    """Random actions that are legal in every environment here."""
    vec.single_action_space.seed(0)
    for _ in range(steps):
        rows = [vec.single_action_space.sample() for _ in range(vec.num_agents)]
        yield tuple(map(np.array, zip(*rows, strict=True))) if isinstance(rows[0], tuple) \
            else np.array(rows)


@pytest.mark.parametrize("autoreset", ["same_step", "next_step", "disabled"])
@pytest.mark.parametrize("game", PYTHON)
def test_python_environments_give_the_same(game, autoreset):
    def record(vec):
        yield [vec.reset(seed=3)[0].tobytes(), repr(vec.reset(options={"x": 1})[1])]
        for action in sampled(vec, 40):
            if game == "village":
                action = np.zeros_like(action)
            *rows, infos = vec.step(action)
            yield [*(r.tobytes() for r in rows), repr(infos), vec.masks.tobytes(),
                   None if vec.action_masks is None else vec.action_masks.tobytes()]
            ended = vec._engine.ended.copy()
            if autoreset == "disabled" and ended.any():
                observations, infos = vec.reset(options={"reset_mask": ended, "y": 2})
                yield [observations.tobytes(), repr(infos)]
        yield repr(vec.episode_stats())

    with make(PYTHON[game], 7, backend="serial", autoreset=autoreset) as vec:
        expected = list(record(vec))
    for workers in (1, 2, 3):
        with forked(PYTHON[game], 7, num_workers=workers, autoreset=autoreset) as vec:
            assert list(record(vec)) == expected, workers


@pytest.mark.parametrize("mode", ["SAME_STEP", "NEXT_STEP", "DISABLED"])
def test_equal_to_gymnasiums_vector(mode):
    """Through the bridge: rewards in float64, infos, observations, bit for bit."""
    factories = [functools.partial(Nested, n) for n in (2, 3, 4, 5, 6)]
    theirs = SyncVectorEnv(factories, autoreset_mode=AutoresetMode[mode])
    ours = as_gymnasium(forked(factories, num_workers=3, autoreset=mode.lower()))
    assert_equal(ours.reset(seed=3), theirs.reset(seed=3))
    for _ in range(40):
        theirs.action_space.seed(0)
        actions = theirs.action_space.sample()
        step = theirs.step(actions)
        assert_equal(ours.step(actions), step)
        if mode == "DISABLED" and (step[2] | step[3]).any():
            options = {"reset_mask": step[2] | step[3]}
            assert_equal(ours.reset(options=dict(options)), theirs.reset(options=dict(options)))
    ours.close()
    theirs.close()


def assert_equal(ours, theirs):
    if isinstance(theirs, np.ndarray) and theirs.dtype != object:
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    elif isinstance(theirs, dict):
        assert set(ours) == set(theirs)
        for key, value in theirs.items():
            assert_equal(ours[key], value)
    elif isinstance(theirs, (tuple, np.ndarray)):
        for mine, other in zip(ours, theirs, strict=True):
            assert_equal(mine, other)
    else:
        assert ours == theirs


class Local(Nested):
    """Defined where a worker cannot import it under its name."""

    def step(self, action):
        if self.t == self.length - 1:
            {}["no such key"]
        return super().step(action)


@pytest.mark.parametrize("batch_size", [4, 2])
def test_an_exception_in_a_worker(batch_size):
    vec = forked([Nested, Nested, Nested, Local], num_workers=2, batch_size=batch_size)
    vec.async_reset(seed=0)
    actions = np.ones((batch_size, 1), int), np.zeros((batch_size, 2), np.float32)
    with pytest.raises(EnvError, match=r"(?s)environment 3 raised KeyError: 'no such key'.*in "
                       r"worker process \d \(environments 2 to 3\):\nTraceback .*test_processes.py"
                       ) as caught:
        keep_on(vec, actions)
    assert caught.value.environment == 3
    assert isinstance(caught.value.__cause__, KeyError)
    assert not psutil.Process().children()
    with pytest.raises(ClosedEnvironmentError, match=r"closed .since environment 3 raised Key"):
        vec.recv()


def test_attributes_and_methods():
    with forked(Nested, 5, num_workers=3) as vec:
        vec.reset(seed=4)
        assert vec.get_attr("seeds") == ([4], [5], [6], [7], [8])
        vec.set_attr("length", [1, 2, 3, 4, 5])
        vec.set_attr("episodes", 7)
        assert vec.get_attr("length") == (1, 2, 3, 4, 5)
        assert vec.call("episodes") == (7,) * 5
        assert [info["t"] for info in vec.call("info")] == [0] * 5
        with pytest.raises(AttributeError, match="no_such"):
            vec.call("no_such")
        vec.reset()                                       # a refusal is no fault
        vec.step((np.ones((5, 1), int), np.zeros((5, 2), np.float32)))
        vec.send((np.ones((5, 1), int), np.zeros((5, 2), np.float32)))
        with pytest.raises(AlreadyPendingCallError):
            vec.get_attr("length")
        vec.recv()


def test_a_refusal_of_one_worker_answers_nothing_else():
    with forked(Nested, 4, num_workers=2, batch_size=2) as vec:
        vec.async_reset(seed=0)
        vec.recv()
        for _ in range(2):
            with pytest.raises(AttributeError, match="no_such"):
                vec.call("no_such")
            assert vec.call("length") == (4,) * 4
        assert vec.call("t") == (0,) * 4


class Locked(Nested):
    """Has, and where it is told so says, what cannot be sent."""

    def __init__(self, tell=False):
        super().__init__()
        self.lock, self.tell = threading.Lock(), tell

    def info(self):
        return {"lock": self.lock} if self.tell else {}


def test_what_cannot_be_sent_is_named():
    with forked(Locked, 4, num_workers=2) as vec:
        vec.reset(seed=0)
        for _ in range(2):
            with pytest.raises(TypeError, match="lock"):
                vec.get_attr("lock")
        assert vec.get_attr("length") == (4,) * 4             # the worker lives on
    with (forked(functools.partial(Locked, tell=True), 2, num_workers=2) as vec,
          pytest.raises(TypeError, match=r"infos: .* wrapper.*backend=\"serial\".*lock")):
        vec.reset(seed=0)


def test_a_closed_vector_says_so():
    for make_closed in (functools.partial(make, backend="serial"),
                        functools.partial(forked, num_workers=2)):
        vec = make_closed(Nested, 2)
        vec.reset(seed=0)
        vec.close()
        for use in (vec.ansi, vec.render, lambda v=vec: v.call("length"),
                    lambda v=vec: v.set_attr("length", 3), lambda v=vec: v.get_attr("length")):
            with pytest.raises(ClosedEnvironmentError):
                use()
    vec = forked("squared", 2, num_workers=2)
    vec.close()
    with pytest.raises(ClosedEnvironmentError):
        vec.allocate((3,), np.float32)


def test_agents_in_another_order_are_refused():
    timetable = {"a_0": (0, 3, "terminated"), "b_1": (0, 6, "truncated")}
    other = dict(reversed(timetable.items()))
    factories = [functools.partial(Village, table) for table in (timetable, other)]
    for make_either in (make, functools.partial(forked, num_workers=2)):
        with pytest.raises(ValueError, match=r"equal spaces.*'a_0', 'b_1'"):
            make_either(factories)


class Chatty(Nested):
    """Says more in an info than a socket holds."""

    def info(self):
        return {"much": np.zeros(10**6, np.uint8), "episode": self.episodes}

    def count(self, much):
        return len(much)


def test_infos_that_fill_the_socket():
    """Two groups of one worker in a batch: it cannot go on until the caller has read the first."""
    with forked(Chatty, 4, num_workers=1, batch_size=3) as vec:
        vec.async_reset(seed=0)
        for _ in range(10):
            batch = vec.recv(timeout=5)
            assert batch.infos["much"].shape == (3, 10**6)
            assert batch.infos["_much"].all()
            vec.send((np.ones((3, 1), int), np.zeros((3, 2), np.float32)))
        vec.recv()
        vec.async_reset(seed=0)
        assert (vec.recv().infos["episode"] > 0).all()


def test_interrupted_before_it_reads_what_it_asked_for(monkeypatch):
    """The answer would be taken for that to the next question."""
    def interrupt(*_):
        raise KeyboardInterrupt

    with forked(Nested, 2, num_workers=1) as vec:
        vec.reset(seed=0)
        assert vec.call("length") == (4, 4)
        monkeypatch.setattr(processes.Workers, "_take_replies", interrupt)
        with pytest.raises(KeyboardInterrupt):
            vec.call("length")
        monkeypatch.undo()
        with pytest.raises(ClosedEnvironmentError, match="KeyboardInterrupt while it was talking"):
            vec.call("episodes")


class Slow(Nested):
    """Says something in every step, and takes its time for it."""

    def step(self, action):
        time.sleep(0.3)
        return super().step(action)

    def info(self):
        return {"t": self.t}


class SlowAndChatty(Chatty, Slow):
    pass


class SlowlyReset(Chatty):
    def reset(self, *, seed=None, options=None):
        time.sleep(0.05)
        return super().reset(seed=seed, options=options)


def test_a_worker_that_waited_for_us_is_not_late():
    """It could not reset environment 1 before we read what it says about 0."""
    with forked(SlowlyReset, 2, num_workers=1, batch_size=1, timeout=0.5) as vec:
        vec.async_reset(seed=0)
        time.sleep(0.8)
        assert vec.recv().env_ids == 0
        vec.send((np.ones((1, 1), int), np.zeros((1, 2), np.float32)))
        assert vec.recv().env_ids == 1


def test_a_letter_that_fills_the_socket_while_infos_do():
    """The worker cannot read the letter until the caller has read what the worker says."""
    def give_up(*_):
        raise AssertionError("they wait for each other")

    before = signal.signal(signal.SIGALRM, give_up)
    try:
        with forked(SlowAndChatty, 2, num_workers=1, batch_size=1) as vec:
            vec.async_reset(seed=0)
            vec.recv()
            vec.send((np.ones((1, 1), int), np.zeros((1, 2), np.float32)))
            vec.recv()
            time.sleep(0.5)                               # the worker tells about the step
            signal.alarm(5)
            assert vec.call("count", bytes(10**6)) == (10**6, 10**6)
            signal.alarm(0)
            assert vec.call("count", b"few") == (3, 3)
            vec.send((np.ones((1, 1), int), np.zeros((1, 2), np.float32)))
            assert vec.recv(timeout=5).infos["_much"].all()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_infos_of_what_comes_home_while_mail_is_read(monkeypatch):
    """The worker steps 2, 0 and 1, in this order. 1 was sent before 0, and comes home while the
    caller reads about 0: whichever it gives first, its infos must have been read."""
    read = processes.Workers.read

    def read_slowly(workers):
        read(workers)
        time.sleep(0.5)

    with forked(Slow, 3, num_workers=1, batch_size=1) as vec:
        def receive(environment):
            assert vec.recv(timeout=5).env_ids == environment

        def send():
            vec.send((np.ones((1, 1), int), np.zeros((1, 2), np.float32)))

        vec.async_reset(seed=0)
        time.sleep(0.3)                                   # all are home
        for environment in (0, 1):
            receive(environment)
            vec.hold()
        receive(2)
        send()
        time.sleep(0.1)                                   # the worker is busy with it
        vec.release()
        receive(0)
        vec.hold()
        receive(1)
        send()
        vec.release()
        receive(0)
        send()
        receive(2)
        vec.hold()
        monkeypatch.setattr(processes.Workers, "read", read_slowly)
        for _ in range(2):
            assert vec.recv(timeout=5).infos["t"] == 1
            vec.hold()


def test_nothing_is_sent_when_there_is_nothing_to_tell():
    with forked("CartPole-v1", 4, num_workers=2) as vec:
        vec.reset(seed=0)
        for _ in range(50):
            vec.step(np.zeros(4, int))
        assert vec._engine.announced(1) == 0


def test_environments_registered_in_the_main_script(run_script):
    printed = run_script(HERE + """
import pufferlib_cy
gymnasium.register("Here-v0", Here)
with pufferlib_cy.make("Here-v0", 4, backend="processes", num_workers=2) as vec:
    vec.reset(seed=0)
    print(vec.step([0, 1, 0, 1])[1])
""")
    assert printed == "[0. 1. 0. 1.]\n"


# ---- fairness ------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["threads", "processes"])
def test_no_environment_falls_behind(trouble, backend):
    """Heavy-tailed steps: while an environment is ready and waits, no other is served twice."""
    E, B = 13, 3
    with make(trouble, E, backend=backend, context="fork", num_workers=3, batch_size=B,
              env_kwargs={"seconds": 1e-4}) as vec:
        vec.async_reset(seed=0)
        served = np.zeros(E, int)
        calls = []                                        # (when, who) was served
        for _ in range(400):
            called = time.monotonic()
            batch = vec.recv()
            for e, (steps, _, ready) in zip(batch.env_ids, batch.observations, strict=True):
                assert steps == served[e]                 # each in its own order
                waited = [other for when, who in calls if when > ready for other in who]
                assert max(map(waited.count, waited), default=0) <= 1
            calls = [*calls[-100:], (called, batch.env_ids.tolist())]
            served[batch.env_ids] += 1
            vec.send(np.zeros(B, int))
        # Those that one process steps take turns, whatever their steps take.
        for first, last in vec._ranges() if backend == "processes" else [(0, E)]:
            assert np.ptp(served[first:last]) <= (2 if backend == "processes" else served.mean())


# ---- faults --------------------------------------------------------------------------------------


FATAL = [(LEAVE, "has exited with code 7"), (KILL, "was ended by SIGKILL: out of memory"),
         (SEGV, "was ended by SIGSEGV")]


@pytest.mark.parametrize("batch_size", [6, 2])
@pytest.mark.parametrize(("way", "words"), FATAL)
def test_a_worker_that_dies(trouble, way, words, batch_size):
    vec = forked(trouble, 6, num_workers=3, batch_size=batch_size)
    vec.async_reset(seed=0)
    batch = vec.recv()
    doomed = 5 if batch_size == 6 else int(batch.env_ids[0])
    worker = doomed // 2 + (batch_size == 2)          # the caller is worker 0 or none
    vec.send([way if e == doomed else WORK for e in batch.env_ids])
    began = time.monotonic()
    where = rf"worker process {worker} \(environments {doomed // 2 * 2} to {doomed // 2 * 2 + 1}\)"
    with pytest.raises(WorkerDied, match=f"{where} {words}"):
        keep_on(vec, [WORK] * batch_size)                 # others may be ready for long
    assert time.monotonic() - began < 1
    assert not psutil.Process().children()
    for call in (vec.recv, vec.async_reset, lambda: vec.send([WORK] * batch_size)):
        with pytest.raises(ClosedEnvironmentError, match=f"closed .since worker process .*{words}"):
            call()


@pytest.mark.parametrize("way", [HANG, HANG_WITH_GIL])
@pytest.mark.parametrize("batch_size", [6, 2])
def test_a_worker_that_hangs(trouble, way, batch_size):
    vec = forked(trouble, 6, num_workers=3, batch_size=batch_size, timeout=0.3)
    vec.async_reset(seed=0)
    batch = vec.recv()
    doomed = 5 if batch_size == 6 else int(batch.env_ids[0])
    vec.send([way if e == doomed else WORK for e in batch.env_ids])
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=rf"environments {doomed // 2 * 2} to "
                                           rf"{doomed // 2 * 2 + 1}\): no step within 0.3 s"):
        keep_on(vec, [WORK] * batch_size)
    assert 0.3 <= time.monotonic() - began < 1.3
    with pytest.raises(ClosedEnvironmentError, match="no step within"):
        vec.recv()


@pytest.mark.parametrize("batch_size", [6, 2])
def test_cancel_does_not_wait_for_a_worker_that_hangs(trouble, batch_size):
    with forked(trouble, 6, num_workers=3, batch_size=batch_size) as vec:
        vec.async_reset(seed=0)
        vec.recv()
        raised = []

        def go_on():
            try:
                for _ in range(6 // batch_size):
                    vec.send(act(vec, e5=HANG) if batch_size == 6 else [HANG] * 2)
                    vec.recv()
            except ClosedEnvironmentError as error:
                raised.append(str(error))

        thread = threading.Thread(target=go_on)
        thread.start()
        time.sleep(0.1)
        began = time.monotonic()
        vec.cancel("enough is enough")
        thread.join(1.0)
        assert not thread.is_alive()
        assert time.monotonic() - began < 0.5
        assert "closed (since enough is enough)" in raised[0]


def test_a_short_timeout_of_recv_is_not_a_fault(trouble):
    with forked(trouble, 4, num_workers=2, env_kwargs={"seconds": 0.02}) as vec:
        vec.reset(seed=0)
        vec.send(act(vec))
        # The caller's own share is stepped in any case.
        with contextlib.suppress(TimeoutError):
            vec.recv(timeout=0.0)
            vec.send(act(vec))
        assert vec.recv().observations[:, 0].min() >= 1


def test_a_broken_contract_in_a_worker(trouble):
    vec = forked(trouble, 6, num_workers=3)
    vec.reset(seed=0)
    with pytest.raises(ContractError, match=r"(?s)Trouble, environment 4, agent slot 0: the reward "
                       r"is NaN.*in worker process 2 \(environments 4 to 5\):\nTraceback.*check_"):
        vec.step(act(vec, e4=BREAK))
    assert not psutil.Process().children()
    with pytest.raises(ClosedEnvironmentError, match=r"closed .since Trouble, environment 4"):
        vec.reset()


def test_a_broken_contract_in_the_callers_share(trouble):
    vec = forked(trouble, 6, num_workers=3)
    vec.reset(seed=0)
    with pytest.raises(ContractError, match="environment 1"):
        vec.step(act(vec, e1=BREAK))
    assert not psutil.Process().children()


@pytest.mark.parametrize("context", processes.CONTEXTS)
def test_constructors_that_fail(trouble, context):
    with pytest.raises(ValueError, match=r"(?s)equal spaces.*in worker process 1 \(environments 2"):
        make("cartpole", 4, backend="processes", num_workers=2, context=context,
             env_kwargs=[{}, {}, {"continuous": True}, {}])
    with pytest.raises(ValueError, match="size"):
        make("cartpole", 4, backend="processes", num_workers=2, context=context,
             env_kwargs=[{}, {}, {}, {"size": 3}])
    if context == "fork":
        with pytest.raises(OSError, match="no trouble") as caught:
            forked(trouble, 4, num_workers=2, env_kwargs=[{}, {}, {}, {"fails": True}])
        assert "in worker process 1 (environments 2 to 3):\nTraceback" in str(
            caught.value.__cause__)


def test_what_cannot_be_sent_is_refused():
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"env: what makes .* cannot be sent .*spawn.*lock"):
        spawned("cartpole", 4, num_workers=2, env_kwargs=[{}, {}, {}, {"lock": lock}])


def test_too_much_memory_is_refused_before_anything_starts(trouble):
    with pytest.raises(MemoryError, match=r"need 1.6\de\+03 GB of shared memory, but .* free"):
        forked(trouble, 10**8, env_kwargs={"size": 10**3 - 3})
    with forked(trouble, 4, num_workers=2) as vec:
        with pytest.raises(MemoryError, match="shorter rollout"):
            vec.allocate((10**9, 10**9), np.float32)
        vec.reset()


def test_ten_gigabytes_where_there_are_four(trouble, monkeypatch):
    monkeypatch.setattr(processes, "available_memory", lambda: 4 * 10**9)
    began = time.monotonic()
    with pytest.raises(MemoryError, match=r"need 10(\.\d)? GB of shared memory, but only 4 GB"):
        forked(trouble, 625_000, env_kwargs={"size": 997})
    assert time.monotonic() - began < 1


def test_memory_limits_are_seen():
    assert 0 < processes.available_memory() <= psutil.virtual_memory().total


def test_an_exception_of_the_caller_between_send_and_recv(trouble):
    with forked(trouble, 6, num_workers=3) as vec:
        vec.reset(seed=0)
        with contextlib.suppress(KeyError):
            vec.send(act(vec))
            raise KeyError
        assert vec.recv().observations[:, 0].tolist() == [1] * 6


def test_close_and_collection(trouble):
    vec = forked(trouble, 6, num_workers=3, batch_size=2)
    vec.async_reset(seed=0)
    vec.recv()
    vec.send([HANG, WORK])
    began = time.monotonic()
    vec.close()
    vec.close()
    assert time.monotonic() - began < 1
    with pytest.raises(ClosedEnvironmentError, match="closed: make"):
        vec.recv()
    forgotten = spawned("squared", 6, num_workers=3)
    forgotten.async_reset(seed=0)
    del forgotten


def test_a_copy_of_the_caller_does_not_end_its_workers():
    with forked("squared", 6, num_workers=3) as vec:
        vec.reset(seed=0)
        child = processes.Forked(vec.close)
        while child.poll() is None:
            time.sleep(0.001)
        assert child.poll() == 0
        vec.step(np.zeros(6, int))


@contextlib.contextmanager
def strike(dice):
    """Kill one or two of the worker processes there are, once there are some, at any moment."""
    count, number = dice.choice([1, 1, 2]), dice.choice(
        [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])

    def kill(*_):
        children = psutil.Process().children()
        for child in dice.sample(children, min(count, len(children))):
            os.kill(child.pid, number)
        if not children:
            signal.setitimer(signal.ITIMER_REAL, 0.001)

    before = signal.signal(signal.SIGALRM, kill)
    signal.setitimer(signal.ITIMER_REAL, dice.uniform(1e-4, 0.03))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_two_hundred_random_kills():
    """From before the start on, by any signal."""
    dice = random.Random(0)

    def run(batch_size):
        with strike(dice), forked("squared", 8, num_workers=3, batch_size=batch_size) as vec:
            vec.async_reset(seed=0)
            keep_on(vec, [0] * batch_size)

    for _ in range(200):
        batch_size = dice.choice([8, 4, 2, 1])
        with pytest.raises(WorkerDied, match="worker process"):
            run(batch_size)
        assert not psutil.Process().children()


SCRIPT = """
import sys, numpy as np, pufferlib_cy
vec = pufferlib_cy.make("squared", 8, backend="processes", context=sys.argv[1], num_workers=3)
vec.reset(seed=0)
print("ready", flush=True)
while True:
    vec.step(np.zeros(8, int))
"""


@contextlib.contextmanager
def session(*command):
    """A process that leads a session of its own; yields it and what tells who lives in that."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)

    def living():
        found = []
        for other in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError, psutil.Error):
                if os.getsid(other.pid) == process.pid and other.status() != "zombie":
                    found.append(other.pid)
        return found

    try:
        yield process, living
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def until_empty(living, seconds):
    deadline = time.monotonic() + seconds
    while living() and time.monotonic() < deadline:
        time.sleep(0.01)
    return living()


@pytest.mark.parametrize("context", processes.CONTEXTS)
def test_a_caller_that_is_killed_takes_its_workers_along(context):
    with session(sys.executable, "-c", SCRIPT, context) as (process, living):
        assert process.stdout.readline() == "ready\n"
        assert len(living()) == 3 + (context == "forkserver")
        process.kill()
        process.wait()
        assert not until_empty(living, 1.0)


@pytest.mark.parametrize(("context", "delay"), [
    *(("spawn", delay) for delay in (None, 0.0, 0.25, 0.3, 0.35, 0.4)),
    *(("forkserver", delay) for delay in (None, 0.3, 0.4))])
def test_ctrl_c(context, delay):
    """To the whole group, as a terminal does: only the caller speaks, and all end."""
    with session(sys.executable, "-c", SCRIPT, context) as (process, living):
        if delay is None:
            process.stdout.readline()
        else:
            time.sleep(delay)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=5)
        assert errors.count("KeyboardInterrupt") <= 1
        assert process.returncode != 0
        assert not until_empty(living, 1.0)


def test_a_script_needs_no_main_guard(run_script):
    printed = run_script("""
import pufferlib_cy
print("once")
class Long(dict):
    pass
with pufferlib_cy.make("cartpole", 4, backend="processes", num_workers=2,
                       env_kwargs=Long(max_steps=3)) as vec:
    vec.reset(seed=0)
    for _ in range(3):
        truncations = vec.step([0, 1, 0, 1])[3]
    print(truncations.all())
""")
    assert printed == "once\nTrue\n"


# ---- idleness ------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", ["fork", "forkserver"])
@pytest.mark.parametrize("batch_size", [64, 16])
def test_idle_workers_sleep(batch_size, context):
    """Each, and a fork server, uses less than 2 % of a core, between steps and before the first."""
    with make("squared", 64, backend="processes", num_workers=4, batch_size=batch_size,
              context=context) as vec:
        workers = psutil.Process().children(recursive=True)
        assert len(workers) == 3 + (batch_size == 16) + (context == "forkserver")

        def used():
            return sum(sum(w.cpu_times()[:2]) for w in workers)

        for begin in (lambda: None, lambda: vec.async_reset(seed=0)):
            begin()
            time.sleep(0.1)
            before = used()
            time.sleep(0.6)
            assert used() - before <= 0.6 * 0.02 * len(workers) + 0.01     # a tick of the clock


def test_parked_workers_are_woken():
    """Pauses longer than any spin, so that both sides sleep in between."""
    with forked("squared", 64, num_workers=4) as vec:
        vec.reset(seed=0)
        for _ in range(30):
            time.sleep(0.002)
            vec.step(np.zeros(64, int))


def test_workers_have_one_thread_each_and_no_torch():
    with spawned("squared", 4, num_workers=2) as vec:
        vec.reset(seed=0)
        child = psutil.Process().children()[0]
        assert child.num_threads() == 2                    # and the one that watches the parent
        assert child.environ()["OMP_NUM_THREADS"] == "1"
        assert not any("torch" in m.path for m in child.memory_maps())
    assert os.environ.get("OMP_NUM_THREADS") != "1"
