"""The Gymnasium bridge against Gymnasium's own vector environments, bit for bit."""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import cloudpickle
import gymnasium
import numpy as np
import psutil
import pytest
from gymnasium import spaces
from gymnasium.error import (
    AlreadyPendingCallError,
    ClosedEnvironmentError,
    InvalidAction,
    NoAsyncCallError,
    ResetNeeded,
)
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from toys import HERE

import pufferlib_cy
from pufferlib_cy.bridges.gymnasium import (
    AsyncVectorEnv,
    NativeGymnasiumEnv,
    SyncVectorEnv,
    as_gymnasium,
    make_native_vec,
)
from pufferlib_cy.envs import REGISTRY

MODES = list(AutoresetMode)
STEPS = 1000
# Most tests fork, which starts a worker in milliseconds.
threaded = partial(AsyncVectorEnv, backend="threads")
forked = partial(AsyncVectorEnv, context="fork")
KINDS = [pytest.param(SyncVectorEnv, id="serial"), pytest.param(threaded, id="threads"),
         pytest.param(forked, id="processes")]


class Spaced(gymnasium.Env):
    """Samples of any space as observations, episodes of random length, infos of every kind; what it
    was told comes back in the infos."""

    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012 - Gymnasium's convention

    def __init__(self, observation_space, action_space=None, render_mode=None):
        self.observation_space = copy.deepcopy(observation_space)
        self.action_space = copy.deepcopy(action_space) or Discrete(5, start=-2)
        self.render_mode = render_mode
        self.observation_space.seed(0)
        self.samples = [self.observation_space.sample() for _ in range(20)]
        self.resets = 0
        self.closed = False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.resets += 1
        self.t = 0
        info = {"resets": self.resets, "options": options or {}} if self.resets % 2 else {}
        return self.observe(), info

    def observe(self):
        return self.samples[self.np_random.integers(20)]

    def step(self, action):
        assert self.action_space.contains(action)
        self.t += 1
        info = {"t": self.t, "action": action, "deep": {"half": self.t / 2, "even": True},
                "row": np.arange(2) * self.t, "name": str(self.t)} if self.t % 3 else {}
        ends = self.np_random.random(2) < 0.1
        return (self.observe(), self.np_random.normal(), bool(ends[0]),
                bool(ends[1]), info)

    def render(self):
        return f"step {self.t}"

    def double(self, number, *, plus=0):
        return 2 * number + plus

    def pid(self):
        return os.getpid()

    def close(self):
        self.closed = True


def assert_equal(ours, theirs):
    """The same structure, types, dtypes and bits."""
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs)
        for key, value in theirs.items():
            assert_equal(ours[key], value)
    elif isinstance(theirs, (tuple, list)):
        assert type(ours) is type(theirs)
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert_equal(mine, other)
    elif isinstance(theirs, np.ndarray) and theirs.dtype == object:
        assert ours.dtype == object
        assert_equal(ours.tolist(), theirs.tolist())
    elif isinstance(theirs, np.ndarray):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        assert ours.tobytes() == theirs.tobytes()
    else:
        assert ours == theirs


ON_EVERY_BACKEND = (SyncVectorEnv, partial(SyncVectorEnv, copy=False),
                    partial(threaded, num_workers=3), partial(forked, num_workers=2))


def assert_same(env_fns, mode, steps, kinds=ON_EVERY_BACKEND, seed=7):
    """`steps` steps of Gymnasium's SyncVectorEnv and of ours; counts how many environments ended.
    """
    with contextlib.ExitStack() as closing:
        def made(kind, autoreset_mode):
            env = kind(env_fns, autoreset_mode=autoreset_mode)
            closing.callback(env.close)
            return env

        reference = made(gymnasium.vector.SyncVectorEnv, mode)
        others = [made(kind, mode if i % 2 else mode.value) for i, kind in enumerate(kinds)]
        for env in others:
            assert env.observation_space == reference.observation_space
            assert env.action_space == reference.action_space
            assert env.single_observation_space == reference.single_observation_space
            assert env.single_action_space == reference.single_action_space
            assert env.metadata == reference.metadata
            assert env.render_mode == reference.render_mode
        expected = reference.reset(seed=seed)
        for env in others:
            assert_equal(env.reset(seed=seed), expected)
        reference.action_space.seed(seed)
        ended = 0
        for step in range(steps):
            actions = reference.action_space.sample()
            expected = reference.step(actions)
            for env in others:
                assert_equal(env.step(actions), expected)
            over = expected[2] | expected[3]
            ended += over.sum()
            if mode is AutoresetMode.DISABLED and over.any():
                # By turns with and without seeds and other options.
                more = {"level": step} if step % 2 else {}
                seeds = [step + i for i in range(len(env_fns))] if step % 3 else None
                expected = reference.reset(seed=seeds, options={"reset_mask": over, **more})
                for env in others:
                    assert_equal(env.reset(seed=seeds, options={"reset_mask": over, **more}),
                                 expected)
    return ended


OBSERVATION_SPACES = [
    Box(-1, 1, (2, 3), np.float32),
    Box(-np.inf, np.inf, (), np.float64),
    Discrete(5, start=-2),
    MultiDiscrete([[2, 3], [4, 5]]),
    MultiBinary((2, 3)),
    Tuple((Discrete(3), Box(0, 255, (4, 4, 3), np.uint8), Box(-5, 5, (3,), np.int16))),
    Dict({"b": Tuple((Box(0, 1, (2,), np.float16), MultiDiscrete([3, 4], start=[1, -1]))),
          "a": Dict({"flag": MultiBinary(5), "where": Discrete(9), "deep": Tuple((Discrete(2),)),
                     "large": Box(-2**62, 2**62, (2,), np.int64)})}),
]
ACTION_SPACES = [
    MultiDiscrete([2, 3, 4]),
    MultiBinary(3),
    Box(-2, 2, (2, 2), np.float32),
    Box(-10, 10, (3,), np.int32),
    Box(-np.inf, np.inf, (2,), np.float32),
    Tuple((Discrete(3, start=1), Dict({"x": MultiDiscrete([2, 2]), "y": MultiBinary(2)}))),
    Dict({"jump": Discrete(3, start=1), "push": Box(-1, 1, (2, 1), np.float32)}),
    Dict({"b": Box(-1, 1, (2,), np.float32), "a": Box(0, 3, (1, 1), np.float32)}),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("space", OBSERVATION_SPACES, ids=str)
def test_observation_spaces(space, mode):
    assert assert_same([partial(Spaced, space)] * 3, mode, STEPS) > 300


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("space", ACTION_SPACES, ids=str)
def test_action_spaces(space, mode):
    assert assert_same([partial(Spaced, Box(0, 1, (2,)), space)] * 3, mode, 200) > 50


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [
    "CartPole-v1", "Taxi-v3", "FrozenLake-v1", "Blackjack-v1", "Pendulum-v1", "Acrobot-v1",
    "MountainCarContinuous-v0"])
def test_gymnasiums_environments(name, mode):
    if name not in gymnasium.registry:
        name = next(known for known in gymnasium.registry if known.startswith(name[:-1]))
    assert assert_same([partial(gymnasium.make, name, max_episode_steps=60)] * 2, mode, STEPS) > 20


@pytest.mark.parametrize("mode", MODES)
def test_any_number_of_workers(mode):
    kinds = [*(partial(threaded, num_workers=count) for count in (1, 2, 5)),
             *(partial(forked, num_workers=count) for count in (1, 2, 3, 5)),
             partial(forked, copy=False, num_workers=2),
             partial(AsyncVectorEnv, backend="serial")]
    assert assert_same([partial(Spaced, OBSERVATION_SPACES[-1])] * 5, mode, 300, kinds) > 150


@pytest.mark.parametrize("context", ["spawn", None])
def test_any_way_to_start(context):
    kinds = [partial(AsyncVectorEnv, context=context, num_workers=2)]
    here = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(here)     # workers cannot import it: as a script
    try:
        assert assert_same([partial(Spaced, OBSERVATION_SPACES[-2])] * 3, MODES[0], 100, kinds) > 30
    finally:
        cloudpickle.unregister_pickle_by_value(here)


@pytest.mark.parametrize("mode", MODES)
def test_gymnasiums_own_worker_processes(mode):
    """Against AsyncVectorEnv itself, which copies infos and rewards through pipes."""
    env_fns = [partial(Spaced, OBSERVATION_SPACES[0])] * 3
    theirs = gymnasium.vector.AsyncVectorEnv(env_fns, autoreset_mode=mode, context="fork")
    with contextlib.closing(theirs), contextlib.closing(forked(env_fns, num_workers=2,
                                                               autoreset_mode=mode)) as ours:
        assert_equal(ours.reset(seed=2), theirs.reset(seed=2))
        for step in range(200):
            actions = theirs.action_space.sample()
            ours.step_async(actions)
            theirs.step_async(actions)
            expected = theirs.step_wait(timeout=60)
            assert_equal(ours.step_wait(timeout=60), expected)
            if mode is AutoresetMode.DISABLED and (over := expected[2] | expected[3]).any():
                ours.reset_async(options={"reset_mask": over, "level": step})
                theirs.reset_async(options={"reset_mask": over, "level": step})
                assert_equal(ours.reset_wait(timeout=60), theirs.reset_wait(timeout=60))
            assert ours.call("double", step) == theirs.call("double", step)
            assert ours.get_attr("t") == theirs.get_attr("t")


# ---- what the classes are made with --------------------------------------------------------------

def different(i):
    return Spaced(Box(-i, i, (2,), np.float32))


@pytest.mark.parametrize("kind", KINDS)
def test_observation_modes(kind):
    env_fns = [partial(different, i + 1) for i in range(3)]
    custom = Box(-9, 9, (3, 2), np.float32), Box(-9, 9, (2,), np.float32)
    for mode in ("different", custom):
        ours = kind(env_fns, observation_mode=mode)
        theirs = gymnasium.vector.SyncVectorEnv(env_fns, observation_mode=mode)
        assert ours.observation_space == theirs.observation_space
        assert ours.single_observation_space == theirs.single_observation_space
        assert_equal(ours.reset(seed=1), theirs.reset(seed=1))
        ours.close()
    with pytest.raises(RuntimeError, match=r"environment 1 .* need observation_mode='different'"):
        kind(env_fns)
    with pytest.raises(RuntimeError, match="environment 1 has the observation space"):
        kind([partial(different, 1), partial(Spaced, Discrete(2))],
             observation_mode="different")
    with pytest.raises(RuntimeError, match="environment 1 has the action space"):
        kind([partial(Spaced, Discrete(2)), partial(Spaced, Discrete(2), Discrete(3))])
    with pytest.raises(ValueError, match="observation_mode: 'equal'"):
        kind(env_fns, observation_mode="equal")
    with pytest.raises(TypeError, match="the batched and the single"):
        kind(env_fns, observation_mode=(1, 2))


@pytest.mark.parametrize(("space", "where"), [
    (Dict({"word": spaces.Text(5)}), r"observation\['word'\]: a Text"),
    (Tuple((Discrete(2), spaces.Sequence(Discrete(3)))), r"observation\[1\]: a Sequence"),
    (spaces.Graph(Discrete(2), None), "observation: a Graph"),
    (spaces.OneOf([Discrete(2), Discrete(3)]), "observation: a OneOf"),
])
def test_spaces_that_cannot_be_rows_are_named(space, where):
    made = []

    def env_fn():
        made.append(Spaced(space))
        return made[-1]

    for kind in (SyncVectorEnv, threaded, forked):
        with pytest.raises(ValueError, match=where):
            kind([env_fn] * 2)
    assert len(made) == 2 + 2 + 1            # worker processes were not even started
    assert all(env.closed for env in made)


def test_arguments_that_make_no_sense():
    env_fns = [partial(Spaced, Discrete(2))]
    with pytest.raises(ValueError, match="env_fns: expected at least one"):
        SyncVectorEnv([])
    with pytest.raises(TypeError, match=r"env_fns: callable 0 gave 3, which is no gymnasium\.Env"):
        SyncVectorEnv([lambda: 3])
    with pytest.raises(ValueError, match="'SometimesLater' is not a valid AutoresetMode"):
        SyncVectorEnv(env_fns, autoreset_mode="SometimesLater")
    with pytest.raises(ValueError, match="worker: "):
        AsyncVectorEnv(env_fns, worker=print)
    with pytest.raises(ValueError, match="max_concurrency: expected a positive int"):
        AsyncVectorEnv(env_fns, max_concurrency=0)
    with pytest.raises(ValueError, match="backend: 'pipes'"):
        AsyncVectorEnv(env_fns, backend="pipes")
    with pytest.raises(ValueError, match="context: 'thread' is not one of spawn, fork"):
        AsyncVectorEnv(env_fns, context="thread")
    with pytest.raises(ValueError, match="num_workers: expected a positive int"):
        AsyncVectorEnv(env_fns, num_workers=0)
    with contextlib.closing(forked(env_fns * 3, max_concurrency=2, num_workers=3)) as env:
        assert len(set(env.call("pid"))) == 2


def test_gymnasium_without_autoreset_modes():
    """As 1.0 is: its own vector environments know NEXT_STEP only, and have no name for it."""
    code = """if True:
        import gymnasium.vector
        del gymnasium.vector.AutoresetMode
        import pufferlib_cy.bridges.gymnasium as bridge
        class Short(gymnasium.Env):
            observation_space = action_space = gymnasium.spaces.Discrete(2)
            def reset(self, *, seed=None, options=None):
                self.t = 0
                return 0, {}
            def step(self, action):
                self.t += 1
                return 1, 0.0, self.t == 2, False, {}
        for mode in ("NextStep", bridge.AutoresetMode.SAME_STEP, "Disabled"):
            envs = bridge.SyncVectorEnv([Short], autoreset_mode=mode)
            envs.reset(seed=0)
            infos = [envs.step(envs.action_space.sample())[4] for _ in range(2)]
            print(envs.metadata["autoreset_mode"].value, "final_obs" in infos[1])
        """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["NextStep False", "SameStep True", "Disabled False", ""]


def test_metadata_is_the_instances_own():
    class Own(Spaced):
        metadata = {"render_modes": ["ansi"]}  # noqa: RUF012 - Gymnasium's convention

    first = SyncVectorEnv([partial(Own, Discrete(2))], autoreset_mode="SameStep")
    second = SyncVectorEnv([partial(Own, Discrete(2))], autoreset_mode="Disabled")
    assert first.metadata == {"render_modes": ["ansi"], "autoreset_mode": AutoresetMode.SAME_STEP}
    assert second.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    assert "autoreset_mode" not in Own.metadata


@pytest.mark.parametrize("kind", KINDS)
def test_calls_and_attributes(kind):
    env_fns = [partial(Spaced, Discrete(9), render_mode="ansi")] * 3
    theirs = gymnasium.vector.SyncVectorEnv(env_fns)
    with contextlib.closing(kind(env_fns)) as ours:
        for env in (ours, theirs):
            env.reset(seed=3)
            assert env.np_random_seed == (3, 4, 5)
            assert len(env.np_random) == 3
            assert env.call("double", 2, plus=1) == (5, 5, 5)
            assert env.call("resets") == env.get_attr("resets") == (1, 1, 1)
            env.set_attr("resets", [7, 8, 9])
            assert env.get_attr("resets") == (7, 8, 9)
            env.set_attr("resets", 4)
            assert env.get_attr("resets") == (4, 4, 4)
            with pytest.raises(ValueError, match=r"3\b"):
                env.set_attr("resets", [1, 2])
            with pytest.raises(AttributeError):
                env.get_attr("height")
            assert env.render() == ("step 0",) * 3
            assert env.unwrapped is env
            assert env.spec is None
        assert repr(ours) == f"{getattr(kind, 'func', kind).__name__}(num_envs=3)"
        # An error of a call leaves all as it was.
        ours.step(ours.action_space.sample())


def test_views_without_copy():
    env_fns = [partial(Spaced, Dict({"view": Box(0, 1, (2,)), "number": Discrete(9)}))] * 2
    with contextlib.closing(SyncVectorEnv(env_fns, copy=False)) as env:
        first, _ = env.reset(seed=1)
        second = env.step(env.action_space.sample())[0]
        assert np.shares_memory(first["view"], second["view"])
    with contextlib.closing(SyncVectorEnv(env_fns)) as env:
        results = [env.reset(seed=1)[0]]
        before = copy.deepcopy(results[0])
        results += env.step(env.action_space.sample())[:4]
        env.step(env.action_space.sample())
        assert_equal(results[0], before)
        assert results[1]["view"].flags.c_contiguous
        assert results[1]["view"].flags.writeable


# ---- resets and errors ---------------------------------------------------------------------------

@pytest.mark.parametrize("kind", KINDS)
def test_reset_masks(kind):
    env = kind([partial(Spaced, Box(0, 1, (1,)))] * 3, autoreset_mode=AutoresetMode.DISABLED)
    with contextlib.closing(env):
        first, _ = env.reset(seed=[5, None, 7])
        mask = np.array([True, False, True])
        options = {"reset_mask": mask, "level": 3}
        again, infos = env.reset(seed=[5, 6, 8], options=options)
        assert options == {"reset_mask": mask, "level": 3}
        assert (again == first).ravel().tolist() == [True, True, False]
        assert env.get_attr("resets") == (2, 1, 2)
        assert infos == {}
        _, infos = env.reset(options={"level": 4})
        assert infos["options"]["level"].tolist() == [4, 0, 4]
        for wrong, error in ((mask[:2], ValueError), (mask.tolist(), TypeError),
                             (mask.astype(int), TypeError), (np.zeros(3, bool), ValueError)):
            with pytest.raises(error, match="reset_mask"):
                env.reset(options={"reset_mask": wrong})
        with pytest.raises(ValueError, match=r"seed: expected an int or one per environment \(3\)"):
            env.reset(seed=[1, 2])
        env.step(env.action_space.sample())


def test_an_ended_environment_is_not_stepped():
    env = SyncVectorEnv([partial(gymnasium.make, "CartPole-v1", max_episode_steps=1)],
                        autoreset_mode=AutoresetMode.DISABLED)
    env.reset()
    env.step(np.array([0]))
    with pytest.raises(ResetNeeded):
        env.step(np.array([0]))


class Failing(Spaced):
    steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps == 3:
            raise KeyError("no more rope")
        return super().step(action)


@pytest.mark.parametrize("kind", KINDS)
def test_an_exception_is_the_environments_own(kind):
    env = kind([partial(Spaced, Discrete(3)), partial(Failing, Discrete(3))],
               autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    for _ in range(2):
        env.step(np.array([0, 0]))
    with pytest.raises(KeyError, match="no more rope") as caught:
        env.step(np.array([0, 0]))
    assert isinstance(caught.value.__cause__, pufferlib_cy.EnvError)
    assert caught.value.__cause__.environment == 1
    if kind is forked:
        assert "in worker process 2 (environments 1 to 1):\nTraceback" in str(
            caught.value.__cause__)
        assert not psutil.Process().children()
    with pytest.raises(ClosedEnvironmentError, match="since environment 1 raised KeyError"):
        env.step(np.array([0, 0]))
    env.close()


@pytest.mark.parametrize(("actions", "where"), [
    ({"a": np.zeros(2, int)}, r"actions\['b'\]: missing"),
    ({"a": np.zeros(3, int), "b": np.zeros((2, 2))}, r"actions\['a'\]: expected shape \(2,\)"),
    ({"a": np.zeros(2, int), "b": np.zeros((2, 3))}, r"actions\['b'\]: expected shape \(2, 2\)"),
    ({"a": np.array([0, 9]), "b": np.ones((2, 2), int)}, "row 1"),
])
def test_actions_that_are_not_in_the_space(actions, where):
    space = Dict({"a": Discrete(3), "b": MultiDiscrete([2, 2])})
    with contextlib.closing(forked([partial(Spaced, Discrete(2), space)] * 2)) as env:
        env.reset()
        with pytest.raises(InvalidAction, match=where):
            env.step(actions)
        env.step(env.action_space.sample())


# ---- asynchronous use ----------------------------------------------------------------------------

@pytest.mark.parametrize("kind", [threaded, forked])
def test_asynchronous_calls_in_order(kind):
    env_fns = [partial(Spaced, Box(0, 1, (2,)))] * 2
    ours, theirs = kind(env_fns), gymnasium.vector.SyncVectorEnv(env_fns)
    with contextlib.closing(ours):
        for wait in (ours.reset_wait, ours.step_wait, ours.call_wait):
            with pytest.raises(NoAsyncCallError):
                wait()
        ours.reset_async(seed=4)
        with pytest.raises(AlreadyPendingCallError) as caught:
            ours.step_async(np.zeros(2, int))
        assert caught.value.name == "reset"
        with pytest.raises(NoAsyncCallError):
            ours.step_wait()
        assert_equal(ours.reset_wait(timeout=60), theirs.reset(seed=4))
        ours.step_async(np.zeros(2, int))
        for pending in (ours.reset_async, partial(ours.step_async, np.zeros(2, int)),
                        partial(ours.call_async, "resets"), partial(ours.get_attr, "resets"),
                        partial(ours.set_attr, "resets", 1), ours.render):
            with pytest.raises(AlreadyPendingCallError) as caught:
                pending()
            assert caught.value.name == "step"
        assert_equal(ours.step_wait(), theirs.step(np.zeros(2, int)))
        ours.call_async("double", 4)
        with pytest.raises(AlreadyPendingCallError):
            ours.reset_async()
        assert ours.call_wait() == (8, 8)
        with pytest.raises(ValueError, match="own step"):
            ours.call("step", 0)
        assert_equal(ours.step(np.ones(2, int)), theirs.step(np.ones(2, int)))
    for call in (ours.reset, ours.call_wait, partial(ours.step, np.zeros(2, int))):
        with pytest.raises(ClosedEnvironmentError):
            call()
    ours.close()


class Slow(Spaced):
    """A step that begins, and ends when it is told to."""

    def __init__(self, space):
        super().__init__(space)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def step(self, action):
        self.begun.set()
        assert self.go_on.wait(60)
        return super().step(action)


def test_a_call_that_takes_too_long_can_be_waited_for_again():
    with contextlib.closing(threaded([partial(Slow, Discrete(2))], num_workers=2)) as env:
        env.reset(seed=0)
        (slow,) = env.vec._engine.envs[0].envs
        env.step_async(np.array([0]))
        assert slow.begun.wait(60)
        with pytest.raises(multiprocessing.TimeoutError, match=r"step_wait: not done after 0\.05"):
            env.step_wait(timeout=0.05)
        with pytest.raises(AlreadyPendingCallError):
            env.step_async(np.array([0]))
        slow.go_on.set()
        assert env.step_wait(timeout=60)[1].shape == (1,)
        assert env.get_attr("t") == (1,)


# ---- worker processes ----------------------------------------------------------------------------

class Waiting(Spaced):
    """Each reset, step and call of `wait` reads a byte from a pipe before it goes on; when it
    begins to, and when it is closed, it says so in another."""

    def __init__(self, source, sink=None):
        super().__init__(Box(0, 1, (2,)))
        self.source, self.sink = source, sink

    def say(self, word):
        if self.sink is not None:
            os.write(self.sink, word)

    def wait(self):
        self.say(b"w")
        return os.read(self.source, 1)

    def reset(self, *, seed=None, options=None):
        self.wait()
        return super().reset(seed=seed, options=options)

    def step(self, action):
        if self.wait() == b"x":
            os._exit(3)
        return super().step(action)

    def close(self):
        self.say(b"c")


@contextlib.contextmanager
def pipe():
    """The ends of a pipe, for reading and writing."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def test_environments_live_in_worker_processes():
    made = []

    def env_fn():
        made.append(Spaced(Discrete(2)))
        return made[-1]

    with contextlib.closing(forked([env_fn] * 7, num_workers=3)) as env:
        env.reset(seed=0)
        pids = env.call("pid")
        assert {p.pid for p in psutil.Process().children()} == set(pids)
        assert len(set(pids)) == 3
        assert len(made) == 1                # to be looked at
        assert made[0].closed
    assert not psutil.Process().children()


def test_calls_go_on_beside_the_caller_and_may_be_waited_for_again():
    with pipe() as (source, go_on), contextlib.closing(forked(
            [partial(Waiting, source)] * 3, num_workers=2, autoreset_mode="Disabled")) as env:
        def late(begin, wait, calls):
            begin()
            with pytest.raises(multiprocessing.TimeoutError, match=r"not done after 0\.05 s"):
                wait(timeout=0.05)
            with pytest.raises(AlreadyPendingCallError):
                env.call_async("t")
            os.write(go_on, b"." * calls)
            return wait(timeout=60)

        late(partial(env.reset_async, seed=0), env.reset_wait, 3)
        assert late(partial(env.step_async, np.zeros(3, int)), env.step_wait, 3)[1].shape == (3,)
        mask = {"reset_mask": np.array([False, True, False])}
        late(partial(env.reset_async, options=mask), env.reset_wait, 1)
        assert env.get_attr("resets") == (1, 2, 1)
        assert late(partial(env.call_async, "wait"), env.call_wait, 3) == (b".",) * 3
        assert env.get_attr("t") == (1, 0, 1)


@pytest.mark.parametrize(("arguments", "closed"), [({}, 0), ({"timeout": 0.1}, 0),
                                                   ({"timeout": 60, "terminate": True}, 0),
                                                   ({"timeout": 60}, 1)])
@pytest.mark.filterwarnings("ignore:.*close while a step is under way")
def test_close_while_a_step_is_under_way(arguments, closed):
    """Within a second, whatever the environments do; `timeout` is for them to be done before."""
    with pipe() as (source, go_on), pipe() as (told, sink):
        def hear(words):
            assert all(os.read(told, 1) == words[i:i + 1] for i in range(len(words)))

        env = forked([partial(Waiting, source, sink)] * 2, num_workers=2)
        hear(b"c")                           # the one that was looked at
        os.write(go_on, b"..")
        env.reset()
        env.step_async(np.zeros(2, int))
        hear(b"wwww")
        if closed:
            os.write(go_on, b"..")
        began = time.monotonic()
        env.close(**arguments)
        env.close()
        assert time.monotonic() - began < 1.1
        assert not psutil.Process().children()
        os.set_blocking(told, False)
        if closed:
            hear(b"cc")
        with pytest.raises(BlockingIOError):
            hear(b"c")
    with pytest.raises(ClosedEnvironmentError):
        env.step_wait()


def test_a_worker_that_dies():
    with pipe() as (source, go_on):
        env = forked([partial(Waiting, source)] * 3, num_workers=2)
        os.write(go_on, b"...")
        env.reset()
        os.write(go_on, b"x" * 3)
        began = time.monotonic()
        with pytest.raises(pufferlib_cy.WorkerDied, match="has exited with code 3"):
            env.step(np.zeros(3, int))
        assert time.monotonic() - began < 1
        assert not psutil.Process().children()
        for call in (env.reset, partial(env.step, np.zeros(3, int)), partial(env.call, "t"),
                     partial(env.set_attr, "t", 1), env.render):
            with pytest.raises(ClosedEnvironmentError, match="exited with code 3"):
                call()
        env.close()


def test_an_interrupted_wait_may_be_waited_for_again():
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pipe() as (source, go_on), contextlib.closing(
                forked([partial(Waiting, source)] * 2, num_workers=2)) as env:
            os.write(go_on, b"..")
            env.reset()
            env.step_async(np.zeros(2, int))
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                env.step_wait()
            os.write(go_on, b"..")
            assert env.step_wait()[1].shape == (2,)
    finally:
        signal.signal(signal.SIGALRM, before)


class OddError(Exception):
    """One that cannot be read back: its constructor wants two arguments."""

    def __init__(self, what, where):
        super().__init__(f"{what} in {where}")


class Throwing(Spaced):
    def step(self, action):
        raise OddError("a knot", "the rope")


def test_an_exception_that_cannot_be_sent_is_told_in_words():
    env = forked([partial(Throwing, Discrete(2))] * 2, num_workers=2)
    env.reset()
    with pytest.raises(pufferlib_cy.EnvError,
                       match=r"(?s)raised OddError: a knot in the rope.*in worker process \d "):
        env.step(np.zeros(2, int))
    env.close()


def test_a_refused_call_leaves_no_answer_behind():
    """One of the values cannot be sent, after another could have been."""
    with contextlib.closing(forked([partial(Spaced, Discrete(2))] * 2, num_workers=2)) as env:
        env.reset()
        with pytest.raises(TypeError, match="cannot be sent to a worker process"):
            env.set_attr("extra", [1, threading.Lock()])
        with pytest.raises(TypeError, match="cannot be sent to a worker process"):
            env.call_async("double", threading.Lock())
        assert env.call("double", 3) == (6, 6)
        assert not any(map(partial(hasattr, Spaced), ["extra"]))
        with pytest.raises(AttributeError):
            env.get_attr("extra")


def test_environments_that_only_the_main_script_has_registered(run_script):
    """Spawned workers do not run it, and `lambda: gymnasium.make(...)` does not name its module."""
    printed = run_script(HERE + """
from pufferlib_cy.bridges.gymnasium import AsyncVectorEnv
gymnasium.register("Here-v0", Here, max_episode_steps=1)
gymnasium.register("Unsent-v0", lambda lock=__import__("threading").Lock(): None)
envs = AsyncVectorEnv([lambda: gymnasium.make("Here-v0")] * 4, context="spawn", num_workers=2)
envs.reset(seed=0)
print(*envs.step(np.array([0, 1, 0, 1]))[1:4])
""")
    assert printed == "[0. 1. 0. 1.] [False False False False] [ True  True  True  True]\n"


# ---- any vector environment ----------------------------------------------------------------------

@pytest.mark.parametrize("mode", MODES)
def test_info_layouts(mode):
    """A list says what the dict says: that of Gymnasium's own wrapper."""
    env_fns = [partial(Spaced, Dict({"a": Discrete(9)}))] * 3
    reference = gymnasium.wrappers.vector.DictInfoToList(
        gymnasium.vector.SyncVectorEnv(env_fns, autoreset_mode=mode))
    autoreset = {"NextStep": "next_step", "SameStep": "same_step", "Disabled": "disabled"}
    with pufferlib_cy.make(env_fns, autoreset=autoreset[mode.value]) as vec:
        ours = as_gymnasium(vec, info_layout="list")
        assert ours.metadata["autoreset_mode"] is mode
        assert_equal(ours.reset(seed=1), reference.reset(seed=1))
        for _ in range(100):
            actions = ours.action_space.sample()
            results, expected = ours.step(actions), reference.step(actions)
            assert_equal(results, expected)
            over = expected[2] | expected[3]
            if mode is AutoresetMode.DISABLED and over.any():
                options = {"reset_mask": over}
                assert_equal(ours.reset(options=dict(options)),
                             reference.reset(options=dict(options)))


def test_what_is_no_gymnasium_vector_environment():
    with (pufferlib_cy.make("pong", env_kwargs={"two_player": True}) as vec,
          pytest.raises(ValueError, match=r"has 2: use pufferlib_cy\.bridges\.pettingzoo")):
        as_gymnasium(vec)
    with (pufferlib_cy.make("pong", 4, batch_size=2) as vec,
          pytest.raises(ValueError, match="batch_size is 2 of 4")):
        as_gymnasium(vec)
    with pufferlib_cy.make("squared") as vec:
        with pytest.raises(ValueError, match="info_layout: 'table'"):
            as_gymnasium(vec, info_layout="table")
        with pytest.raises(ValueError, match="render_mode: 'human' is not one"):
            as_gymnasium(vec, render_mode="human")
        with pytest.raises(ValueError, match="no attributes"):
            as_gymnasium(vec).get_attr("state")


# ---- native environments -------------------------------------------------------------------------

def test_importing_registers_and_loads_nothing_else():
    code = """if True:
        import sys, warnings
        warnings.simplefilter("error")
        import pufferlib_cy, gymnasium
        print(sum(name.startswith("pufferlib_cy/") for name in gymnasium.registry))
        print([name for name in sys.modules if name in ("torch", "pettingzoo", "stable_baselines3")
               or name.startswith(("pufferlib_cy.envs.", "pufferlib_cy.bridges."))])
        """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == [str(len(REGISTRY)), "[]", ""]
    assert done.stderr == ""


SINGLE = [f"pufferlib_cy/{kind}-v0" for name, (_, kind) in sorted(REGISTRY.items())
          if name not in ("snake", "foraging", "commons", "warehouse")]


@pytest.mark.filterwarnings("ignore:.*(Box|box) .* space:UserWarning")    # advice about ranges
@pytest.mark.parametrize("env_id", SINGLE)
def test_gymnasiums_checker(env_id):
    env = gymnasium.make(env_id)
    modes = env.unwrapped.metadata["render_modes"]
    check_env(env.unwrapped, skip_render_check=True)
    for mode in modes:
        with contextlib.closing(gymnasium.make(env_id, render_mode=mode)) as drawn:
            drawn.reset(seed=0)
            picture = drawn.render()
            assert isinstance(picture, str if mode == "ansi" else np.ndarray)
    if not modes:
        with pytest.raises(ValueError, match="render_mode: 'ansi' is not one"):
            gymnasium.make(env_id, render_mode="ansi")


def test_several_agents_are_for_pettingzoo():
    with pytest.raises(ValueError, match=r"pufferlib_cy\.bridges\.pettingzoo"):
        gymnasium.make("pufferlib_cy/Snake-v0")
    with pytest.raises(ValueError, match=r"pufferlib_cy\.bridges\.pettingzoo"):
        gymnasium.make_vec("pufferlib_cy/Snake-v0", num_envs=2)


def test_make_vec_passes_arguments_on():
    with contextlib.closing(gymnasium.make_vec(
            "pufferlib_cy/Squared-v0", num_envs=3, size=7, backend="threads", num_workers=2,
            autoreset_mode="SameStep", info_layout="list")) as env:
        assert env.single_observation_space.shape == (49,)
        assert env.vec.backend == "threads"
        assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
        assert env.reset(seed=1)[1] == [{}, {}, {}]
        assert env.spec.id == "pufferlib_cy/Squared-v0"
    pictures = []
    for backend in ("serial", "processes"):
        with contextlib.closing(make_native_vec("breakout", 2, backend=backend, num_workers=(
                2 if backend == "processes" else 1), render_mode="rgb_array")) as env:
            env.reset(seed=1)
            first, second = env.render()
            assert first.dtype == second.dtype == np.uint8
            assert first.ndim == 3
            pictures.append((first, second))
    assert_equal(*pictures)
    with contextlib.closing(make_native_vec("connect4", 2)) as env:
        _, infos = env.reset(seed=1)
        assert infos["action_mask"].tolist() == [[1] * 7 + [0]] * 2
        assert infos["_action_mask"].tolist() == [True, True]


@pytest.mark.parametrize("name", ["cartpole", "breakout", "squared"])
def test_the_same_trajectories_in_three_ways(name):
    """make, gymnasium.make_vec and gymnasium.make, with the user resetting."""
    env_id = f"pufferlib_cy/{REGISTRY[name][1]}-v0"
    vec = pufferlib_cy.make(name, 2, autoreset="disabled", copy=True)
    batched = gymnasium.make_vec(env_id, num_envs=2, autoreset_mode="Disabled")
    singles = [gymnasium.make(env_id) for _ in range(2)]
    with vec, contextlib.closing(batched):
        rows, _ = vec.reset(seed=3)
        assert_equal(batched.reset(seed=3)[0], rows)
        for i, single in enumerate(singles):
            assert_equal(single.reset(seed=3 + i)[0], rows[i])
        batched.action_space.seed(0)
        ended = 0
        for _ in range(300):
            actions = batched.action_space.sample()
            rows, rewards, terminations, truncations, _ = vec.step(actions)
            assert_equal(batched.step(actions)[:4],
                         (rows, rewards.astype(np.float64), terminations, truncations))
            for i, single in enumerate(singles):
                view, *result = single.step(actions[i])
                assert_equal(view, rows[i])
                assert result[:3] == [rewards[i], terminations[i], truncations[i]]
            over = terminations | truncations
            ended += over.sum()
            if over.any():
                rows, _ = vec.reset(options={"reset_mask": over})
                assert_equal(batched.reset(options={"reset_mask": over})[0], rows)
                for i in np.flatnonzero(over):
                    assert_equal(singles[i].reset()[0], rows[i])
        assert ended > 0 or name == "breakout"


def test_a_native_environment_refuses_wrong_use():
    with contextlib.closing(NativeGymnasiumEnv("squared")) as env:
        with pytest.raises(ResetNeeded):
            env.step(0)
        env.reset(seed=0)
        with pytest.raises(InvalidAction, match="which is not in Discrete"):
            env.step(9)
        with pytest.raises(InvalidAction, match="expected shape"):
            env.step([0, 1])
        assert env.render() is None
