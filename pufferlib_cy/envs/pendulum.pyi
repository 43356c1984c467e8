from typing import final

from pufferlib_cy import NativeEnv

@final
class Pendulum(NativeEnv):
    def __init__(self, g: float = 10.0, max_steps: int = 200) -> None: ...
