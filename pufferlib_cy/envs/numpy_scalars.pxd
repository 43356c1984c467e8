# cython: language_level=3
"""Arithmetic in which NumPy's bits are not those of the plain C expression.

Environments whose originals compute with NumPy use these to arrive at the same trajectories. Sines
and cosines of float64 need nothing: NumPy's are the C library's.
"""

from libc.math cimport fmaf, pow

cdef inline double square(double x, double two) noexcept nogil:
    """``np.float64(x) ** 2``, which is the C library's pow(x, 2.0) and in about one of a thousand
    cases not x * x.

    `two` is 2.0, from a variable: given a literal, C compilers make a product of it. pow errs by
    less than 0.52 units in the last place here (between 2**-300 and 2**300). So where the exact
    square is nearer than 0.47 to a float64, pow returns that float64 too, and need not be called.
    Of many at once: ``libm_lanes.squares``, which uses a closer bound.
    """
    cdef double product = x * x
    # The product's rounding error, exactly (Dekker 1971, "A floating-point technique for extending
    # the available precision"): x = high + low, of 26 bits each.
    cdef double scaled = x * 134217729.0
    cdef double high = scaled - (scaled - x)
    cdef double low = x - high
    cdef double error = ((high * high - product) + 2.0 * high * low) + low * low
    # An error of more than 0.47 units changes the sum; 0.5 / 0.47 = 1.0638...
    if product + 1.064 * error == product and 1e-90 < product < 1e90:
        return product
    return pow(x, two)


cdef inline float cos_float32(float x) noexcept nogil:
    """``np.cos(np.float32(x))`` for abs(x) <= pi / 4, as NumPy has it on processors with fused
    multiply-add: a polynomial, not the C library's."""
    cdef float z = x * x
    cdef float y = fmaf(<float> 2.4372266125283204e-05, z, <float> -0.001388652017340064)
    y = fmaf(y, z, <float> 0.04166661947965622)
    y = fmaf(y, z, <float> -0.5)
    return fmaf(y, z, <float> 1.0)


cdef inline float sin_float32(float x) noexcept nogil:
    """``np.sin(np.float32(x))``; see `cos_float32`."""
    cdef float z = x * x
    cdef float y = fmaf(<float> 2.8404097065504175e-06, z, <float> -0.00019856491417158395)
    y = fmaf(y, z, <float> 0.008333397097885609)
    y = fmaf(y, z, <float> -0.1666666716337204)
    return fmaf(y * z, x, x)
