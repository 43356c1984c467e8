"""Between rows and the spaces that environments declare: what all bridges need.

Rows hold integers as int32 and know nothing of keys; Gymnasium's batches have the dtypes of the
spaces and are nested as these are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.error import InvalidAction
from gymnasium.spaces import Box, Dict, Discrete, Space, Tuple
from numpy.typing import NDArray

from pufferlib_cy._spaces import ActionTree, SpaceTree
from pufferlib_cy.arrays import describe
from pufferlib_cy.spaces import Leaf, place
from pufferlib_cy.vector import VectorEnv
from pufferlib_cy.viewers import default_fps

RENDER_MODES = ("rgb_array", "ansi")    # of native environments


def observations(tree: SpaceTree, rows: NDArray[Any], copy: bool = True) -> Any:
    """Rows (..., *flat shape) as a batch of the space: nested as it is, leaves (..., *leaf shape)
    of their space's dtype.

    Without `copy`, leaves whose dtype is that of the rows are views of these.
    """
    return _typed(tree.space, tree.unflatten(rows), copy)


def _typed(space: Space[Any], views: Any, copy: bool) -> Any:
    if isinstance(space, Dict):
        return {key: _typed(part, views[key], copy) for key, part in space.spaces.items()}
    if isinstance(space, Tuple):
        return tuple(_typed(part, view, copy)
                     for part, view in zip(space.spaces, views, strict=True))
    values = np.asarray(views).astype(space.dtype, order="C" if copy else "K", copy=copy)
    return values[()] if isinstance(space, Discrete) else values


def action_rows(tree: ActionTree, actions: Any, num_rows: int) -> Any:
    """A batch of actions, nested as the space is, as what `VectorEnv.step` takes: integers
    (num_rows, heads), floats (num_rows, values), or a tuple of both.

    Raises InvalidAction naming the part that has the wrong shape or is missing.
    """
    discrete: list[NDArray[Any]] = []
    continuous: list[NDArray[Any]] = []
    for leaf in tree.leaves:
        part = _part(leaf, actions, (num_rows,), tree.name)
        (continuous if isinstance(leaf.space, Box) else discrete).append(part)
    rows = [np.concatenate(kind, axis=1) if len(kind) > 1 else kind[0]
            for kind in (discrete, continuous) if kind]
    return tuple(rows) if len(rows) > 1 else rows[0]


def _part(leaf: Leaf, actions: Any, batch: tuple[int, ...], name: str) -> NDArray[Any]:
    """The actions of one leaf, (*batch, size); of a single action `batch` is ()."""
    where = place(f"{name}s" if batch else name, leaf.path)
    try:
        for key in leaf.path:
            actions = actions[key]
    except (KeyError, IndexError, TypeError):
        raise InvalidAction(f"{where}: missing") from None
    part = np.asarray(actions)
    if part.shape != (*batch, *leaf.shape):
        each = ", one action per environment" if batch else ""
        raise InvalidAction(f"{where}: expected shape {(*batch, *leaf.shape)}{each}, got "
                            f"{part.shape}")
    if isinstance(leaf.space, Box):
        part = part.astype(np.result_type(part.dtype, np.float32), copy=False)
    elif part.dtype == np.bool_:
        part = part.astype(np.int8)
    elif part.dtype.kind not in "iu":
        raise InvalidAction(f"{where}: expected integers, got {describe(part)}")
    return part.reshape(*batch, -1)


def slot_rows(tree: ActionTree, actions: Mapping[int, Any], num_rows: int) -> Any:
    """Single actions, by the index of their row, as what `VectorEnv.step` takes for `num_rows`
    rows; the others get an action that is legal and will be ignored."""
    discrete = np.tile(tree.starts, (num_rows, 1))
    continuous = np.tile(tree.lows, (num_rows, 1))
    for row, action in actions.items():
        for leaf in tree.leaves:
            part = _part(leaf, action, (), tree.name)
            target = continuous if isinstance(leaf.space, Box) else discrete
            target[row, leaf.offset:leaf.offset + part.size] = part
    rows = tuple(kind for kind in (discrete, continuous) if kind.shape[1])
    return rows if len(rows) > 1 else rows[0]


def exact_rewards(vec: VectorEnv, rewards: NDArray[np.float32]) -> NDArray[np.float64]:
    """The rewards of the last step, float64 (N,): of Python environments as these gave them."""
    exact = vec.exact_rewards
    return rewards.astype(np.float64) if exact is None else exact.reshape(-1).copy()


def require_single_agent(vec: VectorEnv, bridge: str) -> None:
    """Raise ValueError unless each environment has one agent and all are stepped together."""
    if vec.agents_per_env != 1:
        raise ValueError(f"{bridge} has one agent per environment, but this one has "
                         f"{vec.agents_per_env}: use pufferlib_cy.bridges.pettingzoo.as_parallel")
    if vec.batch_size != vec.num_envs:
        raise ValueError(f"{bridge} steps all environments together, but batch_size is "
                         f"{vec.batch_size} of {vec.num_envs}")


def looks(vec: VectorEnv, render_mode: str | None) -> tuple[dict[str, Any], str | None]:
    """Metadata, as Gymnasium and PettingZoo want them, and the render mode: of Python environments
    their own, of native ones the mode asked for. Raises ValueError if these have no such mode."""
    if vec._python:
        return dict(vec.get_attr("metadata")[0]), vec.get_attr("render_mode")[0]
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise ValueError(f"render_mode: {render_mode!r} is not one of {', '.join(RENDER_MODES)}")
    return {"render_modes": list(RENDER_MODES), "render_fps": default_fps(vec)}, render_mode


def draw(vec: VectorEnv, mode: str | None, environment: int = 0) -> Any:
    """What a native environment draws in its render mode: uint8 (height, width, 3), str, or None
    without a mode."""
    if mode is None:
        return None
    return vec.render(environment) if mode == "rgb_array" else vec.ansi(environment)
