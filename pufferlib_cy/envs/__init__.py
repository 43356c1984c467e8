"""The native environments that come with the package, one ``.pyx`` each.

`REGISTRY` maps the name that ``make`` and the command line know to the module and class.
"""

import importlib

REGISTRY = {
    "bandit": ("bandit", "Bandit"),
    "cartpole": ("cartpole", "CartPole"),
    "memory": ("memory", "Memory"),
    "squared": ("squared", "Squared"),
}


def load(name: str) -> type:
    """The environment class called `name` in `REGISTRY`."""
    module, kind = REGISTRY[name]
    loaded: type = getattr(importlib.import_module(f"{__name__}.{module}"), kind)
    return loaded
