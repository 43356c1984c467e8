"""Types of the Python environments for checkers and editors; docstrings are in the ``.pyx``."""

from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from pufferlib_cy._core import NativeEnv
from pufferlib_cy.emulation import Blueprint

class PythonEnvs(NativeEnv):
    def __init__(self, envs: Sequence[Any], blueprint: Blueprint) -> None: ...
    def use_exact_rewards(self, array: NDArray[np.float64]) -> None: ...
    @property
    def envs(self) -> list[Any]: ...
    @property
    def exact_rewards(self) -> NDArray[np.float64]: ...

@final
class GymnasiumEnvs(PythonEnvs): ...

@final
class ParallelEnvs(PythonEnvs):
    @property
    def fixed(self) -> dict[Any, int]: ...
    @property
    def names(self) -> list[list[Any]]: ...
