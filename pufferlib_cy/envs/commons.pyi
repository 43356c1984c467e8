from typing import final

import numpy as np
from numpy.typing import NDArray

from pufferlib_cy import NativeEnv

@final
class Commons(NativeEnv):
    def __init__(self, num_agents: int = 6, shared: bool = True, growth: float = 1.0,
                 max_ticks: int = 256) -> None: ...
    def render(self, environment: int) -> NDArray[np.uint8]: ...
    def ansi(self, environment: int) -> str: ...
