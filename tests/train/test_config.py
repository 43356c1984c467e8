"""Where settings come from, which layer wins, and what is said about wrong ones."""

import ast
import dataclasses
import inspect
import itertools
import json
import textwrap
from pathlib import Path

import pytest

from pufferlib_cy import envs
from pufferlib_cy.train import ConfigError, TrainConfig, load_config


@pytest.fixture
def toml(tmp_path):
    def write(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return path
    return write


def test_later_layers_win(toml):
    packaged = load_config("cartpole", environ={})
    assert packaged.num_envs == 512
    assert TrainConfig(env="cartpole").num_envs != 512
    file = toml("num_envs = 7\nhorizon = 9")
    assert load_config("cartpole", file=file, environ={}).num_envs == 7
    config = load_config("cartpole", file=file, environ={"PUFFER_NUM_ENVS": "8", "HOME": "/"})
    assert config == dataclasses.replace(packaged, num_envs=8, horizon=9)


@pytest.mark.parametrize("env", sorted(envs.REGISTRY))
def test_every_environment_has_settings(env):
    assert load_config(env, environ={}).env == env


@pytest.mark.parametrize(("variable", "text", "value"), [
    ("total_timesteps", "1_000", 1000), ("learning_rate", "3e-4", 3e-4), ("gamma", "1", 1.0),
    ("anneal_learning_rate", "false", False), ("anneal_learning_rate", "1", True),
    ("num_workers", "none", None), ("num_workers", "2", 2), ("target_return", "-3", -3.0),
    ("hidden_sizes", "64,32", (64, 32)), ("hidden_sizes", "64 32", (64, 32)),
    ("backend", "threads", "threads"), ("checkpoint_dir", "/a/b", Path("/a/b")),
    ("target_stat", "score", "score"), ("env_kwargs", "a=1 b='\"x y\"'", {"a": 1, "b": "x y"}),
])
def test_environment_variables(variable, text, value):
    config = load_config("cartpole", environ={f"PUFFER_{variable.upper()}": text})
    got = getattr(config, variable)
    assert got == value
    assert type(got) is type(value)


def test_settings_are_held_against_each_other_when_all_are_there():
    """A layer alone need not fit: cartpole has 512 environments, the default is 1024."""
    config = load_config("cartpole", environ={"PUFFER_BATCH_SIZE": "100"})
    with pytest.raises(ConfigError, match=r"batch_size: expected a divisor of num_envs \(512\)"):
        config.check()
    dataclasses.replace(config, num_envs=300).check()
    dataclasses.replace(config, batch_size=None).check()


def test_toml_types(toml):
    config = load_config("cartpole", environ={}, file=toml(
        'hidden_sizes = [8]\nlearning_rate = 1\ncheckpoint_dir = "x"\ndual_clip = 2\n'
        'activation = "tanh"\nanneal_learning_rate = false'))
    assert config.hidden_sizes == (8,)
    assert config.checkpoint_dir == Path("x")
    assert config.learning_rate == 1.0
    assert isinstance(config.learning_rate, float)
    assert config.activation == "tanh"
    assert config.anneal_learning_rate is False


def test_layers_fill_the_constructors_arguments_together(toml):
    file = toml("num_envs = 3\n[env_kwargs]\nsize = 5\nnames = ['a', 'b']")
    config = load_config("squared", file=file, environ={"PUFFER_ENV_KWARGS": "size=7 slow=true"})
    assert config.env_kwargs == {"size": 7, "names": ["a", "b"], "slow": True}
    assert load_config("squared", environ={}).env_kwargs == {}
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict())), "here") == config


@pytest.mark.parametrize(("text", "message"), [
    ("num_env = 3", r"mine.toml: there is no setting called 'num_env'; did you mean num_envs"),
    ("env = 'x'", "mine.toml: env is not a setting"),
    ("num_envs = 3.0", r"mine.toml: num_envs: expected an integer, got 3.0"),
    ("num_envs = true", "mine.toml: num_envs: expected an integer, got True"),
    ("gamma = 'much'", "mine.toml: gamma: expected a number, got 'much'"),
    ("num_workers = 'all'", "num_workers: expected an integer or none, got 'all'"),
    ("backend = 'thread'",
     "backend: expected 'auto' or 'serial' or 'threads' or 'processes', got 'thread'"),
    ("hidden_sizes = [1.5]", "hidden_sizes: expected a list of integers"),
    ("num_envs = ", "mine.toml: not valid TOML"),
    ("num_envs = 0", "num_envs: expected at least 1, got 0"),
    ("gamma = 1.5", "gamma: expected at most 1, got 1.5"),
    ("gamma = nan", "gamma: expected at least 0, got nan"),
    ("dual_clip = 0.5", "dual_clip: expected at least 1, got 0.5"),
    ("hidden_sizes = [0]", "hidden_sizes: expected at least 1 each"),
    ("env_kwargs = 3", "mine.toml: env_kwargs: expected a table of arguments, got 3"),
    ("[env_kwargs]\nday = 2020-01-01", r"mine.toml: env_kwargs.day: expected numbers, text"),
])
def test_wrong_files(toml, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config("cartpole", file=toml(text), environ={})


@pytest.mark.parametrize(("variable", "text", "message"), [
    ("PUFFER_TOTAL_TIMESTEP", "1", "no setting called 'total_timestep'; did you mean "
                                   "PUFFER_TOTAL_TIMESTEPS"),
    ("PUFFER_HORIZON", "many", "PUFFER_HORIZON: expected an integer, got 'many'"),
    ("PUFFER_ANNEAL_LEARNING_RATE", "maybe", "RATE: expected true or false, got 'maybe'"),
    ("PUFFER_ENV", "squared", "PUFFER_ENV: env is not a setting"),
    ("PUFFER_ENV_KWARGS", "size=1 delay=much!", "PUFFER_ENV_KWARGS: delay: expected a value as in"),
    ("PUFFER_HIDDEN_SIZES", "64,big", "PUFFER_HIDDEN_SIZES: expected a list of integers"),
])
def test_wrong_variables(variable, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config("cartpole", environ={variable: text})


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.toml"):
        load_config("cartpole", file=tmp_path / "nothing.toml", environ={})


def test_to_dict_and_back():
    config = load_config("squared", environ={"PUFFER_HIDDEN_SIZES": "3"})
    stored = json.loads(json.dumps(config.to_dict()))
    assert TrainConfig.from_dict(stored, "here") == config
    with pytest.raises(ConfigError, match="here: there is no setting called 'horizons'"):
        TrainConfig.from_dict({**stored, "horizons": 3}, "here")


def test_every_field_is_documented():
    """The command line shows the string behind each field as its help."""
    body = ast.parse(textwrap.dedent(inspect.getsource(TrainConfig))).body[0].body
    documented = {
        field.target.id for field, doc in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr)}
    assert documented == {field.name for field in dataclasses.fields(TrainConfig)}
