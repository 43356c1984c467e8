"""Types of the action rows; the docstrings are in ``_actions.pyx``."""

from typing import Any, final

import numpy as np
from gymnasium.spaces import Space
from numpy.typing import NDArray

@final
class ActionRows:
    def __init__(self, space: Space[Any], num_rows: int, agents_per_env: int,
                 discrete: NDArray[np.int32] | None = None,
                 continuous: NDArray[np.float32] | None = None) -> None: ...
    @property
    def space(self) -> Space[Any]: ...
    @property
    def agents_per_env(self) -> int: ...
    @property
    def discrete(self) -> NDArray[np.int32] | None: ...
    @property
    def continuous(self) -> NDArray[np.float32] | None: ...
