"""A zoo of spaces: hand-picked ones by name, random ones by generator, a hypothesis strategy."""

import math

import numpy as np
from gymnasium.spaces import (
    Box,
    Dict,
    Discrete,
    Graph,
    MultiBinary,
    MultiDiscrete,
    OneOf,
    Sequence,
    Space,
    Text,
    Tuple,
)
from hypothesis import strategies as st

DTYPES = tuple(map(np.dtype, (
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "float16", "float32", "float64")))


def box(dtype, shape):
    """A Box of any dtype, with bounds that Gymnasium can sample in."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return Box(-np.inf, np.inf, shape, dtype.type)
    if dtype.kind == "b":
        return Box(0, 1, shape, bool)
    info = np.iinfo(np.dtype(f"{dtype.kind}{min(dtype.itemsize, 4)}"))
    return Box(int(info.min), int(info.max), shape, dtype.type)


ZOO = {
    # one leaf
    "box": Box(-1, 1, (4,)),
    "box_image": Box(0, 255, (4, 5, 3), np.uint8),
    "box_scalar": Box(-1, 1, ()),
    "box_float64": Box(-1, 1, (3,), np.float64),
    "box_int64": box("int64", (2, 2)),
    "discrete": Discrete(5),
    "discrete_start": Discrete(5, start=-7),
    "multi_discrete": MultiDiscrete([3, 4, 5]),
    "multi_discrete_rank_2": MultiDiscrete([[3, 4], [5, 6]], start=[[1, 2], [3, 4]]),
    "multi_binary": MultiBinary(5),
    "multi_binary_rank_2": MultiBinary((2, 3)),
    # one level, one dtype
    "floats": Dict({"b": Box(-1, 1, (3,)), "a": Box(-1, 1, (2, 2))}),
    "doubles": Tuple((Box(-1, 1, (), np.float64), Box(-1, 1, (2,), np.float64))),
    "halves": Tuple((box("float16", (3,)), box("float16", (1,)))),
    "bools": Dict({"a": box("bool", (3,)), "b": box("bool", ())}),
    "discretes": Dict({"a": Discrete(3), "b": Discrete(4), "c": Discrete(5)}),
    "blackjack": Tuple((Discrete(32), Discrete(11), Discrete(2))),
    "binaries": Tuple((MultiBinary(3), MultiBinary((2, 2)))),
    # mixed
    "mixed": Dict(map=Box(0, 255, (11, 11), np.uint8), vitals=Box(-1, 1, (8,)), role=Discrete(5),
                  pair=Tuple((Box(-1, 1, (3,)), Box(-1, 1, (2,))))),
    "padded": Tuple((box("uint8", (3,)), box("float64", ()), box("uint8", (1,)))),
    "every_dtype": Tuple([box(dtype, (3,)) for dtype in DTYPES]),
    "flags": Dict({"alive": box("bool", ()), "hp": Box(0, 1, ())}),
    "counts": Tuple((box("uint16", (2,)), box("int64", (1,)), MultiDiscrete([2, 9]))),
    # nested
    "nested": Dict(inner=Dict(a=box("uint8", (3,)), b=Box(-1, 1, (2,))), after=Discrete(3)),
    "inner_padding": Tuple((box("uint8", (1,)), Tuple((box("uint8", (1,)), Box(-1, 1, (1,)))))),
    "deep": Dict({"1": Tuple((Dict({"2": Tuple((Dict({"3": Box(-1, 1, (2,)),
                                                      "4": Discrete(2)}),)),
                                    "5": box("int8", (1,))}),)), "6": box("float64", (1,))}),
    # odd ones
    "keys": Dict({"": Discrete(2), " with space": box("uint8", (1,)), "1.5": Discrete(3),
                  "schön": box("float64", ()), "class": Box(-1, 1, (1,))}),
    "unsorted": Dict([("z", box("uint8", (1,))), ("a", Box(-1, 1, (1,)))]),
    "empty_leaves": Tuple((Box(-1, 1, (0,)), box("uint8", (2, 0, 3)), Discrete(3))),
    "only_empty": Dict({"a": Box(-1, 1, (0,)), "b": Dict({}), "c": Tuple(())}),
    "empty_tuple": Tuple(()),
}

# Spaces without a fixed layout of numbers, and the path that an error must name.
UNSUPPORTED = {
    "text": (Text(5), "observation"),
    "in_dict": (Dict({"mission": Text(5), "image": Box(0, 255, (7, 7, 3), np.uint8)}),
                "observation['mission']"),
    "in_tuple": (Dict({"a": Tuple((Discrete(2), Sequence(Discrete(2))))}), "observation['a'][1]"),
    "graph": (Tuple((Graph(Box(-1, 1, (2,)), None),)), "observation[0]"),
    "one_of": (Dict({"x": OneOf((Discrete(2), Box(-1, 1, (2,))))}), "observation['x']"),
    "custom": (Tuple((Discrete(2), Space((3,), np.float32))), "observation[1]"),
    "long_double": (Dict({"a": Tuple((Discrete(2),)), "b": Tuple((Box(
        np.zeros(2), np.ones(2), dtype=np.longdouble),))}), "observation['b'][0]"),
    "foreign_bytes": (Dict({"a": Box(-1, 1, (2,), np.dtype(np.float32).newbyteorder())}),
                      "observation['a']"),
    "wide_discrete": (Dict({"id": Discrete(2**40)}), "observation['id']"),
    "wide_multi_discrete": (Tuple((MultiDiscrete([3, 3], start=[0, 2**31 - 2]),)),
                            "observation[0]"),
    "low_discrete": (Discrete(2, start=-2**31 - 1), "observation"),
    "same_names": (Dict({"x": Dict([(1, Discrete(2)), ("1", Discrete(2))])}), "observation['x']"),
}


def random_leaf(rng):
    """A leaf of any kind; `rng` a NumPy generator."""
    kind = rng.integers(8)
    shape = tuple(int(n) for n in rng.integers(0, 4, rng.integers(4)))
    positive = tuple(n + 1 for n in shape)
    if kind == 0:
        return Discrete(int(rng.integers(1, 100)), start=int(rng.integers(-50, 50)))
    if kind == 1:
        return MultiDiscrete(rng.integers(1, 9, positive or 2), start=rng.integers(
            -5, 5, positive or 2))
    if kind == 2:
        return MultiBinary(positive or 3)
    return box(DTYPES[rng.integers(len(DTYPES))], shape)


def random_space(rng, depth):
    """A space nested at most `depth` levels deep, with few enough leaves to be quick."""
    if depth == 0 or rng.random() < 0.25:
        return random_leaf(rng)
    children = [random_space(rng, depth - 1) for _ in range(rng.integers(0, 4))]
    if rng.random() < 0.5:
        return Tuple(children)
    return Dict([(str(key), child) for key, child in
                 zip(rng.permutation(10), children, strict=False)])


def depth_of(space):
    """Levels of nesting: 0 for a leaf."""
    if isinstance(space, Dict):
        return 1 + max(map(depth_of, space.values()), default=0)
    return 1 + max(map(depth_of, space), default=0) if isinstance(space, Tuple) else 0


def shapes():
    return st.lists(st.integers(0, 4), max_size=3).map(tuple)


def leaves():
    positive = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
    return st.one_of(
        st.builds(box, st.sampled_from(DTYPES), shapes()),
        st.builds(lambda n, start: Discrete(n, start=start),
                  st.integers(1, 2**20), st.integers(-2**20, 2**20)),
        st.builds(lambda shape, n, start: MultiDiscrete(
            np.full(shape, n), start=np.full(shape, start) + np.arange(math.prod(shape)).reshape(
                shape)), positive, st.integers(1, 2**20), st.integers(-2**20, 2**20)),
        st.builds(MultiBinary, positive))


def spaces(depth=6):
    """Strategy: any nesting of all supported spaces to this depth."""
    if depth == 0:
        return leaves()
    parts = st.deferred(lambda: spaces(depth - 1))
    return st.one_of(
        leaves(), st.lists(parts, max_size=3).map(Tuple),
        st.lists(st.tuples(st.text(max_size=4), parts), max_size=3, unique_by=lambda kv: kv[0]).map(
            Dict))
