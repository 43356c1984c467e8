"""What goes wrong in environments, workers and callers, on every backend: the right error, soon,
and nothing that hangs or stays behind. What only worker processes can do wrong is in
test_processes.py.
"""

from __future__ import annotations

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
import weakref

import numpy as np
import psutil
import pytest
from faulty_environments import Faulty, crash, fall, hang, leave
from gymnasium.error import ClosedEnvironmentError
from test_processes import footprint

from pufferlib_cy import EnvError, WorkerDied, make

BACKENDS = [pytest.param(functools.partial(make, backend="serial"), id="serial"),
            pytest.param(functools.partial(make, backend="threads", num_workers=2), id="threads"),
            *(pytest.param(functools.partial(make, backend="processes", num_workers=2,
                                             context=context), id=context)
              for context in ("fork", "spawn", "forkserver"))]
PROCESSES = BACKENDS[2:]


@pytest.fixture(autouse=True)
def nothing_left():
    before = footprint()
    yield
    assert footprint() == before


def play(vec):
    """A reset, and steps that have the fault in every environment that has one."""
    vec.reset(seed=0)
    vec.step(np.zeros(vec.num_envs, int))
    vec.step(np.ones(vec.num_envs, int))


def elapsed(call, *arguments):
    began = time.monotonic()
    call(*arguments)
    return time.monotonic() - began


@pytest.mark.parametrize("where", ["reset", "step"])
@pytest.mark.parametrize("make_one", BACKENDS)
def test_an_exception_in_an_environment(make_one, where):
    vec = make_one([Faulty, Faulty, Faulty, functools.partial(Faulty, fall, where)])
    began = time.monotonic()
    with pytest.raises(EnvError, match="environment 3 raised LookupError: no more rope") as caught:
        play(vec)
    assert time.monotonic() - began < 1
    assert caught.value.environment == 3
    assert isinstance(caught.value.__cause__, LookupError)
    text = str(caught.value)
    if vec.backend == "processes":
        assert "in worker process 1 (environments 2 to 3):\nTraceback" in text
        assert "in fall\n" in text
    else:
        frames = traceback_names(caught.value.__cause__)
        assert frames[-1] == "fall"
    for use in (vec.reset, lambda: vec.step([0] * 4), vec.recv):
        with pytest.raises(ClosedEnvironmentError, match=r"closed .since environment 3 raised"):
            use()
    assert elapsed(vec.close) < 1


def traceback_names(error):
    """The functions that an exception came through."""
    names, frame = [], error.__traceback__
    while frame is not None:
        names.append(frame.tb_frame.f_code.co_name)
        frame = frame.tb_next
    return names


@pytest.mark.parametrize("make_one", BACKENDS)
def test_an_exception_in_a_constructor(make_one):
    made = []

    def good():
        made.append(Faulty())
        return made[-1]

    began = time.monotonic()
    with pytest.raises(LookupError, match="no more rope") as caught:
        make_one([good, good, good, functools.partial(Faulty, fall, "constructor")])
    assert time.monotonic() - began < 3           # interpreters start
    assert "in fall\n" in str(caught.value) or traceback_names(caught.value)[-1] == "fall"
    if sys.version_info >= (3, 11):
        assert caught.value.__notes__ == ["while environment 3 was made"]
    assert len(made) >= 2
    assert all(env.closed for env in made)


@pytest.mark.parametrize("where", ["constructor", "reset", "step"])
@pytest.mark.parametrize(("do", "words"), [
    (leave, "has exited with code 7"),
    (functools.partial(crash, signal.SIGKILL), "was ended by SIGKILL: out of memory"),
    (functools.partial(crash, signal.SIGSEGV), "was ended by SIGSEGV")])
@pytest.mark.parametrize("make_one", [PROCESSES[0], PROCESSES[2]])
def test_a_worker_that_dies(make_one, do, words, where):
    env_fns = [Faulty, Faulty, Faulty, functools.partial(Faulty, do, where)]
    died = pytest.raises(WorkerDied, match=rf"worker process 1 \(environments 2 to 3\) {words}")
    if where == "constructor":
        with died:
            make_one(env_fns)
    else:
        vec = make_one(env_fns)
        began = time.monotonic()
        with died:
            play(vec)
        assert time.monotonic() - began < 1
        with pytest.raises(ClosedEnvironmentError, match=words):
            vec.reset()
    assert not psutil.Process().children(recursive=True)


@pytest.mark.parametrize("make_one", [PROCESSES[0], PROCESSES[2]])
@pytest.mark.parametrize("where", ["reset", "step"])
def test_a_worker_that_hangs(make_one, where):
    vec = make_one([Faulty, Faulty, Faulty, functools.partial(Faulty, hang, where)], timeout=0.3)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"environments 2 to 3\): no step within 0.3 s"):
        play(vec)
    assert 0.3 <= time.monotonic() - began < 1.3
    assert not psutil.Process().children(recursive=True)


class Gate:
    """Lets nobody through until it is opened."""

    def __init__(self):
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self):
        self.reached.set()
        assert self.opened.wait(60)


def test_a_thread_that_hangs():
    """It cannot be ended: it is left, closes the environments when it goes on, and ends."""
    gate, made = Gate(), []

    def env_fn():
        made.append(Faulty(gate))
        return made[-1]

    vec = make(env_fn, 1, backend="threads", num_workers=2, timeout=0.3)
    vec.reset(seed=0)
    vec.send([1])
    assert gate.reached.wait(60)                  # the helper has claimed it
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no batch of 1 environments was ready within 0\.3 s"):
        vec.recv()
    assert 0.3 <= time.monotonic() - began < 1.3
    assert elapsed(vec.close) < 1
    assert elapsed(vec.close) < 0.1
    assert not made[0].closed
    with pytest.raises(ClosedEnvironmentError):
        vec.recv()
    gate.opened.set()
    deadline = time.monotonic() + 5
    while threading.active_count() > 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert made[0].closed


def test_a_native_thread_that_hangs_does_not_keep_the_program(native):
    """It has no GIL to wait for: `close` is soon done, and so is the interpreter."""
    script = """if True:
        import importlib.util, sys, time, threading
        spec = importlib.util.spec_from_file_location(sys.argv[1], sys.argv[2])
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        import pufferlib_cy
        vec = pufferlib_cy.make(module.Trouble, 1, backend="threads", num_workers=2, timeout=0.3)
        vec.reset(seed=0)
        vec.send([4])
        time.sleep(0.3)
        began = time.monotonic()
        try:
            vec.recv()
        except TimeoutError as error:
            print(error)
        waited = time.monotonic() - began
        began = time.monotonic()
        vec.close()
        print(0.3 <= waited < 1.3, time.monotonic() - began < 1)
        """
    module = native["trouble"]
    done = subprocess.run([sys.executable, "-c", script, module.__name__, module.__file__],
                          capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.endswith("call recv again, or close\nTrue True\n"), done
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("make_one", BACKENDS[:4])
def test_an_exception_of_the_caller_between_send_and_recv(make_one):
    with make_one([Faulty] * 4) as vec:
        vec.reset(seed=0)
        with contextlib.suppress(KeyError):
            vec.send(np.zeros(4, int))
            raise KeyError
        assert vec.recv().observations[:, 0].tolist() == [1] * 4


@pytest.mark.parametrize("make_one", BACKENDS)
def test_forgotten_without_close(make_one):
    vec = make_one([Faulty] * 4)
    vec.async_reset(seed=0)
    gone = weakref.ref(vec)
    began = time.monotonic()
    del vec
    gc.collect()
    assert gone() is None
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("make_one", BACKENDS)
def test_close_under_way_and_twice(make_one):
    vec = make_one([Faulty] * 4)
    vec.async_reset(seed=0)
    assert elapsed(vec.close) < 1
    assert elapsed(vec.close) < 0.1
    with pytest.raises(ClosedEnvironmentError):
        vec.recv()


@contextlib.contextmanager
def ctrl_c(seconds):
    """SIGINT to this process after some time, from another thread: the system may then hand it to
    that one while the main thread is deaf to it."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)                   # or the timer would wait for 5 ms
    timer.start()
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        while True:                               # it may come as late as here
            with contextlib.suppress(KeyboardInterrupt):
                timer.join()
                break


# An interrupt that comes while an object is collected is lost, and Python says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning",
                            "ignore::ResourceWarning")
@pytest.mark.parametrize("longest", [0.01, 0.06])
@pytest.mark.parametrize("make_one", BACKENDS[:3])
def test_ctrl_c_at_any_moment(make_one, longest):
    """While a vector is made, reset, stepped, asked and closed: afterwards it is gone, or can be
    closed."""
    dice = random.Random(0)
    interrupted = 0
    for _ in range(25):
        vec, end = None, time.monotonic() + 0.7 * longest
        try:
            with ctrl_c(dice.uniform(0, longest)), make_one([Faulty] * 4) as vec:
                vec.reset(seed=0)
                while time.monotonic() < end:
                    vec.step(np.zeros(4, int))
                    vec.call("get_wrapper_attr", "t")
        except KeyboardInterrupt as error:
            interrupted += 1
            error.__traceback__ = None            # which would keep what was being made
        if vec is not None:
            assert elapsed(vec.close) < 1
        del vec
        gc.collect()
        assert not psutil.Process().children(recursive=True)
    assert interrupted > 4


def test_ctrl_c_while_a_worker_that_does_not_read_is_written_to():
    """Its socket is full, so that it cannot even be told to leave."""
    vec = make([Faulty] * 2, backend="processes", num_workers=2, context="fork")
    vec.reset(seed=0)
    (worker,) = psutil.Process().children()
    worker.suspend()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), ctrl_c(0.1):
        vec.set_attr("much", np.zeros(10**7))
    assert time.monotonic() - began < 1.1
    assert not psutil.Process().children()
    with pytest.raises(ClosedEnvironmentError, match="since KeyboardInterrupt while it"):
        vec.reset()


def test_a_fork_server_that_is_killed():
    """It is a child as the workers are, which end with it."""
    vec = make([Faulty] * 6, backend="processes", num_workers=3, context="forkserver")
    vec.reset(seed=0)
    (server,) = psutil.Process().children()
    workers = server.children()
    assert len(workers) == 2
    server.kill()
    began = time.monotonic()
    with pytest.raises(WorkerDied, match=r"worker process 1 .* was ended by SIGKILL"):
        for _ in iter(lambda: vec.step(np.zeros(6, int)), None):
            pass
    assert time.monotonic() - began < 1
    _, alive = psutil.wait_procs(workers, timeout=1)
    assert not [worker for worker in alive if worker.status() != psutil.STATUS_ZOMBIE]
