from typing import final

import numpy as np
from numpy.typing import NDArray

from pufferlib_cy import NativeEnv

@final
class Snake(NativeEnv):
    def __init__(self, num_snakes: int = 256, width: int = 640, height: int = 360,
                 num_food: int = 4096, vision: int = 5, max_ticks: int = 1000) -> None: ...
    def render(self, environment: int) -> NDArray[np.uint8]: ...
    def ansi(self, environment: int) -> str: ...
