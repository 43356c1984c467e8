from typing import final

from pufferlib_cy import NativeEnv

@final
class Breakout(NativeEnv):
    def __init__(self, frameskip: int = 4, max_ticks: int = 108_000) -> None: ...
