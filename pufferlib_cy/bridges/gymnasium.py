"""Gymnasium's vector environments over ours: drop-in classes, `as_gymnasium`, native environments.

`SyncVectorEnv` and `AsyncVectorEnv` take the arguments of Gymnasium's own and give the same arrays,
bit for bit. `as_gymnasium` turns any vector environment with one agent per environment into a
``gymnasium.vector.VectorEnv``; ``gymnasium.make_vec("pufferlib_cy/Breakout-v0", ...)`` makes one of
native environments, and ``gymnasium.make`` a single one.
"""

from __future__ import annotations

import contextlib
import enum
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import logger
from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError, NoAsyncCallError
from gymnasium.spaces import Space
from gymnasium.spaces.utils import is_space_dtype_shape_equiv
from gymnasium.vector.async_vector_env import AsyncState
from gymnasium.vector.utils import batch_differing_spaces, batch_space
from numpy.typing import NDArray

from pufferlib_cy import processes
from pufferlib_cy._core import EnvError, NativeEnv
from pufferlib_cy._emulation import GymnasiumEnvs, PythonEnvs
from pufferlib_cy.auto import available_cores
from pufferlib_cy.bridges import nested
from pufferlib_cy.emulation import Blueprint, making
from pufferlib_cy.infos import Infos, gather
from pufferlib_cy.vector import Processes, Serial, Threads, VectorEnv, make
from pufferlib_cy.viewers import TURNS_PER_SECOND

try:
    from gymnasium.vector import AutoresetMode
except ImportError:
    class AutoresetMode(enum.Enum):  # type: ignore[no-redef]
        """Those of Gymnasium 1.1; that of 1.0 itself is NEXT_STEP."""

        NEXT_STEP = "NextStep"
        SAME_STEP = "SameStep"
        DISABLED = "Disabled"

MODES = {AutoresetMode.SAME_STEP: "same_step", AutoresetMode.NEXT_STEP: "next_step",
         AutoresetMode.DISABLED: "disabled"}

Step = tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Any]


# ---- any vector environment ----------------------------------------------------------------------

class GymnasiumVectorEnv(gymnasium.vector.VectorEnv[Any, Any, NDArray[Any]]):
    """A vector environment of this package as Gymnasium's; see `as_gymnasium`.

    `vec` is the vector environment below. An exception of an environment is raised as it is, with
    an `EnvError` that names the environment as its cause; `vec` is closed then.
    """

    closed = True               # until it is made: Gymnasium 1.1 closes what it collects

    def __init__(self, vec: VectorEnv, *, info_layout: str = "dict", copy: bool = True,
                 render_mode: str | None = None) -> None:
        nested.require_single_agent(vec, "a Gymnasium vector environment")
        if info_layout not in ("dict", "list"):
            raise ValueError(f"info_layout: {info_layout!r} is not one of dict, list")
        self.vec = vec
        self.copy = copy
        self.info_layout = info_layout
        self.num_envs = vec.num_envs
        self.autoreset_mode = next(mode for mode, name in MODES.items() if name == vec.autoreset)
        self.metadata, self.render_mode = nested.looks(vec, render_mode)
        self.metadata["autoreset_mode"] = self.autoreset_mode
        self.single_observation_space = vec.env_observation_space
        self.single_action_space = vec.env_action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.closed = False

    def reset(self, *, seed: int | Sequence[int | None] | None = None,
              options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """Begin a new episode in every environment; return observations and infos.

        `seed`: an int s seeds environment i with s + i; a sequence has one per environment (None:
        its random stream goes on). ``options={"reset_mask": mask}``, bool (num_envs,), resets only
        those environments; the other options go to the environments.
        """
        with _original_errors():
            self._send_reset(seed, options)
            return self._recv_reset()

    def step(self, actions: Any) -> Step:
        """Step every environment; return observations, rewards float64 (num_envs,), terminations
        and truncations bool (num_envs,), infos.

        Raises InvalidAction if an action is not in its space; then nothing was stepped.
        """
        with _original_errors():
            self._send(actions)
            return self._recv()

    def render(self) -> tuple[Any, ...] | None:
        """What each environment draws in its render mode; None without one."""
        if self.vec._python:
            return self.vec.call("render")
        if self.render_mode is None:
            return None
        return tuple(nested.draw(self.vec, self.render_mode, i) for i in range(self.num_envs))

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Of every environment: what its method `name` returns, or its attribute `name`."""
        return self.vec.call(name, *args, **kwargs)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Of every environment: its attribute `name`."""
        return self.vec.get_attr(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set the attribute `name`: a list or tuple has a value for each environment, anything else
        is for all."""
        self.vec.set_attr(name, values)

    def close_extras(self, **_: Any) -> None:
        """Close the environments; what is still under way is not waited for."""
        self.vec.close()

    # ---- helpers ---------------------------------------------------------------------------------

    def _send_reset(self, seed: int | Sequence[int | None] | None,
                    options: dict[str, Any] | None) -> None:
        if options is None or "reset_mask" not in options:
            self.vec.async_reset(seed=seed, options=options)
            return
        mask = self._reset_mask(options["reset_mask"])
        seeds = None if seed is None else self.vec._seeds(seed)
        if seeds is not None:
            seeds = [s if chosen else None for s, chosen in zip(seeds, mask, strict=True)]
        self.vec._send_reset_some(
            mask, seeds, {key: value for key, value in options.items() if key != "reset_mask"})

    def _recv_reset(self, timeout: float | None = None) -> tuple[Any, Any]:
        self.vec._engine.recv(self.vec.timeout if timeout is None else timeout)
        return self._observe(), self._infos(np.zeros(self.num_envs, np.bool_))

    def _send(self, actions: Any) -> None:
        self.vec.send(nested.action_rows(self.vec.action_tree, actions, self.num_envs))

    def _recv(self, timeout: float | None = None) -> Step:
        self.vec._engine.recv(self.vec.timeout if timeout is None else timeout)
        rewards, terminations, truncations = self.vec._outcomes()
        return (self._observe(), nested.exact_rewards(self.vec, rewards), terminations.copy(),
                truncations.copy(), self._infos(terminations | truncations))

    def _observe(self) -> Any:
        return nested.observations(self.vec.space_tree, self.vec._shown(), self.copy)

    def _infos(self, ended: NDArray[np.bool_]) -> Any:
        """What the environments said in the last call, in the layout asked for; `ended`, bool
        (num_envs,): their episode is over."""
        entries = self.vec._engine.take_infos()
        finals: dict[int, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and ended.any():
            last = {e: info for e, over, info in entries if over}
            finals = {int(e): nested.observations(self.vec.space_tree,
                                                  self.vec._engine.final_observations[e, ...])
                      for e in np.flatnonzero(ended)}
            entries = [*((e, True, {"final_info": last.get(e, {})}) for e in finals),
                       *(entry for entry in entries if not entry[1])]
        masks = self.vec.action_masks if not self.vec._python else None
        if self.info_layout == "list":
            infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
            for e, _, info in entries:
                infos[e].update(info)
            for e, observation in finals.items():
                infos[e]["final_obs"] = observation
            if masks is not None:
                for info, mask in zip(infos, masks.astype(np.int8), strict=True):
                    info["action_mask"] = mask
            return infos
        gathered: Infos = gather(((e, info) for e, _, info in entries), self.num_envs)
        if finals:
            column = np.full(self.num_envs, None, object)
            for e, observation in finals.items():
                column[e] = observation
            gathered.update(final_obs=column, _final_obs=ended.copy())
        if masks is not None:
            gathered.update(action_mask=masks.astype(np.int8),
                            _action_mask=np.ones(self.num_envs, np.bool_))
        return gathered

    def _reset_mask(self, mask: Any) -> NDArray[np.bool_]:
        """The mask, if it is one; else the errors that Gymnasium raises."""
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"reset_mask: expected a bool array of shape ({self.num_envs},), one "
                            f"per environment, got {mask!r:.80}")
        if mask.shape != (self.num_envs,):
            raise ValueError(f"reset_mask: expected shape ({self.num_envs},), one per environment, "
                             f"got {mask.shape}")
        if not mask.any():
            raise ValueError("reset_mask: not one environment is to be reset")
        return np.ascontiguousarray(mask)


def as_gymnasium(vec: VectorEnv, *, info_layout: str = "dict", copy: bool = True,
                 render_mode: str | None = None) -> GymnasiumVectorEnv:
    """A vector environment with one agent per environment as a ``gymnasium.vector.VectorEnv``.

    info_layout: "dict" of arrays, each with a mask, as Gymnasium has it; or "list", one dict per
        environment, for clients that still want that.
    copy: False returns views of rows, valid until the next call, of all that need no conversion.
    render_mode: of native environments, "rgb_array" or "ansi"; others have theirs already.

    Its autoreset mode is that of `vec`. Native environments with action masks give them as
    ``infos["action_mask"]``, int8 (num_envs, choices). Raises ValueError for several agents per
    environment, which are for `pufferlib_cy.bridges.pettingzoo`.
    """
    return GymnasiumVectorEnv(vec, info_layout=info_layout, copy=copy, render_mode=render_mode)


@contextlib.contextmanager
def _original_errors() -> Iterator[None]:
    """Raise exceptions of environments as they are, caused by the EnvError that tells whose."""
    try:
        yield
    except EnvError as fault:
        error, fault.__cause__ = fault.__cause__, None
        if error is None:                  # it could not be sent from its process: only its words
            raise
        raise error from fault


# ---- Gymnasium's classes -------------------------------------------------------------------------

class _PythonVectorEnv(GymnasiumVectorEnv):
    """What `SyncVectorEnv` and `AsyncVectorEnv` have in common: how they are made."""

    def __init__(self, env_fns: Sequence[Callable[[], gymnasium.Env[Any, Any]]], copy: bool,
                 observation_mode: str | tuple[Space[Any], Space[Any]],
                 autoreset_mode: str | AutoresetMode, backend: str, num_workers: int | None,
                 context: str = "spawn") -> None:
        self.env_fns = list(env_fns)
        self.observation_mode = observation_mode
        mode = MODES[AutoresetMode(autoreset_mode)]
        custom: tuple[Space[Any], Space[Any]] | None = None
        if isinstance(observation_mode, tuple) and len(observation_mode) == 2:
            if not all(isinstance(space, Space) for space in observation_mode):
                raise TypeError("observation_mode: expected the batched and the single observation "
                                f"space, got {observation_mode}")
            custom = observation_mode
        elif observation_mode not in ("same", "different"):
            raise ValueError(f"observation_mode: {observation_mode!r} is not one of 'same', "
                             "'different', or a tuple of the batched and the single space")
        if not self.env_fns:
            raise ValueError("env_fns: expected at least one callable that makes an environment")
        vec = _launch(_Maker(self.env_fns, custom[1] if custom else None), len(self.env_fns), mode,
                      backend, num_workers, context)
        try:
            super().__init__(vec, copy=copy)
            observed = vec.get_attr("observation_space")
            self._check_spaces(observed, vec.get_attr("action_space"))
            if custom:
                self.observation_space, self.single_observation_space = custom
            elif observation_mode == "different":
                self.observation_space = batch_differing_spaces(list(observed))
        except BaseException:
            vec.close()
            raise

    def _check_spaces(self, observed: Sequence[Space[Any]], acted: Sequence[Space[Any]]) -> None:
        """Raise RuntimeError for the first environment that does not fit the others."""
        for i, (observation_space, action_space) in enumerate(zip(observed, acted, strict=True)):
            if self.observation_mode == "same":
                fits = observation_space == self.single_observation_space
            else:
                fits = is_space_dtype_shape_equiv(observation_space, self.single_observation_space)
            if not fits:
                raise RuntimeError(
                    f"environment {i} has the observation space {observation_space}, which does "
                    f"not fit {self.single_observation_space} with observation_mode="
                    f"{self.observation_mode!r}; spaces that differ in their bounds only need "
                    "observation_mode='different'")
            if action_space != self.single_action_space:
                raise RuntimeError(f"environment {i} has the action space {action_space}, but that "
                                   f"of environment 0 is {self.single_action_space}")

    @property
    def np_random_seed(self) -> Any:
        """The seed of every environment's generator."""
        return self.get_attr("np_random_seed")

    @property  # type: ignore[misc]
    def np_random(self) -> Any:
        """Every environment's generator."""
        return self.get_attr("np_random")


class _Given(Blueprint):
    """Of environments that `_PythonVectorEnv` looks at itself, by Gymnasium's rules."""

    def check(self, envs: Sequence[Any]) -> None:
        pass


class _Maker:
    """Makes environments [first, last) as what the engine steps: a `processes.Construct`.

    space: of their observations, if it is not their own. All have the spaces of the environment
    that is made first, that is 0, also in the worker processes, to which this object is sent after
    that.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gymnasium.Env[Any, Any]]],
                 space: Space[Any] | None) -> None:
        self.env_fns = env_fns
        self.space = space
        self.blueprint: Blueprint | None = None

    def __call__(self, first: int, last: int) -> tuple[list[NativeEnv], list[int]]:
        envs: list[gymnasium.Env[Any, Any]] = []
        try:
            for i, env_fn in enumerate(self.env_fns[first:last], first):
                with making(i):
                    env = env_fn()
                if not isinstance(env, gymnasium.Env):
                    raise TypeError(f"env_fns: callable {i} gave {env!r:.60}, which is no "
                                    "gymnasium.Env")
                envs.append(env)
            if self.blueprint is None:
                self.blueprint = _Given(self.space or envs[0].observation_space,
                                        envs[0].action_space, 1, (), False, False)
            return [GymnasiumEnvs(envs, self.blueprint)], [len(envs)]
        except BaseException:
            for env in envs:
                env.close()
            raise


def _launch(maker: _Maker, num_envs: int, autoreset: str, backend: str, num_workers: int | None,
            context: str) -> VectorEnv:
    """The vector environment of a backend: the one place where the classes here choose one."""
    if backend not in ("serial", "threads", "processes"):
        raise ValueError(f"backend: {backend!r} is not one of serial, threads, processes")
    if num_workers is None:
        num_workers = min(num_envs, available_cores())
    if backend == "serial":
        num_workers = 1
    # Gymnasium waits for ever where it is given no timeout: so does a negative one here.
    arguments: dict[str, Any] = dict(num_workers=num_workers, batch_size=num_envs,
                                     autoreset=autoreset, seed=None, timeout=-1.0, copy=False)
    if backend == "processes":
        return Processes(maker, num_envs, context=context, caller_steps=False, **arguments)
    return (Serial if backend == "serial" else Threads)(*maker(0, num_envs), **arguments)


class SyncVectorEnv(_PythonVectorEnv):
    """Environments stepped one by one: ``gymnasium.vector.SyncVectorEnv`` over rows.

    Parameters
    ----------
    env_fns: callables that each make a gymnasium.Env.
    copy: False returns views of rows, valid until the next call, of all that need no conversion.
    observation_mode: "same": all observation spaces are equal; "different": they differ in their
        bounds; or a tuple of the batched and the single space.
    autoreset_mode: an AutoresetMode or its value; it is also ``metadata["autoreset_mode"]``.

    Raises RuntimeError if the environments' spaces do not fit, and SpaceError, a ValueError, naming
    the part of a space that cannot be a row (Text, Sequence, Graph, OneOf, a custom space).
    """

    def __init__(self, env_fns: Sequence[Callable[[], gymnasium.Env[Any, Any]]], copy: bool = True,
                 observation_mode: str | tuple[Space[Any], Space[Any]] = "same",
                 autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP) -> None:
        super().__init__(env_fns, copy, observation_mode, autoreset_mode, "serial", 1)

    @property
    def envs(self) -> list[gymnasium.Env[Any, Any]]:
        """The environments."""
        env = self.vec._engine.envs[0]
        assert isinstance(env, PythonEnvs)
        return env.envs


class AsyncVectorEnv(_PythonVectorEnv):
    """Environments stepped in worker processes: ``gymnasium.vector.AsyncVectorEnv`` over rows.

    Parameters
    ----------
    env_fns, copy, observation_mode, autoreset_mode: as for `SyncVectorEnv`.
    shared_memory, daemon: accepted for Gymnasium's signature; rows are always shared, and workers
        always end with the caller, though they may have children.
    context: how worker processes start, "spawn", "fork" or "forkserver"; None: the default of
        `multiprocessing`, as with Gymnasium.
    worker: must be None: there is no worker function to replace.
    max_concurrency: environments stepped at the same time, at most.
    backend: "processes", "threads" (in this process, for environments that let go of the GIL), or
        "serial".
    num_workers: processes or threads; default: one per core. All environments live in the
        processes, each with a share of them; but one is made in this process, to be looked at, and
        closed.

    An environment that ends or crashes its process raises `pufferlib_cy.WorkerDied`. A call that
    times out stays under way, and may be waited for again (Gymnasium's own forgets it).
    """

    def __init__(self, env_fns: Sequence[Callable[[], gymnasium.Env[Any, Any]]],
                 shared_memory: bool = True, copy: bool = True, context: str | None = None,
                 daemon: bool = True, worker: None = None,
                 observation_mode: str | tuple[Space[Any], Space[Any]] = "same",
                 autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
                 max_concurrency: int | None = None, *, backend: str = "processes",
                 num_workers: int | None = None) -> None:
        if worker is not None:
            raise ValueError("worker: environments are stepped by the engine; change what a step "
                             "does with a gymnasium.Wrapper")
        start = context or (multiprocessing.get_start_method(allow_none=True)
                            or multiprocessing.get_all_start_methods()[0])
        if start not in processes.CONTEXTS:
            raise ValueError(f"context: {start!r} is not one of {', '.join(processes.CONTEXTS)}")
        for name, value in (("max_concurrency", max_concurrency), ("num_workers", num_workers)):
            if value is not None and (not isinstance(value, (int, np.integer)) or value < 1):
                raise ValueError(f"{name}: expected a positive int or None, got {value!r}")
        if max_concurrency is not None:
            num_workers = min(int(max_concurrency), num_workers or available_cores())
        self.shared_memory, self.context, self.daemon = shared_memory, context, daemon
        self.max_concurrency = max_concurrency
        self._state = AsyncState.DEFAULT
        self._called: Callable[[float | None], list[Any]] | None = None
        super().__init__(env_fns, copy, observation_mode, autoreset_mode, backend, num_workers,
                         start)

    def reset(self, *, seed: int | Sequence[int | None] | None = None,
              options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """`reset_async` and `reset_wait` in one."""
        self.reset_async(seed=seed, options=options)
        return self.reset_wait()

    def reset_async(self, seed: int | Sequence[int | None] | None = None,
                    options: dict[str, Any] | None = None) -> None:
        """Begin new episodes, as `SyncVectorEnv.reset` says; `reset_wait` gives the observations.
        """
        self._begin(AsyncState.WAITING_RESET)
        with self._undone_on_error(), _original_errors():
            self._send_reset(seed, options)

    def reset_wait(self, timeout: float | None = None) -> tuple[Any, Any]:
        """The observations and infos of `reset_async`, within `timeout` seconds (None: for ever).

        Raises NoAsyncCallError without that call, and multiprocessing.TimeoutError.
        """
        with self._ending(AsyncState.WAITING_RESET, timeout):
            return self._recv_reset(timeout)

    def step(self, actions: Any) -> Step:
        """`step_async` and `step_wait` in one."""
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: Any) -> None:
        """Begin to step every environment; `step_wait` gives the results.

        Raises AlreadyPendingCallError if a call is under way, and InvalidAction if an action is not
        in its space; then nothing is stepped.
        """
        self._begin(AsyncState.WAITING_STEP)
        with self._undone_on_error():
            self._send(actions)

    def step_wait(self, timeout: float | None = None) -> Step:
        """The results of `step_async`, within `timeout` seconds (None: for ever).

        Raises NoAsyncCallError without that call, and multiprocessing.TimeoutError.
        """
        with self._ending(AsyncState.WAITING_STEP, timeout):
            return self._recv(timeout)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """`call_async` and `call_wait` in one."""
        self.call_async(name, *args, **kwargs)
        return self.call_wait()

    def call_async(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Ask every environment for what its method `name` returns, or for its attribute."""
        if name in ("reset", "step", "close", "_setattr", "_check_spaces"):
            raise ValueError(f"call: use the vector environment's own {name}")
        self._begin(AsyncState.WAITING_CALL)
        with self._undone_on_error():
            self.vec._require_python("call")
            self._called = self.vec._begin(processes.call, [(name, args, kwargs)] * self.num_envs)

    def call_wait(self, timeout: float | None = None) -> tuple[Any, ...]:
        """The answers to `call_async`, one per environment, within `timeout` seconds (None: for
        ever; so with threads, which answer here).

        Raises NoAsyncCallError without that call, and multiprocessing.TimeoutError.
        """
        with self._ending(AsyncState.WAITING_CALL, timeout):
            assert self._called is not None
            return tuple(self._called(timeout))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Of every environment: its attribute `name`."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set the attribute `name`: a list or tuple has a value for each environment, anything else
        is for all."""
        self._require_default("set_attr")
        super().set_attr(name, values)

    def render(self) -> tuple[Any, ...]:
        """What each environment draws in its render mode."""
        return self.call("render")

    def close_extras(self, timeout: float | None = None, terminate: bool = False,
                     **_: Any) -> None:
        """Close the environments and end the worker processes.

        What is under way is waited for `timeout` seconds, if that is given and `terminate` is not:
        then workers close their environments. Those that are still busy are ended without that,
        within a second.
        """
        try:
            if self._state is not AsyncState.DEFAULT:
                logger.warn(f"close while a {self._state.value} is under way")
                if timeout is not None and not terminate:
                    with contextlib.suppress(multiprocessing.TimeoutError):
                        getattr(self, f"{self._state.value}_wait")(timeout)
        finally:
            self.vec.close()

    def _begin(self, state: AsyncState) -> None:
        self._require_default(f"{state.value}_async")
        self._state = state

    def _require_default(self, call: str) -> None:
        self._require_open()
        if self._state is not AsyncState.DEFAULT:
            raise AlreadyPendingCallError(
                f"{call} while a {self._state.value} is under way: call {self._state.value}_wait "
                "first", self._state.value)

    def _require_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError("this vector environment is closed: make a new one")

    @contextlib.contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        """A call that raises has not begun."""
        try:
            yield
        except BaseException:
            self._state = AsyncState.DEFAULT
            raise

    @contextlib.contextmanager
    def _ending(self, state: AsyncState, timeout: float | None) -> Iterator[None]:
        """The call has ended, unless it has run out of time, or was interrupted."""
        self._require_open()
        if self._state is not state:
            raise NoAsyncCallError(f"{state.value}_wait without {state.value}_async before it",
                                   state.value)
        try:
            with _original_errors():
                yield
        except TimeoutError as error:
            if self.vec._under_way:
                raise multiprocessing.TimeoutError(
                    f"{state.value}_wait: not done after {timeout} s; it is still under way: call "
                    f"{state.value}_wait again, or close") from error
            raise
        finally:
            if not self.vec._under_way:
                self._state = AsyncState.DEFAULT


# ---- native environments by id -------------------------------------------------------------------

def make_native_vec(env: str | type[NativeEnv], num_envs: int = 1, *, backend: str = "auto",
                    num_workers: int | None = None,
                    autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
                    info_layout: str = "dict", copy: bool = True, render_mode: str | None = None,
                    **env_kwargs: Any) -> GymnasiumVectorEnv:
    """Native environments as a Gymnasium vector environment: what ``gymnasium.make_vec`` calls.

    backend, num_workers: as for `pufferlib_cy.make`; info_layout, copy, render_mode: as for
    `as_gymnasium`. The others are arguments of the environment's constructor.
    """
    vec = make(env, num_envs, backend=backend, num_workers=num_workers,
               autoreset=MODES[AutoresetMode(autoreset_mode)], env_kwargs=env_kwargs)
    try:
        return as_gymnasium(vec, info_layout=info_layout, copy=copy, render_mode=render_mode)
    except BaseException:
        vec.close()
        raise


class NativeGymnasiumEnv(gymnasium.Env[Any, Any]):
    """One native environment as a gymnasium.Env: what ``gymnasium.make`` gives.

    env: its name or class; env_kwargs: arguments of its constructor. Many of them at once, by
    ``gymnasium.make_vec``, are thousands of times as fast.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - Gymnasium's convention
        "render_modes": list(nested.RENDER_MODES), "render_fps": TURNS_PER_SECOND}

    def __init__(self, env: str | type[NativeEnv], render_mode: str | None = None,
                 **env_kwargs: Any) -> None:
        self.vec = make(env, 1, backend="serial", autoreset="disabled", env_kwargs=env_kwargs)
        nested.require_single_agent(self.vec, "a gymnasium.Env")
        self.metadata, self.render_mode = nested.looks(self.vec, render_mode)
        self.observation_space = self.vec.env_observation_space
        self.action_space = self.vec.env_action_space

    def reset(self, *, seed: int | None = None,
              options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a new episode: observation and info; `seed` starts the random stream anew. There
        are no options."""
        super().reset(seed=seed)
        rows, _ = self.vec.reset(seed=seed)
        return nested.observations(self.vec.space_tree, rows[0, ...]), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step: observation, reward, terminated, truncated, info.

        Raises InvalidAction for an action that is not in the space, and ResetNeeded if the episode
        is over.
        """
        rows, rewards, terminations, truncations, _ = self.vec.step(
            nested.slot_rows(self.vec.action_tree, {0: action}, 1))
        return (nested.observations(self.vec.space_tree, rows[0, ...]), float(rewards[0]),
                bool(terminations[0]), bool(truncations[0]), self._info())

    def render(self) -> Any:
        """A picture in the render mode: uint8 (height, width, 3) or str."""
        return nested.draw(self.vec, self.render_mode)

    def close(self) -> None:
        """Close the environment; closing twice is fine."""
        self.vec.close()

    def _info(self) -> dict[str, Any]:
        masks = self.vec.action_masks
        return {} if masks is None else {"action_mask": masks[0].astype(np.int8)}
