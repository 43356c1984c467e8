from typing import final

import numpy as np
from numpy.typing import NDArray

from pufferlib_cy import NativeEnv

@final
class Game2048(NativeEnv):
    def __init__(self, max_steps: int = 50_000) -> None: ...
    def render(self, environment: int) -> NDArray[np.uint8]: ...
    def ansi(self, environment: int) -> str: ...
