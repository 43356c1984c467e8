"""Arrays for the core: memory that starts on a cache line, and arrays in error messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

CACHE_LINE = 64              # bytes


def aligned_zeros(shape: int | Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    """A C-contiguous array of zeros that starts on a cache line.

    It keeps its memory alive; `shape` and `dtype` are as for ``numpy.zeros``.
    """
    kind = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    raw = np.zeros(size + CACHE_LINE, np.uint8)
    skip = -raw.ctypes.data % CACHE_LINE
    return raw[skip:skip + size].view(kind).reshape(shape)


def describe(thing: object) -> str:
    """A value in an error message: its shape and dtype, or its type."""
    if isinstance(thing, np.ndarray) or (hasattr(thing, "shape") and hasattr(thing, "dtype")):
        return f"a {thing.dtype} array of shape {tuple(thing.shape)}"
    return f"{thing!r:.60} ({type(thing).__name__})"
