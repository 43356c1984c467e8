"""Emulation against PyPI's pufferlib-core: the same rows wherever it is right, and where it is not.

Each difference has a test that shows what pufferlib-core does, and a line in docs/emulation.md.
"""

import importlib.metadata
import re
import warnings
from pathlib import Path

import numpy as np
import oracle_spaces as oracle
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple
from spaces_zoo import UNSUPPORTED, ZOO, random_space

from pufferlib_cy import ActionTree, SpaceError, SpaceTree

emulation = pytest.importorskip("pufferlib.emulation", reason="make setup installs pufferlib-core")
torch = pytest.importorskip("torch")
nativize = pytest.importorskip("pufferlib.pytorch").nativize_observation

PAGE = Path(__file__).parents[1] / "docs" / "emulation.md"

# What of the zoo is laid out differently there; each has its test below.
DIFFERENT = {
    "discrete", "discrete_start", "discretes", "blackjack", "multi_discrete",
    "multi_discrete_rank_2", "multi_binary", "multi_binary_rank_2", "halves", "keys", "only_empty",
    "empty_tuple",
}


def test_it_is_the_version_that_the_rules_were_taken_from():
    assert importlib.metadata.version("pufferlib-core") == "3.0.23"


def their_rows(space, sample):
    """(structured dtype, flat space, flat rows (1, D)) of one sample in pufferlib-core."""
    with np.errstate(over="ignore"):
        flat, dtype = emulation.emulate_observation_space(space)
    rows = np.zeros((1, *flat.shape), flat.dtype)
    if isinstance(space, Box):
        rows[0] = sample
    else:
        emulation.emulate(rows.view(dtype), sample)
    return dtype, flat, rows


def their_tensors(space, sample):
    """Its views of one row for torch, (1, ...)."""
    dtype, flat, rows = their_rows(space, sample)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)       # it calls what torch will remove
        return nativize(torch.from_numpy(rows), {"observation_dtype": flat.dtype,
                                                 "emulated_observation_dtype": dtype})


def check_parity(space, seed):
    tree = SpaceTree(space)
    space.seed(seed)
    sample = space.sample()
    dtype, flat, rows = their_rows(space, sample)
    assert dtype == tree.dtype
    assert flat == tree.flat_space
    row = tree.flatten(sample)
    assert (row.dtype, row.shape) == (rows.dtype, rows.shape[1:])
    assert row.tobytes() == rows.tobytes()


@pytest.mark.parametrize("name", sorted(ZOO.keys() - DIFFERENT))
def test_same_dtype_and_same_bytes(name):
    for seed in range(3):
        check_parity(ZOO[name], seed)


def is_right_there(space):
    """Whether pufferlib-core lays a nested space out as it should."""
    leaves = SpaceTree(space).leaves
    containers = {leaf.space.dtype for leaf in leaves}
    return (isinstance(space, (Dict, Tuple)) and SpaceTree(space).row_size > 0
            and all(leaf.space.shape == (len(leaf.space.nvec),) for leaf in leaves
                    if isinstance(leaf.space, MultiDiscrete))
            and (containers == {oracle.container(space)} or len(containers) > 1)
            and (len(containers) == 1) == (len({leaf.dtype for leaf in leaves}) == 1)
            and containers != {np.dtype(np.float16)})


def test_same_bytes_for_random_spaces():
    rng = np.random.default_rng(0)
    checked = 0
    for seed in range(2000):
        space = random_space(rng, 6)
        if is_right_there(space):
            check_parity(space, seed)
            checked += 1
    assert checked > 500


@pytest.mark.parametrize("name", ["discretes", "blackjack"])
def test_same_action_rows(name):
    flat, dtype = emulation.emulate_action_space(ZOO[name])
    tree = ActionTree(ZOO[name])
    assert flat == tree.flat_space
    action = np.array([2, 1, 0], np.int32)
    assert emulation.nativize(action, ZOO[name], dtype) == tree.read(action)


# ---- where we differ: title in the documentation, and what pufferlib-core does -------------------

def test_every_difference_is_in_the_documentation(request):
    tests = [thing for name, thing in vars(request.module).items() if name.startswith("test_")]
    [section] = re.findall(r"^## Where pufferlib differs\n(.*?)(?=^## |\Z)", PAGE.read_text(),
                           re.M | re.S)
    rows = [line for line in section.splitlines() if line.startswith("| ")][2:]
    assert sorted(test.difference for test in tests if hasattr(test, "difference")) == sorted(
        line.split(" | ")[0].removeprefix("| ") for line in rows)


def difference(title):
    """Mark the test of a difference with its title in the documentation's table."""
    def mark(test):
        test.difference = title
        return test
    return mark


@difference("a Discrete at the top")
def test_a_discrete_had_an_empty_row():
    flat, _ = emulation.emulate_observation_space(Discrete(5))
    assert flat.shape == (0,)                        # 4 bytes make no int64
    assert SpaceTree(Discrete(5)).flatten(3).tolist() == [3]


@difference("an odd number of Discretes alone")
def test_three_discretes_crashed():
    with pytest.raises(ValueError, match="size must be a divisor"):
        their_rows(ZOO["discretes"], ZOO["discretes"].sample())
    assert SpaceTree(ZOO["discretes"]).flatten({"a": 2, "b": 3, "c": 4}).tolist() == [2, 3, 4]


@difference("an even number of Discretes alone")
def test_two_discretes_were_one_large_number():
    space = Tuple((Discrete(5), Discrete(5)))
    _, flat, rows = their_rows(space, (1, 2))
    assert flat.dtype == np.int64
    assert rows.tolist() == [[1 + 2 * 2**32]]
    with pytest.raises(AssertionError):
        their_tensors(space, (1, 2))
    assert SpaceTree(space).flatten((1, 2)).tolist() == [1, 2]


@difference("a MultiDiscrete or MultiBinary at the top")
def test_a_multi_discrete_crashed():
    for space in (MultiDiscrete([3, 4, 5]), MultiBinary(5)):
        with pytest.raises(ValueError, match="subarray type"):
            their_rows(space, space.sample())
    assert SpaceTree(MultiDiscrete([3, 4, 5])).flatten([1, 2, 3]).tolist() == [1, 2, 3]


@difference("a MultiDiscrete with several axes")
def test_a_multi_discrete_lost_its_axes():
    space = ZOO["multi_discrete_rank_2"]
    assert emulation.dtype_from_space(space).shape == (2,)
    with pytest.raises(ValueError, match="could not broadcast"):
        their_rows(Tuple((space, Box(-1, 1, (1,)))), (space.sample(), np.zeros(1, np.float32)))
    assert SpaceTree(space).dtype.shape == (2, 2)


@difference("float16 alone")
def test_halves_had_no_space():
    with pytest.raises(ValueError, match="out of bounds"):
        emulation.emulate_observation_space(ZOO["halves"])
    assert SpaceTree(ZOO["halves"]).flat_space.dtype == np.float16


@difference("an empty key")
def test_an_empty_key_crashed():
    with pytest.raises(ValueError, match="no field of name"):
        their_rows(ZOO["keys"], ZOO["keys"].sample())
    assert SpaceTree(ZOO["keys"]).dtype.names[0] == ""


@difference("keys that are not text")
def test_numbers_as_keys_crashed():
    space = Dict([(7, Discrete(3)), (8, Box(-1, 1, (1,)))])
    with pytest.raises(TypeError):
        emulation.emulate_observation_space(space)
    assert SpaceTree(space).dtype.names == ("7", "8")


@difference("a space without values")
def test_empty_spaces_crashed():
    with pytest.raises(IndexError):
        emulation.emulate_observation_space(Tuple(()))
    with pytest.raises(ValueError, match="divisor"):
        their_rows(ZOO["only_empty"], ZOO["only_empty"].sample())
    assert SpaceTree(Tuple(())).flatten(()).shape == (0,)


@difference("views of a nested space with padding")
def test_tensors_of_a_nested_space_were_at_wrong_offsets():
    space = ZOO["inner_padding"]
    sample = (np.array([1], np.uint8), (np.array([2], np.uint8), np.array([0.5], np.float32)))
    theirs = their_tensors(space, sample)
    assert theirs["f1"]["f0"].tolist() == [[0]]      # padding, where 2 was written at byte 4
    assert theirs["f1"]["f1"].tolist() != [[0.5]]
    tree = SpaceTree(space)
    first, (second, third) = tree.unflatten(torch.from_numpy(tree.flatten(sample)))
    assert (first.tolist(), second.tolist(), third.tolist()) == ([1], [2], [0.5])


@difference("views of bool leaves")
def test_tensors_of_bools_crashed():
    with pytest.raises(KeyError):
        their_tensors(ZOO["flags"], {"alive": True, "hp": 0.5})
    tree = SpaceTree(ZOO["flags"])
    views = tree.unflatten(torch.from_numpy(tree.flatten({"alive": True, "hp": 0.5})))
    assert views["alive"].item() is True


@difference("views of a Tuple, and of single numbers")
def test_tensors_had_other_containers_and_an_axis_more():
    space = Tuple((Discrete(3), Box(-1, 1, (2,))))
    theirs = their_tensors(space, (1, np.zeros(2, np.float32)))
    assert isinstance(theirs, dict)
    assert theirs["f0"].shape == (1, 1)
    tree = SpaceTree(space)
    first, _ = tree.unflatten(torch.zeros(1, tree.row_size, dtype=torch.uint8))
    assert first.shape == (1,)


@difference("Text, Sequence, Graph, OneOf, other spaces")
def test_some_spaces_without_a_layout_were_taken():
    flat, dtype = emulation.emulate_observation_space(UNSUPPORTED["in_dict"][0])
    assert flat.dtype == np.uint8
    assert dtype["mission"] == np.dtype("<U2")                # two letters of any text
    with pytest.raises(SpaceError, match=r"observation\['mission'\]"):
        SpaceTree(Dict({"mission": Text(5)}))


@difference("values beyond int32")
def test_wide_discretes_wrapped():
    space = Tuple((MultiDiscrete([2**40, 2]), Box(-1, 1, (1,))))
    dtype, _, rows = their_rows(space, (np.array([2**32 + 1, 0]), np.zeros(1, np.float32)))
    assert rows.view(dtype)["f0"].tolist() == [[[1, 0]]]
    with pytest.raises(SpaceError, match="beyond int32"):
        SpaceTree(space)


WRONG = Dict({"a": Box(-1, 1, (3,)), "b": Box(0, 255, (2,), np.uint8)})


@difference("a missing key")
def test_a_missing_key_left_what_was_there():
    _, _, rows = their_rows(WRONG, {"a": np.ones(3, np.float32)})
    assert rows[0, 12:].tolist() == [0, 0, 0, 0]
    with pytest.raises(SpaceError, match="missing"):
        SpaceTree(WRONG).flatten({"a": np.ones(3, np.float32)})


@difference("a wrong shape")
def test_a_wrong_shape_was_broadcast():
    sample = {"a": np.ones(1, np.float32), "b": np.zeros(2, np.uint8)}
    dtype, _, rows = their_rows(WRONG, sample)
    assert rows.view(dtype)["a"].tolist() == [[[1, 1, 1]]]
    with pytest.raises(SpaceError, match=r"shape \(3,\)"):
        SpaceTree(WRONG).flatten(sample)


@difference("values that do not fit their dtype")
def test_values_were_cut():
    sample = {"a": np.ones(3, np.float32), "b": np.array([256, 1.9])}
    with np.errstate(invalid="ignore"):
        dtype, _, rows = their_rows(WRONG, sample)
    assert rows.view(dtype)["b"].tolist() == [[[0, 1]]]
    with pytest.raises(SpaceError, match="expected uint8"):
        SpaceTree(WRONG).flatten(sample)


@difference("int64 actions for a nested space")
def test_int64_actions_were_reinterpreted():
    space = Dict(a=Discrete(5), b=Discrete(5))
    _, dtype = emulation.emulate_action_space(space)
    actions = np.array([2, 3])
    assert emulation.nativize(actions, space, dtype) == {"a": 2, "b": 0}
    assert ActionTree(space).read(actions) == {"a": 2, "b": 3}


@difference("a nested Discrete action with `start`")
def test_start_of_actions_was_lost():
    space = Tuple((Discrete(3, start=5), Discrete(2)))
    flat, dtype = emulation.emulate_action_space(space)
    assert not space.contains(emulation.nativize(flat.sample().astype(np.int32), space, dtype))
    flat = ActionTree(space).flat_space
    assert space.contains(ActionTree(space).read(flat.sample()))


@difference("a MultiBinary action")
def test_binary_actions_were_one_choice():
    flat, _ = emulation.emulate_action_space(MultiBinary(5))
    assert flat == MultiDiscrete([5])
    assert ActionTree(MultiBinary(5)).flat_space == MultiDiscrete([2] * 5)


@difference("a nested action with a Box or MultiDiscrete")
def test_nested_actions_crashed():
    for leaf in (Box(-1, 1, (2,)), MultiDiscrete([2, 3])):
        with pytest.raises(AttributeError, match="no attribute 'n'"):
            emulation.emulate_action_space(Tuple((Discrete(3), leaf)))
        assert len(ActionTree(Tuple((Discrete(3), leaf))).leaves) == 2


def test_the_zoo_of_differences_is_complete():
    assert ZOO.keys() >= DIFFERENT
    for name in DIFFERENT:
        space = ZOO[name]
        try:
            check_parity(space, 0)
        except (AssertionError, ValueError, IndexError):
            continue
        raise AssertionError(f"{name} is the same in both")
