from typing import final

from typing_extensions import Never

from pufferlib_cy import NativeEnv

@final
class Bandit(NativeEnv):
    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
