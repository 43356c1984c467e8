"""What an environment's .pyx may cimport: ``from pufferlib_cy cimport NativeEnv, Rows, ...``."""

from pufferlib_cy._core cimport (
    ByteLane, DoubleLane, FloatLane, IntLane, LaneLoop, NativeEnv, RESET, Rng, Rows, STEP, Slice,
    first_rows, next_block, next_lanes, next_rows, next_uint64, normal, uniform, uniform_int,
)
