"""Types of the action rows; the docstrings are in ``_actions.pyx``."""

from typing import final

import numpy as np
from numpy.typing import NDArray

from pufferlib_cy._spaces import ActionTree

@final
class ActionRows:
    def __init__(self, tree: ActionTree, agents_per_env: int, discrete: NDArray[np.int32] | None,
                 continuous: NDArray[np.float32] | None) -> None: ...
    @property
    def agents_per_env(self) -> int: ...
    @property
    def discrete(self) -> NDArray[np.int32] | None: ...
    @property
    def continuous(self) -> NDArray[np.float32] | None: ...
