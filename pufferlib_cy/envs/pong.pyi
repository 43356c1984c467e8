from typing import final

from pufferlib_cy import NativeEnv

@final
class Pong(NativeEnv):
    def __init__(self, frameskip: int = 8, two_player: bool = False,
                 max_frames: int = 108_000) -> None: ...
