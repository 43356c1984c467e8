from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from pufferlib_cy import NativeEnv

@final
class Connect4(NativeEnv):
    def __init__(self, opponent: Literal["scripted", "self"] = "scripted") -> None: ...
    def render(self, environment: int) -> NDArray[np.uint8]: ...
    def ansi(self, environment: int) -> str: ...
