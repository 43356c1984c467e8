# cython: language_level=3
"""What `_episodes` offers the engine."""

from libc.stdint cimport int32_t, uint8_t

from pufferlib_cy._core cimport Slice

cdef enum:
    FINISHED = 4              # columns of `finished` before the environment's own statistics

cdef enum Autoreset:
    # What follows the step on which an episode ends.
    SAME_STEP = 0             # the new episode's first observation is in the same step
    NEXT_STEP = 1             # the next step resets; its action is ignored
    DISABLED = 2              # the caller resets

cdef enum Ended:
    # Where an environment stands in its episode.
    RUNNING = 0
    OVER = 1                  # nothing has reset it yet
    RESTARTED = 2             # it was over, and this step resets it (within a step, NEXT_STEP only)

cdef struct Part:
    # A slice, and what the core keeps about its rows.
    Slice slice
    void* env                 # the NativeEnv to run
    Py_ssize_t first_row
    Autoreset autoreset
    char* final_observations  # (count * A, D) the last observation of episodes that ended
    uint8_t* live             # (count * A,) agents whose next action counts
    uint8_t* ended            # (count,) an Ended
    double* returns           # (count * A,) rewards so far in the agent's episode
    int32_t* lengths          # (count * A,) steps so far in the agent's episode
    # (count, FINISHED + num_stats) since the last drain: agents' episodes, their returns, their
    # lengths; environments' episodes, their own statistics.
    double* finished
    const uint8_t* chosen     # (count,) environments that a reset of the caller's is about, or NULL
    int32_t* selection        # (count,) room for `slice.selected`

# One step of every environment, and what autoreset says about those that end.
cdef void step_part(Part* part) noexcept nogil
# A new episode in every environment, or where the caller selected.
cdef void reset_part(Part* part) noexcept nogil
