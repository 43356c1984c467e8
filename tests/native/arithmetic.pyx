"""arithmetic: the functions of ``envs/numpy_scalars.pxd`` over arrays, for the tests."""

from pufferlib_cy.envs.numpy_scalars cimport cos_float32, sin_float32, square, square_float32

cdef double TWO = 2.0


def squares(const double[:] x, double[:] out):
    cdef Py_ssize_t i
    for i in range(x.shape[0]):
        out[i] = square(x[i], TWO)


def squares_float32(const float[:] x, float[:] out):
    cdef Py_ssize_t i
    for i in range(x.shape[0]):
        out[i] = square_float32(x[i], <float> TWO)


def cosines_float32(const float[:] x, float[:] out):
    cdef Py_ssize_t i
    for i in range(x.shape[0]):
        out[i] = cos_float32(x[i])


def sines_float32(const float[:] x, float[:] out):
    cdef Py_ssize_t i
    for i in range(x.shape[0]):
        out[i] = sin_float32(x[i])
