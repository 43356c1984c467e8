"""libm: the functions of ``envs/libm_lanes.pxd`` over arrays, against the C library's own."""

from libc.math cimport cos, isnan, pow, powf, signbit, sin
from pufferlib_cy.envs.libm_lanes cimport (
    BLOCK, GLIBC, _try_cosines, _try_sines_and_cosines, _try_small_sines_and_cosines, cosines,
    sines_and_cosines, sines_and_float32_cosines, small_sines_and_cosines, squares,
    squares_float32,
)

cdef double TWO = 2.0

GLIBC_KNOWN = GLIBC


cdef bint differ(double a, double b) noexcept nogil:
    """By a bit, but for NaN's; 0.0 and -0.0 differ."""
    if isnan(a) or isnan(b):
        return isnan(a) != isnan(b)
    return a != b or (signbit(a) != 0) != (signbit(b) != 0)


def wrong_sines_and_cosines(const double[::1] x, double[::1] s, double[::1] c):
    """How many sines, cosines, and cosines without sines differ, and how many of either from the
    function for small angles; s and c: room."""
    cdef Py_ssize_t i, sines = 0, both = 0, alone = 0, small = 0
    sines_and_cosines(x.shape[0], &x[0], &s[0], &c[0])
    for i in range(x.shape[0]):
        sines += differ(s[i], sin(x[i]))
        both += differ(c[i], cos(x[i]))
    cosines(x.shape[0], &x[0], &s[0])
    for i in range(x.shape[0]):
        alone += differ(s[i], cos(x[i]))
    small_sines_and_cosines(x.shape[0], &x[0], &s[0], &c[0])
    for i in range(x.shape[0]):
        small += differ(s[i], sin(x[i])) or differ(c[i], cos(x[i]))
    return sines, both, alone, small


def wrong_when_trusted(const double[::1] x, double trust):
    """How many sines and cosines would differ, how many the library would be asked for, and both
    for small angles."""
    cdef double s[BLOCK]
    cdef double c[BLOCK]
    cdef double d[BLOCK]
    cdef double unsure[BLOCK]
    cdef Py_ssize_t start = 0, e, count, wrong = 0, asked = 0
    cdef Py_ssize_t small_wrong = 0, small_asked = 0
    while start < x.shape[0]:
        count = min(<Py_ssize_t> BLOCK, x.shape[0] - start)
        _try_sines_and_cosines(count, &x[start], s, c, unsure, trust)
        for e in range(count):
            asked += unsure[e] != 0.0
            wrong += unsure[e] == 0.0 and (
                differ(s[e], sin(x[start + e])) or differ(c[e], cos(x[start + e])))
        _try_cosines(count, &x[start], d, unsure, trust)
        for e in range(count):
            wrong += unsure[e] == 0.0 and differ(d[e], cos(x[start + e]))
        _try_small_sines_and_cosines(count, &x[start], s, c, unsure, trust)
        for e in range(count):
            small_asked += unsure[e] != 0.0
            small_wrong += unsure[e] == 0.0 and (
                differ(s[e], sin(x[start + e])) or differ(c[e], cos(x[start + e])))
        start += BLOCK
    return wrong, asked, small_wrong, small_asked


def wrong_squares(const double[::1] x, double[::1] out):
    cdef Py_ssize_t i, wrong = 0
    squares(x.shape[0], &x[0], &out[0], TWO)
    for i in range(x.shape[0]):
        wrong += differ(out[i], pow(x[i], TWO))
    return wrong


def wrong_squares_float32(const float[::1] x, float[::1] out):
    cdef Py_ssize_t i, wrong = 0
    squares_float32(x.shape[0], &x[0], &out[0], <float> TWO)
    for i in range(x.shape[0]):
        wrong += differ(out[i], powf(x[i], <float> TWO))
    return wrong


def wrong_sines_and_float32_cosines(const double[::1] x, double[::1] s, float[::1] c):
    cdef Py_ssize_t i, wrong = 0
    sines_and_float32_cosines(x.shape[0], &x[0], &s[0], &c[0])
    for i in range(x.shape[0]):
        wrong += differ(s[i], sin(x[i])) or differ(c[i], <float> cos(x[i]))
    return wrong
