"""From what a user names to environments that an engine can step.

`environment_class` finds what an argument ``env`` stands for, and `construct` makes environments of
it, in whatever process they are to live: it is sent to worker processes.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeGuard

import gymnasium

from pufferlib_cy import emulation
from pufferlib_cy import envs as native
from pufferlib_cy._core import NativeEnv
from pufferlib_cy._emulation import GymnasiumEnvs, ParallelEnvs, PythonEnvs

Kind = type[NativeEnv] | Callable[..., Any] | list[Callable[..., Any]]


def environment_class(env: Any) -> Kind:
    """What constructs the environments: a NativeEnv subclass for all, a callable that gives a
    Python environment, or a list of such callables."""
    if isinstance(env, str):
        if env.endswith(".pyx"):
            from pufferlib_cy import build

            return build.load(env)
        if env in gymnasium.registry or re.search(r"-v\d+$", env):
            module, _, name = env.rpartition(":")      # "module:id", as Gymnasium has it
            if module:
                importlib.import_module(module)
            try:
                spec = gymnasium.spec(name)
            except gymnasium.error.Error as error:
                raise ValueError(f"env: {error}") from error
            return partial(gymnasium.make, spec)     # known in worker processes, too
        if native.find(env):
            return environment_class(native.load(env))
        names = native.names()
        near = difflib.get_close_matches(env, [*names, *gymnasium.registry], n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"env: no environment is called {env!r}; {hint}There are: "
                         f"{', '.join(names)}; Gymnasium's, such as CartPole-v1; and "
                         '"module:name" of any installed module')
    if callable(env):
        maker: Kind = env
        return maker
    if isinstance(env, Sequence) and len(env) and all(map(callable, env)):
        return list(env)
    hint = "; give a callable that makes one" if hasattr(env, "step") else ""
    raise TypeError("env: expected the name of a native environment, a path NAME.pyx, a NativeEnv "
                    "subclass, a Gymnasium id, or a callable (or a list of callables) that gives "
                    f"an environment, got {env!r:.80}{hint}")


def is_native_class(kind: Kind) -> TypeGuard[type[NativeEnv]]:
    """Whether that is a class of native environments."""
    return isinstance(kind, type) and issubclass(kind, NativeEnv)


def construct(source: str | Kind, num_envs: int, env_kwargs: Any, max_agents: int | None,
              first: int, last: int) -> tuple[list[NativeEnv], list[int]]:
    """What the engine steps as environments [first, last) of the vector, and how many each holds.

    Native environments: one object per run of equal kwargs. Python ones: one object for all.
    """
    kind = environment_class(source) if isinstance(source, str) else source
    if env_kwargs is not None and not isinstance(env_kwargs, Mapping) \
            and len(env_kwargs) != num_envs:
        raise ValueError(f"env_kwargs: expected a dict or one per environment ({num_envs}), got "
                         f"{len(env_kwargs)}")
    if not is_native_class(kind):
        python = _python(kind, num_envs, env_kwargs or {}, max_agents, first, last)
        return [python], [last - first]
    if max_agents is not None:
        raise ValueError("max_agents: is for PettingZoo environments; a native environment has "
                         "agents_per_env slots, as its class says")
    if env_kwargs is None or isinstance(env_kwargs, Mapping):
        return [_instance(kind, env_kwargs or {})], [last - first]
    environments: list[NativeEnv] = []
    counts: list[int] = []
    for i in range(first, last):
        if i > first and env_kwargs[i] == env_kwargs[i - 1]:
            counts[-1] += 1
        else:
            environments.append(_instance(kind, env_kwargs[i]))
            counts.append(1)
    return environments, counts


def _python(kind: Any, num_envs: int, env_kwargs: Any, max_agents: int | None,
            first: int, last: int) -> PythonEnvs:
    """Python environments; if one cannot be made, those before it are closed."""
    makers = kind if isinstance(kind, list) else [kind] * num_envs
    if len(makers) != num_envs:
        raise ValueError(f"num_envs: {num_envs}, but the list has {len(makers)} callables")
    each = [env_kwargs] * num_envs if isinstance(env_kwargs, Mapping) else env_kwargs
    envs: list[Any] = []
    try:
        for i in range(first, last):
            with emulation.making(i):
                env = emulation.adapt(makers[i](**each[i]))
            if any(env is other for other in envs):
                raise ValueError(f"env: the callable gave environment {i} an object that another "
                                 "environment has already: it has to make a new one every time")
            envs.append(env)
        blueprint = emulation.inspect(envs[0], max_agents)
        return (ParallelEnvs if blueprint.parallel else GymnasiumEnvs)(envs, blueprint)
    except BaseException:
        for env in envs:
            with contextlib.suppress(Exception):     # the first error is the one to tell
                env.close()
        raise


def _instance(kind: Callable[..., NativeEnv], kwargs: Mapping[str, Any]) -> NativeEnv:
    """An instance of the class; a ValueError that names the arguments it does not take."""
    try:
        return kind(**kwargs)
    except (TypeError, OverflowError) as error:
        if not kwargs:
            raise
        given = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
        raise ValueError(f"env_kwargs: {getattr(kind, '__name__', kind)}({given}): {error}") from (
            error)
