"""Fast vector environments for reinforcement learning.

``make`` turns an environment into a vector of environments whose rows are plain arrays; `NativeEnv`
is the base class of environments written in Cython; `SpaceTree` and `ActionTree` turn nested spaces
into rows and back. Training lives in ``pufferlib_cy.train``, which needs the extra
``pufferlib_cy[train]``; nothing here imports torch.
"""

from importlib.metadata import PackageNotFoundError, version

from pufferlib_cy import bridges
from pufferlib_cy._core import ContractError, EnvError, NativeEnv
from pufferlib_cy._spaces import ActionTree, SpaceTree
from pufferlib_cy.processes import WorkerDied
from pufferlib_cy.spaces import Leaf, SpaceError
from pufferlib_cy.vector import Batch, Processes, Serial, Threads, VectorEnv, make

try:
    __version__ = version("pufferlib_cy")
except PackageNotFoundError:
    __version__ = "unknown"

bridges.register()

__all__ = [
    "ActionTree", "Batch", "ContractError", "EnvError", "Leaf", "NativeEnv", "Processes", "Serial",
    "SpaceError", "SpaceTree", "Threads", "VectorEnv", "WorkerDied", "make",
]
