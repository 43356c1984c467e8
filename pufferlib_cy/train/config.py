"""The settings of a training run: `TrainConfig`, and the layers that they are read from.

Later layers win: the defaults below, the environment's own TOML file (beside its module, as
``envs/<env>.toml`` in the package), a TOML file of the user's, environment variables
(``PUFFER_TOTAL_TIMESTEPS=1000000``), and on the command line flags. The files have one
``field = value`` per line, and the arguments of the environment's constructor in a table
``[env_kwargs]``, which the layers fill together.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import shlex
import sys
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pufferlib_cy.arguments import is_plain, parse_arguments

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from pufferlib_cy import envs

ENVIRONMENT_PREFIX = "PUFFER_"


class ConfigError(ValueError):
    """A setting that is unknown, of the wrong type or out of range; the message says where."""


@dataclass(frozen=True)
class TrainConfig:
    """Every setting of a training run. A run depends on nothing else.

    Raises ConfigError, naming the field, where a value is out of range.
    """

    env: str
    """Name of the environment."""

    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of the environment's constructor."""

    total_timesteps: int = 10_000_000
    """Environment steps (of live agents) after which training ends."""

    target_return: float | None = None
    """Mean of target_stat at which the environment counts as solved. Training ends early once
    evaluation episodes confirm it with a margin that leaves little to chance. None: train to the
    end."""

    target_stat: str = "episode_return"
    """The statistic that target_return is about: episode_return, episode_length or one of the
    environment's own, such as pong's score."""

    seed: int = 1
    """Seeds the environments, the initial weights, the actions and the minibatches."""

    num_envs: int = 1024
    """Environments stepped at once."""

    backend: Literal["auto", "serial", "threads", "processes"] = "auto"
    """What steps the environments."""

    num_workers: int | None = None
    """Threads or processes that step environments. None: as many as there are cores and work for.
    """

    batch_size: int | None = None
    """Environments that the policy decides for at once, a divisor of num_envs. None: all. With less
    the others step meanwhile: for environments of which some take long, in worker processes."""

    overlap: bool = False
    """Collect a rollout while learning from the one before: its policy is then one update behind.
    For environments that wait for something, or cores to spare."""

    device: str = "cpu"
    """Torch device of the policy."""

    torch_threads: int = 1
    """Threads that torch computes with. More pay for wide policies on an idle machine; with small
    ones they gain little, and cost a lot as soon as anything else wants the cores."""

    horizon: int = 32
    """Steps of every environment in a rollout."""

    epochs: int = 1
    """Passes over each rollout."""

    minibatches: int = 4
    """Minibatches, and so gradient steps, per pass: each has the whole segments (of horizon steps)
    of some of the agents."""

    learning_rate: float = 1e-3
    """Step size of Adam at the start."""

    anneal_learning_rate: bool = True
    """Lower the step size linearly to zero at total_timesteps."""

    gamma: float = 0.99
    """Discount factor of the return."""

    gae_lambda: float = 0.95
    """Decay of generalised advantage estimation: 0 is one-step, 1 is the whole return."""

    clip: float = 0.2
    """How far the probability ratio may move from 1 before its gradient is cut."""

    dual_clip: float | None = 3.0
    """Bound of the loss where the advantage is negative, as a multiple of it. None: no bound."""

    value_clip: float | None = None
    """How far a value may move from the rollout's before its gradient is cut. None: freely."""

    value_coefficient: float = 0.5
    """Weight of the value loss."""

    entropy_coefficient: float = 0.01
    """Weight of the entropy bonus."""

    max_grad_norm: float = 0.5
    """The gradient is scaled down to this norm."""

    target_kl: float | None = None
    """Leave a rollout after the pass in which the policy moved further than this (approximate
    KL divergence). None: never."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers that policy and value share."""

    activation: Literal["relu", "tanh"] = "relu"
    """Nonlinearity of the hidden layers. On the CPU relu is far cheaper."""

    encoder: Literal["auto", "flat", "one_hot"] = "auto"
    """How integers that are observed become numbers. auto: images through convolutions, few values
    as an indicator each; flat: scaled; one_hot: up to 256 values as an indicator each."""

    normalize_observations: bool = False
    """Shift and scale observed numbers to mean 0 and standard deviation 1, over all of the run."""

    evaluation_episodes: int = 100
    """Episodes of the final evaluation, and of the ones that confirm target_return."""

    checkpoint_dir: Path = Path("checkpoints")
    """Where checkpoints are saved, a directory each."""

    checkpoint_interval: int | None = None
    """Steps between checkpoints. None: one, at the end."""

    log_interval: float = 0.5
    """Seconds between reports."""

    def __post_init__(self) -> None:
        at_least = {
            "total_timesteps": 1, "num_envs": 1, "num_workers": 1, "batch_size": 1,
            "torch_threads": 1,
            "horizon": 1, "epochs": 1, "minibatches": 1, "evaluation_episodes": 1,
            "checkpoint_interval": 1, "seed": 0, "learning_rate": 0, "gamma": 0, "gae_lambda": 0,
            "clip": 0, "dual_clip": 1, "value_clip": 0, "value_coefficient": 0,
            "entropy_coefficient": 0, "max_grad_norm": 0, "target_kl": 0, "log_interval": 0,
        }
        for name, least in at_least.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise ConfigError(f"{name}: expected at least {least}, got {value}")
        for name in ("gamma", "gae_lambda"):
            if getattr(self, name) > 1:
                raise ConfigError(f"{name}: expected at most 1, got {getattr(self, name)}")
        if any(size < 1 for size in self.hidden_sizes):
            raise ConfigError(f"hidden_sizes: expected at least 1 each, got {self.hidden_sizes}")

    def check(self) -> None:
        """Raise ConfigError for settings that do not fit each other, once all layers are there."""
        if self.batch_size is not None and self.num_envs % self.batch_size:
            raise ConfigError(f"batch_size: expected a divisor of num_envs ({self.num_envs}), got "
                              f"{self.batch_size}: a batch is always the same environments, so "
                              "that the order in which batches come decides nothing")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON and TOML can hold them; `from_dict` reads them back."""
        return {name: list(value) if isinstance(value, tuple)
                else str(value) if isinstance(value, Path) else value
                for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], source: str) -> TrainConfig:
        """The inverse of `to_dict`; ConfigErrors name `source`."""
        return cls(**_checked(settings, source))


def load_config(env: str, *, file: Path | None = None,
                environ: Mapping[str, str] = os.environ) -> TrainConfig:
    """The settings for an environment: defaults, then its TOML, then `file`, then `environ`.

    An environment's TOML lies beside its ``.pyx`` or module.

    Raises ConfigError for an unknown field (with the nearest names), a wrong type or a value out
    of range, naming the file or variable; FileNotFoundError if `file` does not exist.
    """
    settings: dict[str, Any] = {}
    own = Path(env).with_suffix(".toml") if env.endswith(".pyx") else envs.beside(env, ".toml")
    for path in ([own] if own and own.is_file() else []) + ([file] if file else []):
        _lay_over(settings, _checked(_without_env(_read_toml(path), str(path)), str(path)))
    for variable in sorted(name for name in environ if name.startswith(ENVIRONMENT_PREFIX)):
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        _without_env([name], variable)
        kind = _field_type(name, variable, prefix=ENVIRONMENT_PREFIX)
        parsed = _parse(environ[variable], kind, variable)
        _lay_over(settings, {name: _convert(parsed, kind, variable)})
    return TrainConfig(env=env, **settings)


def _lay_over(settings: dict[str, Any], later: dict[str, Any]) -> None:
    """Later settings win; of `env_kwargs` every argument by itself."""
    env_kwargs = settings.get("env_kwargs", {}) | later.get("env_kwargs", {})
    settings |= later | {"env_kwargs": env_kwargs}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _without_env(settings: Any, source: str) -> Any:
    if "env" in settings:
        raise ConfigError(f"{source}: env is not a setting, it is what the settings are looked up "
                          "for; name the environment on the command line")
    return settings


def _checked(settings: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The settings with every value of its field's type."""
    return {name: _convert(value, _field_type(name, source), f"{source}: {name}")
            for name, value in settings.items()}


def _field_type(name: str, source: str, prefix: str = "") -> Any:
    types_by_name = get_type_hints(TrainConfig)
    if name not in types_by_name:
        near = difflib.get_close_matches(name, types_by_name, n=3, cutoff=0.5)
        shown: Iterable[str] = [prefix + n.upper() if prefix else n for n in near]
        hint = f"; did you mean {' or '.join(shown)}?" if near else ""
        raise ConfigError(f"{source}: there is no setting called {name!r}{hint}")
    return types_by_name[name]


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """The members of ``X | None``, or the type alone."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _parse(text: str, kind: Any, source: str) -> Any:
    """The text of an environment variable as TOML would have it; `_convert` judges the rest."""
    kinds = _alternatives(kind)
    if type(None) in kinds and text.lower() in ("none", ""):
        return None
    if get_origin(kinds[0]) is tuple:
        return [_parse(part, int, source) for part in text.replace(",", " ").split()]
    if get_origin(kinds[0]) is dict:
        try:
            return parse_arguments(shlex.split(text))
        except ValueError as error:
            raise ConfigError(f"{source}: {error}") from error
    if kinds[0] is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    for number in (int, float):
        if number in kinds:
            try:
                return number(text)
            except ValueError:
                pass
    return text


def _convert(value: Any, kind: Any, source: str) -> Any:
    """The value as the field's type has it, or a ConfigError."""
    for choice in _alternatives(kind):
        if choice is type(None) and value is None:
            return None
        if choice in (int, str, bool) and type(value) is choice:
            return value
        if choice is float and type(value) in (int, float):
            return float(value)
        if choice is Path and isinstance(value, str):
            return Path(value)
        if get_origin(choice) is Literal and value in get_args(choice):
            return value
        if (get_origin(choice) is tuple and isinstance(value, list)
                and all(type(item) is int for item in value)):
            return tuple(value)
        if get_origin(choice) is dict and isinstance(value, dict):
            wrong = [name for name, item in value.items() if not is_plain(item)]
            if wrong:
                raise ConfigError(f"{source}.{wrong[0]}: expected numbers, text, true or false, or "
                                  f"lists of them, got {value[wrong[0]]!r}")
            return value
    raise ConfigError(f"{source}: expected {_describe(kind)}, got {value!r}")


def _describe(kind: Any) -> str:
    names = {int: "an integer", float: "a number", str: "text", bool: "true or false",
             Path: "a path", type(None): "none"}
    return " or ".join(
        " or ".join(map(repr, get_args(choice))) if get_origin(choice) is Literal
        else "a list of integers" if get_origin(choice) is tuple
        else "a table of arguments" if get_origin(choice) is dict
        else names[choice] for choice in _alternatives(kind))
