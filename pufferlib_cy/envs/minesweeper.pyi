from typing import final

import numpy as np
from numpy.typing import NDArray

from pufferlib_cy import NativeEnv

@final
class Minesweeper(NativeEnv):
    def __init__(self, width: int = 6, height: int = 6, mines: int = 5) -> None: ...
    def render(self, environment: int) -> NDArray[np.uint8]: ...
    def ansi(self, environment: int) -> str: ...
