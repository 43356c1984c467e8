"""Observation rows and action rows of nested spaces: what the adapters call, once per step."""

from libc.stdint cimport int32_t

cdef enum Kind:               # of the numbers in a buffer
    OTHER = 0
    BOOLEAN = 1
    SIGNED = 2
    UNSIGNED = 3
    FLOATING = 4


cdef class Node:
    # One space of a tree. A leaf implements what its tree needs: observations `write` and the
    # views, actions `read`.
    cdef str where            # in error messages: observation['map'][2]
    cdef int write(self, object sample, char* row) except -1
    cdef object views(self, object record)
    cdef object tensors(self, object rows, object batch, object torch)
    cdef object read(self, const int32_t* discrete, const float* continuous)


cdef class ArrayLeaf(Node):
    # A leaf of an observation, or the flat row itself.
    cdef object dtype
    cdef tuple shape
    cdef Py_ssize_t offset                       # of its first byte in the row
    cdef Py_ssize_t nbytes
    cdef Py_ssize_t itemsize
    cdef Py_ssize_t unit                         # itemsize of the flat row
    cdef Kind kind
    cdef int ndim
    cdef Py_ssize_t[64] dims                     # NumPy's own limit

    cdef bint has_shape(self, int ndim, const Py_ssize_t* shape) noexcept
    cdef bint write_ndarray(self, object sample, char* target) noexcept
    cdef bint write_number(self, object sample, char* target) except -1
    cdef bint write_buffer(self, object sample, char* target) except -1


cdef class SpaceTree:
    cdef readonly object space                   # the original space
    cdef readonly str name                       # what errors call a sample
    cdef readonly object dtype                   # of one row, structured
    cdef readonly object flat_space              # a Box
    cdef readonly tuple leaves
    cdef readonly Py_ssize_t row_size            # bytes
    cdef object record                           # a structured dtype with the row as its one field
    cdef Node root
    cdef ArrayLeaf flat_row

    # Write a sample into its row, `row_size` bytes aligned as `dtype`. Padding is not touched: it
    # is zero if the row was zeroed once. All that costs nothing is checked (keys, lengths, dtypes,
    # shapes); SpaceError names the path, and then the row may be half-written.
    cdef int write(self, object sample, char* row) except -1
    # The same for a row of any alignment and content: writes all of it, padding too, or nothing.
    cdef int write_checked(self, object sample, char* row) except -1


cdef class ActionTree:
    cdef readonly object space                   # the original space
    cdef readonly str name                       # what errors call an action
    cdef readonly object flat_space              # Discrete, MultiDiscrete, Box, or hybrid: a Tuple
    cdef readonly tuple leaves
    cdef readonly Py_ssize_t heads, values       # discrete and continuous actions per row
    cdef readonly object sizes, starts           # int64 (heads,): number of actions, the smallest
    cdef readonly object lows, highs             # float32 (values,)
    cdef Node root

    # The action of a row that `ActionRows` has checked: new objects, each in its own space.
    cdef object read_row(self, const int32_t* discrete, const float* continuous)
