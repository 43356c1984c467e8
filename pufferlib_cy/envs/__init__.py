"""The native environments that come with the package, one ``.pyx`` each.

`REGISTRY` maps the name that ``make`` and the command line know to the module and class.
"""

import importlib

REGISTRY = {
    "acrobot": ("acrobot", "Acrobot"),
    "bandit": ("bandit", "Bandit"),
    "breakout": ("breakout", "Breakout"),
    "cartpole": ("cartpole", "CartPole"),
    "connect4": ("connect4", "Connect4"),
    "memory": ("memory", "Memory"),
    "mountain_car": ("mountain_car", "MountainCar"),
    "pendulum": ("pendulum", "Pendulum"),
    "pong": ("pong", "Pong"),
    "snake": ("snake", "Snake"),
    "squared": ("squared", "Squared"),
}


def load(name: str) -> type:
    """The environment class called `name` in `REGISTRY`."""
    module, kind = REGISTRY[name]
    loaded: type = getattr(importlib.import_module(f"{__name__}.{module}"), kind)
    return loaded
