"""trees: the calls of SpaceTree, ActionTree and ActionRows that only compiled code can make."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint8_t

from pufferlib_cy._actions cimport ActionRows, Span
from pufferlib_cy._spaces cimport ActionTree, SpaceTree


def write(SpaceTree tree, sample, uint8_t[::1] row):
    tree.write(sample, <char*> &row[0])


def write_checked(SpaceTree tree, sample, uint8_t[::1] row):
    tree.write_checked(sample, <char*> &row[0])


def load(ActionRows rows, actions, spans, const uint8_t[::1] live):
    """`spans`: a list of (first, count)."""
    cdef Py_ssize_t i, count = len(spans)
    cdef Span* batch = <Span*> PyMem_Malloc(count * sizeof(Span))
    try:
        for i in range(count):
            batch[i].first, batch[i].count = spans[i]
        rows.load(actions, batch, count, &live[0])
    finally:
        PyMem_Free(batch)


def read_row(ActionTree tree, ActionRows rows, Py_ssize_t n):
    """The action in row n."""
    return tree.read_row(rows.discrete_rows + n * rows.heads,
                         rows.continuous_rows + n * rows.values)
