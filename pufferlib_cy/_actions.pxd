"""Action rows, and how actions get into them."""

from cpython.buffer cimport Py_buffer
from libc.stdint cimport int32_t, uint8_t, uint32_t, uintptr_t

from pufferlib_cy._spaces cimport ActionTree

cdef struct Span:
    # Consecutive rows.
    Py_ssize_t first, count


cdef inline void* address(array) except NULL:
    """The address of a NumPy array's first byte."""
    return <void*> <uintptr_t> array.ctypes.data


cdef class ActionRows:
    # The actions of N rows as environments read them: checked, and of one type.
    cdef readonly Py_ssize_t agents_per_env      # A, to name environments in messages
    cdef object discrete_space, continuous_space  # of one row
    cdef readonly object discrete                # int32 (N, heads) or None
    cdef readonly object continuous              # float32 (N, values) or None
    cdef size_t heads, values                    # per row; both in a hybrid space
    cdef int32_t* discrete_rows
    cdef float* continuous_rows
    cdef const int32_t* starts                   # (heads,) smallest action
    cdef const uint32_t* sizes                   # (heads,) number of actions
    cdef const float* lows                       # (values,)
    cdef const float* highs                      # (values,)
    cdef list owners                             # of the memory behind the pointers

    # Keep an array alive; its address.
    cdef void* own(self, array) except NULL
    # Check `actions`, one row for each row of the spans in turn, and write them there; of a hybrid
    # space a pair, discrete first. Rows that are not `live`, (N,), are ignored. Raises
    # InvalidAction naming the first bad row.
    cdef load(self, actions, const Span* spans, Py_ssize_t num_spans, const uint8_t* live)
    # The same for one part, which messages call `name`.
    cdef load_part(self, actions, bint discrete, str name, const Span* spans,
                   Py_ssize_t num_spans, const uint8_t* live)
    cdef bint load_buffer(self, Py_buffer* view, bint discrete, str name, const Span* spans,
                          Py_ssize_t num_spans, const uint8_t* live) except -1
    cdef Py_ssize_t load_span(self, Py_buffer* view, bint discrete, Py_ssize_t done, Span span,
                              const uint8_t* live) noexcept
    cdef refuse(self, Py_buffer* view, bint discrete, str name, Py_ssize_t row, Py_ssize_t n)
