from typing import final

from pufferlib_cy import NativeEnv

@final
class MountainCar(NativeEnv):
    def __init__(self, goal_velocity: float = 0.0, max_steps: int = 200) -> None: ...
