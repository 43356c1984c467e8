"""Checkpoints: back as they were, refused where they do not fit, whole whatever happens."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from safetensors.torch import load_file

from pufferlib_cy import envs
from pufferlib_cy.envs.cartpole import CartPole
from pufferlib_cy.envs.foraging import Foraging
from pufferlib_cy.envs.squared import Squared
from pufferlib_cy.train import CheckpointError, TrainConfig, checkpoint, ppo

CONFIG = TrainConfig(env="cartpole", hidden_sizes=(8, 4))
PACKAGED = Path(envs.__file__).parent
SPACES = CartPole().observation_space, CartPole().action_space


def policy(seed=0):
    return checkpoint.make_policy(CONFIG, *SPACES, torch.Generator().manual_seed(seed))


@pytest.fixture
def saved(tmp_path):
    return checkpoint.save(tmp_path / "deep" / "one", policy(), CONFIG, 123, *SPACES)


def test_comes_back(saved):
    loaded = checkpoint.load(saved)
    assert loaded.config == CONFIG
    assert loaded.steps == 123
    for name, tensor in policy().state_dict().items():
        assert torch.equal(loaded.policy.state_dict()[name], tensor)
    assert checkpoint.load(str(saved), "cartpole").steps == 123
    assert sorted(os.listdir(saved.parent)) == ["one"]


def test_joined_parameters_are_saved_one_by_one(tmp_path):
    joined = policy()
    ppo.join_parameters(joined)
    path = checkpoint.save(tmp_path / "joined", joined, CONFIG, 1, *SPACES)
    expected = policy().state_dict()
    stored = load_file(path / checkpoint.WEIGHTS)
    assert stored.keys() == expected.keys()
    assert all(torch.equal(stored[name], expected[name]) for name in expected)


def test_statistics_come_back(tmp_path):
    config = dataclasses.replace(CONFIG, normalize_observations=True)
    normalised = checkpoint.make_policy(config, *SPACES)
    rows = torch.randn(9, 4)
    before = normalised.value(rows)
    normalised.update_statistics(5 + 3 * torch.randn(50, 4))
    path = checkpoint.save(tmp_path / "normalised", normalised, config, 1, *SPACES)
    loaded = checkpoint.load(path).policy
    assert torch.equal(loaded.value(rows), normalised.value(rows))
    assert not torch.allclose(before, normalised.value(rows))


def test_nested_spaces_come_back(tmp_path):
    config, env = TrainConfig(env="foraging"), Foraging()
    spaces = env.observation_space, env.action_space
    nested = checkpoint.make_policy(config, *spaces)
    path = checkpoint.save(tmp_path / "nested", nested, config, 1, *spaces)
    loaded = checkpoint.load(path).policy.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in nested.state_dict().items())


def test_is_never_overwritten(saved):
    with pytest.raises(FileExistsError, match="one exists"):
        checkpoint.save(saved, policy(1), CONFIG, 124, *SPACES)
    assert checkpoint.load(saved).steps == 123
    assert checkpoint.unused_path(saved.parent, "one").name == "one-2"
    assert checkpoint.unused_path(saved.parent, "two").name == "two"


@pytest.mark.parametrize(("change", "message"), [
    (lambda p: p / "nowhere", "nowhere does not exist"),
    (lambda p: p.parent, f"deep is not a checkpoint: it has no {checkpoint.DESCRIPTION}"),
    (lambda p: p / checkpoint.WEIGHTS, "checkpoints are directories"),
])
def test_not_a_checkpoint(saved, change, message):
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(change(saved))


def edit(path, **changes):
    description = json.loads((path / checkpoint.DESCRIPTION).read_text())
    description.update(changes)
    (path / checkpoint.DESCRIPTION).write_text(json.dumps(description))


@pytest.mark.parametrize(("damage", "message"), [
    (lambda p: (p / checkpoint.WEIGHTS).unlink(), "damaged checkpoint"),
    (lambda p: (p / checkpoint.WEIGHTS).write_bytes(b"\0" * 50), "damaged checkpoint"),
    (lambda p: (p / checkpoint.DESCRIPTION).write_text("{"), "not a checkpoint's description"),
    (lambda p: (p / checkpoint.DESCRIPTION).write_text("[]"), "not a checkpoint's description"),
    (lambda p: (p / checkpoint.DESCRIPTION).write_bytes(b"\xff"), "not a checkpoint that can"),
    (lambda p: edit(p, format=99), "checkpoint of format 99, this version reads 2"),
    (lambda p: edit(p, config={"env": "cartpole", "horizons": 1}), "no setting called 'horizons'"),
    (lambda p: edit(p, config={**CONFIG.to_dict(), "hidden_sizes": [8]}), "damaged checkpoint"),
    (lambda p: edit(p, steps=None), "damaged checkpoint"),
    (lambda p: edit(p, action_space={}), "trained on the action space {}, but"),
])
def test_damaged(saved, damage, message):
    damage(saved)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(saved)


def test_another_environment(saved):
    with pytest.raises(CheckpointError, match="trained on 'cartpole', not on 'squared'"):
        checkpoint.load(saved, "squared")
    with pytest.raises(CheckpointError, match="trained on the observation space"):
        checkpoint.load(saved, Squared)
    assert checkpoint.load(saved, CartPole).steps == 123


@pytest.mark.parametrize(("trained_on", "played", "fits"), [
    ("./game.pyx", "game.pyx", True), ("/home/her/game.pyx", "game.pyx", True),
    ("game.pyx", "other.pyx", False), ("squared", str(PACKAGED / "squared.pyx"), True),
    (str(PACKAGED / "squared.pyx"), "squared", True), ("squared", "elsewhere/squared.pyx", False),
    ("game.pyx", "game", False), ("squared", "cartpole", False),
])
def test_an_environment_may_move(trained_on, played, fits):
    assert (checkpoint.source_name(trained_on) == checkpoint.source_name(played)) == fits


def test_a_checkpoint_knows_the_constructors_arguments(tmp_path):
    config = TrainConfig(env="squared", env_kwargs={"size": 5}, hidden_sizes=(4,))
    spaces = Squared(5).observation_space, Squared(5).action_space
    path = checkpoint.save(tmp_path / "one", checkpoint.make_policy(config, *spaces), config, 1,
                           *spaces)
    assert checkpoint.load(path).config.env_kwargs == {"size": 5}
    with pytest.raises(CheckpointError, match="trained on the observation space"):
        checkpoint.load(path, "squared", env_kwargs={"size": 6})


@pytest.mark.parametrize(("one", "other"), [
    (Box(0, 1, (3,)), Box(0, 1, (4,))), (Box(0, 1, (3,)), Box(0, 2, (3,))),
    (Box(0, 1, (3,)), Box(0, 1, (3,), np.float64)), (Discrete(3), Discrete(4)),
    (Discrete(3), Discrete(3, start=1)), (MultiDiscrete([2, 3]), MultiDiscrete([3, 2])),
    (MultiBinary(3), MultiBinary(4)), (Dict(a=Discrete(3)), Dict(b=Discrete(3))),
    (Dict(a=Discrete(3)), Dict(a=Discrete(4))), (Tuple([Discrete(3)]), Tuple([Discrete(4)])),
    (Dict([("a", Discrete(3)), ("b", Discrete(3))]),
     Dict([("b", Discrete(3)), ("a", Discrete(3))])),
])
def test_descriptions_of_spaces_differ(one, other):
    assert checkpoint.describe_space(one) != checkpoint.describe_space(other)
    json.dumps(checkpoint.describe_space(one), allow_nan=False)
    json.dumps(checkpoint.describe_space(Box(-np.inf, np.inf, (1,))), allow_nan=False)


SAVE_FOREVER = """
import sys
from pathlib import Path
from pufferlib_cy.train import TrainConfig, checkpoint
from pufferlib_cy.envs.cartpole import CartPole
config, env = TrainConfig(env="cartpole"), CartPole()
spaces = env.observation_space, env.action_space
policy = checkpoint.make_policy(config, *spaces)
for steps in range(10**9):
    checkpoint.save(Path(sys.argv[1]) / f"{steps:06d}", policy, config, steps, *spaces)
    print(steps, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_process_leaves_whole_checkpoints(tmp_path):
    """Killed while it saves without pause: all that has a name is whole, nothing told is lost."""
    process = subprocess.Popen([sys.executable, "-c", SAVE_FOREVER, str(tmp_path)],
                               stdout=subprocess.PIPE, text=True)
    try:
        process.stdout.readline()
        time.sleep(0.5)
    finally:
        process.send_signal(signal.SIGKILL)
        told = process.stdout.read().split("\n")[:-1]
        process.stdout.close()
        process.wait()
    names = sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith("."))
    assert len(names) > 2
    assert int(names[-1]) >= int(told[-1])
    assert names == [f"{steps:06d}" for steps in range(len(names))]
    assert [checkpoint.load(tmp_path / name).steps for name in names[-5:]] == [
        int(name) for name in names[-5:]]


@pytest.mark.parametrize("step", ["_write", "_sync_directory", "to_bytes"])
def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch, step):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, step, fail)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(tmp_path / "one", policy(), CONFIG, 1, *SPACES)
    assert list(tmp_path.iterdir()) == []
