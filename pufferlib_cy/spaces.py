"""From a Gymnasium space to the table of its leaves: what `SpaceTree` and `ActionTree` compile.

Runs once per environment. Here is decided which spaces can become rows, where in a row each leaf
lies, and what the emulated space looks like; the typed code over rows is in ``_spaces.pyx``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple
from numpy.typing import NDArray

from pufferlib_cy.arrays import describe

# What a Box may hold: NumPy's plain numbers, in this machine's byte order.
BOX_DTYPES = frozenset(np.dtype(code) for code in "?bBhHiIqQefd")
INT32 = np.iinfo(np.int32)

# Kinds of dtype that a leaf of each kind takes: what NumPy casts safely (bool to number, integer to
# float), and any width of the same kind.
TAKES = {"b": "b", "i": "biu", "u": "biu", "f": "biuf"}


class SpaceError(ValueError):
    """A space that cannot become rows, or a sample that does not match its space.

    The message begins with the path of the leaf, such as ``observation['map'][2]``.
    """


class Leaf(NamedTuple):
    """One leaf of a tree: where in the row it lies and how to read it there."""

    path: tuple[Any, ...]         # keys of Dicts and indices of Tuples, outermost first
    space: Space[Any]
    offset: int                   # in bytes; of an action: in discrete heads or continuous values
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Branch(NamedTuple):
    """A Dict or a Tuple of a tree."""

    path: tuple[Any, ...]
    is_dict: bool
    keys: tuple[Any, ...]         # of the sample
    names: tuple[str, ...]        # of the dtype's fields
    children: tuple[Branch | Leaf, ...]


def place(name: str, path: tuple[Any, ...]) -> str:
    """A path as its user would write it: ``observation['map'][2]``."""
    return name + "".join(f"[{key!r}]" for key in path)


def parts(space: Space[Any]) -> list[tuple[Any, str, Space[Any]]] | None:
    """(key, field name, space) of each part of a Dict or Tuple, in order; None for a leaf."""
    if isinstance(space, Dict):
        return [(key, str(key), part) for key, part in space.spaces.items()]
    if isinstance(space, Tuple):
        return [(i, f"f{i}", part) for i, part in enumerate(space.spaces)]
    return None


# ---- layout of a row -----------------------------------------------------------------------------

def row_dtype(space: Space[Any], name: str, path: tuple[Any, ...] = ()) -> np.dtype[Any]:
    """The NumPy dtype of one row: aligned structures, fields in the space's own order.

    Discrete and MultiDiscrete are int32, Box and MultiBinary keep their dtype. Raises SpaceError
    for a leaf that has no fixed layout or does not fit, naming it.
    """
    where = place(name, path)
    if (fields := parts(space)) is not None:
        names = [field for _, field, _ in fields]
        if len(set(names)) != len(names):
            raise SpaceError(f"{where}: two of its keys have the same name: {names}")
        formats = [row_dtype(part, name, (*path, key)) for key, _, part in fields]
        return np.dtype({"names": names, "formats": formats}, align=True)
    if isinstance(space, (Discrete, MultiDiscrete)):
        first, last = value_range(space)
        if first.min(initial=0) < INT32.min or last.max(initial=0) > INT32.max:
            raise SpaceError(f"{where}: {space} has values beyond int32, in which rows hold them")
        return np.dtype((np.int32, space.shape))
    if isinstance(space, Box) and space.dtype not in BOX_DTYPES:
        raise SpaceError(f"{where}: a Box of {space.dtype.str!r} cannot be a row: use a bool, "
                         "integer or float dtype of up to 64 bits in native byte order")
    if isinstance(space, (Box, MultiBinary)):
        return np.dtype((space.dtype, space.shape))
    raise SpaceError(f"{where}: a {type(space).__name__} has no fixed layout as numbers: expected "
                     "Dict, Tuple, Box, Discrete, MultiDiscrete or MultiBinary")


def value_range(space: Discrete[Any] | MultiDiscrete[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The first and the last value of each element, as Python integers, which cannot overflow."""
    first = np.asarray(space.start, object)
    return first, first + np.asarray(space.n if isinstance(space, Discrete) else space.nvec,
                                     object) - 1


def observation_table(space: Space[Any], dtype: np.dtype[Any], path: tuple[Any, ...] = (),
                      offset: int = 0) -> Branch | Leaf:
    """The tree of a space whose row has this dtype, with offsets in bytes."""
    if (fields := parts(space)) is None:
        return Leaf(path, space, offset, dtype.base, dtype.shape)
    placed: Mapping[str, Any] = dtype.fields or {}    # an empty Dict has none
    return Branch(
        path, isinstance(space, Dict), tuple(key for key, _, _ in fields),
        tuple(name for _, name, _ in fields),
        tuple(observation_table(part, placed[name][0], (*path, key), offset + placed[name][1])
              for key, name, part in fields))


def leaves_of(node: Branch | Leaf) -> tuple[Leaf, ...]:
    """The leaves of a tree in order."""
    if isinstance(node, Leaf):
        return (node,)
    return tuple(leaf for child in node.children for leaf in leaves_of(child))


def flat_observation_space(space: Space[Any], row: np.dtype[Any],
                           leaves: tuple[Leaf, ...]) -> Box:
    """The Box of one row: of the dtype that all leaves share, else of bytes.

    A Box stays itself. Bounds are the dtype's limits, and float32's for float64.
    """
    if isinstance(space, Box):
        return space
    kinds = {leaf.dtype for leaf in leaves}
    dtype = kinds.pop() if len(kinds) == 1 else np.dtype(np.uint8)
    low, high = limits(dtype)
    return Box(low, high, (row.itemsize // dtype.itemsize,), dtype.type)


def limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The least and the greatest bound that the emulated Box of a dtype has."""
    if dtype.kind == "b":
        return 0, 1
    if dtype.kind == "f":
        info = np.finfo(min(dtype, np.dtype(np.float32)))
        return float(info.min), float(info.max)
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


# ---- samples that are no ordinary array ----------------------------------------------------------

def as_leaf(sample: object, dtype: np.dtype[Any], shape: tuple[int, ...],
            where: str) -> NDArray[Any]:
    """A sample as a contiguous array of a leaf's dtype and shape; SpaceError if that would change
    its values (see `SpaceTree` for the rules)."""
    expected = f"{where}: expected {dtype} of shape {shape}, got"
    try:
        array = np.asarray(sample)
    except Exception as error:
        raise SpaceError(f"{expected} {describe(sample)}: {error}") from error
    if array.shape != shape or (array.size and array.dtype.kind not in TAKES[dtype.kind]):
        shown = sample if array.shape == () else array
        raise SpaceError(f"{expected} {describe(shown)}")
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array.astype(dtype)).reshape(shape)
    lost = (np.isfinite(array) != np.isfinite(converted) if dtype.kind == "f"
            else array != converted)
    if np.any(lost):
        raise SpaceError(f"{expected} {array[lost].flat[0]}, which {dtype} cannot hold")
    return converted


def same_keys(sample: object, keys: tuple[Any, ...], where: str) -> dict[Any, Any]:
    """A mapping as a dict, if it has exactly these keys; else SpaceError."""
    try:
        found: dict[Any, Any] = dict(sample)    # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise SpaceError(f"{where}: expected a dict with the keys {list(keys)}, "
                         f"got {describe(sample)}") from None
    if len(found) != len(keys) or any(key not in found for key in keys):
        raise wrong_keys(found, keys, where)
    return found


def wrong_keys(found: dict[Any, Any], keys: tuple[Any, ...], where: str) -> SpaceError:
    """The error for a dict that does not have exactly these keys."""
    faults = {"missing": [key for key in keys if key not in found],
              "unknown": [key for key in found if key not in keys]}
    listed = ", ".join(f"{word} {those}" for word, those in faults.items() if those)
    return SpaceError(f"{where}: expected the keys {list(keys)}: {listed}")


def same_length(sample: object, length: int, where: str) -> tuple[Any, ...]:
    """A list, tuple or array as a tuple, if it has this length; else SpaceError."""
    if not (isinstance(sample, (list, tuple)) or (isinstance(sample, np.ndarray) and sample.ndim)):
        raise SpaceError(f"{where}: expected a tuple of {length}, got {describe(sample)}")
    if len(sample) != length:
        raise SpaceError(f"{where}: expected a tuple of {length}, got {len(sample)} elements")
    return tuple(sample)


# ---- actions -------------------------------------------------------------------------------------

def action_table(space: Space[Any], path: tuple[Any, ...] = (),
                 heads: int = 0, values: int = 0) -> tuple[Branch | Leaf, int, int]:
    """The tree of an action space that `row_dtype` accepts, from the given offsets on; and the
    offsets behind it.

    A leaf's offset counts discrete heads, or continuous values if it is a Box.
    """
    if (fields := parts(space)) is None:
        assert space.dtype is not None
        assert space.shape is not None
        size = int(np.prod(space.shape, dtype=np.int64))
        if isinstance(space, Box):
            return Leaf(path, space, values, space.dtype, space.shape), heads, values + size
        return Leaf(path, space, heads, space.dtype, space.shape), heads + size, values
    children = []
    for key, _, part in fields:
        child, heads, values = action_table(part, (*path, key), heads, values)
        children.append(child)
    return Branch(path, isinstance(space, Dict), tuple(key for key, _, _ in fields),
                  tuple(name for _, name, _ in fields), tuple(children)), heads, values


def head_ranges(leaves: tuple[Leaf, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(sizes, starts) of all discrete heads: the number of actions and the smallest, (heads,)."""
    sizes, starts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for leaf in leaves:
        if isinstance(leaf.space, (Discrete, MultiDiscrete)):
            first, last = value_range(leaf.space)
            sizes.append(np.asarray(last - first + 1, np.int64).ravel())
            starts.append(np.asarray(first, np.int64).ravel())
        elif isinstance(leaf.space, MultiBinary):
            sizes.append(np.full(leaf.shape, 2).ravel())
            starts.append(np.zeros(leaf.shape, np.int64).ravel())
    return np.concatenate(sizes), np.concatenate(starts)


def value_bounds(leaves: tuple[Leaf, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(lows, highs) of all continuous values, (values,)."""
    boxes = [leaf.space for leaf in leaves if isinstance(leaf.space, Box)]
    with np.errstate(over="ignore"):          # what float32 cannot hold is unbounded in it
        low, high = ([np.zeros(0, np.float32)] + [bound.astype(np.float32).ravel()
                     for bound in bounds] for bounds in
                     ([box.low for box in boxes], [box.high for box in boxes]))
    return np.concatenate(low), np.concatenate(high)


def flat_action_space(space: Space[Any], leaves: tuple[Leaf, ...]) -> Space[Any]:
    """Discrete, MultiDiscrete and Box as they are; else one MultiDiscrete, one float32 Box, or a
    Tuple of both."""
    if isinstance(space, (Discrete, MultiDiscrete, Box)):
        return space
    sizes, starts = head_ranges(leaves)
    low, high = value_bounds(leaves)
    discrete = MultiDiscrete(sizes, start=starts)
    if not low.size:
        return discrete
    continuous = Box(low, high, dtype=np.float32)
    return Tuple((discrete, continuous)) if sizes.size else continuous


def to_box(values: NDArray[np.float32], space: Box) -> NDArray[Any]:
    """Continuous values as an action of a Box of any dtype: rounded to it, and inside its bounds.
    """
    if space.dtype.kind == "f":
        with np.errstate(over="ignore"):
            action = values.astype(space.dtype)
        return np.clip(action, space.low, space.high, out=action)
    wide = np.rint(values.astype(np.float64))
    inside = (wide > space.low) & (wide < space.high)
    action = np.where(wide >= space.high, space.high, space.low)
    action[inside] = wide[inside].astype(space.dtype)
    return action
