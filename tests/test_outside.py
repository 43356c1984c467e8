"""Environments of other packages: a real one against our wheel, and how they are found by name."""

import importlib
import os
import subprocess
from pathlib import Path

import pytest

import pufferlib_cy
from pufferlib_cy import _core, envs
from pufferlib_cy.check import check

PERF = Path(__file__).resolve().parent.parent / "perf"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(PERF)
    outside = importlib.import_module("outside")


@pytest.mark.skipif(_core.checked, reason="the wheel is of the release build")
def test_outside_package_is_built_tested_and_trained_against_the_wheel(tmp_path):
    python = outside.install(tmp_path)
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    variables["PUFFERLIB_CY_CACHE"] = str(tmp_path / "cache")

    def run(*command):
        done = subprocess.run([str(part) for part in command], cwd=tmp_path, env=variables,
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=300, check=False)
        assert done.returncode == 0, done.stdout
        return done.stdout

    files = run(python, "-c", "import pufferlib_cy as package, pufferlib_cy._core as core, "
                "puffer_maze.maze as maze\n"
                "print(*(module.__file__ for module in (package, core, maze)), sep='\\n')")
    for file in files.splitlines():
        assert Path(file).is_relative_to(tmp_path / "venv")
    assert " passed" in run(python, "-m", "pytest", tmp_path / "puffer_maze" / "tests")
    puffer_cy = python.with_name("puffer-cy")
    run(puffer_cy, "train", "puffer_maze", "--plain", "--total-timesteps", "20000",
        "--target-return", "0", "--summary-json", "summary.json")
    run(puffer_cy, "new-env", "corridor")                 # templates and pxd files are in the wheel
    assert "nothing wrong" in run(puffer_cy, "check", "./corridor.pyx")


def test_module_and_class_name_an_environment():
    with pufferlib_cy.make("pufferlib_cy.envs.squared:Squared", 2) as vec:
        assert "Squared" in repr(vec)
    assert check("pufferlib_cy.envs.bandit:Bandit", steps=20) == []


@pytest.mark.parametrize(("name", "error", "words"), [
    ("no_such_package.maze:Maze", ValueError, "no module no_such_package; is its"),
    ("pufferlib_cy.envs.labyrinth:Maze", ValueError, "no module pufferlib_cy.envs.labyrinth"),
    ("pufferlib_cy.envs.squared:Square", ValueError, "squared has no class Square"),
    ("collections:OrderedDict", TypeError, "expected a gymnasium.Env or a Petting"),
    ("squaredd", ValueError, 'did you mean squared.*and "module:name"'),
])
def test_names_that_lead_nowhere_are_told(name, error, words):
    with pytest.raises(error, match=words):
        pufferlib_cy.make(name)


def test_a_module_that_fails_to_import_says_so_itself(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import missing_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="missing_dependency"):
        pufferlib_cy.make("half_installed:Maze")


def test_files_beside_a_module():
    assert envs.beside("squared", ".toml").name == "squared.toml"
    assert envs.beside("pufferlib_cy.envs.squared:Squared", ".pyx").name == "squared.pyx"
    assert envs.beside("squared", ".absent") is None
    assert envs.beside("no environment", ".toml") is None
