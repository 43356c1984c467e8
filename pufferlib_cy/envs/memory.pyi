from typing import final

from pufferlib_cy import NativeEnv

@final
class Memory(NativeEnv):
    def __init__(self, delay: int = 4, digits: int = 2) -> None: ...
