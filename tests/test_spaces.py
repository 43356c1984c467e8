"""SpaceTree and ActionTree against the oracle, over the zoo and over thousands of random spaces."""

import collections
import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import oracle_spaces as oracle
import pytest
from gymnasium.error import InvalidAction
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spaces_zoo import DTYPES, UNSUPPORTED, ZOO, box, depth_of, random_space, spaces

from pufferlib_cy import ActionTree, SpaceError, SpaceTree
from pufferlib_cy._actions import ActionRows

try:
    import torch
except ImportError:
    torch = None

needs_torch = pytest.mark.skipif(torch is None, reason="needs torch")
RANDOM_SPACES = int(os.environ.get("PUFFERLIB_CY_SPACES", "10000"))   # more of them for the night
BATCHES = 50                                      # pieces that the random spaces are tested in
HYPOTHESIS = settings(max_examples=max(200, RANDOM_SPACES // 50), deadline=None,
                      suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

each_space = pytest.mark.parametrize("space", ZOO.values(), ids=ZOO)


def leaves(space, thing):
    """(space, part) of each leaf of a sample or of views, checking the containers' types."""
    if isinstance(space, Dict):
        assert type(thing) is dict
        assert list(thing) == list(space)
        return [leaf for key in space for leaf in leaves(space[key], thing[key])]
    if isinstance(space, Tuple):
        assert type(thing) is tuple
        assert len(thing) == len(space)
        return [leaf for part, value in zip(space, thing, strict=True)
                for leaf in leaves(part, value)]
    return [(space, thing)]


def check_views(space, views, samples):
    """Views of rows, (len(samples), ...), are the samples, with their dtypes and shapes."""
    rows = [[value for _, value in leaves(space, sample)] for sample in samples]
    for (leaf, view), *values in zip(leaves(space, views), *rows, strict=True):
        view = np.asarray(view)
        assert view.dtype == oracle.leaf_dtype(leaf)
        assert view.shape == (len(samples), *leaf.shape)
        assert view.tobytes() == np.array(values, view.dtype).tobytes()


def check_space(space, seed):
    """All that holds of every space: rows are the oracle's, views of rows are the samples."""
    tree = SpaceTree(space)
    space.seed(seed)
    samples = [space.sample() for _ in range(2)]
    rows = np.zeros((2, *tree.flat_space.shape), tree.flat_space.dtype)
    for i, sample in enumerate(samples):
        row = rows[i, ...]
        assert tree.flatten(sample, row) is row
        packed = oracle.row(space, sample)
        assert row.tobytes() == packed               # offsets, values, and zeros between them
        assert len(packed) == tree.row_size
        fresh = tree.flatten(sample)
        assert (fresh.dtype, fresh.shape) == (row.dtype, row.shape)
        assert fresh.tobytes() == packed
    check_views(space, tree.unflatten(rows), samples)
    if torch is not None:
        check_views(space, tree.unflatten(torch.from_numpy(rows)), samples)


# ---- rows and views ------------------------------------------------------------------------------

@each_space
def test_rows_are_the_oracles_and_views_are_the_samples(space):
    for seed in range(5):
        check_space(space, seed)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_spaces(batch):
    rng = np.random.default_rng(batch)
    depths = []
    for seed in range(RANDOM_SPACES // BATCHES):
        space = random_space(rng, 6)
        depths.append(depth_of(space))
        try:
            check_space(space, seed)
        except Exception as error:
            error.add_note(f"space: {space}, seed {seed}")
            raise
    assert max(depths) == 6


@HYPOTHESIS
@given(spaces(), st.integers(0, 2**31))
def test_any_space(space, seed):
    check_space(space, seed)


@each_space
def test_dtype_is_numpys_aligned_structure(space):
    assert SpaceTree(space).dtype.itemsize == oracle.record_dtype(space).itemsize
    if "" not in str(getattr(space, "spaces", "")).split("'"):     # a list cannot have that name
        assert SpaceTree(space).dtype == oracle.record_dtype(space)


def test_dtype_as_documented():
    assert SpaceTree(ZOO["nested"]).dtype == np.dtype([
        ("inner", np.dtype([("a", np.uint8, (3,)), ("b", np.float32, (2,))], align=True)),
        ("after", np.int32)], align=True)
    assert SpaceTree(ZOO["blackjack"]).dtype.names == ("f0", "f1", "f2")
    assert SpaceTree(Box(-1, 1, (4,))).dtype == np.dtype((np.float32, (4,)))
    assert SpaceTree(Discrete(3)).dtype == np.int32


def test_a_box_is_untouched():
    space = ZOO["box_image"]
    tree = SpaceTree(space)
    assert tree.flat_space is space
    sample = space.sample()
    row = tree.flatten(sample)
    assert row.shape == (4, 5, 3)
    assert row is not sample
    rows = np.stack([row, row])
    assert tree.unflatten(rows) is rows


@each_space
def test_flat_space(space):
    tree = SpaceTree(space)
    flat = tree.flat_space
    assert flat.dtype == oracle.container(space) if tree.leaves else np.uint8
    assert np.prod(flat.shape, dtype=int) * flat.dtype.itemsize == tree.row_size
    if not isinstance(space, Box):
        assert len(flat.shape) == 1
        limits = (np.finfo(min(flat.dtype, np.dtype(np.float32))) if flat.dtype.kind == "f"
                  else np.iinfo(flat.dtype) if flat.dtype.kind in "iu" else None)
        assert np.all(flat.low == (limits.min if limits else False))
        assert np.all(flat.high == (limits.max if limits else True))


def test_leaves_tell_where_everything_is():
    tree = SpaceTree(ZOO["deep"])
    assert [leaf.path for leaf in tree.leaves] == [
        ("1", 0, "2", 0, "3"), ("1", 0, "2", 0, "4"), ("1", 0, "5"), ("6",)]
    assert [leaf.offset for leaf in tree.leaves] == [0, 8, 12, 16]
    assert [(str(leaf.dtype), leaf.shape) for leaf in tree.leaves] == [
        ("float32", (2,)), ("int32", ()), ("int8", (1,)), ("float64", (1,))]
    assert tree.leaves[1].space == Discrete(2)
    sample = tree.space.sample()
    row = tree.flatten(sample).tobytes()
    for leaf in tree.leaves:
        value = sample
        for key in leaf.path:
            value = value[key]
        size = int(np.prod(leaf.shape, dtype=int))
        np.testing.assert_array_equal(
            np.frombuffer(row, leaf.dtype, size, leaf.offset).reshape(leaf.shape), value)


def test_keys_of_other_types_name_fields_by_their_text():
    space = Dict([((1, 2), Discrete(3)), (7, Box(-1, 1, (2,)))])
    tree = SpaceTree(space)
    assert tree.dtype.names == ("(1, 2)", "7")
    sample = space.sample()
    views = tree.unflatten(tree.flatten(sample))
    assert views[1, 2] == sample[1, 2]
    np.testing.assert_array_equal(views[7], sample[7])


def test_equal_samples_give_equal_rows_whatever_was_there_before():
    tree = SpaceTree(ZOO["padded"])
    sample = tree.space.sample()
    used = np.full(tree.flat_space.shape, 0xFF, np.uint8)
    assert tree.flatten(sample, used).tobytes() == tree.flatten(sample).tobytes()
    assert used[3:8].tolist() == [0] * 5


@each_space
def test_views_share_memory_with_numpy_rows(space):
    tree = SpaceTree(space)
    rows = np.stack([tree.flatten(space.sample()) for _ in range(2)])
    for _, view in leaves(space, tree.unflatten(rows)):
        assert view.size == 0 or np.shares_memory(view, rows)


@needs_torch
@each_space
def test_views_share_memory_with_tensors(space):
    tree = SpaceTree(space)
    rows = torch.from_numpy(np.stack([tree.flatten(space.sample()) for _ in range(2)]))
    for _, view in leaves(space, tree.unflatten(rows)):
        assert view.numel() == 0 or (
            view.untyped_storage().data_ptr() == rows.untyped_storage().data_ptr())


@each_space
@pytest.mark.parametrize("as_rows", [np.asarray, pytest.param(
    lambda rows: torch.as_tensor(rows), marks=needs_torch)], ids=["numpy", "torch"])
def test_batches_of_any_shape_and_stride(space, as_rows):
    tree = SpaceTree(space)
    ndim = len(tree.flat_space.shape)
    samples = [space.sample() for _ in range(12)]
    rows = as_rows(np.stack([tree.flatten(sample) for sample in samples]))
    batch = rows.reshape(3, 4, *tree.flat_space.shape)
    wide = as_rows(np.zeros((12, 2, *tree.flat_space.shape), tree.flat_space.dtype))
    wide[:, 1] = rows
    swapped = batch.transpose(1, 0, *range(2, 2 + ndim)) if isinstance(rows, np.ndarray) else (
        batch.transpose(0, 1))
    for given_rows, expected in [
            (batch, lambda i: samples[4 * i[0] + i[1]]),
            (swapped, lambda i: samples[4 * i[1] + i[0]]),
            (wide[:, 1], lambda i: samples[i[0]]), (rows[::3], lambda i: samples[3 * i[0]]),
            (rows[5, ...], lambda i: samples[5]), (rows[:0], None)]:
        shape = tuple(given_rows.shape[:len(given_rows.shape) - ndim])
        views = leaves(space, tree.unflatten(given_rows))
        for index in np.ndindex(shape):
            for (leaf, view), (_, value) in zip(views, leaves(space, expected(index)), strict=True):
                found = np.asarray(view[index])
                assert found.shape == leaf.shape
                assert found.tobytes() == np.asarray(value).astype(found.dtype).tobytes()
        assert all(tuple(view.shape) == (*shape, *leaf.shape) for leaf, view in views)


def test_unflatten_keeps_rows_read_only():
    tree = SpaceTree(ZOO["nested"])
    row = tree.flatten(tree.space.sample())
    row.flags.writeable = False
    assert not any(view.flags.writeable for _, view in leaves(tree.space, tree.unflatten(row)))


@needs_torch
def test_gradients_pass_through_views():
    tree = SpaceTree(ZOO["floats"])
    rows = torch.ones(2, 7, requires_grad=True)
    tree.unflatten(rows)["a"].sum().backward()
    assert rows.grad.tolist() == [[1, 1, 1, 1, 0, 0, 0]] * 2


def test_rows_of_the_wrong_kind_are_refused():
    tree = SpaceTree(ZOO["nested"])
    rows = np.zeros((2, 16), np.uint8)
    for wrong in (rows.astype(np.float32), rows[:, :8], rows[0, 0], rows.tolist(), None):
        with pytest.raises(ValueError, match=r"^rows: expected "):
            tree.unflatten(wrong)
    with pytest.raises(ValueError, match="last axis must be contiguous"):
        tree.unflatten(np.zeros((2, 32), np.uint8)[:, ::2])


@needs_torch
def test_tensors_that_torch_cannot_view_are_refused():
    tree = SpaceTree(ZOO["nested"])
    with pytest.raises(ValueError, match="expected uint8"):
        tree.unflatten(torch.zeros(2, 16))
    for rows in (torch.zeros(2, 17, dtype=torch.uint8)[:, 1:],
                 torch.zeros(2, 32, dtype=torch.uint8)[:, ::2]):
        with pytest.raises(ValueError, match="make them contiguous"):
            tree.unflatten(rows)
        assert tree.unflatten(rows.contiguous())["after"].tolist() == [0, 0]


def test_torch_is_not_imported():
    code = ("import sys, pufferlib_cy, numpy, gymnasium.spaces as s\n"
            "tree = pufferlib_cy.SpaceTree(s.Tuple((s.Discrete(3), s.Box(-1, 1, (2,)))))\n"
            "tree.unflatten(tree.flatten(tree.space.sample()))\n"
            "assert 'torch' not in sys.modules\n")
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda tree: pickle.loads(pickle.dumps(tree))])
def test_trees_can_be_copied_and_pickled(again):
    tree, actions = SpaceTree(ZOO["mixed"], "player"), ActionTree(ZOO["discretes"], "move")
    assert again(tree).space == tree.space
    assert (again(tree).name, again(tree).dtype) == ("player", tree.dtype)
    assert (again(actions).space, again(actions).name) == (actions.space, "move")


# ---- samples -------------------------------------------------------------------------------------

def row_of(space, sample):
    return SpaceTree(Tuple((space,))).unflatten(SpaceTree(Tuple((space,))).flatten((sample,)))[0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strided_arrays_are_copied_element_by_element(dtype):
    values = np.arange(4 * 6 * 10).reshape(4, 6, 10).astype(dtype)
    for array in (values[::2, ::-3, 1::4], values.T[2:5, ::3, ::-2], values[::-1, 0, ::5],
                  np.broadcast_to(values[0, 0, 0], (2, 3)), np.asfortranarray(values)):
        np.testing.assert_array_equal(row_of(box(dtype, array.shape), array), array)


def test_arrays_of_packed_structures_and_other_memory():
    packed = np.zeros(3, np.dtype([("skip", np.uint8), ("x", np.float32), ("n", np.int64)]))
    packed["x"], packed["n"] = [1, 2, 3], [4, 5, 6]
    assert row_of(Box(-9, 9, (3,)), packed["x"]).tolist() == [1, 2, 3]       # misaligned
    assert row_of(MultiDiscrete([9, 9, 9]), packed["n"]).tolist() == [4, 5, 6]
    assert row_of(Box(0, 255, (3,), np.uint8), bytearray(b"abc")).tolist() == [97, 98, 99]
    assert row_of(Box(-9, 9, (3,)), memoryview(packed["x"])).tolist() == [1, 2, 3]
    swapped = np.array([1, 2, 3], np.dtype(np.float32).newbyteorder())
    assert row_of(Box(-9, 9, (3,)), swapped).tolist() == [1, 2, 3]
    if torch is not None:
        assert row_of(Box(-9, 9, (2,)), torch.tensor([1.0, 2.0])).tolist() == [1, 2]


class Lazy:
    """Frames that become an array when asked, as those of frame-stacking wrappers do."""

    def __init__(self, frames):
        self.frames = frames

    def __array__(self, dtype=None, copy=None):
        return np.array(self.frames, dtype)


def test_what_numpy_makes_an_array_of_is_accepted():
    space = Box(0, 255, (2, 2), np.uint8)
    assert row_of(space, Lazy([[1, 2], [3, 4]])).tolist() == [[1, 2], [3, 4]]
    assert row_of(space, [[1, 2], (3, 4)]).tolist() == [[1, 2], [3, 4]]
    assert row_of(Box(-1, 1, (2,)), [0, True]).tolist() == [0, 1]
    assert row_of(Box(0, 1, (0,), np.uint8), []).tolist() == []


@pytest.mark.parametrize("value", [
    3, True, np.int64(3), np.int8(3), np.uint8(3), np.uint64(3), np.bool_(True), np.array(3),
    np.array(3, np.int16)], ids=lambda v: type(v).__name__)
def test_integers_for_a_discrete(value):
    assert row_of(Discrete(5), value) == value


@pytest.mark.parametrize("value", [3.0, np.float32(3), np.array([3]), [3], "3", None, 2**31,
                                   -2**31 - 1, 2**63, 2**70, np.int64(2**31), np.uint64(2**63)])
def test_what_a_discrete_refuses(value):
    with pytest.raises(SpaceError, match=r"^observation\[0\]: expected int32 of shape \(\), got "):
        row_of(Discrete(5), value)


def test_a_discrete_keeps_its_value_whatever_its_start():
    for value in (-2**31, -7, 2**31 - 1):
        assert row_of(Discrete(3, start=-1), np.int64(value)) == value


@pytest.mark.parametrize("value", [0.5, 1, True, np.float64(0.5), np.float32(0.5), np.float16(0.5),
                                   np.array(0.5), np.int64(1), float("inf"), float("nan")])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_numbers_for_a_box_of_shape_nothing(dtype, value):
    np.testing.assert_array_equal(row_of(box(dtype, ()), value), np.asarray(value, dtype))


SHAPE = (2, 3)


@pytest.mark.parametrize("target", DTYPES, ids=str)
@pytest.mark.parametrize("source", DTYPES, ids=str)
def test_dtypes_convert_within_their_kind_or_not_at_all(source, target):
    array = np.array([[0, 1, 1], [0, 0, 1]]).astype(source)
    kinds = {"b": "b", "i": "biu", "u": "biu", "f": "biuf"}
    for sample in (array, array.T.copy().T, array[:, ::-1]):
        if source.kind in kinds[target.kind]:
            np.testing.assert_array_equal(row_of(box(target, SHAPE), sample), sample)
        else:
            with pytest.raises(SpaceError, match=f"expected {target} of shape .* {source} array"):
                row_of(box(target, SHAPE), sample)


@pytest.mark.parametrize(("target", "source", "value"), [
    ("int32", "int64", 2**31), ("int32", "int64", -2**31 - 1), ("int32", "uint32", 2**31),
    ("int32", "uint64", 2**63), ("uint8", "int64", 256), ("uint8", "int8", -1),
    ("uint64", "int64", -1), ("int64", "uint64", 2**63), ("int8", "uint8", 128),
    ("float32", "float64", 1e300), ("float16", "float32", 1e5), ("float16", "int64", 10**6)])
def test_values_that_do_not_fit_are_refused(target, source, value):
    array = np.zeros(SHAPE, source)
    array[1, 1] = value
    for sample in (array, array[:, ::-1]):
        with pytest.raises(SpaceError, match=f"^observation.0.: expected .* which {target} cannot"):
            row_of(box(target, SHAPE), sample)


def test_infinity_and_nan_are_values():
    array = np.array([np.inf, -np.inf, np.nan])
    for dtype in ("float16", "float32"):
        np.testing.assert_array_equal(row_of(box(dtype, (3,)), array), array.astype(dtype))


def test_dicts_and_tuples_of_other_types():
    tree = SpaceTree(ZOO["mixed"])
    sample = tree.space.sample()
    expected = tree.flatten(sample).tobytes()
    pair = collections.namedtuple("pair", "first second")
    for other in (collections.OrderedDict(reversed(sample.items())),
                  collections.UserDict(sample), list(sample.items()),
                  {**sample, "pair": list(sample["pair"])},
                  {**sample, "pair": pair(*sample["pair"])}):
        assert tree.flatten(other).tobytes() == expected
    rows = np.ones((2, 3), np.float32)
    pairs = SpaceTree(Tuple((Box(-1, 1, (3,)), Box(-1, 1, (3,)))))
    assert pairs.flatten(rows).tolist() == [1] * 6


def mixed(**changes):
    return {"map": np.zeros((11, 11), np.uint8), "vitals": np.zeros(8, np.float32), "role": 0,
            "pair": (np.zeros(3, np.float32), np.zeros(2, np.float32)), **changes}


KEYS = r"\['map', 'vitals', 'role', 'pair'\]"


@pytest.mark.parametrize(("sample", "message"), [
    (mixed(map=np.zeros((11, 12), np.uint8)),
     r"observation\['map'\]: expected uint8 of shape \(11, 11\), got a uint8 array of shape "
     r"\(11, 12\)"),
    (mixed(map=np.zeros(121, np.uint8)), r"observation\['map'\]: .*got a uint8 array"),
    (mixed(map=np.zeros((1, 11, 11), np.uint8)), r"observation\['map'\]: .*got a uint8 array"),
    (mixed(vitals=np.zeros(1, np.float32)), r"observation\['vitals'\]: .*shape \(1,\)"),
    (mixed(vitals=0.0), r"observation\['vitals'\]: .* got 0.0 \(float\)"),
    (mixed(vitals=None), r"observation\['vitals'\]: .* got None \(NoneType\)"),
    (mixed(vitals="12345678"), r"observation\['vitals'\]: .* got '12345678' \(str\)"),
    (mixed(vitals=[[1], [2, 3]]), r"observation\['vitals'\]: .* inhomogeneous"),
    (mixed(vitals=np.zeros(8, complex)), r"observation\['vitals'\]: .* got a complex128 array"),
    (mixed(vitals=np.zeros(8, "datetime64[s]")), r"observation\['vitals'\]: .* datetime64"),
    (mixed(vitals=np.zeros(8, object)), r"observation\['vitals'\]: .* got a object array"),
    (mixed(pair=(np.zeros(3), np.zeros(3))), r"observation\['pair'\]\[1\]: expected float32 of "
                                             r"shape \(2,\), got a float64 array of shape \(3,\)"),
    (mixed(pair=(np.zeros(3),)), r"observation\['pair'\]: expected a tuple of 2, got 1 elements"),
    (mixed(pair=3), r"observation\['pair'\]: expected a tuple of 2, got 3 \(int\)"),
    (mixed(pair="ab"), r"observation\['pair'\]: expected a tuple of 2, got 'ab' \(str\)"),
    (mixed(more=1), rf"observation: expected the keys {KEYS}: unknown \['more'\]"),
    ({k: v for k, v in mixed().items() if k != "role"},
     rf"observation: expected the keys {KEYS}: missing \['role'\]"),
    ({"rule" if k == "role" else k: v for k, v in mixed().items()},
     rf"observation: expected the keys {KEYS}: missing \['role'\], unknown \['rule'\]"),
    (None, rf"observation: expected a dict with the keys {KEYS}, got None"),
    (np.zeros(4), "observation: expected a dict"),
], ids=range(20))
def test_a_sample_that_does_not_match_is_named_and_nothing_is_written(sample, message):
    tree = SpaceTree(ZOO["mixed"])
    out = np.full(tree.flat_space.shape, 7, np.uint8)
    with pytest.raises(SpaceError, match=f"^{message}"):
        tree.flatten(sample, out)
    assert (out == 7).all()
    with pytest.raises(SpaceError, match=f"^{message}"):
        tree.flatten(sample)


def test_out_must_be_a_row():
    tree = SpaceTree(ZOO["mixed"])
    frozen = np.zeros(180, np.uint8)
    frozen.flags.writeable = False
    for out in (np.zeros(179, np.uint8), np.zeros((1, 180), np.uint8), np.zeros(180, np.int8),
                np.zeros(45, np.float32), np.zeros(360, np.uint8)[::2], frozen, bytearray(180)):
        with pytest.raises(ValueError, match=r"^out: expected a C-contiguous, writable uint8"):
            tree.flatten(mixed(), out)
    sample, misaligned = mixed(role=3), np.zeros(181, np.uint8)[1:]
    assert tree.flatten(sample, misaligned).tobytes() == tree.flatten(sample).tobytes()


def test_write_leaves_padding_and_write_checked_leaves_all_or_nothing(native):
    trees, tree = native["trees"], SpaceTree(ZOO["padded"])
    sample = tree.space.sample()
    packed = oracle.row(tree.space, sample)
    row = np.zeros(24, np.uint8)
    for _ in range(2):
        trees.write(tree, sample, row)
        assert row.tobytes() == packed
    row[:] = 0xFF
    trees.write(tree, sample, row)
    assert row[3:8].tolist() == [0xFF] * 5           # hence rows are zeroed once
    trees.write_checked(tree, sample, row)
    assert row.tobytes() == packed
    row[:] = 7
    wrong = (sample[0], sample[1], "x")
    with pytest.raises(SpaceError, match=r"^observation\[2\]: "):
        trees.write_checked(tree, wrong, row)
    assert (row == 7).all()
    with pytest.raises(SpaceError, match=r"^observation\[2\]: "):
        trees.write(tree, wrong, row)


# ---- spaces that cannot be rows ------------------------------------------------------------------

@pytest.mark.parametrize(("space", "path"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_unsupported_spaces_are_refused_by_path(space, path):
    assert issubclass(SpaceError, ValueError)
    with pytest.raises(SpaceError) as error:
        SpaceTree(space)
    assert str(error.value).startswith(f"{path}: ")
    with pytest.raises(SpaceError) as error:
        ActionTree(space)
    assert str(error.value).startswith(f"{path.replace('observation', 'action')}: ")


def test_the_name_of_a_sample_is_the_users():
    with pytest.raises(SpaceError, match=r"^observation of agent_1\['a'\]: a Text has"):
        SpaceTree(Dict({"a": Text(3)}), "observation of agent_1")
    with pytest.raises(SpaceError, match=r"^player: expected int32"):
        SpaceTree(Discrete(3), "player").flatten(0.5)


def test_a_space_may_be_deep():
    space = Discrete(3)
    for _ in range(50):
        space = Tuple((space,))
    check_space(space, 0)


# ---- actions -------------------------------------------------------------------------------------

def check_action(space, seed):
    """The action read from its own row is the action, and is in the space."""
    tree = ActionTree(space)
    heads = oracle.heads(space)
    assert tree.heads == len(heads)
    assert tree.starts.tolist() == [first for first, _ in heads]
    assert (tree.starts + tree.sizes - 1).tolist() == [last for _, last in heads]
    space.seed(seed)
    sample = space.sample()
    discrete, continuous = oracle.action_row(space, sample)
    assert tree.values == len(continuous)
    action = tree.read(np.array(discrete, np.int64), np.array(continuous, np.float32))
    assert space.contains(action)
    for (leaf, value), (_, expected) in zip(leaves(space, action), leaves(space, sample),
                                            strict=True):
        if isinstance(leaf, Discrete):
            assert type(value) is int
            assert value == expected
        else:
            assert (value.dtype, value.shape) == (leaf.dtype, leaf.shape)
            assert value.flags.owndata or value.size == 0
            wanted = expected
            if isinstance(leaf, Box):                # the row is float32
                wanted = np.clip(expected.astype(np.float32).astype(float), leaf.low, leaf.high)
            np.testing.assert_array_equal(value, wanted.astype(leaf.dtype))


ACTIONS = {name: space for name, space in ZOO.items()
           if "empty" not in name and name not in ("every_dtype", "box_int64", "counts")}


@pytest.mark.parametrize("space", ACTIONS.values(), ids=ACTIONS)
def test_actions_read_back(space):
    for seed in range(5):
        check_action(space, seed)


def test_random_actions():
    rng = np.random.default_rng(0)
    checked = 0
    for seed in range(RANDOM_SPACES // 10):
        space = random_space(rng, 4)
        if any(leaf.dtype.itemsize * 8 >= 32 and leaf.dtype.kind in "iu"
               for leaf in SpaceTree(space).leaves if isinstance(leaf.space, Box)):
            continue                                 # float32 does not hold their values
        try:
            check_action(space, seed)
        except SpaceError as error:
            assert "nothing to choose" in str(error)     # noqa: PT017
            continue
        checked += 1
    assert checked > RANDOM_SPACES // 30


@pytest.mark.parametrize("space", [
    Discrete(3), Discrete(3, start=-1), MultiDiscrete([2, 3], start=[1, 0]), Box(-1, 1, (2, 2)),
    Box(0, 9, (3,), np.uint8), MultiDiscrete([[2, 3], [4, 5]])], ids=str)
def test_simple_action_spaces_pass_through(space):
    assert ActionTree(space).flat_space is space


@pytest.mark.parametrize(("space", "flat"), [
    (MultiBinary((2, 2)), MultiDiscrete([2, 2, 2, 2])),
    (Dict(b=Discrete(3, start=2), a=Tuple((MultiDiscrete([4, 5], start=[1, -1]),
                                           MultiBinary(2)))),
     MultiDiscrete([3, 4, 5, 2, 2], start=[2, 1, -1, 0, 0])),
    (Tuple((Box(-1, 1, (2, 1)), Dict({"x": Box(0, 5, (1,), np.float64)}))),
     Box(np.array([-1, -1, 0], np.float32), np.array([1, 1, 5], np.float32))),
    (Tuple((Box(-1, 1, (1,)), Discrete(3), Box(0, 2, (1,)), Discrete(4, start=1))),
     Tuple((MultiDiscrete([3, 4], start=[0, 1]),
            Box(np.array([-1, 0], np.float32), np.array([1, 2], np.float32))))),
    (Dict({"gas": Box(-1e300, 1e300, (1,), np.float64)}),
     Box(-np.inf, np.inf, (1,))),
])
def test_flat_action_spaces(space, flat):
    assert ActionTree(space).flat_space == flat


def test_action_leaves_tell_their_heads_and_values():
    tree = ActionTree(Tuple((Box(-1, 1, (2,)), MultiDiscrete([3, 4]), Box(0, 2, ()), Discrete(4))))
    assert [(leaf.path, leaf.offset) for leaf in tree.leaves] == [
        ((0,), 0), ((1,), 0), ((2,), 2), ((3,), 2)]
    assert (tree.heads, tree.values) == (3, 3)
    assert tree.sizes.tolist() == [3, 4, 4]
    assert tree.lows.tolist() == [-1, -1, 0]
    assert tree.highs.tolist() == [1, 1, 2]


def test_an_environment_may_keep_its_action():
    tree = ActionTree(Dict({"a": MultiDiscrete([3, 3]), "b": Box(-1, 1, (1,))}))
    first = tree.read([1, 2], [0.5])
    second = tree.read([0, 0], [-0.5])
    assert first["a"].tolist() == [1, 2]
    assert first["b"].tolist() == [0.5]
    assert second["a"].tolist() == [0, 0]


@pytest.mark.parametrize("space", [
    Box(-0.1, 0.1, (4,), np.float64), Box(-0.1, 0.1, (4,), np.float16), Box(0, 200, (4,), np.uint8),
    Box(-2**63, 2**63 - 1, (4,), np.int64), Box(0, 2**64 - 1, (4,), np.uint64),
    Box(-7, 7, (4,), np.int8), Box(0, 1, (4,), bool), Box(-1e300, 1e300, (4,), np.float64),
    Box(-np.inf, np.inf, (4,), np.float16)], ids=str)
def test_actions_are_rounded_into_boxes_of_any_dtype(space):
    tree = ActionTree(space)
    low, high = tree.lows.clip(-1e30, 1e30), tree.highs.clip(-1e30, 1e30)
    for t in (0.0, 0.1, 0.5, 0.7, 1.0):
        values = (low * (1 - t) + high * t).clip(low, high).astype(np.float32)
        action = tree.read(None, values)
        assert action.dtype == space.dtype
        assert space.contains(action)
    assert np.array_equal(ActionTree(Box(-9, 9, (4,), np.int8)).read(None, [-8.6, -0.4, 0.6, 9]),
                          [-9, 0, 1, 9])


@pytest.mark.parametrize(("discrete", "continuous", "message"), [
    ([0, 5], [0, 0], r"action: \[0 5\] is not in"), ([-1, 0], [0, 0], r"\[-1  0\] is not in"),
    ([2**32, 0], [0, 0], "is not in"), ([2**63 - 1, -2], [0, 0], "is not in"),
    ([0, -2], [1.5, 0], "is not in"), ([0, -2], [np.nan, 0], "is not in"),
    ([0.0, -2.0], [0, 0], "expected integers, got"), ([0], [0, 0], "expected 2 discrete and 2"),
    ([0, -2], [0], "got shapes"), (None, [0, 0], "got shapes"), ([0, -2], None, "got shapes")])
def test_rows_that_are_no_action_are_refused(discrete, continuous, message):
    tree = ActionTree(Tuple((Discrete(3), Box(-1, 1, (2,)), Discrete(4, start=-2))))
    assert tree.read([0, -2], [0, 0])[2] == -2
    with pytest.raises(SpaceError, match=message):
        tree.read(discrete, continuous)


@pytest.mark.parametrize("space", [Dict({}), Tuple((Box(-1, 1, (0,)), Tuple(()))), Box(0, 1, (0,))])
def test_nothing_to_choose(space):
    with pytest.raises(SpaceError, match=r"^action: there is nothing to choose"):
        ActionTree(space)


# ---- action rows ---------------------------------------------------------------------------------

HYBRID = Tuple((Discrete(3), Dict(steer=Box(-1, 1, (2,)), gear=Discrete(4, start=-2))))


def make_rows(space, num_rows, agents=1):
    tree = ActionTree(space)
    rows = ActionRows(tree, agents, np.zeros((num_rows, tree.heads), np.int32),
                      np.zeros((num_rows, tree.values), np.float32))
    return tree, rows, np.ones(num_rows, np.uint8)


@pytest.mark.parametrize("space", ACTIONS.values(), ids=ACTIONS)
def test_every_action_space_goes_through_rows(space, native):
    tree, rows, live = make_rows(space, 3)
    samples = [space.sample() for _ in range(3)]
    numbers = [oracle.action_row(space, sample) for sample in samples]
    discrete = np.array([d for d, _ in numbers], np.int64).reshape(3, -1)
    continuous = np.array([c for _, c in numbers], np.float64).reshape(3, -1)
    actions = ((discrete, continuous) if tree.heads and tree.values
               else discrete if tree.heads else continuous)
    native["trees"].load(rows, actions, [(0, 3)], live)
    for n, (d, c) in enumerate(numbers):
        action = native["trees"].read_row(tree, rows, n)
        assert space.contains(action)
        assert str(action) == str(tree.read(d, np.array(c, np.float32)))


@pytest.mark.parametrize("space", [MultiDiscrete([[2, 3], [4, 5]]), Box(-1, 1, (2, 2)),
                                   Box(0, 255, (2,), np.uint8), Box(0, 1, ()), Discrete(4),
                                   MultiDiscrete([100], start=[27], dtype=np.int8)], ids=str)
def test_what_a_simple_space_samples_is_what_its_environment_gets(space, native):
    tree, rows, live = make_rows(space, 2)
    samples = [space.sample() for _ in range(2)]
    native["trees"].load(rows, np.stack(samples), [(0, 2)], live)
    for n, sample in enumerate(samples):
        np.testing.assert_array_equal(native["trees"].read_row(tree, rows, n), sample)


def test_hybrid_rows_take_a_pair(native):
    tree, rows, live = make_rows(HYBRID, 4)
    assert tree.flat_space == Tuple((MultiDiscrete([3, 4], start=[0, -2]), Box(-1, 1, (2,))))
    discrete, continuous = [[2, -2], [0, 1]], np.array([[0.5, -1], [1, 0]])
    for pair in ((discrete, continuous), [np.array(discrete), continuous.tolist()],
                 (np.array(discrete, np.int8), np.asfortranarray(continuous, np.float32))):
        rows.discrete[:] = rows.continuous[:] = 0
        native["trees"].load(rows, pair, [(3, 1), (1, 1)], live)
        assert rows.discrete.tolist() == [[0, 0], [0, 1], [0, 0], [2, -2]]
        assert rows.continuous.tolist() == [[0, 0], [1, 0], [0, 0], [0.5, -1]]
    action = native["trees"].read_row(tree, rows, 3)
    assert action[0] == 2
    assert action[1]["gear"] == -2
    assert action[1]["steer"].tolist() == [0.5, -1]


GOOD = np.array([[0, -2]] * 4), np.zeros((4, 2), np.float32)


def changed(array, n, value):
    array = array.astype(np.result_type(array, value))
    array[n] = value
    return array


@pytest.mark.parametrize(("pair", "message"), [
    (GOOD[0], "expected a pair, discrete actions and continuous ones, got a int64 array"),
    ((*GOOD, 3), "expected a pair"), (None, "expected a pair"),
    ((GOOD[1], GOOD[0]), r"actions\[0\]: expected integers, got a float32 array"),
    ((GOOD[0], GOOD[0]), r"actions\[1\]: expected floats, got a int64 array"),
    ((GOOD[0][:3], GOOD[1]), r"actions\[0\]: expected shape \(4, 2\), .* got .* \(3, 2\)"),
    ((GOOD[0], GOOD[1][:, :1]), r"actions\[1\]: expected shape \(4, 2\), .* got .* \(4, 1\)"),
    ((changed(GOOD[0], (2, 1), 2), GOOD[1]),
     r"actions\[0\]: row 2 \(environment 1, agent slot 0\) is \[0 2\], which is not in Multi"),
    ((changed(GOOD[0], (3, 0), 2**32), GOOD[1]), r"actions\[0\]: row 3 .* no environment was st"),
    ((GOOD[0], changed(GOOD[1], (1, 0), np.nan)),
     r"actions\[1\]: row 1 \(environment 0, agent slot 1\) is \[nan  0.\], which is not in Box"),
    ((GOOD[0], changed(GOOD[1], (0, 1), -1.5)), r"actions\[1\]: row 0 "),
])
def test_hybrid_rows_refuse_either_part(pair, message, native):
    _, rows, live = make_rows(HYBRID, 4, agents=2)
    native["trees"].load(rows, GOOD, [(0, 4)], live)
    with pytest.raises(InvalidAction, match=message):
        native["trees"].load(rows, pair, [(0, 4)], live)


def test_hybrid_rows_ignore_what_is_not_alive(native):
    tree, rows, live = make_rows(HYBRID, 4)
    live[2] = 0
    native["trees"].load(rows, (changed(GOOD[0], (2, 1), 99), changed(GOOD[1], (2, 0), np.nan)),
                         [(0, 4)], live)
    assert tree.space.contains(native["trees"].read_row(tree, rows, 2))
