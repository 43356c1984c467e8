"""Look for faults in an environment by playing it: `check` tells them in words.

A native environment is played by random legal actions in its checked build, where the core looks
at all that it writes. Then it is played in ways that must not make a difference: again, by several
threads, and alone. Whatever an environment reads that is not its own (a neighbour's memory or
random stream, a global variable, the C library's rand) shows there. Python environments are played
in `pufferlib_cy.check_python`.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from numpy.typing import NDArray

from pufferlib_cy import build, check_python, envs
from pufferlib_cy._core import ContractError, NativeEnv
from pufferlib_cy.construct import environment_class, is_native_class
from pufferlib_cy.vector import VectorEnv, make

ENVIRONMENTS = 5


def check(env: str | type[NativeEnv] | Callable[..., Any], *, steps: int = 2000, seed: int = 0,
          env_kwargs: Mapping[str, Any] | None = None) -> list[str]:
    """Play an environment for `steps` steps, four times; return what is wrong, [] if nothing is.

    env: as for `make`. A ``.pyx``, by its path or beside the environment's module, is compiled
        checked for this; a class, and a module that ships no source, is taken as it was compiled.
        Five of them are played. A Python environment is played as `check_python` says.
    """
    if not is_native(env):
        return check_python.check(python_factory(env, env_kwargs or {}), steps=steps, seed=seed)
    kind = checked_class(env)

    def play(num_envs: int, first: int = 0, **arguments: Any) -> NDArray[np.uint32]:
        with (make(kind, num_envs, env_kwargs=env_kwargs, **arguments) as vec,
              _exceptions() as raised):
            return _play(vec, seed + first, steps, raised)

    try:
        expected = play(ENVIRONMENTS, backend="serial")
        again = play(ENVIRONMENTS, backend="serial")
        threads = play(ENVIRONMENTS, backend="threads", num_workers=3)
        alone = np.hstack([play(1, e, backend="serial") for e in range(ENVIRONMENTS)])
    except (ContractError, FindingError) as fault:
        return [str(fault)]
    return [
        f"{words} (first in {_first_difference(expected, other)})"
        for words, other in (
            ("a second run with the same seed goes another way: something but the state and its "
             "random stream decides what happens", again),
            ("with several threads it goes another way: environments share something", threads),
            ("alone an environment goes another way than among others: it reads what is not its "
             "own", alone))
        if (other != expected).any()]


def is_native(env: Any) -> TypeGuard[str | type[NativeEnv]]:
    """Whether an environment, given as for `make`, is a native one."""
    if isinstance(env, str) and env.endswith(".pyx"):
        return True
    return is_native_class(environment_class(env))


def how_played(env: Any) -> str:
    """How `check` plays an environment, for the end of a sentence."""
    if is_native(env):
        return f"of {ENVIRONMENTS} environments, played twice, by threads, and alone"
    return "played by two new environments, by a used one, and beside another"


def python_factory(env: str | Callable[..., Any],
                   env_kwargs: Mapping[str, Any]) -> Callable[[], Any]:
    """What makes a Python environment; Gymnasium's own checks stay out of it."""
    kind = environment_class(env)
    if isinstance(kind, list):
        raise TypeError("env: check plays one environment, but got a list of callables")
    if isinstance(kind, partial) and kind.func is gymnasium.make:
        kind = partial(kind, disable_env_checker=True)
    return partial(kind, **env_kwargs)


def checked_class(env: str | type[NativeEnv]) -> Callable[..., NativeEnv]:
    """The environment's class from its checked build, where there is a source to build from."""
    if isinstance(env, type):
        return env
    source = Path(env) if env.endswith(".pyx") else envs.beside(env, ".pyx")
    if source is not None:
        return build.load(source, checked=True)
    make(env).close()                         # raises, and says which environments there are
    return envs.load(env)


class FindingError(Exception):
    """Stops the play at the first thing that is wrong."""


@contextmanager
def _exceptions() -> Iterator[list[str]]:
    """Collects what is raised where nobody can catch it: in functions marked noexcept."""
    raised: list[str] = []

    def collect(unraisable: Any) -> None:
        raised.append(f"{unraisable.object} raised {unraisable.exc_type.__name__}: "
                      f"{unraisable.exc_value}, and stopped there")

    before, sys.unraisablehook = sys.unraisablehook, collect
    try:
        yield raised
    finally:
        sys.unraisablehook = before


def _play(vec: VectorEnv, seed: int, steps: int, raised: list[str]) -> NDArray[np.uint32]:
    """Play random legal actions; return a checksum of every environment's rows at every step.

    Environment e acts from a generator of its own, so that it acts the same when alone.
    """
    generators = [np.random.default_rng(seed + e) for e in range(vec.num_envs)]
    sums = np.zeros((steps + 1, vec.num_envs), np.uint32)
    rows: tuple[NDArray[Any], ...] = (vec.reset(seed=seed)[0],)
    for step in range(steps + 1):
        if raised:
            raise FindingError(f"step {step}: {raised[0]}")
        _look(vec, rows[0], step)
        for e in range(vec.num_envs):
            own = slice(e * vec.agents_per_env, (e + 1) * vec.agents_per_env)
            for array in (*rows, vec.masks, *([] if vec.action_masks is None
                                              else [vec.action_masks])):
                sums[step, e] = zlib.crc32(array[own].tobytes(), int(sums[step, e]))
        rows = vec.step(np.concatenate([_actions(vec, e, rng)
                                        for e, rng in enumerate(generators)]))[:4]
    return sums


def _look(vec: VectorEnv, observations: NDArray[Any], step: int) -> None:
    """Raise FindingError if a live agent's observation is outside its space."""
    space = vec.single_observation_space
    assert isinstance(space, Box)
    outside = ~((observations >= space.low) & (observations <= space.high))
    outside &= vec.masks.reshape(-1, *([1] * (outside.ndim - 1)))
    if outside.any():
        row, *index = np.argwhere(outside)[0]
        where = tuple(int(i) for i in index)
        raise FindingError(
            f"environment {row // vec.agents_per_env}, agent slot {row % vec.agents_per_env}, "
            f"step {step}: observation{list(where)} is {observations[(row, *where)]}, outside "
            f"[{space.low[where]}, {space.high[where]}]")


def _actions(vec: VectorEnv, e: int, rng: np.random.Generator) -> NDArray[Any]:
    """Random legal actions for the agents of environment e, (A, heads) or (A, values)."""
    space, A = vec.single_action_space, vec.agents_per_env
    if isinstance(space, Box):
        low, high = np.maximum(space.low, -10.0), np.minimum(space.high, 10.0)
        return rng.uniform(low, high, (A, *space.shape)).astype(np.float32)
    assert isinstance(space, (Discrete, MultiDiscrete))
    sizes, starts = ([space.n], [space.start]) if isinstance(space, Discrete) else (
        space.nvec, space.start)
    scores = rng.random((A, sum(sizes)))
    if vec.action_masks is not None:
        scores[~vec.action_masks[e * A:(e + 1) * A]] = -1.0
    edges = np.cumsum(sizes)[:-1]
    return np.stack([head.argmax(1) + start for head, start in
                     zip(np.split(scores, edges, axis=1), starts, strict=True)], axis=1)


def _first_difference(a: NDArray[np.uint32], b: NDArray[np.uint32]) -> str:
    step, environment = np.argwhere(a != b)[0]
    return f"environment {environment}, step {step}"
