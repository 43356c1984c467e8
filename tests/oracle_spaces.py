"""The slow, obvious oracle of emulation: rows of nested spaces by the rules of C structures.

Nothing here is shared with the package: offsets are counted by hand, a row is a bytearray.
"""

import math

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple


def parts(space, sample):
    """(space, sample) of each part of a Dict or Tuple, in the space's order; None for a leaf."""
    if isinstance(space, Dict):
        return [(part, sample[key]) for key, part in space.items()]
    if isinstance(space, Tuple):
        return list(zip(space, sample, strict=True))
    return None


def leaf_dtype(space):
    return np.dtype(np.int32 if isinstance(space, (Discrete, MultiDiscrete)) else space.dtype)


def leaf_dtypes(space):
    if isinstance(space, (Dict, Tuple)):
        children = space.values() if isinstance(space, Dict) else space
        return [dtype for child in children for dtype in leaf_dtypes(child)]
    return [leaf_dtype(space)]


def pad(data, alignment):
    """Append zeros up to the next multiple of the alignment."""
    data.extend(b"\0" * (-len(data) % alignment))


def pack(space, sample):
    """(bytes, alignment) of a sample as a C structure."""
    if (fields := parts(space, sample)) is None:
        dtype = leaf_dtype(space)
        values = np.asarray(sample)
        assert values.shape == space.shape
        return values.astype(dtype).tobytes(), dtype.itemsize     # numbers align to their size
    data, widest = bytearray(), 1
    for child, value in fields:
        packed, alignment = pack(child, value)
        pad(data, alignment)
        data += packed
        widest = max(widest, alignment)
    pad(data, widest)
    return bytes(data), widest


def row(space, sample):
    """The bytes of one row."""
    return pack(space, sample)[0]


def container(space):
    """dtype of the flat row."""
    kinds = set(leaf_dtypes(space))
    return kinds.pop() if len(kinds) == 1 else np.dtype(np.uint8)


def record_dtype(space):
    """NumPy's own aligned structure, from the list of fields."""
    if isinstance(space, Dict):
        return np.dtype([(key, record_dtype(part)) for key, part in space.items()], align=True)
    if isinstance(space, Tuple):
        return np.dtype([(f"f{i}", record_dtype(part)) for i, part in enumerate(space)],
                        align=True)
    return np.dtype((leaf_dtype(space), space.shape))


def heads(space):
    """(first, last) of every discrete action, in order."""
    if isinstance(space, Discrete):
        return [(int(space.start), int(space.start) + int(space.n) - 1)]
    if isinstance(space, MultiDiscrete):
        return [(int(s), int(s) + int(n) - 1)
                for s, n in zip(space.start.flat, space.nvec.flat, strict=True)]
    if isinstance(space, MultiBinary):
        return [(0, 1)] * math.prod(space.shape)
    if isinstance(space, Box):
        return []
    return [head for part in (space.values() if isinstance(space, Dict) else space)
            for head in heads(part)]


def action_row(space, sample):
    """(discrete, continuous): the numbers of an action, in order."""
    if (fields := parts(space, sample)) is not None:
        rows = [action_row(child, value) for child, value in fields]
        return [n for d, _ in rows for n in d], [v for _, c in rows for v in c]
    numbers = [number.item() for number in np.asarray(sample).flat]
    return ([], numbers) if isinstance(space, Box) else (numbers, [])
