from typing import final

from pufferlib_cy import NativeEnv

@final
class CartPole(NativeEnv):
    def __init__(self, continuous: bool = False, max_steps: int = 500) -> None: ...
