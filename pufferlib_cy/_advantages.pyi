"""Types of the compiled advantage estimates; see ``_advantages.pyx`` for what they compute."""

import numpy as np
from numpy.typing import NDArray

def gae(rewards: NDArray[np.float32], values: NDArray[np.float32],
        terminations: NDArray[np.bool_], truncations: NDArray[np.bool_],
        final_values: NDArray[np.float32], gamma: float, gae_lambda: float,
        out: NDArray[np.float32]) -> None: ...

def vtrace(rewards: NDArray[np.float32], values: NDArray[np.float32],
           terminations: NDArray[np.bool_], truncations: NDArray[np.bool_],
           final_values: NDArray[np.float32], ratios: NDArray[np.float32], gamma: float,
           gae_lambda: float, rho_clip: float, c_clip: float,
           out: NDArray[np.float32]) -> None: ...

def pufferlib(rewards: NDArray[np.float32], values: NDArray[np.float32],
              dones: NDArray[np.bool_], ratios: NDArray[np.float32], gamma: float,
              gae_lambda: float, rho_clip: float, c_clip: float,
              out: NDArray[np.float32]) -> None: ...
