from typing import final

import numpy as np
from numpy.typing import NDArray

from pufferlib_cy import NativeEnv

@final
class Foraging(NativeEnv):
    def __init__(self, max_agents: int = 16, starting: int = 6, num_food: int = 40,
                 regrowth: int = 2, max_ticks: int = 256) -> None: ...
    def render(self, environment: int) -> NDArray[np.uint8]: ...
    def ansi(self, environment: int) -> str: ...
