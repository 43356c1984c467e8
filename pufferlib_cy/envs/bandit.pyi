from typing import Never, final

from pufferlib_cy import NativeEnv

@final
class Bandit(NativeEnv):
    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
