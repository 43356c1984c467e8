from typing import final

from pufferlib_cy import NativeEnv

@final
class Squared(NativeEnv):
    def __init__(self, size: int = 11) -> None: ...
