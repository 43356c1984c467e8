# cython: language_level=3
"""The C library's sines, cosines and squares of many numbers at once, to the last bit.

For environments in lanes whose trajectories are to be those of an original that calls ``sin``,
``cos`` or ``pow``: each function takes `count` numbers, any count, and gives what the C library's
function gives for each, on every machine. ``libm_lanes.pyx`` tells how. Arrays may not overlap.
"""

from pufferlib_cy._core cimport ByteLane, DoubleLane, FloatLane

cdef enum:
    BLOCK = 128               # numbers at a time: what is noted of them stays in the first cache

cdef extern from *:
    # For arrays of a block: ``cdef BlockDouble speed[BLOCK]`` begins where a cache line does, so
    # that no vector lies in two; for acrobot that was a tenth of the time.
    """
    #define PUFFERLIB_CY_BLOCK_DOUBLE _Alignas(64) double
    """
    ctypedef double BlockDouble "PUFFERLIB_CY_BLOCK_DOUBLE"

# Whether this process's C library, and processor, are those whose operations are known; another
# library is called for every number.
cdef bint known

cdef void sines_and_cosines(Py_ssize_t count, const double* angles, DoubleLane sines,
                            DoubleLane cosines) noexcept nogil

# The same, and faster, where all angles of a block are in (-0.85, 0.85).
cdef void small_sines_and_cosines(Py_ssize_t count, const double* angles, DoubleLane sines,
                                  DoubleLane cosines) noexcept nogil

cdef void cosines(Py_ssize_t count, const double* angles, DoubleLane out) noexcept nogil

# pow(x, 2.0), which is NumPy's ``np.float64(x) ** 2``, and powf(x, 2.0f).
cdef void squares(Py_ssize_t count, const double* x, DoubleLane out) noexcept nogil
cdef void squares_float32(Py_ssize_t count, const float* x, FloatLane out) noexcept nogil

# Not the library's, but nearer than 2**-50 to the true values, of angles in (-1000, 1000): for what
# is rounded to float32 or compared, where the library need only be asked if that is close.
cdef void near_sines_and_cosines(Py_ssize_t count, const double* angles, DoubleLane sines,
                                 DoubleLane cosines) noexcept nogil

# The places of the marks that are 1, not 0, in any order, and how many: for those few of a block
# that a vector loop could not do. The caller gives room for 7 more marks than `count`, and for
# `count` places.
cdef Py_ssize_t marked(Py_ssize_t count, ByteLane marks, Py_ssize_t* places) noexcept nogil

# For the tests: `known` as asked for, in all threads; whether functions are the known ones.
ctypedef double (*Function)(double) noexcept nogil
cdef void pretend(bint librarys_known) noexcept nogil
cdef bint recognised(Function sine, Function cosine) noexcept nogil
