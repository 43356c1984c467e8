"""libm: the functions of ``envs/libm_lanes.pxd`` over arrays, against the C library's own."""

from libc.math cimport fabs, isnan, pow, powf, signbit
from libc.stdint cimport uint8_t
from libc.string cimport memcpy
from pufferlib_cy.envs cimport libm_lanes
from pufferlib_cy.envs.libm_lanes cimport (
    cosines, marked, near_sines_and_cosines, recognised, sines_and_cosines, small_sines_and_cosines,
    squares, squares_float32,
)

cdef extern from *:
    """
    /* Of sin(x) and cos(x) C compilers make sincos(x), which is not the same. */
    static double (*volatile true_sin)(double) = sin;
    static double (*volatile true_cos)(double) = cos;
    static double call_sin(double x) { return true_sin(x); }
    static double call_cos(double x) { return true_cos(x); }
    """
    double sin "call_sin"(double x) noexcept nogil
    double cos "call_cos"(double x) noexcept nogil

cdef double TWO = 2.0
cdef double odd_angle


def known():
    """Whether the C library is one whose operations are known."""
    return libm_lanes.known


def pretend(bint librarys_known):
    libm_lanes.pretend(librarys_known)


cdef double odd_sine(double x) noexcept nogil:
    """The library's, but for the last bit of one angle's."""
    return sin(x) * (1.0 + 2.3e-16) if x == odd_angle else sin(x)


cdef double odd_cosine(double x) noexcept nogil:
    return cos(x) * (1.0 + 2.3e-16) if x == odd_angle else cos(x)


def recognises_librarys():
    return recognised(sin, cos)


def recognises_with_another_bit(double angle):
    """Whether it takes for the library one that differs in the last bit of one angle's results."""
    global odd_angle
    odd_angle = angle
    return recognised(odd_sine, cos), recognised(sin, odd_cosine)


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


def error_of_near_ones(const double[::1] x, double[::1] s, double[::1] c):
    """The largest difference from the library's; s and c: room."""
    cdef Py_ssize_t i
    cdef double error = 0.0
    near_sines_and_cosines(x.shape[0], &x[0], &s[0], &c[0])
    for i in range(x.shape[0]):
        error = max(error, fabs(s[i] - sin(x[i])), fabs(c[i] - cos(x[i])))
    return error


def wrong_squares(const double[::1] x, double[::1] out):
    cdef Py_ssize_t i, wrong = 0
    squares(x.shape[0], &x[0], &out[0])
    for i in range(x.shape[0]):
        wrong += differ(out[i], pow(x[i], TWO))
    return wrong


def wrong_squares_float32(const float[::1] x, float[::1] out):
    cdef Py_ssize_t i, wrong = 0
    squares_float32(x.shape[0], &x[0], &out[0])
    for i in range(x.shape[0]):
        wrong += differ(out[i], powf(x[i], <float> TWO))
    return wrong


def places_of(bytes marks):
    """Where the bytes are 1."""
    cdef uint8_t room[384 + 7]
    cdef Py_ssize_t places[384]
    cdef const uint8_t* given = marks
    memcpy(room, given, len(marks))
    return [places[k] for k in range(marked(len(marks), room, places))]
