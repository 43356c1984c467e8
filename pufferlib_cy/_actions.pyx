"""Actions on their way in: checked against their space, converted to one type, never half.

Whatever integers or floats the caller has, contiguous or not, become int32 or float32 rows; what is
not in the space is refused, naming the row, before anything is stepped.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_STRIDES, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer,
)
from libc.limits cimport INT_MAX
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from pufferlib_cy._core cimport IntLane, LaneLoop

import numpy as np
from gymnasium.error import InvalidAction
from gymnasium.spaces import Tuple

from pufferlib_cy.arrays import describe

cdef enum:
    GOOD = -1                 # every live row is in the space
    UNKNOWN_TYPE = -2


cdef as_array(actions, str name):
    """Actions that are not a buffer (a torch tensor, a list) as a NumPy array."""
    try:
        return np.asarray(actions)
    except Exception as error:
        raise InvalidAction(f"{name}: expected an array, got {describe(actions)}: {error}") \
            from error


@cython.final
cdef class ActionRows:
    """The actions of N rows of the spaces that `tree.flat_space` can be.

    They are kept in `discrete`, int32 (N, heads), and `continuous`, float32 (N, values); None where
    there are none. Raises ValueError for actions too large for the fast checks of int32.
    """

    def __init__(self, ActionTree tree, Py_ssize_t agents_per_env, discrete, continuous):
        space = tree.flat_space
        self.agents_per_env = agents_per_env
        self.owners = []
        self.heads, self.values = tree.heads, tree.values
        self.discrete_space, self.continuous_space = (
            space.spaces if isinstance(space, Tuple) else (space, space))
        self.discrete, self.continuous = discrete, continuous
        if self.heads:
            if (tree.starts + tree.sizes).max() > INT_MAX or tree.starts.min() < -INT_MAX:
                raise ValueError(f"actions are int32, too narrow for {self.discrete_space}")
            self.discrete_rows = <int32_t*> address(discrete)
            self.starts = <const int32_t*> self.own(tree.starts.astype(np.int32))
            self.sizes = <const uint32_t*> self.own(tree.sizes.astype(np.uint32))
        if self.values:
            self.continuous_rows = <float*> address(continuous)
            self.lows = <const float*> self.own(tree.lows)
            self.highs = <const float*> self.own(tree.highs)

    cdef void* own(self, array) except NULL:
        """Keep the array alive; its address."""
        self.owners.append(array)
        return address(array)

    cdef load(self, actions, const Span* spans, Py_ssize_t num_spans, const uint8_t* live):
        if not (self.heads and self.values):
            self.load_part(actions, self.heads > 0, "actions", spans, num_spans, live)
            return
        if not isinstance(actions, (tuple, list)) or len(actions) != 2:
            raise InvalidAction("actions: expected a pair, discrete actions and continuous ones, "
                                f"got {describe(actions)}")
        self.load_part(actions[0], True, "actions[0]", spans, num_spans, live)
        self.load_part(actions[1], False, "actions[1]", spans, num_spans, live)

    cdef load_part(self, actions, bint discrete, str name, const Span* spans,
                   Py_ssize_t num_spans, const uint8_t* live):
        cdef Py_buffer view
        cdef Py_ssize_t i, rows = 0
        if not PyObject_CheckBuffer(actions):
            actions = as_array(actions, name)
        PyObject_GetBuffer(actions, &view, PyBUF_FORMAT | PyBUF_STRIDES)
        try:
            if self.load_buffer(&view, discrete, name, spans, num_spans, live):
                return
        finally:
            PyBuffer_Release(&view)
        # An unusual type or memory layout: let NumPy make it an ordinary one.
        array = np.asarray(actions)
        space = self.discrete_space if discrete else self.continuous_space
        wanted = "integers" if discrete else "floats" if space.dtype.kind == "f" else "numbers"
        if array.dtype.kind not in {"integers": "iu", "floats": "f", "numbers": "biuf"}[wanted]:
            raise InvalidAction(f"{name}: expected {wanted}, got {describe(actions)}")
        for i in range(num_spans):
            rows += spans[i].count
        shape = space.shape or (1,)
        if array.shape != (rows, *shape) and not (shape == (1,) and array.shape == (rows,)):
            allowed = f"({rows},)" if shape == (1,) else str((rows, *shape))
            raise InvalidAction(f"{name}: expected shape {allowed}, one row per agent of the last "
                                f"batch, got {describe(actions)}")
        if array.dtype == np.uint64:     # what int64 cannot hold is out of range all the same
            array = np.minimum(array, np.iinfo(np.int64).max)
        array = np.ascontiguousarray(array, np.int64 if discrete else np.float64)
        PyObject_GetBuffer(array.reshape(rows, -1), &view, PyBUF_FORMAT | PyBUF_STRIDES)
        try:
            if not self.load_buffer(&view, discrete, name, spans, num_spans, live):
                raise AssertionError("an ordinary array was not understood")
        finally:
            PyBuffer_Release(&view)

    cdef bint load_buffer(self, Py_buffer* view, bint discrete, str name, const Span* spans,
                          Py_ssize_t num_spans, const uint8_t* live) except -1:
        """`load_part` for a buffer of a plain type, (rows,) or (rows, width). False: it is neither.
        """
        cdef Py_ssize_t width = self.heads if discrete else self.values
        cdef Py_ssize_t i, bad, rows = 0
        if view.format == NULL or view.format[1] != 0:
            return False
        if not (view.ndim == 1 and width == 1) and not (view.ndim == 2 and view.shape[1] == width):
            return False
        for i in range(num_spans):
            rows += spans[i].count
        if view.shape[0] != rows:
            return False
        rows = 0
        for i in range(num_spans):
            bad = self.load_span(view, discrete, rows, spans[i], live)
            if bad == UNKNOWN_TYPE:
                return False
            if bad != GOOD:
                self.refuse(view, discrete, name, rows + bad, spans[i].first + bad)
            rows += spans[i].count
        return True

    cdef Py_ssize_t load_span(self, Py_buffer* view, bint discrete, Py_ssize_t done, Span span,
                              const uint8_t* live) noexcept:
        """The rows of the buffer from `done` on: GOOD, UNKNOWN_TYPE, or the first that is bad."""
        cdef const char* source = <const char*> view.buf + done * view.strides[0]
        cdef Py_ssize_t row_stride = view.strides[0]
        cdef Py_ssize_t stride = view.strides[1] if view.ndim == 2 else 0
        cdef int32_t* integers = self.discrete_rows + span.first * self.heads
        cdef float* reals = self.continuous_rows + span.first * self.values
        cdef char kind = view.format[0]
        cdef bint signed = kind in b"bhilqn"
        live += span.first
        if not discrete:
            if kind == b"f":
                return load_continuous[float](source, row_stride, stride, span.count, self.values,
                                              self.lows, self.highs, live, reals, 0)
            if kind == b"d":
                return load_continuous[double](source, row_stride, stride, span.count, self.values,
                                               self.lows, self.highs, live, reals, 0)
            return UNKNOWN_TYPE
        if not signed and kind not in b"BHILQN":
            return UNKNOWN_TYPE
        if view.itemsize == 8 and signed:
            return load_discrete[int64_t](source, row_stride, stride, span.count, self.heads,
                                          self.starts, self.sizes, live, integers, 0)
        if view.itemsize == 4 and signed:
            return load_discrete[int32_t](source, row_stride, stride, span.count, self.heads,
                                          self.starts, self.sizes, live, integers, 0)
        if view.itemsize == 4:
            return load_discrete[uint32_t](source, row_stride, stride, span.count, self.heads,
                                           self.starts, self.sizes, live, integers, 0)
        return UNKNOWN_TYPE

    cdef refuse(self, Py_buffer* view, bint discrete, str name, Py_ssize_t row, Py_ssize_t n):
        """Raise InvalidAction for a row of the batch that is row n of all."""
        where = f"environment {n // self.agents_per_env}"
        if self.agents_per_env > 1:
            where += f", agent slot {n % self.agents_per_env}"
        value = np.asarray(<object> view.obj)[row]
        space = self.discrete_space if discrete else self.continuous_space
        raise InvalidAction(f"{name}: row {row} ({where}) is {value}, which is not in {space}; "
                            "no environment was stepped")


# ---- HOT PATH ------------------------------------------------------------------------------------

ctypedef fused integer_action:
    int32_t
    int64_t
    uint32_t

ctypedef fused real_action:
    float
    double


@cython.cdivision(True)
cdef Py_ssize_t load_discrete(
        const char* source, Py_ssize_t row_stride, Py_ssize_t head_stride, Py_ssize_t count,
        Py_ssize_t heads, const int32_t* starts, const uint32_t* sizes, const uint8_t* live,
        int32_t* target, integer_action kind) noexcept nogil:
    """Copy (count, heads) actions to int32 rows; return the first bad live row, or GOOD.

    Rows without a live agent are ignored: where theirs are out of range they become the first
    legal action. The first pass has no branches.
    """
    cdef Py_ssize_t n, h
    # How far an action is above the first one. Differences wrap, so that what is below the first
    # has the sign bit, and so has `last - above` of what is above the last.
    cdef uint64_t above, bad = 0
    if heads == 1 and row_stride == sizeof(integer_action):
        copy_discrete(count, <const integer_action*> source, starts[0], sizes[0], target, &bad)
    else:
        for n in range(count):
            for h in range(heads):
                above = <uint64_t> <int64_t> (<const integer_action*> (
                    source + n * row_stride + h * head_stride))[0] - <uint64_t> <int64_t> starts[h]
                bad |= above | (sizes[h] - 1 - above)
                target[n * heads + h] = <int32_t> (<const integer_action*> (
                    source + n * row_stride + h * head_stride))[0]
    if not bad >> 63:
        return GOOD
    for n in range(count):
        for h in range(heads):
            above = <uint64_t> <int64_t> (<const integer_action*> (
                source + n * row_stride + h * head_stride))[0] - <uint64_t> <int64_t> starts[h]
            if above >= sizes[h]:
                if live[n]:
                    return n
                target[n * heads + h] = starts[h]
    return GOOD


cdef LaneLoop copy_discrete(Py_ssize_t count, const integer_action* source, int32_t first,
                            uint32_t size, IntLane target, uint64_t* bad) noexcept nogil:
    """Side by side. `bad` gets the sign bit if one is out of range; see `load_discrete`."""
    cdef Py_ssize_t n
    cdef uint64_t above, some = 0, start = <uint64_t> <int64_t> first, last = size - 1
    cdef uint32_t above32, some32 = 0, start32 = <uint32_t> first, last32 = size - 1
    for n in range(count):
        if integer_action is int32_t:
            above32 = <uint32_t> source[n] - start32
            some32 |= above32 | (last32 - above32)
        else:
            above = <uint64_t> <int64_t> source[n] - start
            some |= above | (last - above)
        target[n] = <int32_t> source[n]
    bad[0] = some | <uint64_t> some32 << 32


cdef Py_ssize_t load_continuous(
        const char* source, Py_ssize_t row_stride, Py_ssize_t value_stride, Py_ssize_t count,
        Py_ssize_t values, const float* lows, const float* highs, const uint8_t* live,
        float* target, real_action kind) noexcept nogil:
    """Copy (count, values) actions to float32 rows; return the first bad live row, or GOOD.

    NaN is out of range. Rows without a live agent are ignored; what is wrong in them becomes the
    low bound.
    """
    cdef Py_ssize_t n, v
    cdef float value
    for n in range(count):
        for v in range(values):
            value = <float> (<const real_action*> (
                source + n * row_stride + v * value_stride))[0]
            if not (lows[v] <= value <= highs[v]):
                if live[n]:
                    return n
                value = lows[v]
            target[n * values + v] = value
    return GOOD
