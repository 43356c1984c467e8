"""Nested spaces as rows: typed code that writes samples and reads actions, compiled once per space.

`SpaceTree` flattens observations into rows and gives views of rows; `ActionTree` turns action rows
into what the environment's own space contains. Both are trees of nodes with one virtual call per
space of the tree, made from the tables of ``spaces.py``.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_STRIDES, PyBuffer_IsContiguous, PyBuffer_Release, PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cpython.dict cimport PyDict_Check, PyDict_GetItemWithError, PyDict_Size
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_Check
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_Check
from libc.math cimport isfinite
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

import sys

import numpy as np
from gymnasium.spaces import Box, Discrete

from pufferlib_cy.arrays import describe
from pufferlib_cy.spaces import (
    Leaf, SpaceError, action_table, as_leaf, flat_action_space, flat_observation_space,
    head_ranges, leaves_of, observation_table, place, row_dtype, same_keys, same_length, to_box,
    value_bounds, wrong_keys,
)

cdef extern from *:
    """
    #define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
    """

cdef extern from "numpy/ndarraytypes.h":
    # Fields of an array, read without NumPy's function table.
    ctypedef struct PyArrayObject:
        pass
    void* PyArray_DATA(PyArrayObject* array) nogil
    int PyArray_NDIM(PyArrayObject* array) nogil
    Py_ssize_t* PyArray_DIMS(PyArrayObject* array) nogil
    Py_ssize_t* PyArray_STRIDES(PyArrayObject* array) nogil
    void* PyArray_DESCR(PyArrayObject* array) nogil
    bint PyArray_IS_C_CONTIGUOUS(PyArrayObject* array) nogil
    bint PyArray_ISWRITEABLE(PyArrayObject* array) nogil

cdef type ndarray = np.ndarray

# Copy `count` elements that lie `stride` bytes apart side by side; False if one does not fit.
ctypedef bint (*CopyLine)(const char* source, Py_ssize_t stride, Py_ssize_t count, char* target,
                          Py_ssize_t itemsize) noexcept nogil

cdef Kind kind_of(const char* format) noexcept:
    """What a buffer's format says of its elements, if they are numbers in native byte order."""
    if format == NULL:
        return UNSIGNED       # the protocol's default is bytes
    if format[1] != 0:
        return OTHER
    if format[0] in b"fde":
        return FLOATING
    if format[0] in b"bhilqn":
        return SIGNED
    if format[0] in b"BHILQN":
        return UNSIGNED
    return BOOLEAN if format[0] == b"?" else OTHER


# ---- trees ---------------------------------------------------------------------------------------

cdef class Node:
    cdef int write(self, object sample, char* row) except -1:
        raise NotImplementedError

    cdef object views(self, object record):
        raise NotImplementedError

    cdef object tensors(self, object rows, object batch, object torch):
        raise NotImplementedError

    cdef object read(self, const int32_t* discrete, const float* continuous):
        raise NotImplementedError


cdef class BranchNode(Node):
    """What Dict and Tuple have in common."""

    cdef tuple keys           # of the sample
    cdef tuple names          # of the record's fields
    cdef tuple children       # Nodes
    cdef Py_ssize_t count

    def __init__(self, branch, str name, make_leaf):
        self.where = place(name, branch.path)
        self.keys = branch.keys
        self.names = branch.names
        self.children = tuple([compile_node(child, name, make_leaf) for child in branch.children])
        self.count = len(self.children)


@cython.final
cdef class DictNode(BranchNode):
    cdef int write(self, object sample, char* row) except -1:
        cdef Py_ssize_t i
        cdef PyObject* value
        if not PyDict_Check(sample) or PyDict_Size(sample) != self.count:
            sample = same_keys(sample, self.keys, self.where)
        for i in range(self.count):
            value = PyDict_GetItemWithError(sample, self.keys[i])
            if value == NULL:
                raise wrong_keys(sample, self.keys, self.where)
            (<Node> self.children[i]).write(<object> value, row)
        return 0

    cdef object views(self, object record):
        cdef Py_ssize_t i
        return {self.keys[i]: (<Node> self.children[i]).views(record[self.names[i]])
                for i in range(self.count)}

    cdef object tensors(self, object rows, object batch, object torch):
        cdef Py_ssize_t i
        return {self.keys[i]: (<Node> self.children[i]).tensors(rows, batch, torch)
                for i in range(self.count)}

    cdef object read(self, const int32_t* discrete, const float* continuous):
        cdef Py_ssize_t i
        cdef dict action = {}
        for i in range(self.count):
            action[self.keys[i]] = (<Node> self.children[i]).read(discrete, continuous)
        return action


@cython.final
cdef class TupleNode(BranchNode):
    cdef int write(self, object sample, char* row) except -1:
        cdef Py_ssize_t i
        if PyTuple_Check(sample) and len(<tuple> sample) == self.count:
            for i in range(self.count):
                (<Node> self.children[i]).write((<tuple> sample)[i], row)
            return 0
        return self.write(same_length(sample, self.count, self.where), row)

    cdef object views(self, object record):
        cdef Py_ssize_t i
        return tuple([(<Node> self.children[i]).views(record[self.names[i]])
                      for i in range(self.count)])

    cdef object tensors(self, object rows, object batch, object torch):
        cdef Py_ssize_t i
        return tuple([(<Node> self.children[i]).tensors(rows, batch, torch)
                      for i in range(self.count)])

    cdef object read(self, const int32_t* discrete, const float* continuous):
        cdef Py_ssize_t i
        cdef list action = []
        for i in range(self.count):
            action.append((<Node> self.children[i]).read(discrete, continuous))
        return tuple(action)


cdef Node compile_node(table, str name, make_leaf):
    """The typed node of a branch, or what `make_leaf` makes of a leaf, and so on below."""
    if isinstance(table, Leaf):
        return make_leaf(table, name)
    return (DictNode if table.is_dict else TupleNode)(table, name, make_leaf)


# ---- observations --------------------------------------------------------------------------------

@cython.final
cdef class ArrayLeaf(Node):
    def __init__(self, leaf, str name, Py_ssize_t unit):
        self.where = place(name, leaf.path)
        self.unit = unit
        self.dtype = leaf.dtype
        self.shape = leaf.shape
        self.offset = leaf.offset
        self.itemsize = leaf.dtype.itemsize
        self.kind = kind_of(leaf.dtype.char.encode())
        self.ndim = len(leaf.shape)
        self.nbytes = self.itemsize
        for i, size in enumerate(leaf.shape):
            self.dims[i] = size
            self.nbytes *= size

    cdef int write(self, object sample, char* row) except -1:
        cdef char* target = row + self.offset
        if type(sample) is ndarray and self.write_ndarray(sample, target):
            return 0
        if self.ndim == 0 and self.write_number(sample, target):
            return 0
        if not self.write_buffer(sample, target):
            if not self.write_buffer(as_leaf(sample, self.dtype, self.shape, self.where), target):
                raise AssertionError("an ordinary array was not understood")
        return 0

    cdef bint has_shape(self, int ndim, const Py_ssize_t* shape) noexcept:
        cdef int i
        if ndim != self.ndim:
            return False
        for i in range(ndim):
            if shape[i] != self.dims[i]:
                return False
        return True

    cdef bint write_ndarray(self, object sample, char* target) noexcept:
        """Write a NumPy array of exactly the leaf's dtype and shape; False: it is not."""
        cdef PyArrayObject* array = <PyArrayObject*> sample
        if (<PyObject*> PyArray_DESCR(array) != <PyObject*> self.dtype
                or not self.has_shape(PyArray_NDIM(array), PyArray_DIMS(array))):
            return False
        if PyArray_IS_C_CONTIGUOUS(array):
            memcpy(target, PyArray_DATA(array), self.nbytes)
        else:
            copy_array(copy_line, <const char*> PyArray_DATA(array), self.dims,
                       PyArray_STRIDES(array), self.ndim, self.itemsize, &target)
        return True

    cdef bint write_number(self, object sample, char* target) except -1:
        """Write a Python number if it fits; False: it is none, or of an unusual type."""
        cdef int overflow = 0
        cdef int64_t integer
        cdef int32_t narrow
        cdef double number
        cdef float single
        if self.kind == SIGNED and self.itemsize == sizeof(int32_t) and PyLong_Check(sample):
            integer = PyLong_AsLongLongAndOverflow(sample, &overflow)
            narrow = <int32_t> integer
            if overflow or narrow != integer:
                return False
            memcpy(target, &narrow, sizeof(narrow))
            return True
        if self.kind != FLOATING or not PyFloat_Check(sample):
            return False
        number = PyFloat_AS_DOUBLE(sample)
        if self.itemsize == sizeof(double):
            memcpy(target, &number, sizeof(number))
            return True
        if self.itemsize == sizeof(float):
            single = <float> number
            memcpy(target, &single, sizeof(single))
            return isfinite(single) or not isfinite(number)
        return False

    cdef bint write_buffer(self, object sample, char* target) except -1:
        """Write an array if it has the leaf's shape and dtype, or a wider one of the common types;
        False: it has not, or a value does not fit."""
        cdef Py_buffer view
        cdef CopyLine line = NULL
        cdef bint done = False
        cdef Kind kind
        if not PyObject_CheckBuffer(sample):
            return False
        try:
            PyObject_GetBuffer(sample, &view, PyBUF_FORMAT | PyBUF_STRIDES)
        except (BufferError, ValueError):     # NumPy's dates, for example, have no format
            return False
        if self.has_shape(view.ndim, view.shape):
            kind = kind_of(view.format)
            if kind == self.kind and view.itemsize == self.itemsize:
                if PyBuffer_IsContiguous(&view, b"C"):
                    memcpy(target, view.buf, self.nbytes)
                    done = True
                else:
                    line = copy_line
            elif kind == self.kind and view.itemsize == 8 and self.itemsize == 4:
                if kind == FLOATING:
                    line = narrow_floats
                elif kind == SIGNED:
                    line = narrow_integers
            if line != NULL:
                done = copy_array(line, <const char*> view.buf, view.shape, view.strides,
                                  view.ndim, self.itemsize, &target)
        PyBuffer_Release(&view)
        return done

    cdef object views(self, object record):
        return record

    cdef object tensors(self, object rows, object batch, object torch):
        dtype = getattr(torch, self.dtype.name)
        if self.nbytes == 0:      # torch views no empty row as another dtype
            return rows.new_empty(batch + self.shape, dtype=dtype)
        part = rows.narrow(-1, self.offset // self.unit, self.nbytes // self.unit)
        if dtype != rows.dtype:
            part = part.view(dtype)
        return part if self.ndim == 1 else part.view(batch + self.shape)


@cython.final
cdef class SpaceTree:
    """A space's observations as rows of one flat array.

    Parameters
    ----------
    space: any nesting of Dict, Tuple, Box, Discrete, MultiDiscrete and MultiBinary.
    name: what error messages call a sample.

    Raises SpaceError, a ValueError, naming the path of a leaf that has no fixed layout (Text,
    Sequence, Graph, OneOf, a custom space) or does not fit.

    Attributes
    ----------
    space: the original space.
    dtype: NumPy dtype of one row: an aligned structure, fields in the order of the Dict's keys,
        ``f0, f1, ...`` of a Tuple. Discrete and MultiDiscrete are int32, `start` included; Box and
        MultiBinary keep their dtype. Of a space that is one leaf: that leaf's dtype and shape, such
        as ``dtype((np.float32, (4,)))``.
    flat_space: the Box that a policy sees. A Box at the top is untouched: same space, same dtype,
        same shape. All else is one-dimensional: of the leaves' dtype if all have the same, else
        uint8. Its bounds are the dtype's limits (float32's for float64).
    row_size: bytes of one row.
    leaves: (path, space, offset in bytes, dtype, shape) of each leaf, in order.

    Samples may be anything that keeps its value in the leaf's dtype. Accepted are what NumPy casts
    safely (bool to any number, integers to floats) and, as many environments are careless with
    widths, any width of the same kind: float64 for float32, int64 for uint8 where the value fits.
    Refused are floats for integers, numbers for bools, and values that do not fit. Arrays may be
    strided; lists are taken as NumPy makes arrays of them; a Discrete takes Python's and NumPy's
    integers and arrays of shape (). Bounds of the space are not looked at.
    """

    def __init__(self, space, str name="observation"):
        self.space = space
        self.name = name
        self.dtype = row_dtype(space, name)
        table = observation_table(space, self.dtype)
        self.leaves = leaves_of(table)
        self.row_size = self.dtype.itemsize
        self.flat_space = flat_observation_space(space, self.dtype, self.leaves)
        self.record = np.dtype([("row", self.dtype)])
        flat = self.flat_space.dtype
        self.root = compile_node(table, name,
                                 lambda leaf, name: ArrayLeaf(leaf, name, flat.itemsize))
        self.flat_row = ArrayLeaf(Leaf((), space, 0, flat, self.flat_space.shape), name,
                                  flat.itemsize)

    def __reduce__(self):
        return type(self), (self.space, self.name)

    cdef int write(self, object sample, char* row) except -1:
        return self.root.write(sample, row)

    cdef int write_checked(self, object sample, char* row) except -1:
        cdef char* scratch = <char*> PyMem_Calloc(self.row_size, 1)
        if scratch == NULL:
            raise MemoryError
        try:
            self.root.write(sample, scratch)
            memcpy(row, scratch, self.row_size)
        finally:
            PyMem_Free(scratch)
        return 0

    def flatten(self, sample, out=None):
        """One sample as one row: an array of `flat_space`'s dtype and shape.

        `out`: where to write it, C-contiguous, of that dtype and shape; default: a new array.
        Padding is zero, so that equal samples give equal bytes. Raises SpaceError naming the path
        of what does not match the space; `out` is then as it was.
        """
        if out is None:
            out = np.zeros(self.flat_row.shape, self.flat_row.dtype)
            self.write(sample, <char*> PyArray_DATA(<PyArrayObject*> out))
            return out
        cdef PyArrayObject* row = <PyArrayObject*> out
        if (not isinstance(out, ndarray) or out.dtype != self.flat_row.dtype
                or not self.flat_row.has_shape(PyArray_NDIM(row), PyArray_DIMS(row))
                or not PyArray_IS_C_CONTIGUOUS(row) or not PyArray_ISWRITEABLE(row)):
            raise ValueError(f"out: expected a C-contiguous, writable {self.flat_row.dtype} array "
                             f"of shape {self.flat_row.shape}, got {describe(out)}")
        self.write_checked(sample, <char*> PyArray_DATA(row))
        return out

    def unflatten(self, rows):
        """Views of rows in the form of the space: a dict, tuple or array, nested as the space is.

        `rows`: NumPy array or torch tensor of `flat_space`'s dtype, (..., *flat_space.shape) with
        any leading batch dimensions and strides, the values of a row side by side. Each leaf is a
        view, (..., *leaf.shape), of its own dtype; a Discrete is int32 (...). A Box at the top is
        `rows` itself. Raises ValueError for anything else, and for tensors whose rows do not lie at
        multiples of a leaf's element (torch has no such views; NumPy has).
        """
        flat = self.flat_space
        cdef Py_ssize_t batch_ndim
        torch = None if isinstance(rows, np.ndarray) else sys.modules.get("torch")
        if torch is not None and isinstance(rows, torch.Tensor):
            dtype = getattr(torch, flat.dtype.name)
        elif torch is None and isinstance(rows, np.ndarray):
            dtype = flat.dtype
        else:
            raise ValueError(f"rows: expected a NumPy array or a torch tensor, got "
                             f"{describe(rows)}")
        batch_ndim = rows.ndim - len(flat.shape)
        if batch_ndim < 0 or rows.dtype != dtype or tuple(rows.shape[batch_ndim:]) != flat.shape:
            raise ValueError(f"rows: expected {flat.dtype} of shape (..., "
                             f"{', '.join(map(str, flat.shape))}), got {describe(rows)}")
        if isinstance(self.space, Box):
            return rows
        if torch is not None:
            try:
                return self.root.tensors(rows, rows.shape[:batch_ndim], torch)
            except RuntimeError as error:
                raise ValueError(f"rows: torch cannot view them as {self.dtype}: {error}; "
                                 "make them contiguous") from error
        if self.row_size == 0:
            return self.root.views(np.zeros(rows.shape[:rows.ndim - 1], self.record)["row"])
        return self.root.views(rows.view(self.record)[..., 0]["row"])


# ---- actions -------------------------------------------------------------------------------------

@cython.final
cdef class DiscreteLeaf(Node):
    cdef Py_ssize_t head

    def __init__(self, leaf, str name):
        self.head = leaf.offset

    cdef object read(self, const int32_t* discrete, const float* continuous):
        return discrete[self.head]


@cython.final
cdef class ActionLeaf(Node):
    """A MultiDiscrete, MultiBinary or Box."""

    cdef object space
    cdef bint continuous
    cdef Py_ssize_t offset
    cdef size_t nbytes
    cdef object row_dtype
    cdef bint converts        # the space's dtype is not the row's

    def __init__(self, leaf, str name):
        self.space = leaf.space
        self.continuous = isinstance(leaf.space, Box)
        self.row_dtype = np.dtype(np.float32 if self.continuous else np.int32)
        self.offset = leaf.offset
        self.nbytes = int(np.prod(leaf.shape, dtype=np.int64)) * self.row_dtype.itemsize
        self.converts = leaf.dtype != self.row_dtype

    cdef object read(self, const int32_t* discrete, const float* continuous):
        action = np.empty(self.space.shape, self.row_dtype)
        cdef void* target = PyArray_DATA(<PyArrayObject*> action)
        if self.continuous:
            memcpy(target, continuous + self.offset, self.nbytes)
        else:
            memcpy(target, discrete + self.offset, self.nbytes)
        if not self.converts:
            return action
        return to_box(action, self.space) if self.continuous else action.astype(self.space.dtype)


def make_action_leaf(leaf, name):
    return (DiscreteLeaf if isinstance(leaf.space, Discrete) else ActionLeaf)(leaf, name)


@cython.final
cdef class ActionTree:
    """A space's actions as rows: a discrete part, int32, and a continuous part, float32.

    Parameters
    ----------
    space: any nesting of Dict, Tuple, Box, Discrete, MultiDiscrete and MultiBinary.
    name: what error messages call an action.

    Raises SpaceError, a ValueError, naming the path of a leaf that cannot be part of a row, or if
    there is nothing to choose.

    Attributes
    ----------
    space: the original space.
    flat_space: what a policy sees. Discrete, MultiDiscrete and Box at the top are untouched. Of a
        MultiBinary or a nested space, leaves in order: all discrete, one MultiDiscrete (twos for a
        MultiBinary, `start` kept); all Box, one float32 Box of shape (values,); a mix, hybrid, the
        ``Tuple((MultiDiscrete, Box))`` of both.
    heads, values: discrete and continuous actions per row.
    sizes, starts: int64 (heads,), the number of actions of each head and the smallest.
    lows, highs: float32 (values,), bounds of the continuous actions.
    leaves: (path, space, offset in heads or values, dtype, shape) of each leaf, in order.
    """

    def __init__(self, space, str name="action"):
        self.space = space
        self.name = name
        row_dtype(space, name)                   # raises for what cannot be a row
        table, self.heads, self.values = action_table(space)
        if self.heads + self.values == 0:
            raise SpaceError(f"{name}: there is nothing to choose in {space}")
        self.leaves = leaves_of(table)
        self.flat_space = flat_action_space(space, self.leaves)
        self.sizes, self.starts = head_ranges(self.leaves)
        self.lows, self.highs = value_bounds(self.leaves)
        self.root = compile_node(table, name, make_action_leaf)

    def __reduce__(self):
        return type(self), (self.space, self.name)

    cdef object read_row(self, const int32_t* discrete, const float* continuous):
        return self.root.read(discrete, continuous)

    def read(self, discrete=None, continuous=None):
        """The action of one row, as the original space contains it.

        `discrete`: integers, (heads,), or None if there are none; `continuous`: floats, (values,),
        likewise. A Discrete is an int, all else a new array of its space's dtype and shape; values
        of a Box that is not float32 are rounded to its dtype. Raises SpaceError for a row of the
        wrong shape or with values that are out of range or NaN.
        """
        integers = np.asarray(() if discrete is None else discrete)
        reals = np.asarray(() if continuous is None else continuous)
        if integers.shape != (self.heads,) or reals.shape != (self.values,):
            raise SpaceError(f"{self.name}: expected {self.heads} discrete and {self.values} "
                             f"continuous values, got shapes {integers.shape} and {reals.shape}")
        if integers.size and integers.dtype.kind not in "iu":
            raise SpaceError(f"{self.name}: expected integers, got {describe(integers)}")
        if not np.all((integers >= self.starts) & (integers <= self.starts + self.sizes - 1)):
            raise SpaceError(f"{self.name}: {integers} is not in [{self.starts}, "
                             f"{self.starts + self.sizes})")
        if not np.all((reals >= self.lows) & (reals <= self.highs)):
            raise SpaceError(f"{self.name}: {reals} is not in [{self.lows}, {self.highs}]")
        integers = np.ascontiguousarray(integers, np.int32)
        reals = np.ascontiguousarray(reals, np.float32)
        return self.read_row(<const int32_t*> PyArray_DATA(<PyArrayObject*> integers),
                             <const float*> PyArray_DATA(<PyArrayObject*> reals))


# ---- HOT PATH: strided arrays --------------------------------------------------------------------

ctypedef fused word:
    uint8_t
    uint16_t
    uint32_t
    uint64_t


cdef inline void copy_words(const char* source, Py_ssize_t stride, Py_ssize_t count, char* target,
                            word kind) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        memcpy(target + i * sizeof(word), source + i * stride, sizeof(word))


cdef bint copy_line(const char* source, Py_ssize_t stride, Py_ssize_t count, char* target,
                    Py_ssize_t itemsize) noexcept nogil:
    if itemsize == 1:
        copy_words[uint8_t](source, stride, count, target, 0)
    elif itemsize == 2:
        copy_words[uint16_t](source, stride, count, target, 0)
    elif itemsize == 4:
        copy_words[uint32_t](source, stride, count, target, 0)
    else:
        copy_words[uint64_t](source, stride, count, target, 0)
    return True


cdef bint narrow_integers(const char* source, Py_ssize_t stride, Py_ssize_t count,
                          char* target, Py_ssize_t itemsize) noexcept nogil:
    cdef Py_ssize_t i
    cdef int64_t wide
    cdef int32_t narrow
    cdef bint fits = True
    for i in range(count):
        memcpy(&wide, source + i * stride, sizeof(wide))
        narrow = <int32_t> wide
        fits &= narrow == wide
        memcpy(target + i * sizeof(narrow), &narrow, sizeof(narrow))
    return fits


cdef bint narrow_floats(const char* source, Py_ssize_t stride, Py_ssize_t count,
                        char* target, Py_ssize_t itemsize) noexcept nogil:
    cdef Py_ssize_t i
    cdef double wide
    cdef float narrow
    cdef bint fits = True
    for i in range(count):
        memcpy(&wide, source + i * stride, sizeof(wide))
        narrow = <float> wide
        fits &= isfinite(narrow) or not isfinite(wide)
        memcpy(target + i * sizeof(narrow), &narrow, sizeof(narrow))
    return fits


cdef bint copy_array(CopyLine line, const char* source, const Py_ssize_t* shape,
                     const Py_ssize_t* strides, int ndim, Py_ssize_t itemsize,
                     char** target) noexcept nogil:
    """Copy a strided array to `target`, in C order, and move it behind; False as `CopyLine`."""
    cdef Py_ssize_t i
    cdef bint fits = True
    if ndim == 0:
        fits = line(source, 0, 1, target[0], itemsize)
        target[0] += itemsize
    elif ndim == 1:
        fits = line(source, strides[0], shape[0], target[0], itemsize)
        target[0] += shape[0] * itemsize
    else:
        for i in range(shape[0]):
            fits &= copy_array(line, source + i * strides[0], shape + 1, strides + 1, ndim - 1,
                               itemsize, target)
    return fits
