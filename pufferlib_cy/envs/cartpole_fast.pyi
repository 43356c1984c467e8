from typing import final

from pufferlib_cy import NativeEnv

@final
class CartPoleFast(NativeEnv):
    def __init__(self, max_steps: int = 500) -> None: ...
