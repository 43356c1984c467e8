# cython: language_level=3
"""Sine and cosine of small angles in float32: short polynomials without a branch, for lanes.

Taylor's, cut where float32 does not hold more for abs(angle) <= 0.22 rad, which is 12.6 degrees.
The largest errors there, of the polynomial and its rounding: 1.3e-8 (sine), 3.3e-8 (cosine); both
are less than one unit in the last place.
"""

cdef inline float small_sine(float angle) noexcept nogil:
    cdef float square = angle * angle
    return angle + angle * square * (<float> (-1.0 / 6.0) + square * <float> (1.0 / 120.0))


cdef inline float small_cosine(float angle) noexcept nogil:
    cdef float square = angle * angle
    return <float> 1.0 + square * (
        <float> -0.5 + square * (<float> (1.0 / 24.0) - square * <float> (1.0 / 720.0)))
