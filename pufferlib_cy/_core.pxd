# cython: language_level=3
"""The contract between an environment's .pyx and the core.

An environment subclasses `NativeEnv`, declares its state as a C struct, and implements ``run``:
the loop over a slice of environments. `first_rows` and `next_rows` are inlined into that loop, so
that the environment's own step is called statically and the C compiler sees all of it at once.

Letters: E environments, A agent slots, N = E * A rows, D values in one observation.
The field order of these structs and the vtable of `NativeEnv` are an ABI: an extension built
against one minor version works with that minor version.
"""

cimport cython
from cpython.pyport cimport PY_SSIZE_T_MAX
from libc.math cimport cos, log, sqrt
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from pufferlib_cy._spaces cimport ActionTree, SpaceTree

cdef extern from *:
    """
    #ifndef PUFFERLIB_CY_CHECKED
    #define PUFFERLIB_CY_CHECKED 0
    #endif
    #ifndef PUFFERLIB_CY_MISTAKE
    typedef struct { const char *kind, *file; unsigned line; } pufferlib_cy_mistake_t;
    #define PUFFERLIB_CY_MISTAKE ((pufferlib_cy_mistake_t *) 0)
    #endif
    """
    # 1 in the checked build: every step's writes are looked at (see `check_step`).
    const bint CHECKED "PUFFERLIB_CY_CHECKED"

    # The first mistake in arithmetic on this thread that the C compiler's own checks found: kind is
    # NULL if there was none. See `_checked.h`; elsewhere the pointer is NULL.
    ctypedef struct Mistake "pufferlib_cy_mistake_t":
        const char* kind
        const char* file
        unsigned int line
    Mistake* MISTAKE "PUFFERLIB_CY_MISTAKE"

# ---- random streams ------------------------------------------------------------------------------

cdef struct Rng:
    # A SplitMix64 stream (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
    # generators"). One per environment, seeded by the core; never the C library's rand.
    uint64_t state
    uint64_t gamma            # odd; differs between streams

cdef inline uint64_t next_uint64(Rng* rng) noexcept nogil:
    """64 random bits."""
    rng.state += rng.gamma
    cdef uint64_t z = rng.state
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL
    return z ^ (z >> 31)


@cython.cdivision(True)
cdef inline uint32_t uniform_int(Rng* rng, uint32_t n) noexcept nogil:
    """An integer in [0, n), n > 0, without bias (Lemire 2019, arXiv 1805.10941)."""
    cdef uint64_t product = (next_uint64(rng) >> 32) * n
    cdef uint32_t least
    if <uint32_t> product < n:
        least = (<uint32_t> 0 - n) % n
        while <uint32_t> product < least:
            product = (next_uint64(rng) >> 32) * n
    return <uint32_t> (product >> 32)


cdef inline double uniform(Rng* rng, double low, double high) noexcept nogil:
    """A float64 in [low, high), from 53 random bits."""
    return low + (high - low) * (<double> (next_uint64(rng) >> 11) * 1.1102230246251565e-16)


cdef inline double normal(Rng* rng) noexcept nogil:
    """A float64 of mean 0 and standard deviation 1 (Box and Muller 1958)."""
    cdef double radius = sqrt(-2.0 * log(1.0 - uniform(rng, 0.0, 1.0)))
    return radius * cos(6.283185307179586 * uniform(rng, 0.0, 1.0))

# ---- rows: what one environment reads and writes -----------------------------------------------

cdef struct Rows:
    # The A rows of one environment, slot 0 first. An environment with one agent uses index 0.
    # Under `next_lanes` those of `count` environments, one after the other: then (A, ...) below
    # reads (count * A, ...), and `stats` and `rng` are arrays of `count` too.
    # Before a step the core has zeroed rewards, terminations and truncations, and has set masks
    # to the live agents. Observations must be written whole by every reset and step: the row is
    # not the one of the step before.
    void* state               # this environment's state_size bytes; NULL under `next_lanes`
    void* observations        # (A, D) in the observation space's dtype
    const int32_t* actions    # (A, heads) discrete actions, checked against the space; or NULL
    const float* continuous_actions  # (A, values) of a Box action space, checked; or NULL
    float* rewards            # (A,)
    uint8_t* terminations     # (A,) 1: the agent's episode ended by the rules
    uint8_t* truncations      # (A,) 1: it was cut off by a limit
    uint8_t* masks            # (A,) 1: the slot has a live agent. Reset: all 1, clear the absent
    uint8_t* action_masks     # (A, choices) 1: legal; all 1 before each call; NULL if undeclared
    const int32_t* lengths    # (A,) steps that the live agent's episode had before this one
    double* stats             # (statistics,) of this episode so far, 0 at its start; see __init__
    Rng* rng                  # this environment's random stream
    bint starting             # True: write a first observation (reset); False: step
    Py_ssize_t environment    # index of this environment, or the first of these, in `NativeEnv`
    Py_ssize_t count          # environments: 1, or under `next_lanes` any number
    # The core's own.
    Slice* _slice
    Py_ssize_t _next          # index in the slice's selection of the environment that comes next
    Py_ssize_t _environment   # index in the slice
    # From one environment's to the next one's, in bytes and in discrete actions. They stand here
    # since C has to expect that what an environment writes changes the slice, but not this.
    size_t _observation_stride
    size_t _action_stride

cdef enum Command:
    RESET = 0                 # begin a new episode in every (selected) environment
    STEP = 1

cdef enum Fault:              # what the checked build found, or what stopped a slice
    NO_FAULT = 0
    NO_RUN = 1                # the class has no `run`
    REWARD_NOT_FINITE = 2
    OBSERVATION_NOT_FINITE = 3
    FLAG_NOT_BOOLEAN = 4      # a termination, truncation or mask other than 0 and 1
    ACTION_MASK_EMPTY = 5     # a live agent has no legal action
    RAISED = 6                # an exception, which `take_error` gives
    STALE_POINTER = 7         # wrote to what it was lent in an earlier turn of the loop
    FOREIGN_STREAM = 8        # drew from another stream than its own
    ARITHMETIC = 9            # a `Mistake`
    NOT_IN_LANES = 10         # `next_lanes` without ``lanes=True``, or `next_rows` with it
    WROTE_OUTSIDE = 11        # and what it was lent: wrote before or behind that

cdef struct Slice:
    # A run of environments of one `NativeEnv`, as `run` gets it. All pointers are at the slice's
    # first environment; each row's neighbours belong to other environments. Filled in by the core.
    Command command
    Py_ssize_t first          # index of the first environment in its `NativeEnv`
    Py_ssize_t count          # environments
    Py_ssize_t num_selected   # environments that this call is about
    const int32_t* selected   # (num_selected,) which, ascending; NULL: all
    Py_ssize_t agents         # A
    size_t state_size         # bytes from one environment's state to the next
    bint lanes                # states are one array per field
    char* states              # (count, state_size)
    Rng* rngs                 # (count,)
    size_t observation_size   # bytes of one observation
    bint observation_float    # the observations are float32 (the checked build looks for NaN)
    char* observations        # (count * A, D)
    size_t heads              # discrete actions per row, or 0
    int32_t* actions          # (count * A, heads)
    size_t values             # continuous actions per row, or 0
    float* continuous_actions  # (count * A, values)
    float* rewards            # (count * A,)
    uint8_t* terminations     # (count * A,)
    uint8_t* truncations      # (count * A,)
    uint8_t* masks            # (count * A,)
    size_t choices            # action-mask entries per row, or 0
    uint8_t* action_masks     # (count * A, choices)
    const int32_t* lengths    # (count * A,) steps so far in the agent's episode
    size_t num_stats          # statistics of the environment's own
    double* stats             # (count, num_stats) so far in the environment's episode
    # Checked build: two rooms for what environments are lent, and what the streams should be.
    char* rooms               # (2, room_size)
    size_t room_size
    uint64_t turns            # of loops, so far
    Rng* expected_rngs        # (count,)
    const uint8_t* leaf_bytes  # (observation_size,) 0xFF where a leaf of the space lies, else 0
    Fault fault               # first fault found, and where
    Py_ssize_t fault_environment
    Py_ssize_t fault_agent
    Mistake mistake           # where fault is ARITHMETIC

cdef enum:
    CHECKED_LANES = 3         # environments at a time for `next_lanes` in the checked build

# ---- the loop: ``rows = first_rows(slice)``, then ``while next_rows(&rows): ...`` ----------------

cdef inline Rows first_rows(Slice* slice) noexcept nogil:
    """A cursor before the first environment of the slice."""
    cdef Rows rows
    memset(&rows, 0, sizeof(Rows))
    rows.starting = slice.command == RESET
    rows.count = 1
    rows._slice = slice
    rows._observation_stride = slice.agents * slice.observation_size
    rows._action_stride = slice.agents * slice.heads
    return rows


cdef inline bint next_rows(Rows* rows) noexcept nogil:
    """Go to the next environment of the slice; False after the last."""
    cdef Slice* slice = rows._slice
    if CHECKED and slice.lanes:
        slice.fault = NOT_IN_LANES
        return False
    if not _next_wanted(rows):
        return False
    rows.state = slice.states + rows._environment * slice.state_size
    if CHECKED:
        lend_room(rows)
    return True


cdef inline bint next_lanes(Rows* rows) noexcept nogil:
    """Go to the next environments, `rows.count` of them side by side; False after the last.

    For steps that are a loop over environments, which the C compiler turns into vector
    instructions. Such loops want the states as one array per field, not as structs: say so by
    ``lanes=True`` in ``super().__init__``, lay out the room at `NativeEnv.states` so, and begin at
    index `rows.environment` of each array. How many environments come at a time must make no
    difference to what happens.
    """
    return next_block(rows, PY_SSIZE_T_MAX)


cdef inline bint next_block(Rows* rows, Py_ssize_t most) noexcept nogil:
    """As `next_lanes`, but at most `most` environments at a time: for steps that need arrays of
    their own, which then fit on the stack and stay in the processor's first cache."""
    cdef Slice* slice = rows._slice
    if not slice.lanes:
        slice.fault = NOT_IN_LANES
        return False
    if not _next_wanted(rows):
        return False
    most = min(most, slice.num_selected - rows._next + 1)
    if CHECKED:
        most = min(most, CHECKED_LANES)
    if slice.selected != NULL:
        rows.count = 1
        while rows.count < most and (
                slice.selected[rows._next + rows.count - 1] == rows._environment + rows.count):
            rows.count += 1
    else:
        rows.count = most
    rows._next += rows.count - 1
    if CHECKED:
        lend_room(rows)
    return True


cdef inline bint _next_wanted(Rows* rows) noexcept nogil:
    """Point the cursor at the next environment of the selection."""
    cdef Slice* slice = rows._slice
    if CHECKED:
        check_step(rows, MISTAKE)
    if rows._next >= slice.num_selected:
        return False
    cdef Py_ssize_t e = rows._next
    if slice.selected != NULL:
        e = slice.selected[e]
    cdef Py_ssize_t n = e * slice.agents              # the environment's first row
    rows._next += 1
    rows._environment = e
    rows.environment = slice.first + e
    rows.rng = slice.rngs + e
    rows.stats = slice.stats + e * slice.num_stats
    rows.observations = slice.observations + e * rows._observation_stride
    rows.actions = slice.actions + e * rows._action_stride
    rows.continuous_actions = slice.continuous_actions + n * slice.values
    rows.rewards = slice.rewards + n
    rows.terminations = slice.terminations + n
    rows.truncations = slice.truncations + n
    rows.masks = slice.masks + n
    rows.action_masks = slice.action_masks + n * slice.choices
    rows.lengths = slice.lengths + n
    return True


# Checked build only. Before a turn of the loop: lend copies of state and rows, between guard bytes.
# After it: look at them, copy them to where they belong, and record the first fault.
cdef void lend_room(Rows* rows) noexcept nogil
cdef void check_step(Rows* rows, Mistake* mistake) noexcept nogil
# For the engine, which may not be checked though an environment is: make the rooms of a slice; the
# arrays that own them.
cdef list make_rooms(Slice* slice, SpaceTree tree)

# ---- lanes: loops over environments that become vector instructions ------------------------------

cdef extern from *:
    # For the parameters of a function with such a loop: a promise that the arrays do not overlap.
    # Without it the C compiler has to expect every store to change what is loaded next.
    """
    /* One function, compiled for several instruction sets; which runs is settled when the module is
       loaded. The checked build and the sanitizers see the plain one. */
    #if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) \\
        && __GNUC__ >= 12 && !defined(__AVX__) && !PUFFERLIB_CY_CHECKED \\
        && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    #define PUFFERLIB_CY_LANE_CLONES 1
    #define PUFFERLIB_CY_LANE_LOOP \\
        __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"))) void
    #else
    #define PUFFERLIB_CY_LANE_CLONES 0
    #ifdef __GNUC__             /* inlined, it would lose what __restrict promises */
    #define PUFFERLIB_CY_LANE_LOOP __attribute__((noinline)) void
    #else
    #define PUFFERLIB_CY_LANE_LOOP void
    #endif
    #endif
    """
    ctypedef float* FloatLane "float* __restrict"
    ctypedef double* DoubleLane "double* __restrict"
    ctypedef int32_t* IntLane "int32_t* __restrict"
    ctypedef uint8_t* ByteLane "uint8_t* __restrict"
    # In place of `void` for such a function: it then uses what the processor has, AVX2 or AVX-512,
    # though the wheel runs on any. Results are the same: nothing is contracted, see build.py.
    ctypedef void LaneLoop "PUFFERLIB_CY_LANE_LOOP"

# ---- the base class ------------------------------------------------------------------------------

cdef class NativeEnv:
    # E environments of one kind, their states side by side. A subclass gives the spaces and the
    # size of one state to ``super().__init__`` and implements `run`.
    cdef readonly SpaceTree space_tree           # of one agent's observation
    cdef readonly ActionTree action_tree         # of one agent's action
    cdef readonly Py_ssize_t agents_per_env      # A
    cdef readonly Py_ssize_t action_choices      # action-mask entries per row; 0: no action masks
    cdef readonly bint masks_given               # some action mask may have other than ones
    cdef Py_ssize_t num_infos                    # how many `take_infos` would give
    cdef readonly tuple stat_names               # statistics of the environment's own
    cdef readonly bint lanes                     # states are one array per field
    cdef readonly size_t state_size              # bytes
    cdef readonly Py_ssize_t num_envs            # E; 0 until a vector environment takes it
    # (E, state_size), zeroed once; owned below. With `next_lanes` in a layout of the author's.
    cdef char* states
    cdef Rng* rngs                               # (E,); owned below
    cdef object _states_owner
    cdef object _rngs_owner

    # State of environment i, for `render` and the like; NULL before a vector environment has it.
    cdef void* state_of(self, Py_ssize_t i) noexcept nogil

    # Must be implemented. Called by the core, by any thread, without the GIL, for disjoint slices
    # at the same time: touch nothing but the slice and read-only fields of self.
    cdef void run(self, Slice* slice) noexcept nogil
