"""Episodes: what follows for the rows of some environments when they step, end and begin again.

The environment says what happens by the rules of its game; here is what autoreset, the masks of
live agents, last observations and statistics make of it. Who steps which environments, and when,
is in ``_engine.pyx``. All of it is hot path: without the GIL and without allocation.
"""

from libc.stdint cimport int32_t, uint8_t, uint64_t
from libc.string cimport memchr, memcpy, memset

from pufferlib_cy._core cimport (
    ByteLane, DoubleLane, IntLane, LaneLoop, NativeEnv, RESET, STEP, Slice,
)


cdef void clear_outcome(Slice* slice) noexcept nogil:
    """Nothing has happened yet: what a step only adds to."""
    cdef Py_ssize_t rows = slice.count * slice.agents
    memset(slice.rewards, 0, rows * sizeof(float))
    memset(slice.terminations, 0, rows)
    memset(slice.truncations, 0, rows)


cdef void step_part(Part* part) noexcept nogil:
    """One step of every environment, and what autoreset says about those that end."""
    cdef Slice* slice = &part.slice
    cdef Py_ssize_t rows = slice.count * slice.agents
    clear_outcome(slice)
    memcpy(slice.masks, part.live, rows)
    if slice.choices:
        memset(slice.action_masks, 1, rows * slice.choices)
    select_all(slice)
    if part.autoreset == NEXT_STEP and memchr(part.ended, OVER, slice.count) != NULL:
        select_where(part, part.ended, OVER)
        reset_selected(part, RESTARTED)
        select_where(part, part.ended, RUNNING)
    slice.command = STEP
    (<NativeEnv> part.env).run(slice)
    if finish_steps(part) and part.autoreset == SAME_STEP:
        reset_selected(part, RUNNING)


cdef void reset_part(Part* part) noexcept nogil:
    """A new episode in every environment, or where the caller selected."""
    cdef Slice* slice = &part.slice
    if part.chosen == NULL:
        clear_outcome(slice)
        memset(part.ended, OVER, slice.count)
        select_where(part, part.ended, OVER)
    else:
        select_where(part, part.chosen, True)
    reset_selected(part, RUNNING)


cdef void select_all(Slice* slice) noexcept nogil:
    """The next call is about every environment."""
    slice.selected, slice.num_selected = NULL, slice.count


cdef void select_where(Part* part, const uint8_t* flags, uint8_t wanted) noexcept nogil:
    """The next call is about the environments whose flag, (count,), is `wanted`.

    Without a branch that depends on a flag, since which environments end is nothing that a
    processor could guess: first note the eights of flags that have some, then look into those.
    """
    cdef int32_t* selection = part.selection
    cdef Py_ssize_t e, i, first, found = 0, noted = 0, count = part.slice.count
    # In the same room, behind all that is found among the eights before: no note is lost unread.
    cdef int32_t* notes = selection + count - count // 8
    cdef uint64_t ones = 0x0101010101010101ULL, eight
    for first in range(0, count - 7, 8):
        memcpy(&eight, flags + first, 8)
        eight ^= ones * wanted                       # a flag that is wanted becomes a zero byte
        notes[noted] = <int32_t> first
        noted += ((eight - ones) & ~eight & (ones << 7)) != 0
    for i in range(noted):
        first = notes[i]
        for e in range(first, first + 8):
            selection[found] = <int32_t> e
            found += flags[e] == wanted
    for e in range(count - count % 8, count):
        selection[found] = <int32_t> e
        found += flags[e] == wanted
    part.slice.selected, part.slice.num_selected = selection, found


cdef void reset_selected(Part* part, Ended after) noexcept nogil:
    """A new episode in the selected environments; their `ended` becomes `after`."""
    cdef Slice* slice = &part.slice
    cdef bint in_step = slice.command == STEP
    cdef Py_ssize_t i, e, n
    for i in range(slice.num_selected):
        e = slice.selected[i]
        for n in range(e * slice.agents, (e + 1) * slice.agents):
            slice.masks[n] = 1           # every slot is live unless the environment says otherwise
            part.returns[n] = 0.0
            part.lengths[n] = 0
        if slice.num_stats:
            memset(slice.stats + e * slice.num_stats, 0, slice.num_stats * sizeof(double))
        if slice.choices:
            memset(slice.action_masks + e * slice.agents * slice.choices, 1,
                   slice.agents * slice.choices)
    slice.command = RESET
    (<NativeEnv> part.env).run(slice)
    for i in range(slice.num_selected):
        e = slice.selected[i]
        for n in range(e * slice.agents, (e + 1) * slice.agents):
            part.live[n] = slice.masks[n]
            if not part.live[n]:
                clear_observation(slice, n)
            # The row also reports the end of the old episode: that keeps it unmasked.
            if in_step:
                slice.masks[n] |= slice.terminations[n] | slice.truncations[n]
        part.ended[e] = after


cdef bint finish_steps(Part* part) noexcept nogil:
    """Statistics and ends after a step. True if environments' episodes are over: `selected`."""
    cdef Slice* slice = &part.slice
    cdef Py_ssize_t e, i
    cdef bint over = False
    if slice.agents > 1:
        for e in range(slice.count):
            if part.ended[e] == RESTARTED:
                part.ended[e] = RUNNING
            elif finish_agents(part, e):
                over = True
    else:
        finish_lanes(slice.count, slice.rewards, slice.terminations, slice.truncations,
                     part.returns, part.lengths, part.ended, &over)
    if not over:
        return False
    select_where(part, part.ended, OVER)
    for i in range(slice.num_selected):
        e = slice.selected[i]
        if slice.agents == 1:
            end_agent(part, e, e)
        end_environment(part, e)
    return True


cdef LaneLoop finish_lanes(Py_ssize_t count, const float* rewards, const uint8_t* terminations,
                           const uint8_t* truncations, DoubleLane returns, IntLane lengths,
                           ByteLane ended, bint* over) noexcept nogil:
    """One agent each, and live. `over` if the episode of one is."""
    cdef Py_ssize_t e
    cdef uint8_t some = 0
    for e in range(count):
        returns[e] += rewards[e]
    for e in range(count):
        lengths[e] += ended[e] != RESTARTED
    for e in range(count):
        ended[e] = (terminations[e] | truncations[e]) != 0
        some |= ended[e]
    over[0] = some


cdef bint finish_agents(Part* part, Py_ssize_t e) noexcept nogil:
    """The agents of environment e after its step. True, and `ended`, if none is left."""
    cdef Slice* slice = &part.slice
    cdef Py_ssize_t n
    cdef bint over = True
    for n in range(e * slice.agents, (e + 1) * slice.agents):
        if not slice.masks[n]:
            slice.rewards[n] = 0.0
            slice.terminations[n] = slice.truncations[n] = part.live[n] = 0
            clear_observation(slice, n)
            continue
        if part.live[n]:
            part.returns[n] += slice.rewards[n]
            part.lengths[n] += 1
        else:                            # born in this step
            part.returns[n] = slice.rewards[n]
            part.lengths[n] = 0
        part.live[n] = 1
        if slice.terminations[n] | slice.truncations[n]:
            end_agent(part, e, n)
        else:
            over = False
    part.ended[e] = OVER if over else RUNNING
    return over


cdef void end_agent(Part* part, Py_ssize_t e, Py_ssize_t n) noexcept nogil:
    """The episode of row n, of environment e, ended: keep its last observation and statistics."""
    cdef Slice* slice = &part.slice
    cdef double* finished = part.finished + e * (FINISHED + slice.num_stats)
    memcpy(part.final_observations + n * slice.observation_size,
           slice.observations + n * slice.observation_size, slice.observation_size)
    finished[0] += 1.0
    finished[1] += part.returns[n]
    finished[2] += part.lengths[n]
    part.live[n] = 0


cdef void end_environment(Part* part, Py_ssize_t e) noexcept nogil:
    """No agent is left: keep the environment's own statistics."""
    cdef Slice* slice = &part.slice
    cdef double* finished = part.finished + e * (FINISHED + slice.num_stats)
    cdef size_t i
    finished[3] += 1.0
    for i in range(slice.num_stats):
        finished[FINISHED + i] += slice.stats[e * slice.num_stats + i]


cdef void clear_observation(Slice* slice, Py_ssize_t n) noexcept nogil:
    """A slot without a live agent shows zeros."""
    memset(slice.observations + n * slice.observation_size, 0, slice.observation_size)
