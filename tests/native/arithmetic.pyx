"""arithmetic: the functions of ``envs/numpy_scalars.pxd`` and ``small_angles.pxd`` over arrays."""

from pufferlib_cy.envs.numpy_scalars cimport cos_float32, sin_float32, square
from pufferlib_cy.envs.small_angles cimport small_cosine, small_sine

cdef double TWO = 2.0


def squares(const double[:] x, double[:] out):
    cdef Py_ssize_t i
    for i in range(x.shape[0]):
        out[i] = square(x[i], TWO)


def cosines_float32(const float[:] x, float[:] out):
    cdef Py_ssize_t i
    for i in range(x.shape[0]):
        out[i] = cos_float32(x[i])


def sines_float32(const float[:] x, float[:] out):
    cdef Py_ssize_t i
    for i in range(x.shape[0]):
        out[i] = sin_float32(x[i])


def small_sines(const float[:] x, float[:] out):
    cdef Py_ssize_t i
    for i in range(x.shape[0]):
        out[i] = small_sine(x[i])


def small_cosines(const float[:] x, float[:] out):
    cdef Py_ssize_t i
    for i in range(x.shape[0]):
        out[i] = small_cosine(x[i])
