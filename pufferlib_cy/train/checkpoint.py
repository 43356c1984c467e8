"""Checkpoints: a directory each, with ``weights.safetensors`` and ``checkpoint.json``.

Nothing in them is code, and nothing is executed when one is read. A checkpoint is written under a
temporary name, synced to the disk, and renamed: under its own name it is whole or not there.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from pufferlib_cy import NativeEnv, envs, make
from pufferlib_cy.train.config import ConfigError, TrainConfig
from pufferlib_cy.train.policies import MLP, Policy

FORMAT = 2
WEIGHTS = "weights.safetensors"
DESCRIPTION = "checkpoint.json"
TEMPORARY = ".incomplete-"    # how names of unfinished checkpoints begin


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or used; the message says which and why."""


@dataclass(frozen=True)
class Checkpoint:
    """What `load` gives."""

    config: TrainConfig           # of the run, but the env_kwargs are those of the one to play
    steps: int                    # that the policy was trained for
    policy: Policy


def make_policy(config: TrainConfig, observation_space: Space[Any], action_space: Space[Any],
                generator: torch.Generator | None = None) -> Policy:
    """The policy that a config describes, with initial weights from `generator`.

    The spaces are those of one agent as the environment declares them.
    """
    return MLP(observation_space, action_space, hidden_sizes=config.hidden_sizes,
               activation=config.activation, encoder=config.encoder,
               normalise=config.normalize_observations, generator=generator)


def save(path: Path, policy: Policy, config: TrainConfig, steps: int,
         observation_space: Space[Any], action_space: Space[Any]) -> Path:
    """Write a checkpoint to the directory `path`, which must not exist; return it.

    Raises FileExistsError if it does, OSError where it cannot be written.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists; checkpoints are never overwritten")
    path.parent.mkdir(parents=True, exist_ok=True)
    description = {
        "format": FORMAT, "env": config.env, "steps": steps,
        "observation_space": describe_space(observation_space),
        "action_space": describe_space(action_space), "config": config.to_dict()}
    weights = {name: tensor.detach().cpu().clone()
               for name, tensor in policy.state_dict().items()}
    temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=path.parent))
    try:
        _write(temporary / WEIGHTS, to_bytes(weights))
        _write(temporary / DESCRIPTION, (json.dumps(description, indent=2) + "\n").encode())
        temporary.chmod(0o755)                # mkdtemp's is for its owner alone
        _sync_directory(temporary)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_directory(path.parent)
    return path


def load(path: Path, env: str | type[NativeEnv] | None = None, *,
         env_kwargs: Mapping[str, Any] | None = None, device: str = "cpu") -> Checkpoint:
    """Read the checkpoint in the directory `path`, its policy ready for an environment.

    env: the one to play, by default the one it was trained on; its spaces must be the same. A name
        of the package's, or a ``.pyx`` of the same name, wherever it lies now.
    env_kwargs: arguments of its constructor that are to be other than those of the run.

    Raises CheckpointError, naming the path, if there is no checkpoint, it is damaged, of a later
    format, or of another environment or other spaces.
    """
    path = Path(path)
    description = _read_description(path)
    try:
        config = TrainConfig.from_dict(description["config"], f"{path / DESCRIPTION}: config")
        trained_on, steps = str(description["env"]), int(description["steps"])
        spaces = description["observation_space"], description["action_space"]
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged checkpoint: {error!r}") from error
    if isinstance(env, str) and source_name(env) != source_name(trained_on):
        raise CheckpointError(f"{path}: trained on {trained_on!r}, not on {env!r}")
    config = replace(config, env_kwargs=config.env_kwargs | dict(env_kwargs or {}))
    with make(trained_on if env is None else env, env_kwargs=config.env_kwargs) as vec:
        observation_space, action_space = vec.env_observation_space, vec.env_action_space
    for kind, space, trained in zip(("observation", "action"), (observation_space, action_space),
                                    spaces, strict=True):
        if describe_space(space) != trained:
            raise CheckpointError(f"{path}: trained on the {kind} space {trained}, but the "
                                  f"environment's is {describe_space(space)}")
    policy = make_policy(config, observation_space, action_space)
    try:
        policy.load_state_dict(load_file(path / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path / WEIGHTS}: damaged checkpoint: {error}") from error
    return Checkpoint(config, steps, policy.to(device).eval())


def source_name(env: str) -> str:
    """What stays when an environment moves: its name, or of a path the file's. A file that is the
    source of one of the package's environments has that one's name."""
    path = Path(env)
    if path.suffix != ".pyx":
        return env
    packaged = Path(envs.__file__).with_name(path.name)
    return path.stem if packaged.exists() and path.resolve() == packaged.resolve() else path.name


def unused_path(directory: Path, name: str) -> Path:
    """``directory/name``, or with the first of -2, -3, ... behind it that does not exist."""
    path, number = directory / name, 1
    while path.exists():
        number += 1
        path = directory / f"{name}-{number}"
    return path


def describe_space(space: Space[Any]) -> dict[str, Any]:
    """What must agree between two spaces for a policy to fit both, as JSON can hold it."""
    if isinstance(space, Box):
        bounds = {"low": float(np.min(space.low)), "high": float(np.max(space.high))}
        return {"type": "Box", "shape": list(space.shape), "dtype": str(space.dtype),
                **{name: value if math.isfinite(value) else None
                   for name, value in bounds.items()}}
    if isinstance(space, Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, MultiDiscrete):
        return {"type": "MultiDiscrete", "nvec": space.nvec.tolist(),
                "start": space.start.tolist()}
    if isinstance(space, MultiBinary):
        return {"type": "MultiBinary", "shape": list(space.shape)}
    if isinstance(space, Dict):
        return {"type": "Dict", "spaces": [[key, describe_space(part)]
                                           for key, part in space.spaces.items()]}
    if isinstance(space, Tuple):
        return {"type": "Tuple", "spaces": [describe_space(part) for part in space.spaces]}
    raise TypeError(f"no policy takes the space {space!r}")


def _read_description(path: Path) -> dict[str, Any]:
    try:
        text = (path / DESCRIPTION).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "does not exist" if not path.exists() else (
            f"is not a checkpoint: it has no {DESCRIPTION}" if path.is_dir()
            else "is not a checkpoint: checkpoints are directories")
        raise CheckpointError(f"{path} {what}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not a checkpoint that can be read: {error}") from error
    try:
        description = json.loads(text)
        version = description["format"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path / DESCRIPTION}: not a checkpoint's description: "
                              f"{error!r}") from error
    if version != FORMAT:
        raise CheckpointError(f"{path}: checkpoint of format {version}, this version reads "
                              f"{FORMAT}")
    found: dict[str, Any] = description
    return found


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    if os.name == "nt":                       # Windows cannot open directories
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
