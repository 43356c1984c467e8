"""The typed core: what an environment's author subclasses, and what looks at it.

`NativeEnv` holds the states of E environments of one kind; its subclasses know the rules of a game.
In the checked build, what a step may touch is lent to it between guard bytes and looked at
afterwards. What steps environments is in ``_engine.pyx``.
"""

from libc.math cimport isfinite
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

from pufferlib_cy._actions cimport address
from pufferlib_cy._spaces cimport ActionTree, SpaceTree

import numpy as np

from pufferlib_cy.arrays import aligned_zeros
from pufferlib_cy.spaces import SpaceError

checked = bool(CHECKED)


# ---- seeds ---------------------------------------------------------------------------------------

cdef uint64_t mix_gamma(uint64_t z) noexcept nogil:
    """An odd increment with enough changes between neighbouring bits (Steele et al. 2014)."""
    z = (z ^ (z >> 33)) * 0xFF51AFD7ED558CCDULL
    z = (z ^ (z >> 33)) * 0xC4CEB9FE1A85EC53ULL
    z = (z ^ (z >> 33)) | 1
    cdef uint64_t edges = z ^ (z >> 1)
    cdef int count = 0
    while edges:
        edges &= edges - 1
        count += 1
    return z ^ 0xAAAAAAAAAAAAAAAAULL if count < 24 else z


cdef void seed_stream(Rng* rng, uint64_t seed) noexcept nogil:
    """Start the stream of `seed`: what Java's ``new SplittableRandom(seed).split()`` gives."""
    cdef Rng root
    root.state = seed
    root.gamma = 0x9E3779B97F4A7C15ULL
    rng.state = next_uint64(&root)
    root.state += root.gamma
    rng.gamma = mix_gamma(root.state)


# ---- environments --------------------------------------------------------------------------------

cdef describe_layout(SpaceTree tree):
    """The leaves of a row for an error message: where each begins, and of what it is."""
    return ", ".join(f"{'.'.join(map(str, leaf.path))} ({leaf.dtype} {leaf.shape} at byte "
                     f"{leaf.offset})" for leaf in tree.leaves)


cdef class NativeEnv:
    """E environments of one kind, stepped without the GIL. Subclass it in a ``.pyx``.

    A subclass calls ``super().__init__`` with the spaces of *one agent* and the size in bytes of
    *one environment's* state, and implements ``run`` (see ``_core.pxd``).

    Parameters
    ----------
    observation_space: Box of any dtype and shape; or a Dict, Tuple or other space of fixed size:
        an observation is then the bytes of a C struct, field by field (see `SpaceTree.dtype`).
    action_space: Discrete, MultiDiscrete, Box; or a tree of them, whose discrete leaves are
        `rows.actions` and whose continuous ones are `rows.continuous_actions`, in order.
    state_size: ``sizeof`` of the state struct.
    agents_per_env: agent slots A of one environment.
    action_masks: True if the environment says which discrete actions are legal.
    observation_size: ``sizeof`` of the struct that an author writes nested observations into; it
        is compared with the space's. 0: there is none.
    lanes: the states are laid out as one array per field, for `next_lanes`.
    stats: names of statistics of its own. `rows.stats` holds their values in the running episode;
        ``episode_stats`` gives their means over environments' episodes.

    Raises TypeError or ValueError where a space or a number is not one of these.
    """

    def __init__(self, observation_space, action_space, size_t state_size,
                 Py_ssize_t agents_per_env=1, bint action_masks=False, stats=(),
                 Py_ssize_t observation_size=0, bint lanes=False):
        kind = type(self).__name__
        try:
            self.space_tree = SpaceTree(observation_space)
            self.action_tree = ActionTree(action_space)
        except SpaceError as error:
            raise SpaceError(f"{kind}: {error}") from error
        if observation_size not in (0, self.space_tree.row_size):
            raise ValueError(
                f"{kind}: the struct of an observation has {observation_size} bytes, but the space "
                f"{self.space_tree.row_size}: its fields are {describe_layout(self.space_tree)}")
        choices = int(sum(self.action_tree.sizes))
        if action_masks and not choices:
            raise ValueError(f"{kind}: action masks need discrete actions, not {action_space!r}")
        if agents_per_env < 1:
            raise ValueError(f"{kind}: agents_per_env is at least 1, not {agents_per_env}")
        if state_size < 1:
            raise ValueError(f"{kind}: state_size is sizeof(the state struct), at least 1")
        taken = {"episodes", "episode_return", "episode_length"}
        if len({*stats, *taken}) != len(stats) + len(taken):
            raise ValueError(f"{kind}: statistics have names of their own, each once, not {stats}")
        self.stat_names = tuple(stats)
        self.lanes = lanes
        self.agents_per_env = agents_per_env
        self.action_choices = choices if action_masks else 0
        self.masks_given = action_masks
        self.state_size = state_size

    def allocate(self, Py_ssize_t num_envs):
        """Make room for the states of `num_envs` environments. Called once, by the engine."""
        if self.space_tree is None:
            raise TypeError(f"{type(self).__name__}.__init__ did not call super().__init__")
        if self.num_envs:
            raise ValueError(f"this {type(self).__name__} already belongs to a vector environment")
        self._states_owner = aligned_zeros((num_envs, self.state_size), np.uint8)
        self._rngs_owner = aligned_zeros((num_envs, 2), np.uint64)
        self.states = <char*> address(self._states_owner)
        self.rngs = <Rng*> address(self._rngs_owner)
        self.num_envs = num_envs

    @property
    def state_array(self):
        """uint8 (E, state_size): the states as bytes, not a copy. To look at, save and restore."""
        return self._states_owner

    @property
    def rng_array(self):
        """uint64 (E, 2): state and gamma of every random stream, not a copy."""
        return self._rngs_owner

    @property
    def observation_space(self):
        """Of one agent, as the environment declares it; ``space_tree.flat_space`` is that of a row.
        """
        return self.space_tree.space

    @property
    def action_space(self):
        """Of one agent, as the environment declares it; ``action_tree.flat_space`` is that of a
        row."""
        return self.action_tree.space

    @property
    def kind(self):
        """What has to be equal in all environments of a vector, by name."""
        return {"observation space": self.observation_space, "action space": self.action_space,
                "agents per environment": self.agents_per_env,
                "action mask entries": self.action_choices, "statistics": self.stat_names}

    def check_kind(self, kind):
        """Raise ValueError if another environment's `kind` is not this one's."""
        own = self.kind
        differing = [name for name in own if own[name] != kind[name]]
        if differing:
            raise ValueError(
                "environments of one vector have equal spaces, agents and statistics, but "
                + "; ".join(f"{name} {own[name]} stands beside {kind[name]}"
                            for name in differing))

    def seed(self, seeds):
        """Start the random streams anew: E integers in [0, 2**64), None where one is to go on."""
        cdef Py_ssize_t i
        for i, seed in enumerate(seeds):
            if seed is not None:
                seed_stream(&self.rngs[i], seed)

    def prepare(self, options, selected):
        """What the caller's next reset, of the `selected` environments (bool (E,); None: all), is
        to be told. Raises ValueError for options that the environment does not know."""
        if options:
            raise ValueError(f"reset: unknown options {sorted(options)}; native environments know "
                             "reset_mask")

    def take_error(self):
        """What `run` could not raise, as an exception, if its fault is RAISED; then forget it."""
        raise NotImplementedError

    def take_infos(self, Py_ssize_t first, Py_ssize_t last):
        """What the last calls of `run` said beside the rows of environments [first, last), in their
        order: (environment, ended, info), `ended` of the step that ends an episode; then forget it.
        """
        return ()

    def close(self):
        """Give back what the environments hold beside memory. Called once, at the end."""
    # Steps per second at which it looks right; None: it takes turns, and waits for its player.
    render_fps = None
    # Names of the discrete actions, for those who play it with the keyboard; or none.
    action_names = ()

    def render(self, Py_ssize_t environment):
        """A picture of one environment: uint8 (height, width, 3), RGB. For a subclass to give; a
        vector environment whose environments have none draws their `ansi` or observations."""
        raise NotImplementedError(f"{type(self).__name__} does not draw itself: it has no render")

    def ansi(self, Py_ssize_t environment):
        """A picture of one environment in characters, lines ended by a newline. As `render`."""
        raise NotImplementedError(f"{type(self).__name__} does not draw itself: it has no ansi")

    cdef void* state_of(self, Py_ssize_t i) noexcept nogil:
        return self.states + i * self.state_size

    cdef void run(self, Slice* slice) noexcept nogil:
        slice.fault = NO_RUN


cdef void record_fault(Rows* rows, Fault fault, Py_ssize_t agent) noexcept nogil:
    cdef Slice* slice = rows._slice
    if slice.fault == NO_FAULT:
        slice.fault = fault
        slice.fault_environment = rows._environment + agent // slice.agents
        slice.fault_agent = agent % slice.agents


# ---- the checked build: what an environment may touch is lent to it, a turn at a time ------------

cdef enum:
    GUARD_BYTES = 512         # before and behind each piece
    GUARD_VALUE = 0xA5
    BLANK_BYTES = 4096        # at the beginning of a piece that are watched while nobody has it
    BLANK_VALUE = 0xFF        # of these: NaN as a float, -1 as an integer
    ALIGNMENT = 64            # bytes, of each piece

# The pieces of memory that are lent for one turn of the loop in `run`.
cdef enum:
    LENT_STATE
    LENT_OBSERVATIONS
    LENT_REWARDS
    LENT_TERMINATIONS
    LENT_TRUNCATIONS
    LENT_MASKS
    LENT_ACTION_MASKS
    LENT_STATS
    LENT_STREAM
    PIECES

cdef struct Piece:
    char* home                # of the environment at the cursor
    size_t size               # bytes of one environment
    size_t room               # bytes of as many as come in one turn
    size_t offset             # in either room


cdef size_t lay_out(const Slice* slice, Py_ssize_t e, Piece* pieces) noexcept nogil:
    """The pieces of environment e of the slice; the bytes of a room for them."""
    cdef Py_ssize_t n = e * slice.agents
    cdef size_t end = 0
    cdef int p
    pieces[LENT_STATE].home = slice.states + e * slice.state_size
    pieces[LENT_STATE].size = slice.state_size
    pieces[LENT_OBSERVATIONS].home = slice.observations + n * slice.observation_size
    pieces[LENT_OBSERVATIONS].size = slice.agents * slice.observation_size
    pieces[LENT_REWARDS].home = <char*> (slice.rewards + n)
    pieces[LENT_REWARDS].size = slice.agents * sizeof(float)
    pieces[LENT_TERMINATIONS].home = <char*> (slice.terminations + n)
    pieces[LENT_TERMINATIONS].size = slice.agents
    pieces[LENT_TRUNCATIONS].home = <char*> (slice.truncations + n)
    pieces[LENT_TRUNCATIONS].size = slice.agents
    pieces[LENT_MASKS].home = <char*> (slice.masks + n)
    pieces[LENT_MASKS].size = slice.agents
    pieces[LENT_ACTION_MASKS].home = <char*> (slice.action_masks + n * slice.choices)
    pieces[LENT_ACTION_MASKS].size = slice.agents * slice.choices
    pieces[LENT_STATS].home = <char*> (slice.stats + e * slice.num_stats)
    pieces[LENT_STATS].size = slice.num_stats * sizeof(double)
    pieces[LENT_STREAM].home = <char*> (slice.rngs + e)
    pieces[LENT_STREAM].size = sizeof(Rng)
    for p in range(PIECES):
        pieces[p].room = pieces[p].size * (1 if p == LENT_STATE else CHECKED_LANES)
        pieces[p].offset = (end + GUARD_BYTES + ALIGNMENT - 1) & ~<size_t> (ALIGNMENT - 1)
        end = pieces[p].offset + pieces[p].room + GUARD_BYTES
    return end


cdef list make_rooms(Slice* slice, SpaceTree tree):
    cdef Piece[PIECES] pieces
    cdef int p
    slice.room_size = lay_out(slice, 0, pieces)
    rooms = aligned_zeros((2, slice.room_size), np.uint8)
    for p in range(PIECES):
        rooms[:, pieces[p].offset:pieces[p].offset + pieces[p].room] = BLANK_VALUE
    expected_rngs = np.zeros((slice.count, 2), np.uint64)
    leaf_bytes = np.zeros(slice.observation_size, np.uint8)
    for leaf in tree.leaves:
        size = leaf.dtype.itemsize * int(np.prod(leaf.shape, dtype=np.int64))
        leaf_bytes[leaf.offset:leaf.offset + size] = 0xFF
    slice.leaf_bytes = <const uint8_t*> address(leaf_bytes)
    slice.rooms = <char*> address(rooms)
    slice.expected_rngs = <Rng*> address(expected_rngs)
    return [rooms, expected_rngs, leaf_bytes]


cdef size_t lent_size(const Rows* rows, const Piece* piece, int p) noexcept nogil:
    """Bytes of a piece that are lent for this turn; under `next_lanes` states are not."""
    if p == LENT_STATE and rows.state == NULL:
        return 0
    return rows.count * piece.size


cdef char* room_of_turn(const Slice* slice, bint other) noexcept nogil:
    """The room of this turn, or the other one.

    The first bits of the multiples of the golden ratio change often and never periodically: nobody
    gets the same room every time, so that pointers that are kept lead to the other one soon.
    """
    cdef bint second = slice.turns * 0x9E3779B97F4A7C15ULL >> 63
    return slice.rooms + (second != other) * slice.room_size


cdef bint is_filled(const char* start, size_t size, uint8_t value) noexcept nogil:
    """All bytes have that value."""
    cdef bint filled = True
    cdef size_t i
    for i in range(size):
        filled &= (<const uint8_t*> start)[i] == value
    return filled


cdef void lend_room(Rows* rows) noexcept nogil:
    cdef Slice* slice = rows._slice
    cdef Piece[PIECES] pieces
    cdef size_t size
    cdef char* room
    cdef char* lent
    cdef int p
    slice.turns += 1
    room = room_of_turn(slice, False)
    lay_out(slice, rows._environment, pieces)
    for p in range(PIECES):
        lent = room + pieces[p].offset
        size = lent_size(rows, &pieces[p], p)
        memset(lent - GUARD_BYTES, GUARD_VALUE, GUARD_BYTES)
        memset(lent + size, GUARD_VALUE, GUARD_BYTES)
        if p == LENT_OBSERVATIONS:        # what is not written shows
            memset(lent, BLANK_VALUE, size)
        elif size:
            memcpy(lent, pieces[p].home, size)
    if rows.state != NULL:
        rows.state = room + pieces[LENT_STATE].offset
    rows.observations = room + pieces[LENT_OBSERVATIONS].offset
    rows.rewards = <float*> (room + pieces[LENT_REWARDS].offset)
    rows.terminations = <uint8_t*> (room + pieces[LENT_TERMINATIONS].offset)
    rows.truncations = <uint8_t*> (room + pieces[LENT_TRUNCATIONS].offset)
    rows.masks = <uint8_t*> (room + pieces[LENT_MASKS].offset)
    if slice.choices:
        rows.action_masks = <uint8_t*> (room + pieces[LENT_ACTION_MASKS].offset)
    rows.stats = <double*> (room + pieces[LENT_STATS].offset)
    rows.rng = <Rng*> (room + pieces[LENT_STREAM].offset)


cdef void check_step(Rows* rows, Mistake* mistake) noexcept nogil:
    cdef Slice* slice = rows._slice
    cdef Piece[PIECES] pieces
    cdef size_t size, watched
    cdef char* room = room_of_turn(slice, False)
    cdef char* other = room_of_turn(slice, True)
    cdef char* lent
    cdef size_t i
    cdef int p
    if rows._next == 0:                   # before the first turn
        memcpy(slice.expected_rngs, slice.rngs, slice.count * sizeof(Rng))
        if mistake != NULL:
            mistake.kind = NULL           # of something else, as __init__
        return
    if mistake != NULL and mistake.kind != NULL:
        if slice.fault == NO_FAULT:
            slice.mistake = mistake[0]
        record_fault(rows, ARITHMETIC, 0)
        mistake.kind = NULL
    check_values(rows)
    if memcmp(slice.expected_rngs, slice.rngs, slice.count * sizeof(Rng)):
        record_fault(rows, FOREIGN_STREAM, 0)
        memcpy(slice.rngs, slice.expected_rngs, slice.count * sizeof(Rng))
    lay_out(slice, rows._environment, pieces)
    for p in range(PIECES):
        lent = room + pieces[p].offset
        size = lent_size(rows, &pieces[p], p)
        watched = min(pieces[p].room, <size_t> BLANK_BYTES)
        if not (is_filled(lent - GUARD_BYTES, GUARD_BYTES, GUARD_VALUE)
                and is_filled(lent + size, GUARD_BYTES, GUARD_VALUE)):
            record_fault(rows, <Fault> (WROTE_OUTSIDE + p), 0)
        if not is_filled(other + pieces[p].offset, watched, BLANK_VALUE):
            record_fault(rows, STALE_POINTER, 0)
            memset(other + pieces[p].offset, BLANK_VALUE, watched)
        if p == LENT_OBSERVATIONS:        # an author writes fields: the padding is still blank
            for i in range(size):
                lent[i] &= slice.leaf_bytes[i % slice.observation_size]
        if size:
            memcpy(pieces[p].home, lent, size)
        memset(lent, BLANK_VALUE, watched)
    memcpy(slice.expected_rngs + rows._environment, slice.rngs + rows._environment,
           rows.count * sizeof(Rng))


cdef void check_values(Rows* rows) noexcept nogil:
    """Flags are 0 or 1, floats are finite, and live agents have a legal action."""
    cdef Slice* slice = rows._slice
    cdef Py_ssize_t a, i
    cdef const float* values
    for a in range(rows.count * slice.agents):
        if slice.choices and rows.masks[a] and memchr(
                rows.action_masks + a * slice.choices, 1, slice.choices) == NULL:
            record_fault(rows, ACTION_MASK_EMPTY, a)
        if (rows.terminations[a] | rows.truncations[a] | rows.masks[a]) > 1:
            record_fault(rows, FLAG_NOT_BOOLEAN, a)
        if not isfinite(rows.rewards[a]):
            record_fault(rows, REWARD_NOT_FINITE, a)
        if slice.observation_float and rows.masks[a]:
            values = <const float*> (<char*> rows.observations + a * slice.observation_size)
            for i in range(<Py_ssize_t> (slice.observation_size // sizeof(float))):
                if not isfinite(values[i]):
                    record_fault(rows, OBSERVATION_NOT_FINITE, a)
                    break


class EnvError(RuntimeError):
    """An environment raised an exception; that is its ``__cause__``.

    environment: which one. The vector environment is closed.
    """

    def __init__(self, message, environment):
        super().__init__(message)
        self.environment = environment

    def __reduce__(self):
        return type(self), (self.args[0], self.environment)


def raise_fault(environment, error):
    """Raise the EnvError for an exception of an environment; interrupts go on as they are."""
    if not isinstance(error, Exception):
        raise error
    raise EnvError(f"environment {environment} raised {type(error).__name__}: {error}",
                   environment) from error


class ContractError(RuntimeError):
    """A native environment broke its contract (most are found by the checked build only)."""


FAULTS = {
    NO_RUN: "its class does not implement `cdef void run(self, Slice* slice) noexcept nogil`",
    REWARD_NOT_FINITE: "the reward is NaN or infinite",
    OBSERVATION_NOT_FINITE: "the observation has a value that is NaN or infinite, or was not "
                            "written (every reset and step writes the whole observation), or was "
                            "read through a pointer kept from an earlier step",
    FLAG_NOT_BOOLEAN: "a termination, truncation or mask is neither 0 nor 1",
    ACTION_MASK_EMPTY: "its action mask leaves no legal action",
    STALE_POINTER: "it wrote through a pointer that it kept from another environment or step: the "
                   "memory behind `rows` is lent for one turn of the loop; take state, "
                   "observations and the rest from `rows` every time",
    FOREIGN_STREAM: "it drew from a random stream that is not its own: draw from `rows.rng` only",
    ARITHMETIC: "{kind} in {file}, line {line}",
    NOT_IN_LANES: "its run uses next_lanes, which goes with lanes=True in super().__init__, or "
                  "next_rows, which goes without",
}
FAULTS |= {WROTE_OUTSIDE + piece: f"it wrote before or behind its own {words}" for piece, words in (
    (LENT_STATE, "state: is state_size its sizeof?"),
    (LENT_OBSERVATIONS, "observations: more agents or values than it declared?"),
    (LENT_REWARDS, "rewards: more agents than agents_per_env?"),
    (LENT_TERMINATIONS, "terminations: more agents than agents_per_env?"),
    (LENT_TRUNCATIONS, "truncations: more agents than agents_per_env?"),
    (LENT_MASKS, "masks: more agents than agents_per_env?"),
    (LENT_ACTION_MASKS, "action masks: more agents than agents_per_env, or more actions than the "
                        "action space has?"),
    (LENT_STATS, "statistics: name all of them in super().__init__(..., stats=(...))"),
    (LENT_STREAM, "random stream: only the drawing functions change it"))}
