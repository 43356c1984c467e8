"""The engine: the rows of E environments, and who steps them.

It cuts the environments into shards, hands shards between the caller and the helper threads, or
worker processes, by one atomic flag each, and checks what comes in. What follows from a step for
the rows of a shard is in ``_episodes.pyx``.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from pufferlib_cy cimport _atomics as atomic
from pufferlib_cy._actions cimport ActionRows, Span, address
from pufferlib_cy._core cimport (
    ARITHMETIC, Command, NO_FAULT, NativeEnv, RAISED, RESET, STEP, Slice, make_rooms,
)
from pufferlib_cy._episodes cimport Autoreset, DISABLED, FINISHED, Part, reset_part, step_part

import contextlib
import threading

import numpy as np
from gymnasium.error import (
    AlreadyPendingCallError, ClosedEnvironmentError, NoAsyncCallError, ResetNeeded,
)

from pufferlib_cy._core import FAULTS, ContractError, raise_fault
from pufferlib_cy.arrays import CACHE_LINE, aligned_zeros, describe
from pufferlib_cy.shards import divide

cdef enum:
    SPIN_NS = 30_000          # how long a wait spins before it parks: about what a wake-up costs
    SPIN_TURNS = 32           # pauses between two looks at the clock
    PARK_NS = 20_000_000      # how long the caller sleeps before it looks for signals and the dead
    HELPER_PARK_NS = 1_000_000_000
    LEAVE_NS = 400_000_000    # how long a helper thread may be busy when it is to end
    PARENT_NS = 250_000_000   # how often a worker process looks whether its caller lives

cdef enum Owner:
    # The flag of a shard: who may touch its rows, states and statistics, and its other fields.
    CALLER = 0                # the caller: results are there to read, actions can be written
    READY = 1                 # nobody: it waits for the first of its worker's who claims it
    TAKEN = 2                 # the thread that turned READY into TAKEN

cdef enum Phase:
    # What the engine expects next.
    FRESH = 0                 # reset
    RECEIVED = 1              # send
    SENT = 2                  # recv

cdef struct Shard:
    # A run of environments that one thread steps at a time, and what it is to do with them.
    uint32_t flag             # an Owner
    uint32_t worker           # whose threads may claim it: 0, the caller's process, or another's
    uint32_t group            # that it is part of
    uint32_t command          # a Command
    uint32_t some             # RESET only where `chosen`
    uint64_t steps            # of the group, see there
    uint8_t padding[32]       # to a whole cache line: nobody waits on a neighbour's

cdef enum Errand:
    # Why a worker process leaves the shards for a moment.
    LETTER = 0                # the caller has sent it one
    MAIL = 1                  # it has something to tell about the shard in `outbox`

cdef struct Group:
    # The shards that a batch takes together. One group: synchronous.
    Py_ssize_t first_shard, last_shard               # [first, last)
    Py_ssize_t first_env, last_env                   # [first, last)
    bint out                  # sent and not yet received
    bint held                 # received, and not to be answered before `release`
    int64_t sent              # when
    uint64_t steps            # steps since the last full reset: the ring slot of its observations

cdef struct Helper:
    # A helper thread or a worker process. The words of a process are in shared memory; counts wrap.
    uint32_t asleep           # 1 while it sleeps, or is about to, on this word
    uint32_t epoch            # process: goes up when there is something to do for it
    uint32_t letters          # process: how many the caller has announced to it
    uint32_t mail             # process: how many messages it has announced to the caller
    uint8_t padding[48]       # to a whole cache line

cdef struct Ring:
    # Rows of several steps in someone's memory: step k's rows are slot k % length.
    char* base                # slot 0
    size_t row_size           # bytes of one row
    size_t slot_size          # bytes from one slot to the next
    uint64_t length           # slots

# Rings, by what they hold. The first three show what a policy sees: reset fills slot 0 and step k
# fills slot k. The others show what an action caused: step k fills slot k - 1.
cdef enum:
    OBSERVATIONS = 0
    MASKS = 1
    ACTION_MASKS = 2
    REWARDS = 3
    TERMINATIONS = 4
    TRUNCATIONS = 5
    RINGS = 6

RING_NAMES = ("observations", "masks", "action_masks", "rewards", "terminations", "truncations")


def layout(NativeEnv env, Py_ssize_t num_envs, Py_ssize_t num_shards, Py_ssize_t num_helpers):
    """The arrays of an engine as {name: (shape, dtype)}: all that worker processes share.

    They begin as zeros, on cache lines. Rings, which have the names in RING_NAMES, have one slot.
    """
    heads, values = env.action_tree.heads, env.action_tree.values
    space, E, N = env.space_tree.flat_space, num_envs, num_envs * env.agents_per_env
    arrays = {
        "observations": ((1, N, *space.shape), space.dtype), "masks": ((1, N), np.bool_),
        "rewards": ((1, N), np.float32), "terminations": ((1, N), np.bool_),
        "truncations": ((1, N), np.bool_),
        "final_observations": ((N, *space.shape), space.dtype), "live": ((N,), np.bool_),
        "returns": ((N,), np.float64), "lengths": ((N,), np.int32),
        "stats": ((E, len(env.stat_names)), np.float64),
        "finished": ((E, FINISHED + len(env.stat_names)), np.float64),
        "ended": ((E,), np.bool_), "chosen": ((E,), np.bool_),
        "shards": ((num_shards, sizeof(Shard)), np.uint8),
        "helpers": ((num_helpers, sizeof(Helper)), np.uint8),
        "words": ((3, CACHE_LINE // sizeof(uint32_t)), np.uint32),
    }
    if env.action_choices:
        arrays["action_masks"] = ((1, N, env.action_choices), np.bool_)
    if heads:
        arrays["discrete"] = ((N, heads), np.int32)
    if values:
        arrays["continuous"] = ((N, values), np.float32)
    return arrays


def watch_parent(uint32_t pid):
    """End this process, whatever it is doing, soon after it is no longer the child of `pid`."""
    cdef uint32_t word = 0
    with nogil:
        while atomic.parent() == pid:
            atomic.park(&word, 0, PARENT_NS)
        atomic.leave(1)


@cython.final
cdef class Engine:
    """The rows of E environments and the threads that step them.

    Parameters
    ----------
    envs: `NativeEnv` instances of the same spaces, fresh.
    counts: how many environments each of them holds; their sum is E, or this process's share.
    helpers: threads beside the caller, which steps shards itself whenever it waits; see
        `start_threads`.
    batch_size: environments per recv; E is synchronous.
    autoreset: 0 same_step, 1 next_step, 2 disabled.
    cores: cores that this process may use; no more threads than these are kept awake.
    share: with worker processes, what the engines of all of them, the caller's too, have in common
        and this one's place in it: see `pufferlib_cy.processes.Share`. Each engine knows all rows
        and shards, and has environments and parts for those of its own process.

    Threads hold the engine, never the vector environment above it: when that goes, it calls
    `stop`. Rows are `Ring`s, at first of one slot in memory of the engine's own; see `attach`.
    """

    # Shape of the work.
    cdef readonly Py_ssize_t num_envs            # E
    cdef readonly Py_ssize_t agents_per_env      # A
    cdef readonly Py_ssize_t num_agents          # N
    cdef readonly Py_ssize_t batch_size
    cdef readonly Py_ssize_t num_groups
    cdef readonly Py_ssize_t groups_per_batch
    cdef readonly Py_ssize_t num_shards
    cdef readonly list envs
    cdef Autoreset autoreset
    cdef Phase phase
    cdef bint seeded
    cdef bint closed

    # What the arrays below are made of.
    cdef Shard* shards
    cdef Group* groups
    cdef Part* parts
    cdef Py_ssize_t* part_of_shard               # (num_shards + 1,) parts of shard i: from [i] on
    cdef Ring rings[RINGS]
    cdef Py_ssize_t* received                    # (groups_per_batch,) groups of the last batch
    cdef Span* spans                             # (groups_per_batch,) their rows
    cdef Py_ssize_t* queue                       # (num_out,) groups sent, oldest first
    cdef Py_ssize_t num_out
    cdef list owners                             # of all memory behind raw pointers

    # Rows that are not rings.
    cdef readonly ActionRows action_rows
    cdef readonly object final_observations      # (N, ...)
    cdef readonly object live                    # bool (N,): rows whose next action counts
    cdef readonly object returns                 # float64 (N,)
    cdef readonly object lengths                 # int32 (N,)
    cdef readonly object finished                # float64 (E, FINISHED + statistics), see Part
    cdef readonly object collected               # the same of what was received: see `collect`
    cdef readonly object stats                   # float64 (E, statistics) of the running episodes
    cdef readonly object ended                   # bool (E,)
    cdef readonly object selection               # int32 (E,) room for `slice.selected`
    cdef readonly tuple rows                     # the arrays of the rings, by RING_NAMES
    cdef readonly bint attached                  # rings are the caller's memory

    cdef readonly object chosen                  # bool (E,): where `send_reset_some` resets

    cdef uint8_t* live_rows
    cdef uint8_t* ended_envs
    cdef uint8_t* chosen_envs
    cdef double* finished_sums
    cdef double* collected_sums
    cdef Py_ssize_t num_finished                 # columns of both

    # Threads. Each word stands on a cache line of its own.
    cdef readonly Py_ssize_t num_helpers
    cdef readonly Py_ssize_t max_awake           # helpers that have a core to run on
    cdef Py_ssize_t cores
    cdef int64_t spin_ns
    cdef list threads
    cdef Py_ssize_t num_serving                  # threads that have begun and not ended
    cdef bint waited                             # `stop` waits for them no longer
    cdef Helper* helpers                         # (num_helpers,), then those of the processes
    cdef uint32_t* epoch                         # goes up with each send
    cdef uint32_t* bell                          # 1 while the caller sleeps, or is about to, on it
    cdef uint32_t* stopping                      # 1: helpers return
    cdef str reason                              # why it was stopped, if not by the user's wish

    # Worker processes.
    cdef readonly Py_ssize_t worker              # which this is; 0 is the caller
    cdef readonly Py_ssize_t num_processes       # beside the caller
    cdef public object workers                   # the caller's pufferlib_cy.processes.Workers
    cdef int64_t watched                         # when the caller last looked whether they live
    cdef uint32_t* mail                          # messages announced by all of them
    cdef uint32_t* masks                         # 1: an environment in one has given action masks
    cdef Py_ssize_t first_env                    # of this process
    cdef uint32_t mail_read                      # the caller: so many of them were read
    cdef uint32_t letters_read                   # a worker: so many of its letters were read
    cdef Py_ssize_t outbox                       # a worker: the shard to tell about, or -1
    cdef Py_ssize_t first_own, last_own          # [first, last) shards of this process
    cdef Py_ssize_t next_own                     # a worker: the shard to look at first

    def __init__(self, envs, counts, *, Py_ssize_t helpers, Py_ssize_t batch_size, int autoreset,
                 Py_ssize_t cores, share=None):
        cdef NativeEnv env, first = envs[0]
        self.envs = list(envs)
        self.owners = []
        firsts = [0, sum(counts)] if share is None else share.firsts
        self.worker = 0 if share is None else share.worker
        self.num_processes = len(firsts) - 2
        self.first_env = firsts[self.worker]
        self.num_helpers = helpers
        self.num_envs = firsts[self.num_processes + 1]
        self.agents_per_env = first.agents_per_env
        self.num_agents = self.num_envs * self.agents_per_env
        self.batch_size = batch_size
        self.autoreset = <Autoreset> autoreset
        for env, count in zip(envs, counts):
            env.allocate(count)
            if env is not first:
                env.check_kind(first.kind)
        groups, shards = divide(self.num_envs, batch_size, helpers + 1, firsts)
        if share is None:
            arrays = {name: aligned_zeros(shape, dtype) for name, (shape, dtype)
                      in layout(first, self.num_envs, len(shards), helpers).items()}
        else:
            arrays = share.arrays
        self.make_rows(first, arrays)
        self.make_shards(counts, groups, shards, arrays["shards"])

        words = self.own(arrays["words"])
        self.bell = <uint32_t*> address(words[0])
        self.mail = <uint32_t*> address(words[1])
        self.masks = <uint32_t*> address(words[2])
        words = self.own(aligned_zeros((2, CACHE_LINE // sizeof(uint32_t)), np.uint32))
        self.epoch = <uint32_t*> address(words[0])
        self.stopping = <uint32_t*> address(words[1])
        self.helpers = <Helper*> address(self.own(arrays["helpers"]))
        self.outbox = -1
        self.max_awake = min(helpers, cores - 1)
        self.cores = cores
        self.spin_ns = SPIN_NS if cores > 1 and helpers + self.num_processes > 0 else 0
        self.threads = [threading.Thread(target=self.serve, args=(i,), daemon=True,
                                         name=f"pufferlib_cy-{i + 1}") for i in range(helpers)]

    def start_threads(self):
        """Let the helpers begin, once somebody is sure to call `stop`."""
        for thread in self.threads:
            thread.start()

    def serve(self, Py_ssize_t index):
        """What a helper thread runs until `stop`."""
        self.num_serving += 1
        with nogil:
            self.help(index)
        self.num_serving -= 1
        if self.num_serving == 0 and self.waited:
            self.close_envs()

    cdef own(self, array):
        """Keep the array alive as long as the engine."""
        self.owners.append(array)
        return array

    cdef make_rows(self, NativeEnv env, arrays):
        """All arrays with rows first, and the pointers to them."""
        self.action_rows = ActionRows(env.action_tree, self.agents_per_env,
                                      arrays.get("discrete"), arrays.get("continuous"))
        self.attach_rows([arrays.get(name) for name in RING_NAMES])
        self.final_observations = arrays["final_observations"]
        self.live = arrays["live"]
        self.returns = arrays["returns"]
        self.lengths = arrays["lengths"]
        self.stats = arrays["stats"]
        self.finished = arrays["finished"]
        self.collected = self.finished
        if self.batch_size != self.num_envs:
            self.collected = aligned_zeros(self.finished.shape, np.float64)
        self.num_finished = self.finished.shape[1]
        self.ended = arrays["ended"]
        self.chosen = arrays["chosen"]
        self.selection = aligned_zeros(self.num_envs, np.int32)
        self.live_rows = <uint8_t*> address(self.live)
        self.ended_envs = <uint8_t*> address(self.ended)
        self.chosen_envs = <uint8_t*> address(self.chosen)
        self.finished_sums = <double*> address(self.finished)
        self.collected_sums = <double*> address(self.collected)

    cdef make_shards(self, counts, groups, shards, lines):
        """The groups and shards of `divide`, and the parts of this process's: the slices of a shard
        that belong to one NativeEnv. `lines` is the shards' memory, (num_shards, 64)."""
        cdef Py_ssize_t g, s, i, env_first, begin, end, row
        cdef NativeEnv env
        cdef Part* part
        cdef Slice* slice
        self.num_groups = len(groups)
        self.groups_per_batch = self.batch_size * self.num_groups // self.num_envs
        pieces, part_of_shard = [], [0]
        for begin, end, _ in shards:
            env_first = self.first_env
            for i, count in enumerate(counts):
                low, high = max(begin, env_first), min(end, env_first + count)
                if low < high:
                    pieces.append((i, low, low - env_first, high - low))
                env_first += count
            part_of_shard.append(len(pieces))

        self.num_shards = len(shards)
        self.shards = <Shard*> address(self.own(lines))
        own = [i for i, shard in enumerate(shards) if shard.worker == self.worker]
        self.first_own, self.last_own = (min(own), max(own) + 1) if own else (0, 0)
        self.next_own = self.first_own
        if self.worker == 0:                  # the caller's engine is the first to be made
            for i, shard in enumerate(shards):
                self.shards[i].worker = shard.worker
            for g, group in enumerate(groups):
                for i in range(group.first_shard, group.last_shard):
                    self.shards[i].group = g
        self.groups = <Group*> address(
            self.own(aligned_zeros((self.num_groups, sizeof(Group)), np.uint8)))
        self.parts = <Part*> address(
            self.own(aligned_zeros((len(pieces), sizeof(Part)), np.uint8)))
        self.part_of_shard = <Py_ssize_t*> address(self.own(np.array(part_of_shard, np.intp)))
        self.received = <Py_ssize_t*> address(
            self.own(np.zeros(self.groups_per_batch, np.intp)))
        self.spans = <Span*> address(
            self.own(aligned_zeros((self.groups_per_batch, sizeof(Span)), np.uint8)))
        self.queue = <Py_ssize_t*> address(self.own(np.zeros(self.num_groups, np.intp)))
        for g, (s, i, begin, end) in enumerate(groups):
            self.groups[g].first_shard, self.groups[g].last_shard = s, i
            self.groups[g].first_env, self.groups[g].last_env = begin, end
        for i, (index, begin, env_first, count) in enumerate(pieces):
            env = self.envs[index]
            part = &self.parts[i]
            row = begin * self.agents_per_env
            part.env = <void*> env
            part.first_row = row
            part.autoreset = self.autoreset
            part.live = self.live_rows + row
            part.ended = self.ended_envs + begin
            part.returns = <double*> address(self.returns) + row
            part.lengths = <int32_t*> address(self.lengths) + row
            part.finished = (<double*> address(self.finished)
                             + begin * (FINISHED + len(env.stat_names)))
            part.selection = <int32_t*> address(self.selection) + begin
            slice = &part.slice
            slice.count = count
            slice.agents = self.agents_per_env
            slice.state_size = env.state_size
            slice.lanes = env.lanes
            slice.states = env.states + env_first * env.state_size
            slice.rngs = env.rngs + env_first
            slice.observation_size = self.rings[OBSERVATIONS].row_size
            slice.observation_float = env.space_tree.flat_space.dtype == np.float32
            part.final_observations = (<char*> address(self.final_observations)
                                       + row * slice.observation_size)
            slice.heads = self.action_rows.heads
            slice.actions = self.action_rows.discrete_rows + row * slice.heads
            slice.values = self.action_rows.values
            slice.continuous_actions = self.action_rows.continuous_rows + row * slice.values
            slice.choices = env.action_choices
            slice.num_stats = len(env.stat_names)
            slice.stats = <double*> address(self.stats) + begin * slice.num_stats
            slice.first = env_first
            slice.lengths = part.lengths
            self.owners += make_rooms(slice, env.space_tree)

    cdef attach_rows(self, arrays):
        """Make the arrays the rings, in the order of RING_NAMES; None for absent action masks."""
        cdef Py_ssize_t i
        for i, array in enumerate(arrays):
            if array is None:
                self.rings[i] = Ring(NULL, 0, 0, 1)
                continue
            self.rings[i].base = <char*> address(array)
            self.rings[i].length = array.shape[0]
            self.rings[i].slot_size = array.strides[0]
            self.rings[i].row_size = array[0, 0].nbytes
        self.rows = tuple(arrays)

    def attach(self, **arrays):
        """Write rows into the caller's memory, from the next full reset on.

        Each array is C-contiguous and writable, (slots, N, ...) of the dtype and shape that the
        engine's own has. Observations, masks and action masks go round their slots starting with
        slot 0 at reset; rewards, terminations and truncations with slot 0 at the first step. In
        staggered use each group counts its own steps. What is not given stays in memory of the
        engine's own. The arrays are kept alive; that of observations is cleared.
        """
        self.check_open()
        if self.num_out:
            raise AlreadyPendingCallError(
                "attach while a step is under way: call recv first; in staggered use attach before "
                "the first reset, or hold every batch", "attach")
        rows = list(self.rows)
        for name, array in arrays.items():
            if name not in RING_NAMES or rows[RING_NAMES.index(name)] is None:
                raise ValueError(f"no rows named {name!r} to attach: "
                                 f"{', '.join(RING_NAMES)} are, where they exist")
            own = rows[RING_NAMES.index(name)]
            if (not isinstance(array, np.ndarray) or array.dtype != own.dtype
                    or array.shape[1:] != own.shape[1:] or not len(array)
                    or not array.flags.c_contiguous or not array.flags.writeable):
                raise ValueError(
                    f"{name}: expected a C-contiguous, writable {own.dtype} array of shape (slots, "
                    f"{', '.join(map(str, own.shape[1:]))}), got {describe(array)}")
            rows[RING_NAMES.index(name)] = array
        if self.workers is not None:
            self.workers.attach(arrays)   # raises for memory that they do not share
        if "observations" in arrays:
            arrays["observations"][...] = 0   # padding of nested ones is never written
        self.attach_rows(rows)
        self.attached = True
        self.phase = FRESH

    def follow(self, arrays):
        """A worker process's `attach`: the caller's engine has found the arrays good."""
        rows = dict(zip(RING_NAMES, self.rows), **arrays)
        self.attach_rows([rows[name] for name in RING_NAMES])

    # ---- what the vector environment calls -------------------------------------------------------

    def seed(self, seeds):
        """Start random streams anew: E integers in [0, 2**64), None where one is to go on."""
        cdef NativeEnv env
        cdef Py_ssize_t first = 0
        for env in self.envs:
            env.seed(seeds[first:first + env.num_envs])
            first += env.num_envs
        self.seeded = True

    @property
    def is_seeded(self):
        return self.seeded

    def prepare(self, options, selected):
        """Tell the environments the options of the next reset, of the selected ones (None: all)."""
        cdef NativeEnv env
        cdef Py_ssize_t first = 0
        for env in self.envs:
            env.prepare(options, None if selected is None
                        else selected[first:first + env.num_envs])
            first += env.num_envs

    def take_infos(self):
        """What the last batch said beside the rows: (environment, ended, info) in their order; and
        then forget it. An environment that reset in a step has two, that of the reset last."""
        entries = []
        for begin, end, _ in self.batch():
            entries += self.infos_of(begin, end)
        if self.workers is not None:
            for i in range(self.groups_per_batch):
                entries += self.workers.infos_of(self.groups[self.received[i]].first_shard,
                                                 self.groups[self.received[i]].last_shard)
        return entries

    cdef list infos_of(self, Py_ssize_t begin, Py_ssize_t end):
        """Those of this process's environments that are in [begin, end)."""
        cdef NativeEnv env
        cdef Py_ssize_t low, high, first = self.first_env
        cdef list entries = []
        for env in self.envs:
            low, high = max(begin, first), min(end, first + env.num_envs)
            if low < high:
                entries += [(first + i, ended, info)
                            for i, ended, info in env.take_infos(low - first, high - first)]
            first += env.num_envs
        return entries

    def recall(self, double timeout=-1.0):
        """Before a reset: wait for what nobody will receive, and forget it.

        In staggered use that is all but the last batch; it may take `timeout` seconds for each.
        """
        self.check_open()
        if self.pending:
            raise AlreadyPendingCallError("reset while a batch is under way: call recv first",
                                          "reset")
        while self.num_out:
            self.await_groups(1, timeout)
            self.discard()
        if self.workers is not None:
            self.watch(timeout)
            self.workers.forget()

    def send_reset(self):
        """Begin a new episode in every environment; `recv` gives the first observations."""
        cdef Py_ssize_t g
        self.recall()
        with nogil:
            for g in range(self.num_groups):
                self.groups[g].steps = 0
                self.groups[g].held = False
                self.start(g, RESET, False)
            self.call_helpers()
        self.phase = SENT

    def send_reset_some(self, selected):
        """In synchronous use: begin a new episode where `selected`, bool (E,), is True; the others
        stay as they are. `recv` waits until it is done."""
        self.recall()
        self.chosen[:] = selected
        with nogil:
            self.start(0, RESET, True)
            self.call_helpers()
        self.phase = SENT

    def send(self, actions):
        """Check the actions of the last batch and begin to step its environments.

        actions: (rows of the batch,) or (rows, heads) integers, (rows, *Box shape) floats.
        Raises InvalidAction, ResetNeeded or AlreadyPendingCallError; then nothing is stepped.
        """
        cdef Py_ssize_t i, g
        self.check_open()
        if self.phase == FRESH:
            raise ResetNeeded("step before reset: call reset (or async_reset and recv) first")
        if self.phase == SENT:
            raise AlreadyPendingCallError(
                "actions were sent twice: call recv before the next send", "send")
        self.action_rows.load(actions, self.spans, self.groups_per_batch, self.live_rows)
        if self.autoreset == DISABLED:
            for i in range(self.groups_per_batch):
                self.check_ended(&self.groups[self.received[i]])
        with nogil:
            for i in range(self.groups_per_batch):
                g = self.received[i]
                self.groups[g].steps += 1
                self.start(g, STEP, False)
            self.call_helpers()
        self.phase = SENT

    def recv(self, double timeout=-1.0):
        """Wait until a batch is home, `timeout` seconds at most (< 0: for ever); work meanwhile.

        Raises TimeoutError (the batch may be asked for again), NoAsyncCallError, and
        ContractError. `batch` tells which environments came.
        """
        self.check_open()
        if self.phase == FRESH:
            raise NoAsyncCallError("recv before anything was sent: call async_reset first", "recv")
        if self.phase == RECEIVED:
            raise NoAsyncCallError(
                "recv twice for one send: call send with the last batch's actions first, or hold",
                "recv")
        if self.num_out < self.groups_per_batch:
            raise NoAsyncCallError(
                "recv with so many environments held that no batch is under way: call release "
                "first", "recv")
        self.await_groups(self.groups_per_batch, timeout)
        with nogil:
            self.take_batch()
        self.phase = RECEIVED
        if self.workers is not None:
            self.watch(timeout)           # not before: groups may have come home since
        self.check_faults()

    def hold(self):
        """Keep the last batch, unanswered: recv gives others, until `release`.

        Raises NoAsyncCallError if there is none.
        """
        cdef Py_ssize_t i
        self.check_open()
        if self.phase != RECEIVED:
            raise NoAsyncCallError("hold without a batch: call recv first", "hold")
        for i in range(self.groups_per_batch):
            self.groups[self.received[i]].held = True
        self.phase = SENT

    def release(self):
        """Let recv give what is held once more, as it stands, in the order of environments."""
        cdef Py_ssize_t g
        self.check_open()
        for g in range(self.num_groups):
            if self.groups[g].held:
                self.groups[g].held = False
                self.groups[g].sent = atomic.now()
                self.queue_up(g)

    cdef await_groups(self, Py_ssize_t count, double timeout):
        """Return when so many of the groups under way are home; work meanwhile. See `recv`.

        Mail of those that are home may be unread, see `watch`.
        """
        cdef int64_t began = 0
        cdef bint arrived
        while True:
            with nogil:
                arrived = self.wait(count)
            if arrived:
                return
            if self.workers is not None:
                self.watch(timeout)
            PyErr_CheckSignals()
            self.check_open()             # another thread may have refused to go on
            if began == 0:                # after its own work and a nap: most calls need no clock
                began = atomic.now()
            elif timeout >= 0 and atomic.now() - began > <int64_t> (timeout * 1e9):
                raise TimeoutError(f"no batch of {self.batch_size} environments was ready within "
                                   f"{timeout:g} s; it is still under way: call recv again, or "
                                   "close")

    # ---- worker processes ------------------------------------------------------------------------

    cdef watch(self, double timeout):
        """The caller: read what worker processes sent, at least all about the shards that are home
        now, and look now and then if all are well; raise whatever is wrong."""
        cdef uint32_t announced = atomic.load_seq_cst(self.mail)
        cdef int64_t now = atomic.now()
        if announced != self.mail_read:
            self.workers.read()
            self.mail_read = announced
        if now - self.watched > PARK_NS:
            self.watched = now
            self.workers.look(timeout)

    def announce(self, Py_ssize_t worker):
        """The caller: tell a worker process that a letter is coming."""
        atomic.add_seq_cst(&self.helpers[worker - 1].letters, 1)
        self.call_process(worker)

    def announced(self, Py_ssize_t worker):
        """The caller: how many messages a worker process has sent or is about to; wraps at 2**32.
        """
        return atomic.load_seq_cst(&self.helpers[worker - 1].mail)

    def late(self):
        """Seconds since the oldest group under way was sent, and the workers it waits for."""
        cdef Py_ssize_t i
        cdef Group* group
        if not self.num_out:
            return 0.0, []
        group = &self.groups[self.queue[0]]
        return (atomic.now() - group.sent) * 1e-9, [
            self.shards[i].worker for i in range(group.first_shard, group.last_shard)
            if atomic.load_seq_cst(&self.shards[i].flag) != CALLER]

    def attend(self):
        """A worker process: step shards until there is something to read or to tell.

        Returns None when a letter has come; else the shard that a message is announced about.
        """
        cdef Errand errand
        with nogil:
            errand = self.serve_process()
        if errand == LETTER:
            self.letters_read += 1
            return None
        shard = self.outbox
        self.outbox = -1
        return shard

    def news_of(self, Py_ssize_t i):
        """A worker process: raise for the first fault in a shard, or give its infos."""
        self.check_parts(self.part_of_shard[i], self.part_of_shard[i + 1])
        begin = self.parts[self.part_of_shard[i]].first_row // self.agents_per_env
        count = sum([self.parts[s].slice.count
                     for s in range(self.part_of_shard[i], self.part_of_shard[i + 1])])
        return self.infos_of(begin, begin + count)

    def step(self, actions, double timeout=-1.0):
        """send and recv in one, for synchronous use."""
        if self.num_groups > 1:
            raise ValueError(f"step: with batch_size={self.batch_size} of {self.num_envs} "
                             "environments use async_reset, then recv and send in turn")
        self.send(actions)
        self.recv(timeout)

    @property
    def masks_given(self):
        """An environment has said which actions are legal."""
        return (any(env.masks_given for env in self.envs)
                or atomic.load_acquire(self.masks) != 0)

    @property
    def steps(self):
        """Steps since the last full reset (of the first group)."""
        return self.groups[0].steps

    def batch(self):
        """The groups of the last batch: [(first environment, last + 1, steps), ...]."""
        return [(self.groups[self.received[i]].first_env, self.groups[self.received[i]].last_env,
                 self.groups[self.received[i]].steps) for i in range(self.groups_per_batch)]

    @property
    def pending(self):
        """True between send and recv, unless all is held, or it was stopped in between."""
        return (self.phase == SENT and self.num_out > 0
                and not atomic.load_acquire(self.stopping))

    @property
    def fresh(self):
        """True before the first reset."""
        return self.phase == FRESH

    def refuse(self, reason=None):
        """Refuse further use; `reason`, a str, is told to whoever tries."""
        if reason is not None and not self.reason:
            self.reason = reason
        atomic.store_seq_cst(self.stopping, 1)

    def stop(self, reason=None):
        """End the helper threads, close the environments and refuse further use. May be called at
        any time, and twice. `reason`: see `refuse`.

        A thread cannot be ended from outside: one that is still busy after LEAVE_NS is left behind.
        The environments are then closed by the last of them, if it ever ends.
        """
        cdef Py_ssize_t i
        cdef int64_t limit = atomic.now() + LEAVE_NS
        self.refuse(reason)
        atomic.add_seq_cst(self.epoch, 1)
        for i in range(self.num_helpers):
            atomic.store_seq_cst(&self.helpers[i].asleep, 0)
            atomic.wake(&self.helpers[i].asleep, 1)
        for thread in self.threads:
            if thread.ident is not None:       # was started
                thread.join(max(limit - atomic.now(), 0) * 1e-9)
        self.waited = True
        if self.num_serving == 0:
            self.close_envs()

    cdef close_envs(self):
        """Once, and all of them, even if one raises."""
        if self.closed:
            return
        self.closed = True
        with contextlib.ExitStack() as closing:
            for env in self.envs:
                closing.callback(env.close)

    def check_open(self):
        """Raise ClosedEnvironmentError, with the reason, after `refuse` or `stop`."""
        if atomic.load_acquire(self.stopping):
            because = f" (since {self.reason})" if self.reason else ""
            raise ClosedEnvironmentError(
                f"this vector environment is closed{because}: make a new one")

    cdef check_ended(self, Group* group):
        """Under DISABLED: no environment may be stepped whose episode is over."""
        cdef Py_ssize_t e
        for e in range(group.first_env, group.last_env):
            if self.ended_envs[e]:
                raise ResetNeeded(
                    f"environment {e} has ended and autoreset is disabled: reset it first with "
                    'reset(options={"reset_mask": mask}), mask a bool array (num_envs,)')

    cdef check_faults(self):
        """Raise for the first fault in the last batch."""
        cdef Py_ssize_t i
        cdef Group* group
        try:
            for i in range(self.groups_per_batch):
                group = &self.groups[self.received[i]]
                self.check_parts(self.part_of_shard[group.first_shard],
                                 self.part_of_shard[group.last_shard])
        except BaseException as error:
            stop = self.stop if self.workers is None else self.workers.stop
            if self.workers is not None or not isinstance(error, ContractError):
                with contextlib.suppress(Exception):     # the first error is the one to tell
                    stop(f"{error}".partition("\n")[0] or type(error).__name__)
            raise

    cdef check_parts(self, Py_ssize_t first, Py_ssize_t last):
        """Raise for the first fault in the parts [first, last)."""
        cdef Py_ssize_t s
        cdef Slice* slice
        cdef NativeEnv env
        for s in range(first, last):
            slice = &self.parts[s].slice
            if slice.fault == NO_FAULT:
                continue
            env = <NativeEnv> self.parts[s].env
            e = self.parts[s].first_row // self.agents_per_env + slice.fault_environment
            fault, slice.fault = slice.fault, NO_FAULT
            if fault == RAISED:
                raise_fault(e, env.take_error())
            words = FAULTS[fault]
            if fault == ARITHMETIC:
                words = words.format(kind=slice.mistake.kind.decode(),
                                     file=slice.mistake.file.decode(), line=slice.mistake.line)
            raise ContractError(f"{type(env).__name__}, environment {e}, agent slot "
                                f"{slice.fault_agent}: {words}")

    # ---- HOT PATH: from here on everything is typed, without the GIL and without allocation ------

    cdef void start(self, Py_ssize_t g, Command command, bint some) noexcept nogil:
        """Hand the shards of a group over; `some`: the command is for `chosen` environments."""
        cdef Group* group = &self.groups[g]
        cdef Shard* shard
        cdef Py_ssize_t i
        if not group.out:
            self.queue_up(g)
        if self.num_processes:
            group.sent = atomic.now()
        for i in range(group.first_shard, group.last_shard):
            shard = &self.shards[i]
            shard.command = command
            shard.some = some
            shard.steps = group.steps
            # Whoever reads READY, or a later value, also sees all that was written above.
            atomic.store_seq_cst(&shard.flag, READY)
            if shard.worker:
                self.call_process(shard.worker)

    cdef void queue_up(self, Py_ssize_t g) noexcept nogil:
        """The group is under way: the last of those that are."""
        self.groups[g].out = True
        self.queue[self.num_out] = g
        self.num_out += 1

    cdef void call_process(self, Py_ssize_t worker) noexcept nogil:
        """Tell a worker process that there is something to do for it; as `call_helpers`."""
        cdef Helper* helper = &self.helpers[worker - 1]
        atomic.add_seq_cst(&helper.epoch, 1)
        if atomic.load_seq_cst(&helper.asleep) and atomic.exchange_seq_cst(&helper.asleep, 0):
            atomic.wake(&helper.asleep, 1)

    cdef void call_helpers(self) noexcept nogil:
        """Tell the helpers that shards are READY; wake as many as there are cores for.

        A helper that is awake sees the new epoch. One that sleeps has written `asleep` before it
        looked at the epoch a last time, and we write the epoch before we look at `asleep`: so
        either it sees the new epoch, or we see it sleep.
        """
        cdef Py_ssize_t i, awake = 0
        if self.max_awake <= 0:
            return
        atomic.add_seq_cst(self.epoch, 1)
        for i in range(self.num_helpers):
            awake += atomic.load_seq_cst(&self.helpers[i].asleep) == 0
        for i in range(self.num_helpers):
            if awake >= self.max_awake:
                return
            if atomic.exchange_seq_cst(&self.helpers[i].asleep, 0):
                atomic.wake(&self.helpers[i].asleep, 1)
                awake += 1

    cdef bint claim(self, Py_ssize_t i) noexcept nogil:
        """Step shard i if it is READY; the exchange lets only one thread do so."""
        cdef Shard* shard = &self.shards[i]
        cdef Slice* slice
        if (shard.worker != <uint32_t> self.worker or atomic.load_acquire(&shard.flag) != READY
                or not atomic.compare_exchange_seq_cst(&shard.flag, READY, TAKEN)):
            return False
        cdef Py_ssize_t s
        for s in range(self.part_of_shard[i], self.part_of_shard[i + 1]):
            slice = &self.parts[s].slice
            self.point(&self.parts[s], shard)
            if shard.command == STEP:
                step_part(&self.parts[s])
            else:
                reset_part(&self.parts[s])
            if self.worker:
                if slice.fault != NO_FAULT or (<NativeEnv> self.parts[s].env).num_infos:
                    self.outbox = i
                if (<NativeEnv> self.parts[s].env).masks_given:
                    atomic.store_seq_cst(self.masks, 1)
        if self.outbox >= 0:              # before the flag: whoever sees that, also sees these
            atomic.add_seq_cst(&self.helpers[self.worker - 1].mail, 1)
            atomic.add_seq_cst(self.mail, 1)
        atomic.store_seq_cst(&shard.flag, CALLER)
        return True

    cdef void point(self, Part* part, Shard* shard) noexcept nogil:
        """Point the slice of a part at the rows of its shard's next step."""
        cdef Slice* slice = &part.slice
        cdef uint64_t seen = shard.steps
        cdef Py_ssize_t row = part.first_row
        slice.command = <Command> shard.command
        part.chosen = self.chosen_envs + row // slice.agents if shard.some else NULL
        slice.observations = ring_rows(&self.rings[OBSERVATIONS], seen, row)
        slice.masks = <uint8_t*> ring_rows(&self.rings[MASKS], seen, row)
        slice.action_masks = <uint8_t*> ring_rows(&self.rings[ACTION_MASKS], seen, row)
        slice.rewards = <float*> outcome_rows(&self.rings[REWARDS], seen, row)
        slice.terminations = <uint8_t*> outcome_rows(&self.rings[TERMINATIONS], seen, row)
        slice.truncations = <uint8_t*> outcome_rows(&self.rings[TRUNCATIONS], seen, row)

    cdef void help(self, Py_ssize_t index) noexcept nogil:
        """A helper's life: step what is READY; spin a while; sleep until the next epoch."""
        cdef Py_ssize_t i, home = self.num_shards * (index + 1) // (self.num_helpers + 1)
        # Those for whom there is no core sleep at once: spinning they would hold up the others.
        cdef int64_t spin_ns = self.spin_ns if index < self.max_awake else 0
        cdef uint32_t epoch
        cdef bint worked
        while True:
            # Read before the flags: a shard made READY after we looked comes with a later epoch.
            epoch = atomic.load_seq_cst(self.epoch)
            if atomic.load_acquire(self.stopping):
                return
            worked = False
            for i in range(self.num_shards):
                if self.claim((home + i) % self.num_shards):
                    worked = True
                    self.ring_bell((home + i) % self.num_shards)
            if not worked:
                rest(self.epoch, epoch, &self.helpers[index].asleep, spin_ns)

    cdef Errand serve_process(self) noexcept nogil:
        """A worker process's `help`: its own shards in turn, until there is an errand."""
        cdef Helper* me = &self.helpers[self.worker - 1]
        cdef Py_ssize_t i, own = self.last_own - self.first_own
        cdef uint32_t epoch
        cdef bint worked
        while True:
            epoch = atomic.load_seq_cst(&me.epoch)
            if atomic.load_acquire(&me.letters) != self.letters_read:
                return LETTER
            worked = False
            for _ in range(own):
                i = self.next_own
                self.next_own = i + 1 if i + 1 < self.last_own else self.first_own
                if self.claim(i):
                    worked = True
                    self.ring_bell(i)
                    if self.outbox >= 0:
                        return MAIL
            if not worked:
                rest(&me.epoch, epoch, &me.asleep, self.spin_time())

    cdef int64_t spin_time(self) noexcept nogil:
        """How long who has nothing to do spins: not at all where worker processes that are awake,
        and the caller, have more than all cores without that."""
        cdef Py_ssize_t i, awake = 1
        for i in range(self.num_processes):
            awake += atomic.load_acquire(&self.helpers[i].asleep) == 0
        return self.spin_ns if awake <= self.cores else 0

    cdef void ring_bell(self, Py_ssize_t i) noexcept nogil:
        """After shard i is home: wake the caller if it sleeps, and has something to wake for.

        That is mail, or a group that is home; who brings the last shard home sees that it is. The
        shard's flag was written before we look at the bell, and the caller writes the bell before
        it looks at the flags a last time: so either it sees the flag, or we see the bell.
        """
        if self.outbox < 0 and not self.is_home(self.shards[i].group):
            return
        if atomic.load_seq_cst(self.bell) and atomic.exchange_seq_cst(self.bell, 0):
            atomic.wake(self.bell, 1)

    cdef bint is_home(self, Py_ssize_t g) noexcept nogil:
        """All shards of the group belong to the caller."""
        cdef Py_ssize_t i
        for i in range(self.groups[g].first_shard, self.groups[g].last_shard):
            if atomic.load_seq_cst(&self.shards[i].flag) != CALLER:
                return False
        return True

    cdef Py_ssize_t count_home(self, Py_ssize_t most) noexcept nogil:
        """Groups sent that are ready to be received; counts no further than `most`."""
        cdef Py_ssize_t q, count = 0
        for q in range(self.num_out):
            count += self.is_home(self.queue[q])
            if count == most:
                break
        return count

    cdef bint work(self) noexcept nogil:
        """The caller steps the READY shards of the oldest group that has some; False: none has."""
        cdef Py_ssize_t q, i
        cdef bint worked = False
        for q in range(self.num_out):
            for i in range(self.groups[self.queue[q]].first_shard,
                           self.groups[self.queue[q]].last_shard):
                worked |= self.claim(i)
            if worked:
                return True
        return False

    cdef bint wait(self, Py_ssize_t count) noexcept nogil:
        """Work, spin, then sleep until `count` groups are home; False: look for signals and mail,
        and come again."""
        cdef int64_t limit = 0
        cdef uint32_t turns = 0
        while self.count_home(count) < count:
            if self.work():
                continue
            if atomic.load_acquire(self.mail) != self.mail_read:
                return False
            if turns == 0:
                limit = atomic.now() + self.spin_time()
            turns += 1
            if turns % SPIN_TURNS == 0 and atomic.now() > limit:
                break
            atomic.pause()
        else:
            return True
        atomic.store_seq_cst(self.bell, 1)
        if self.count_home(count) < count and atomic.load_seq_cst(self.mail) == self.mail_read:
            atomic.park(self.bell, 1, PARK_NS)
        atomic.store_seq_cst(self.bell, 0)
        return self.count_home(count) == count

    cdef void discard(self) noexcept nogil:
        """Forget the groups that are home."""
        cdef Py_ssize_t q, kept = 0, g
        for q in range(self.num_out):
            g = self.queue[q]
            if self.is_home(g):
                self.groups[g].out = False
            else:
                self.queue[kept] = g
                kept += 1
        self.num_out = kept

    cdef void take_batch(self) noexcept nogil:
        """Move the oldest groups that are home from the queue to `received`."""
        cdef Py_ssize_t q, kept = 0, taken = 0, g
        for q in range(self.num_out):
            g = self.queue[q]
            if taken < self.groups_per_batch and self.is_home(g):
                self.received[taken] = g
                self.spans[taken].first = self.groups[g].first_env * self.agents_per_env
                self.spans[taken].count = (self.groups[g].last_env * self.agents_per_env
                                           - self.spans[taken].first)
                self.groups[g].out = False
                if self.num_groups > 1:
                    self.collect(g)
                taken += 1
            else:
                self.queue[kept] = g
                kept += 1
        self.num_out = kept

    cdef void collect(self, Py_ssize_t g) noexcept nogil:
        """In staggered use: move what a group has finished to where the caller may read it while
        the others are stepped; the group is home, and so are its rows of `finished`."""
        cdef Py_ssize_t columns = self.num_finished, i
        cdef double* finished = self.finished_sums
        cdef double* collected = self.collected_sums
        for i in range(self.groups[g].first_env * columns, self.groups[g].last_env * columns):
            collected[i] += finished[i]
            finished[i] = 0.0


cdef void rest(uint32_t* epoch, uint32_t seen, uint32_t* asleep, int64_t spin_ns) noexcept nogil:
    """Spin a while, then sleep, until the epoch is no longer the one `seen`."""
    cdef int64_t limit = atomic.now() + spin_ns
    cdef uint32_t turns = 0
    while atomic.load_acquire(epoch) == seen:
        turns += 1
        if turns % SPIN_TURNS == 0 and atomic.now() > limit:
            break
        atomic.pause()
    else:
        return
    atomic.store_seq_cst(asleep, 1)
    if atomic.load_seq_cst(epoch) == seen:
        atomic.park(asleep, 1, HELPER_PARK_NS)
    atomic.store_seq_cst(asleep, 0)


cdef inline char* ring_rows(Ring* ring, uint64_t step, Py_ssize_t row) noexcept nogil:
    """Where the row stands in the slot of a step."""
    return ring.base + (step % ring.length) * ring.slot_size + row * ring.row_size


cdef inline char* outcome_rows(Ring* ring, uint64_t step, Py_ssize_t row) noexcept nogil:
    """The same for what an action caused: step k fills slot k - 1; a reset, the last one."""
    return ring_rows(ring, step + ring.length - 1, row)
