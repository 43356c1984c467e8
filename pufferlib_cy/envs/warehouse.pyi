from typing import final

import numpy as np
from numpy.typing import NDArray

from pufferlib_cy import NativeEnv

@final
class Warehouse(NativeEnv):
    def __init__(self, num_agents: int = 3, columns: int = 2, lines: int = 2, num_requests: int = 4,
                 shared: bool = False, max_ticks: int = 256) -> None: ...
    def render(self, environment: int) -> NDArray[np.uint8]: ...
    def ansi(self, environment: int) -> str: ...
