"""The native environments that come with the package, one ``.pyx`` each, and those of others.

`REGISTRY` maps the name that ``make`` and the command line know to the module and class. Another
package gives its environments names by entry points of the group `GROUP`, "module:Class".
"""

import importlib
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

GROUP = "pufferlib_cy.environments"

REGISTRY = {
    "2048": ("game_2048", "Game2048"),
    "acrobot": ("acrobot", "Acrobot"),
    "bandit": ("bandit", "Bandit"),
    "breakout": ("breakout", "Breakout"),
    "cartpole": ("cartpole", "CartPole"),
    "cartpole_fast": ("cartpole_fast", "CartPoleFast"),
    "commons": ("commons", "Commons"),
    "connect4": ("connect4", "Connect4"),
    "foraging": ("foraging", "Foraging"),
    "memory": ("memory", "Memory"),
    "minesweeper": ("minesweeper", "Minesweeper"),
    "mountain_car": ("mountain_car", "MountainCar"),
    "pendulum": ("pendulum", "Pendulum"),
    "pong": ("pong", "Pong"),
    "snake": ("snake", "Snake"),
    "squared": ("squared", "Squared"),
    "tetris": ("tetris", "Tetris"),
    "warehouse": ("warehouse", "Warehouse"),
}


def names() -> list[str]:
    """The names of all environments, sorted."""
    return sorted({*REGISTRY, *entry_points(group=GROUP).names})


def find(name: str) -> tuple[str, str] | None:
    """Module and class of the environment called `name`, or None if there is no such name.

    A name in `REGISTRY`, of an entry point of another package, or "module:Class" itself.
    """
    if name in REGISTRY:
        module, kind = REGISTRY[name]
        return f"{__name__}.{module}", kind
    values = {point.name: point.value for point in entry_points(group=GROUP)}
    module, _, kind = values.get(name, name).partition(":")
    return (module, kind) if kind else None


def load(name: str) -> type:
    """The environment class that `find` knows by `name`.

    Raises ValueError if there is no such name, module or class, and what else the import raises.
    """
    found = find(name)
    if found is None:
        raise ValueError(f"env: no environment is called {name!r}")
    loaded: type | None = getattr(_import(name, found[0]), found[1], None)
    if loaded is None:
        raise ValueError(f"env: {name!r}: the module {found[0]} has no class {found[1]}")
    return loaded


def beside(name: str, suffix: str) -> Path | None:
    """The file with that suffix beside the module of the environment called `name`, if there is
    one: ".pyx" is its source, ".toml" its training settings. Those of Gymnasium's environments are
    here."""
    if (found := find(name)) is None:
        path = Path(__file__).parent / f"{name}{suffix}"
    else:
        file = _import(name, found[0]).__file__
        assert file is not None
        path = Path(file).with_name(found[0].rpartition(".")[2] + suffix)
    return path if path.is_file() else None


def _import(name: str, module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise                              # the module is there, one that it imports is not
        raise ValueError(f"env: {name!r}: there is no module {error.name}; is its package "
                         "installed for this Python?") from error
