"""Infos: what environments say beside the rows, gathered into arrays over environments.

The layout is Gymnasium's: a dict of arrays with environments first, each key with a bool array
``_key`` that says whose entries count; a nested dict is gathered into a nested dict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pufferlib_cy.arrays import describe

Infos = dict[str, Any]


def gather(entries: Iterable[tuple[int, Mapping[Any, Any]]], num_envs: int) -> Infos:
    """Infos of environments, (environment, its info) each, as a dict of arrays (num_envs, ...).

    Numbers and bools become arrays of their type, arrays an array of theirs; all else is kept in an
    array of objects, None where an environment has none.
    """
    infos: Infos = {}
    for environment, info in entries:
        _add(infos, info, environment, num_envs)
    return infos


def _add(infos: Infos, info: Mapping[Any, Any], environment: int, num_envs: int) -> None:
    for key, value in info.items():
        if isinstance(value, dict):
            _add(infos.setdefault(key, {}), value, environment, num_envs)
        else:
            if key not in infos:
                infos[key] = _column(value, num_envs)
            try:
                infos[key][environment] = value
            except (TypeError, ValueError) as error:
                raise type(error)(
                    f"infos: {key!r} of environment {environment} is {describe(value)}, but an "
                    f"environment before it gave {infos[key].dtype} of shape "
                    f"{infos[key].shape[1:]}: {error}") from error
        infos.setdefault(f"_{key}", np.zeros(num_envs, np.bool_))[environment] = True


def _column(value: Any, num_envs: int) -> NDArray[Any]:
    """An array for values like this one."""
    if type(value) in (int, float, bool) or isinstance(value, np.number):
        return np.zeros(num_envs, type(value))
    if isinstance(value, np.ndarray):
        return np.zeros((num_envs, *value.shape), value.dtype)
    return np.full(num_envs, None, object)
