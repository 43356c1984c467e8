"""Vector environments: `make`, and what it returns.

A vector environment steps E environments with A agent slots each as N = E * A rows. `Serial` steps
them in the calling thread; `Threads` has helper threads beside it, `Processes` worker processes.
All are thin: the work is done by `pufferlib_cy._engine.Engine`, and all backends give the same
bytes for the same seed. Python environments come in through `pufferlib_cy.emulation`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from gymnasium.error import AlreadyPendingCallError, ResetNeeded
from gymnasium.spaces import Space
from numpy.typing import ArrayLike, DTypeLike, NDArray

from pufferlib_cy import auto, processes
from pufferlib_cy._core import NativeEnv
from pufferlib_cy._emulation import PythonEnvs
from pufferlib_cy._engine import Engine, layout
from pufferlib_cy._spaces import ActionTree, SpaceTree
from pufferlib_cy.arrays import aligned_zeros
from pufferlib_cy.auto import available_cores
from pufferlib_cy.construct import construct, environment_class, is_native_class
from pufferlib_cy.infos import Infos, gather
from pufferlib_cy.shards import divide, owners

AUTORESET_MODES = ("same_step", "next_step", "disabled")
BACKENDS = ("auto", "serial", "threads", "processes")
RNG_BYTES = 16                # of an environment's random stream


@dataclass(frozen=True)
class Batch:
    """What `VectorEnv.recv` gives: the rows of `batch_size` environments.

    The arrays are valid until the next recv, or for good with ``copy=True``. With B environments of
    A agents there are R = B * A rows; `env_ids` says whose they are.
    """

    observations: NDArray[Any]             # (R, *observation shape)
    rewards: NDArray[np.float32]           # (R,)
    terminations: NDArray[np.bool_]        # (R,)
    truncations: NDArray[np.bool_]         # (R,)
    masks: NDArray[np.bool_]               # (R,) live agents
    action_masks: NDArray[np.bool_] | None  # (R, choices) legal actions
    env_ids: NDArray[np.int64]             # (B,)
    infos: Infos


class VectorEnv:
    """E environments behind one set of arrays; made by `make`.

    What `reset`, `step` and `recv` return is valid until the next call, unless ``copy=True``. To
    find who reads it later, set PUFFERLIB_CY_POISON=1: the next call then overwrites it with NaN,
    or the largest number, -1 or True.
    Works as a context manager; `close` is also called when the object is collected.

    Attributes
    ----------
    num_envs, agents_per_env, num_agents: E, A, and N = E * A rows.
    batch_size: environments per `recv`; E is synchronous.
    single_observation_space, single_action_space: of one row, as the policy sees them.
    env_observation_space, env_action_space: of one agent, as the environment declares them.
    space_tree, action_tree: how these two become one another.
    num_workers: threads or processes that step, the caller among them in synchronous use.
    autoreset: "same_step", "next_step" or "disabled".
    stat_names: of the environment's own statistics, see `episode_stats`.
    action_names: of its discrete actions, in order; () if it has no names for them.
    render_fps: steps per second at which it looks right; None: it takes turns.
    """

    backend: str

    def __init__(self, environments: Sequence[NativeEnv], counts: Sequence[int], *,
                 num_workers: int, batch_size: int, autoreset: str, seed: Any, timeout: float,
                 copy: bool, share: processes.Share | None = None) -> None:
        env = environments[0]
        self._engine = Engine(
            environments, counts, helpers=0 if share else num_workers - 1, batch_size=batch_size,
            autoreset=AUTORESET_MODES.index(autoreset), cores=available_cores(), share=share)
        # The helper threads hold the engine, not this object: so it is collected when its last
        # user lets go, and then stops them.
        self._finalizer = weakref.finalize(self, self._engine.stop)
        self._engine.start_threads()
        self.num_envs: int = self._engine.num_envs
        self.agents_per_env: int = self._engine.agents_per_env
        self.num_agents: int = self._engine.num_agents
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.autoreset = autoreset
        self.timeout = timeout
        self.space_tree: SpaceTree = env.space_tree
        self.action_tree: ActionTree = env.action_tree
        self.single_observation_space: Space[Any] = env.space_tree.flat_space
        self.single_action_space: Space[Any] = env.action_tree.flat_space
        self.env_observation_space: Space[Any] = env.observation_space
        self.env_action_space: Space[Any] = env.action_space
        self.stat_names = env.stat_names
        self.action_names = env.action_names
        self.render_fps = env.render_fps
        self._seed = seed
        self._copy = copy
        # With PUFFERLIB_CY_POISON=1: what was given since the last call, to be spoilt by the next.
        self._lent: list[NDArray[Any]] | None = (
            [] if os.environ.get("PUFFERLIB_CY_POISON") == "1" and not copy else None)
        # Only Python environments have infos, or can do without a seed.
        self._python = isinstance(env, PythonEnvs)
        self._use_rows()

    # ---- synchronous use -------------------------------------------------------------------------

    def reset(self, *, seed: int | Sequence[int | None] | None = None,
              options: Mapping[str, Any] | None = None) -> tuple[NDArray[Any], Infos]:
        """Begin a new episode everywhere; return observations (N, ...) and infos.

        `seed`: an int s seeds environment i with s + i; a sequence has one per environment, None
        in it leaves that one's stream as it is. Without a seed the streams go on, or start at
        random if they never started. ``options={"reset_mask": mask}``, bool (E,), resets only
        those environments. Other options are handed to Python environments.
        """
        self._require_synchronous("reset")
        selected, options = self._reset_mask(options)
        if selected is None:
            self.async_reset(seed=seed, options=options)
            self._engine.recv(self.timeout)
        elif seed is not None:
            raise ValueError("reset: a seed is for full resets; leave out seed or reset_mask")
        else:
            self._send_reset_some(selected, None, options)
            self._engine.recv(self.timeout)
        self._spoil_lent()
        return self._given(self._shown()), self._infos() if self._python else {}

    def step(self, actions: ArrayLike) -> tuple[
            NDArray[Any], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], Infos]:
        """Step every environment with its row of `actions`.

        Returns observations (N, ...), rewards float32 (N,), terminations and truncations bool
        (N,), infos. Raises InvalidAction naming the row if an action is not in its space; then
        nothing was stepped.
        """
        self._engine.step(actions, self.timeout)
        if self._results is not None:
            self._results[4].clear()
            if self._python:
                self._results[4].update(self._infos())
            return self._results
        self._spoil_lent()
        rewards, terminations, truncations = self._outcomes()
        return (self._given(self._shown()), self._given(rewards), self._given(terminations),
                self._given(truncations), self._infos() if self._python else {})

    @property
    def masks(self) -> NDArray[np.bool_]:
        """bool (N,): rows with a live agent, as of the last step or reset."""
        return self._given(_slot(self._masks, self._engine.steps))

    @property
    def action_masks(self) -> NDArray[np.bool_] | None:
        """bool (N, choices): legal actions, as of the last step or reset; None if all always are.
        A Python environment tells by giving an ``action_mask``, at the first reset."""
        if not self._engine.masks_given:
            return None
        return self._given(_slot(self._action_masks, self._engine.steps))

    @property
    def action_mask_size(self) -> int:
        """Discrete choices of a row, which its action mask has an entry for each; 0: there are no
        action masks. A Python environment with discrete actions may turn out to give some."""
        return self._action_masks[0].shape[1] if self._action_masks else 0

    @property
    def exact_rewards(self) -> NDArray[np.float64] | None:
        """float64 (E, A), not a copy: the rewards of the last step as Python environments gave
        them; None for native environments."""
        env = self._engine.envs[0]
        return env.exact_rewards if isinstance(env, PythonEnvs) else None

    @property
    def acting(self) -> NDArray[np.bool_]:
        """bool (N,): rows whose next action counts: live, not ended, and not about to be reset."""
        return self._given(self._engine.live)

    @property
    def final_observations(self) -> NDArray[Any]:
        """(N, ...): rows whose episode ended in the last step hold its last observation; the
        others hold nothing of meaning."""
        return self._given(self._engine.final_observations)

    # ---- asynchronous use ------------------------------------------------------------------------

    def async_reset(self, *, seed: int | Sequence[int | None] | None = None,
                    options: Mapping[str, Any] | None = None) -> None:
        """Begin a new episode everywhere; `recv` gives the first observations. Seeds and options:
        see reset."""
        seeds = self._seeds(seed)
        self._engine.recall(self.timeout)
        self._prepare(seeds, options, None)
        self._engine.send_reset()

    def recv(self, timeout: float | None = None) -> Batch:
        """Wait for the first `batch_size` environments that are ready, oldest first.

        Raises TimeoutError after `timeout` seconds (default: that of the constructor); the batch
        can be asked for again.
        """
        self._engine.recv(self.timeout if timeout is None else timeout)
        self._spoil_lent()
        A, masked = self.agents_per_env, self._engine.masks_given
        parts: list[list[NDArray[Any]]] = []
        ids = []
        for first, last, k in self._engine.batch():
            rows = slice(first * A, last * A)
            ids.append(np.arange(first, last))
            parts.append(
                [_slot(ring, k)[rows] for ring in (self._observations, self._masks)]
                + [_slot(ring, k - 1)[rows] for ring in (self._rewards, self._terminations,
                                                         self._truncations)]
                + ([_slot(self._action_masks, k)[rows]] if masked else []))
        join = np.concatenate if len(ids) > 1 else lambda views: self._given(views[0])
        columns: list[NDArray[Any]] = [join(column) for column in zip(*parts, strict=True)]
        env_ids = join(ids)
        observations, masks, rewards, terminations, truncations = columns[:5]
        return Batch(observations, rewards, terminations, truncations, masks,
                     columns[5] if masked else None, env_ids,
                     self._infos(env_ids) if self._python else {})

    def send(self, actions: ArrayLike) -> None:
        """Answer the batch last received: one row of `actions` per row of it, in its order."""
        self._engine.send(actions)

    def hold(self) -> None:
        """Keep the batch last received instead of answering it; until `release`, recv gives others.

        When all are held, every environment stands still. Raises NoAsyncCallError without a batch.
        """
        self._engine.hold()

    def release(self) -> None:
        """Let recv give the batches that are held once more, as they stand."""
        self._engine.release()

    # ---- the rest --------------------------------------------------------------------------------

    def attach(self, **rows: NDArray[Any]) -> None:
        """Write rows straight into arrays of the caller's, from the next reset on.

        Any of observations, masks, action_masks, rewards, terminations, truncations; each a
        C-contiguous, writable array (slots, N, ...) of the dtype and shape that this object gives.
        The first three go round their slots beginning with slot 0 at the reset; the others begin
        with slot 0 at the first step; in staggered use, every environment by its own steps.
        `reset`, `step` and `recv` then return views of these arrays.
        """
        self._engine.attach(**rows)
        self._use_rows()

    def allocate(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """An array of zeros for `attach`, in memory that all who step can write to."""
        return aligned_zeros(shape, dtype)

    def episode_stats(self) -> dict[str, float]:
        """Means over the episodes that ended since the last call, which it forgets.

        Keys: episodes (how many, of agents), and if there were any, episode_return and
        episode_length; then the environment's own statistics, means over the episodes of whole
        environments, if any of those ended. The sums are kept per environment and added in its
        order, so that they do not depend on the backend. In staggered use they are of the batches
        received: what environments under way have finished counts when they are.
        """
        self._require_idle("episode_stats")
        episodes, returns, lengths, ends, *own = self._engine.collected.sum(axis=0).tolist()
        self._engine.collected[:] = 0.0
        stats = {"episodes": episodes}
        if episodes:
            stats.update(episode_return=returns / episodes, episode_length=lengths / episodes)
        if ends:
            names = self._engine.envs[0].stat_names
            stats.update({name: total / ends for name, total in zip(names, own, strict=True)})
        return stats

    @property
    def finished(self) -> NDArray[np.float64]:
        """float64 (E, 4 + statistics): sums over the episodes that ended since `episode_stats` was
        last called, per environment: agents' episodes, their returns, their lengths, environments'
        episodes, the environment's own statistics. In staggered use, of the batches received."""
        return self._given(self._engine.collected)

    def render(self, environment: int = 0) -> NDArray[np.uint8]:
        """A picture of one environment: uint8 (height, width, 3), RGB.

        Where it does not draw itself, of its text or its observation (see `pufferlib_cy.pictures`).
        """
        picture: NDArray[np.uint8] = self._draw("render", environment)
        return picture

    def ansi(self, environment: int = 0) -> str:
        """A picture of one environment in characters; where it has none, its observation."""
        picture: str = self._draw("ansi", environment)
        return picture

    def _draw(self, how: str, environment: int) -> Any:
        if not 0 <= environment < self.num_envs:
            raise IndexError(f"environment {environment} of {self.num_envs}")
        observation = self._shown()[environment * self.agents_per_env]   # of its first agent
        if self._python:
            self._engine.check_open()
        return self._draw_where_it_lives(how, environment, np.asarray(observation))

    def _draw_where_it_lives(self, how: str, environment: int, observation: NDArray[Any]) -> Any:
        return processes.draw(self._engine.envs, how, environment, observation)

    def save_state(self) -> dict[str, NDArray[Any]]:
        """All that decides what the environments do next, and the rows as they stand: copies.

        `load_state` of an equally made vector environment goes on from there, to the last bit.
        """
        self._require_idle("save_state")
        state = {name: array.copy() for name, array in self._state_arrays().items()}
        state["state_sizes"] = np.array(self._state_sizes())
        state["states"], state["rngs"] = self._states()
        return state

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `save_state` gave."""
        self._require_idle("load_state")
        arrays = self._state_arrays()
        sizes = self._state_sizes()
        shapes = {name: array.shape for name, array in arrays.items()}
        shapes |= {"state_sizes": (len(sizes),), "states": (sum(sizes),),
                   "rngs": (self.num_envs, 2)}
        for name in dict.fromkeys((*shapes, *state)):
            there, here = state.get(name), shapes.get(name)
            if there is None or there.shape != here:
                raise ValueError(
                    f"load_state: {name} is {None if there is None else there.shape} there and "
                    f"{here} here: the state is of a vector environment with other environments, "
                    "arguments or numbers")
        if state["state_sizes"].tolist() != sizes:
            raise ValueError("load_state: the states have other sizes, or lie otherwise in lanes: "
                             "the state is of a vector environment that was made with other "
                             "environments, arguments or numbers")
        for name, array in arrays.items():
            array[...] = state[name]
        self._set_states(state["states"], state["rngs"])

    def _state_sizes(self) -> list[int]:
        """Bytes of each environment's state; in lanes, of all that lie together."""
        return processes.state_sizes(self._engine.envs)

    def _states(self) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
        return processes.states_of(self._engine.envs)

    def _set_states(self, states: NDArray[np.uint8], rngs: NDArray[np.uint64]) -> None:
        processes.set_states(self._engine.envs, states, rngs)

    def _state_arrays(self) -> dict[str, NDArray[Any]]:
        """The memory behind the environments by name; of rings, the slot that shows now."""
        engine = self._engine
        if self._python:
            raise ValueError("save_state and load_state are for native environments: what a Python "
                             "environment remembers cannot be seen from outside")
        if engine.fresh:
            raise ResetNeeded("save_state and load_state come after a reset")
        if self.batch_size != self.num_envs:
            raise ValueError("save_state and load_state are for synchronous vector environments "
                             f"(batch_size == num_envs), not batch_size={self.batch_size}")
        arrays = {"observations": self._shown(),
                  "masks": _slot(self._masks, engine.steps),
                  "final_observations": engine.final_observations, "live": engine.live,
                  "ended": engine.ended, "returns": engine.returns, "lengths": engine.lengths,
                  "stats": engine.stats, "finished": engine.finished}
        if self._action_masks:
            arrays["action_masks"] = _slot(self._action_masks, engine.steps)
        return arrays

    def _infos(self, env_ids: NDArray[np.int64] | None = None) -> Infos:
        """The infos of the last step, reset or batch, as arrays over its environments."""
        entries = self._engine.take_infos()
        if not entries:
            return {}
        place = None if env_ids is None else {int(e): i for i, e in enumerate(env_ids)}
        count = self.num_envs if env_ids is None else len(env_ids)
        same_step = self.autoreset == "same_step"
        return gather(((e if place is None else place[e],
                        {"final_info": info} if ended and same_step else info)
                       for e, ended, info in entries), count)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Of every Python environment: what its method `name` returns, or its attribute `name`."""
        self._require_python("call")
        return tuple(self._apply(processes.call, [(name, args, kwargs)] * self.num_envs))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """The attribute `name` of every Python environment, or of what it wraps."""
        self._require_python("get_attr")
        return tuple(self._apply(processes.get_attr, [(name,)] * self.num_envs))

    def set_attr(self, name: str, values: Any) -> None:
        """Set the attribute `name`, where it is defined: a list or tuple has a value for each
        environment, anything else is for all."""
        self._require_python("set_attr")
        each = (list(values) if isinstance(values, (list, tuple))
                else [values] * self.num_envs)
        if len(each) != self.num_envs:
            raise ValueError("set_attr: expected one value or one per environment "
                             f"({self.num_envs}), got {len(each)}")
        self._apply(processes.set_attr, [(name, value) for value in each])

    def _require_python(self, call: str) -> None:
        self._require_idle(call)
        if not self._python:
            raise ValueError(f"{call}: native environments are rows of C structs and have no "
                             "attributes of their own")
        self._engine.check_open()

    def _apply(self, do: Callable[..., Any],
               each: Sequence[tuple[Any, ...] | None]) -> list[Any]:
        """What ``do(env, *arguments)`` gives for every Python environment, where it lives; (E,)
        arguments, None where it is to be left out."""
        return processes.apply(self._engine.envs, do, each)

    def _begin(self, do: Callable[..., Any], each: Sequence[tuple[Any, ...] | None]) -> Callable[
            [float | None], list[Any]]:
        """Begin `_apply`. The function that is returned waits for the results, so many seconds
        (None: as long as it takes), and raises TimeoutError; it may be called again then."""
        return lambda timeout: self._apply(do, each)

    @property
    def _under_way(self) -> bool:
        """Something was begun whose results nobody has taken."""
        return self._engine.pending

    @property
    def bytes_per_env(self) -> float:
        """Bytes of state, random stream, rows and statistics that one environment takes."""
        engine = self._engine
        arrays = [*engine.rows, engine.action_rows.discrete, engine.action_rows.continuous,
                  engine.live, engine.final_observations, engine.returns, engine.lengths,
                  engine.finished, engine.stats, engine.ended, engine.selection]
        rows = sum(int(a.nbytes) for a in arrays if a is not None)
        return (rows + sum(self._state_sizes())) / self.num_envs + RNG_BYTES

    def cancel(self, reason: str) -> None:
        """From another thread: let the call that waits raise ClosedEnvironmentError, which says
        `reason`, and all later ones. `close` is still to be called, when that thread is done."""
        self._engine.refuse(reason)

    def close(self) -> None:
        """Stop helper threads and worker processes. Further use raises ClosedEnvironmentError;
        closing twice is fine."""
        if (alive := self._finalizer.peek()) is not None:
            _, stop, *_ = alive
            stop()
            self._finalizer.detach()      # not before: an interrupt leaves it to be called later

    def __enter__(self) -> VectorEnv:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        names = ", ".join(dict.fromkeys(type(env).__name__ for env in self._engine.envs))
        return (f"{type(self).__name__}({names}, num_envs={self.num_envs}, "
                f"agents_per_env={self.agents_per_env}, num_workers={self.num_workers}, "
                f"batch_size={self.batch_size}, autoreset={self.autoreset!r})")

    # ---- helpers ---------------------------------------------------------------------------------

    def _use_rows(self) -> None:
        """Cut the engine's arrays into one view per slot, so that a step only picks them."""
        (self._observations, self._masks, self._action_masks, self._rewards, self._terminations,
         self._truncations) = ([] if rows is None else list(rows) for rows in self._engine.rows)
        # With one slot per ring and no copies, every step returns the same tuple of views.
        self._results: tuple[NDArray[Any], NDArray[np.float32], NDArray[np.bool_],
                             NDArray[np.bool_], Infos] | None = None
        if not self._copy and self._lent is None and not self._engine.attached:
            self._results = (self._observations[0], self._rewards[0], self._terminations[0],
                             self._truncations[0], {})

    def _given(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Rows as the user gets them: a view, or a copy where the constructor was told so."""
        if self._copy:
            return rows.copy()
        if self._lent is None:
            return rows
        self._lent.append(rows.copy())
        return self._lent[-1]

    def _spoil_lent(self) -> None:
        """Under PUFFERLIB_CY_POISON, overwrite what is no longer valid: NaN, -1, the most, True."""
        for rows in self._lent or ():
            rows.view(np.uint8)[...] = 1 if rows.dtype == np.bool_ else 0xFF
        if self._lent:
            self._lent.clear()

    def _shown(self) -> NDArray[Any]:
        """The observations as they stand, not a copy."""
        return _slot(self._observations, self._engine.steps)

    def _outcomes(self) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
        """Rewards, terminations and truncations of the last step, not copies."""
        k = self._engine.steps - 1
        return _slot(self._rewards, k), _slot(self._terminations, k), _slot(self._truncations, k)

    def _send_reset_some(self, selected: NDArray[np.bool_], seeds: Sequence[int | None] | None,
                         options: Mapping[str, Any] | None) -> None:
        """Begin to reset the selected environments, bool (E,); seeds and options as for
        `_prepare`."""
        self._engine.recall(self.timeout)
        if self._engine.fresh:
            raise ResetNeeded("the first reset is of all environments: leave out reset_mask")
        self._prepare(seeds, options, selected)
        self._engine.send_reset_some(selected)

    def _require_synchronous(self, call: str) -> None:
        if self.batch_size != self.num_envs:
            raise ValueError(f"{call}: with batch_size={self.batch_size} of {self.num_envs} "
                             "environments use async_reset, then recv and send in turn")

    def _require_idle(self, call: str) -> None:
        if self._engine.pending:
            raise AlreadyPendingCallError(f"{call} while a step is under way: call recv first",
                                          call)

    def _reset_mask(self, options: Mapping[str, Any] | None) -> tuple[
            NDArray[np.bool_] | None, Mapping[str, Any] | None]:
        """The mask among the options, and the others."""
        if not options or "reset_mask" not in options:
            return None, options
        others = {name: value for name, value in options.items() if name != "reset_mask"}
        mask = np.asarray(options["reset_mask"])
        if mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
            raise ValueError(f"reset_mask: expected a bool array of shape ({self.num_envs},), one "
                             f"per environment, got {mask.dtype} {mask.shape}")
        return np.ascontiguousarray(mask), others

    def _prepare(self, seeds: Sequence[int | None] | None, options: Mapping[str, Any] | None,
                 selected: NDArray[np.bool_] | None) -> None:
        """Tell the environments of the next reset: a seed each (None: leave its stream), or None;
        options; which of them it is for."""
        if seeds is not None:
            self._engine.seed(seeds)
        self._engine.prepare(options, selected)

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None] | None:
        """One seed per environment (None: leave its stream), or None: leave all."""
        first = not (self._engine.is_seeded or self._python)
        if seed is None and not self._engine.is_seeded:
            seed = self._seed
        if seed is None:
            return [secrets.randbits(64) for _ in range(self.num_envs)] if first else None
        if isinstance(seed, (int, np.integer)):
            seeds: list[int | None] = [int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = [None if s is None else int(s) for s in seed]
            if len(seeds) != self.num_envs:
                raise ValueError(f"seed: expected an int or one per environment "
                                 f"({self.num_envs}), got {len(seeds)}")
            if first:
                seeds = [secrets.randbits(64) if s is None else s for s in seeds]
        for i, s in enumerate(seeds):
            if s is not None and not 0 <= s < 2**64:
                raise ValueError(f"seed: environment {i} would get {s}, which is not in "
                                 "[0, 2**64)")
        return seeds


def _slot(ring: list[NDArray[Any]], step: int) -> NDArray[Any]:
    return ring[step % len(ring)]


class Serial(VectorEnv):
    """The calling thread steps every environment."""

    backend = "serial"


class Threads(VectorEnv):
    """`num_workers` threads step shards of environments without the GIL, the caller among them.

    The caller claims shards itself whenever it waits, so that a helper that sleeps or has no core
    never holds it up.
    """

    backend = "threads"


class Processes(VectorEnv):
    """Worker processes step environments of their own, and write the rows into shared memory.

    In synchronous use the caller is one of the `num_workers` and steps its share itself; with
    ``batch_size < num_envs`` all environments live in processes. A worker that dies, or takes
    longer than `timeout` for a step, ends the vector environment: `WorkerDied`, `TimeoutError`.

    `construct` makes the environments ``[first, last)``, in the process where they are to live.
    Without `caller_steps` none live in the caller's, in synchronous use either; one is made there
    to be looked at, and closed.
    """

    backend = "processes"

    def __init__(self, construct: processes.Construct, num_envs: int, *, num_workers: int,
                 batch_size: int, autoreset: str, seed: Any, timeout: float, copy: bool,
                 context: str, caller_steps: bool = True) -> None:
        firsts = owners(num_envs, num_workers, caller_steps and batch_size == num_envs)
        environments, counts = construct(0, max(1, firsts[1]))
        if not firsts[1]:
            counts = [0]                  # one was made, to be looked at
        first = environments[0]
        try:
            _, shards = divide(num_envs, batch_size, 1, firsts)
            shared = layout(first, num_envs, len(shards), len(firsts) - 2)
            if isinstance(first, PythonEnvs):
                shared["exact_rewards"] = (num_envs, first.agents_per_env), np.float64
            with processes.allocate(processes.nbytes(shared)) as memory:
                share = processes.Share(0, firsts, processes.place(memory.fileno(), shared))
                super().__init__(environments, counts, num_workers=num_workers,
                                 batch_size=batch_size, autoreset=autoreset, seed=seed,
                                 timeout=timeout, copy=copy, share=share)
                if not firsts[1]:
                    processes.close_python(environments)
                processes.share_rewards(self._engine, share)
                self._exact_rewards = share.arrays.get("exact_rewards")
                job = processes.Job(0, firsts, shared, construct, batch_size,
                                    AUTORESET_MODES.index(autoreset), available_cores(),
                                    first.kind)
                self._workers = processes.Workers(self._engine, job, timeout)
                # Before they are started: an interrupt finds them at any moment.
                self._finalizer.detach()
                self._finalizer = weakref.finalize(self, self._workers.stop)
                self._workers.start(job, memory.fileno(), context)
        except BaseException:
            processes.close_python(environments)
            raise
        self._firsts = firsts

    @property
    def exact_rewards(self) -> NDArray[np.float64] | None:
        return self._exact_rewards

    def allocate(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        return self._workers.allocate(tuple(shape), dtype)

    def _prepare(self, seeds: Sequence[int | None] | None, options: Mapping[str, Any] | None,
                 selected: NDArray[np.bool_] | None) -> None:
        super()._prepare(seeds, options, selected)
        self._workers.ask_all("prepare", [
            (None if seeds is None else seeds[first:last], options,
             None if selected is None else selected[first:last])
            for first, last in self._ranges()])

    def _draw_where_it_lives(self, how: str, environment: int, observation: NDArray[Any]) -> Any:
        for worker, (first, last) in enumerate(self._ranges(), 1):
            if first <= environment < last:
                return self._workers.ask(worker, "draw", how, environment - first, observation)
        return super()._draw_where_it_lives(how, environment, observation)

    def _apply(self, do: Callable[..., Any],
               each: Sequence[tuple[Any, ...] | None]) -> list[Any]:
        own = super()._apply(do, each[:self._firsts[1]])
        return sum(self._workers.ask_all("apply", self._shares(do, each)), own)

    def _begin(self, do: Callable[..., Any], each: Sequence[tuple[Any, ...] | None]) -> Callable[
            [float | None], list[Any]]:
        own = super()._apply(do, each[:self._firsts[1]])
        self._workers.send_all("apply", self._shares(do, each))
        return lambda timeout: sum(self._workers.collect(timeout), own)

    def _shares(self, do: Callable[..., Any], each: Sequence[tuple[Any, ...] | None]) -> list[
            tuple[Any, ...]]:
        """What `_Worker.apply` is to be asked of each worker."""
        return [(do, each[first:last]) for first, last in self._ranges()]

    @property
    def _under_way(self) -> bool:
        return super()._under_way or self._workers.asked

    def _states(self) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
        states, rngs = zip(super()._states(), *self._ask_all("states"), strict=True)
        return np.concatenate(states), np.concatenate(rngs)

    def _state_sizes(self) -> list[int]:
        return sum(self._ask_all("state_sizes"), super()._state_sizes())

    def _set_states(self, states: NDArray[np.uint8], rngs: NDArray[np.uint64]) -> None:
        sizes = [sum(own) for own in self._ask_all("state_sizes")]
        ends = np.cumsum([len(states) - sum(sizes), *sizes])
        super()._set_states(states, rngs)
        self._workers.ask_all("set_states", [
            (states[end - size:end], rngs[first:last])
            for size, end, (first, last) in zip(sizes, ends[1:], self._ranges(), strict=True)])

    def _ask_all(self, name: str, *arguments: Any) -> list[Any]:
        return self._workers.ask_all(name, [arguments] * len(self._workers))

    def _ranges(self) -> list[tuple[int, int]]:
        """[first, last) environments of each worker process."""
        return list(zip(self._firsts[1:], self._firsts[2:], strict=False))


def make(env: str | type[NativeEnv] | Callable[..., Any] | Sequence[Callable[..., Any]],
         num_envs: int | None = None, *,
         backend: str = "auto", num_workers: int | None = None, batch_size: int | None = None,
         autoreset: str = "same_step",
         env_kwargs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
         max_agents: int | None = None,
         seed: int | Sequence[int | None] | None = None, timeout: float = 60.0,
         copy: bool = False, context: str = "spawn") -> VectorEnv:
    """Make a vector of `num_envs` environments.

    Parameters
    ----------
    env: the name of a native environment (`puffer-cy list`, and what other packages name in the
        entry point group ``pufferlib_cy.environments``), a `NativeEnv` subclass, or the path of a
        ``.pyx`` that has one: it is compiled if it has changed (see `pufferlib_cy.build`).
        Or a Python environment: the id of one that Gymnasium knows, a callable that gives a
        gymnasium.Env or a PettingZoo environment, or a list of such callables.
        "module:name" names a class or callable of any installed module.
    num_envs: E, how many of them; default: 1, or one of each callable in a list.
    backend: "serial", "threads", "processes", or "auto", which tries out for some milliseconds how
        long a step takes (a Python environment is made for that, and closed): threads or, for
        Python environments, processes if that is long enough to share, else serial. The rule is in
        `pufferlib_cy.auto`.
    num_workers: threads or processes that step, the caller among them in synchronous use; default:
        the cores this process may use.
    batch_size: environments per `recv`; less than `num_envs` is staggered (EnvPool-style): the
        others go on while the caller thinks.
    autoreset: "same_step": the step that ends an episode returns the next one's first
        observation; "next_step": the step after it does; "disabled": the caller resets.
    env_kwargs: arguments of the environment's constructor: one dict, or one per environment.
    max_agents: agent slots of one environment, for PettingZoo environments whose agents are not
        known beforehand, or that have fewer at a time than `possible_agents`.
    seed: for the first reset, if that is given none.
    timeout: seconds that `step`, `reset` and `recv` wait.
    copy: return copies instead of views that the next call overwrites.
    context: how worker processes start: "spawn", a fresh interpreter each; "forkserver", copies of
        one fresh interpreter; or "fork", at once, but with whatever state the caller's libraries
        are in.

    Raises ValueError or TypeError for arguments that make no sense, naming the argument, and
    MemoryError if shared memory would not hold the rows.
    """
    kind = environment_class(env)
    E = len(kind) if isinstance(kind, list) else 1
    if num_envs is not None:
        E = _count("num_envs", num_envs)
    B = E if batch_size is None else _count("batch_size", batch_size)
    if B > E:
        raise ValueError(f"batch_size: {B} environments per batch, but there are only {E}")
    if backend not in BACKENDS:
        raise ValueError(f"backend: {backend!r} is not one of {', '.join(BACKENDS)}")
    if autoreset not in AUTORESET_MODES:
        raise ValueError(f"autoreset: {autoreset!r} is not one of {', '.join(AUTORESET_MODES)}")
    if not timeout > 0:
        raise ValueError(f"timeout: {timeout} seconds is not positive")
    if context not in processes.CONTEXTS:
        raise ValueError(f"context: {context!r} is not one of {', '.join(processes.CONTEXTS)}")
    workers = None if num_workers is None else _count("num_workers", num_workers)
    agents = None if max_agents is None else _count("max_agents", max_agents)
    if backend == "serial" and workers not in (None, 1):
        raise ValueError(f"num_workers: the serial backend has one, not {workers}; use "
                         'backend="threads"')
    # Processes find a native class again by its name: that of a .pyx cannot be sent to them.
    source = env if isinstance(env, str) and is_native_class(kind) else kind
    factory = partial(construct, source, E, env_kwargs, agents)
    most = available_cores() if workers is None else workers
    run = partial(_run, factory, E, batch_size=B, autoreset=autoreset, seed=seed,
                  timeout=timeout, copy=copy, context=context)
    if backend == "auto":
        return _best(run, factory, E, is_native_class(kind), min(most, E))
    return run(backend, 1 if backend == "serial" else most)


def _run(factory: processes.Construct, num_envs: int, backend: str, num_workers: int, *,
         context: str, **kwargs: Any) -> VectorEnv:
    """A vector environment of that backend; `kwargs` of them all."""
    if backend == "processes":
        return Processes(factory, num_envs, num_workers=num_workers, context=context, **kwargs)
    backend_class = Serial if backend == "serial" else Threads
    return backend_class(*factory(0, num_envs), num_workers=num_workers, **kwargs)


def _best(run: Callable[[str, int], VectorEnv], factory: processes.Construct, num_envs: int,
          native: bool, most_workers: int) -> VectorEnv:
    """What `run` gives for the backend, and number of workers, that `pufferlib_cy.auto` chooses."""
    tried: list[Any] = []
    used: list[Any] = []
    try:
        choice = _choose(factory, num_envs, native, most_workers, tried)
        try:
            vec = run(choice.backend, choice.num_workers)
        except Exception as error:
            if choice.backend != "processes":
                raise
            warnings.warn(f'backend="auto": {choice.reason}, but they could not start, so that '
                          f"one thread steps all ({type(error).__name__}: {error})", RuntimeWarning,
                          stacklevel=3)
            vec = run("serial", 1)
        used = processes.python_of(vec._engine.envs)
        return vec
    finally:
        for env in tried:             # a callable may have given what it gave before
            if not any(env is other for other in used):
                with contextlib.suppress(Exception):
                    env.close()


def _choose(factory: processes.Construct, num_envs: int, native: bool, most_workers: int,
            tried: list[Any]) -> auto.Choice:
    """The backend for environments that are made like this. Of Python environments one is made to
    try it out, which is left open in `tried`."""
    if most_workers < 2:
        return auto.choose(0.0, native, most_workers)
    environments, counts = factory(0, min(num_envs, auto.TRIAL_ENVS) if native else 1)
    with Serial(environments, counts, num_workers=1, batch_size=sum(counts), autoreset="same_step",
                seed=0, timeout=60.0, copy=False) as trial:
        try:
            seconds = auto.seconds_per_step(trial) * num_envs / sum(counts)
        except Exception:             # its user will meet that, too
            seconds = 0.0
        for env in environments:
            if isinstance(env, PythonEnvs):
                tried += env.envs
                env.envs.clear()      # not to be closed with the trial
    return auto.choose(seconds, native, most_workers)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected a positive int, got {value!r}")
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}")
    return int(value)
