# cython: language_level=3
"""The C library's sines, cosines and squares of many float64 at once, to the last bit.

For environments in lanes whose trajectories are to be those of an original that calls ``sin``,
``cos`` or ``pow``: each function takes `count` numbers, any count, and gives what the C library's
function gives for each, on every machine.

How: the library's results are not always the float64 nearest to the true value, but they are what
one gets by rounding something that is hardly farther from it than a slack. So compute the value
more precisely than a float64 can hold, in arithmetic that the C compiler vectorises. If value +
slack and value - slack round to the same float64, the library's result is that too. The others, 2
to 6 of a hundred, the library computes itself. (Ziv 1991, "Fast evaluation of elementary
mathematical functions with correctly rounded last bit", asks so whether more digits are needed.) A
faster instruction set changes the time this takes, not the result.

The slack is that of the GNU C library, from its source. Since 2.28, s_sin.c computes a sine or
cosine of at least 1/8 as a value from a table and a correction of at most 2**-8; roundings that
come to less than 0.9 * 2**-60 precede the last. Smaller ones are angle + angle**3 * polynomial,
where those of the second term come to less than angle**3 * 2**-53. Before, it sought more digits
where in doubt; its newest versions round correctly. Before the last rounding pow(x, 2.0) errs by
less than 0.0132 * 2**-53 of the result, where that is neither huge nor tiny (e_pow.c), and powf by
1.83 * 2**-33 of it for each unit of its logarithm and 1.69 * 2**-34 (e_powf.c). Other C libraries
promise less, and are always called.
"""

from libc.math cimport NAN, cos, fabs, pow, powf, sin
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from pufferlib_cy._core cimport DoubleLane, FloatLane, LaneLoop

cdef extern from *:
    """
    #ifdef __GLIBC__
    #define PUFFERLIB_CY_GLIBC 1
    #else
    #define PUFFERLIB_CY_GLIBC 0
    #endif
    """
    const bint GLIBC "PUFFERLIB_CY_GLIBC"

cdef enum:
    BLOCK = 128               # numbers at a time: what is noted of them stays in the first cache
    COLUMNS = 16              # of a block, for `marked`

# ---- sine and cosine -----------------------------------------------------------------------------

cdef struct _Sum:
    # sin and cos of one angle, each a float64 and a rest that is smaller than its last digits.
    double sine, sine_rest
    double cosine, cosine_rest


cdef inline void sines_and_cosines(Py_ssize_t count, const double* angles, DoubleLane sines,
                                   DoubleLane cosines) noexcept nogil:
    """The C library's sin and cos of the angles; the three arrays may not overlap."""
    cdef Py_ssize_t e = 0
    while e < count:
        _sines_and_cosines(min(<Py_ssize_t> BLOCK, count - e), angles + e, sines + e,
                           cosines + e)
        e += BLOCK


cdef inline void small_sines_and_cosines(Py_ssize_t count, const double* angles,
                                         DoubleLane sines, DoubleLane cosines) noexcept nogil:
    """As `sines_and_cosines`, and faster, if most angles are in [-0.25, 0.25]."""
    cdef Py_ssize_t e = 0
    while e < count:
        _small_sines_and_cosines(min(<Py_ssize_t> BLOCK, count - e), angles + e, sines + e,
                                 cosines + e)
        e += BLOCK


cdef inline void sines_and_float32_cosines(Py_ssize_t count, const double* angles,
                                           DoubleLane sines, FloatLane cosines) noexcept nogil:
    """The C library's sin, and its cos rounded to float32, of which it needs hardly be asked."""
    cdef double unsure[BLOCK]
    cdef Py_ssize_t places[BLOCK]
    cdef Py_ssize_t start = 0, e, k, some
    while start < count:
        some = min(<Py_ssize_t> BLOCK, count - start)
        if GLIBC:
            _try_sines_and_float32_cosines(some, angles + start, sines + start, cosines + start,
                                           unsure)
        else:
            _mark_all(unsure)
        for k in range(marked(some, unsure, places)):
            e = start + places[k]
            sines[e] = sin(angles[e])
            cosines[e] = <float> cos(angles[e])
        start += BLOCK


cdef inline void cosines(Py_ssize_t count, const double* angles, DoubleLane out) noexcept nogil:
    """The C library's cos of the angles; the two arrays may not overlap."""
    cdef Py_ssize_t e = 0
    while e < count:
        _cosines(min(<Py_ssize_t> BLOCK, count - e), angles + e, out + e)
        e += BLOCK


cdef inline void _sines_and_cosines(Py_ssize_t count, const double* angles, DoubleLane sines,
                                    DoubleLane cosines) noexcept nogil:
    cdef double unsure[BLOCK]
    if GLIBC:
        _try_sines_and_cosines(count, angles, sines, cosines, unsure, 1.0)
    else:
        _mark_all(unsure)
    _ask_sines_and_cosines(count, angles, sines, cosines, unsure)


cdef inline void _small_sines_and_cosines(Py_ssize_t count, const double* angles,
                                          DoubleLane sines, DoubleLane cosines) noexcept nogil:
    cdef double unsure[BLOCK]
    if GLIBC:
        _try_small_sines_and_cosines(count, angles, sines, cosines, unsure, 1.0)
    else:
        _mark_all(unsure)
    _ask_sines_and_cosines(count, angles, sines, cosines, unsure)


cdef inline void _ask_sines_and_cosines(Py_ssize_t count, const double* angles, DoubleLane sines,
                                        DoubleLane cosines, double* unsure) noexcept nogil:
    """The library, where it is unsure what it would say."""
    cdef Py_ssize_t places[BLOCK]
    cdef Py_ssize_t e, k
    for k in range(marked(count, unsure, places)):
        e = places[k]
        sines[e] = sin(angles[e])
        cosines[e] = cos(angles[e])


cdef inline void _cosines(Py_ssize_t count, const double* angles, DoubleLane out) noexcept nogil:
    cdef double unsure[BLOCK]
    cdef Py_ssize_t places[BLOCK]
    cdef Py_ssize_t e, k
    if GLIBC:
        _try_cosines(count, angles, out, unsure, 1.0)
    else:
        _mark_all(unsure)
    for k in range(marked(count, unsure, places)):
        e = places[k]
        out[e] = cos(angles[e])


cdef inline Py_ssize_t marked(Py_ssize_t count, double* marks, Py_ssize_t* places) noexcept nogil:
    """The places of the marks that are 2.0, not 0.0, and how many they are. There is room for BLOCK
    of both. By a bit of the number, since branches would often be mispredicted."""
    cdef double sums[COLUMNS]
    cdef Py_ssize_t columns[COLUMNS]
    cdef Py_ssize_t e, k, some = 0, found = 0
    for e in range(count, BLOCK):
        marks[e] = 0.0
    # Most columns of the block, seen as a table with so many, have no mark.
    _add_rows(marks, sums)
    for e in range(COLUMNS):
        columns[some] = e
        some += _not_zero(sums[e])
    for k in range(some):
        e = columns[k]
        while e < BLOCK:
            places[found] = e
            found += _not_zero(marks[e])
            e += COLUMNS
    return found


cdef inline void _mark_all(double* marks) noexcept nogil:
    cdef Py_ssize_t e
    for e in range(BLOCK):
        marks[e] = 2.0


cdef inline LaneLoop _add_rows(const double* table, DoubleLane sums) noexcept nogil:
    cdef Py_ssize_t e, k
    for e in range(COLUMNS):
        sums[e] = table[e]
    for k in range(1, BLOCK // COLUMNS):
        for e in range(COLUMNS):
            sums[e] += table[k * COLUMNS + e]


cdef inline Py_ssize_t _not_zero(double x) noexcept nogil:
    """Whether x is at least 2, and not 0."""
    cdef uint64_t bits
    memcpy(&bits, &x, sizeof(bits))
    return <Py_ssize_t> (bits >> 62)


cdef inline LaneLoop _try_sines_and_cosines(Py_ssize_t count, const double* angles,
                                            DoubleLane sines, DoubleLane cosines,
                                            DoubleLane unsure, double trust) noexcept nogil:
    """Results, and 2.0 where they may not be the library's. `trust` is 1.0: a smaller one trusts it
    to be so many times nearer than it is known to be, which the tests must notice."""
    cdef Py_ssize_t e
    cdef _Sum exact
    for e in range(count):
        exact = _sum(angles[e])
        unsure[e] = _rounded(exact, trust * _slack(exact.sine), trust * _slack(exact.cosine),
                             &sines[e], &cosines[e])


cdef inline LaneLoop _try_sines_and_float32_cosines(Py_ssize_t count, const double* angles,
                                                    DoubleLane sines, FloatLane cosines,
                                                    DoubleLane unsure) noexcept nogil:
    cdef Py_ssize_t e
    cdef _Sum exact
    cdef double slack, sine, cosine
    for e in range(count):
        exact = _sum(angles[e])
        slack = _slack(exact.sine)
        sine = exact.sine + (exact.sine_rest - slack)
        cosine = exact.cosine + exact.cosine_rest
        sines[e] = sine
        cosines[e] = <float> cosine
        # The library's cosine is nearer to this one than 2**-51.
        unsure[e] = 2.0 if (sine != exact.sine + (exact.sine_rest + slack)) | (
            <float> (cosine - 4.440892098500626e-16 * fabs(cosine))
            != <float> (cosine + 4.440892098500626e-16 * fabs(cosine))) else 0.0


cdef inline LaneLoop _try_small_sines_and_cosines(Py_ssize_t count, const double* angles,
                                                  DoubleLane sines, DoubleLane cosines,
                                                  DoubleLane unsure, double trust) noexcept nogil:
    """The same. Here the library's correction of a cosine is less than 2**-10, after three
    roundings of 2**-64, and that of a sine comes after three of 2**-62. The sums err by less than
    0.01 * 2**-60 in a cosine, and 0.04 * 2**-60 in a sine."""
    cdef Py_ssize_t e
    cdef double size, sine_slack
    cdef _Sum exact
    for e in range(count):
        size = fabs(angles[e])
        exact = _small_sum(angles[e], 0.0)
        exact.cosine_rest += 0.0 if (size <= 0.25) & (size > 0.0000152587890625) else NAN
        sine_slack = min(_slack(exact.sine), 0.9 * 8.673617379884035e-19)
        unsure[e] = _rounded(exact, trust * sine_slack, trust * (0.3 * 8.673617379884035e-19),
                             &sines[e], &cosines[e])


cdef inline double _rounded(_Sum exact, double sine_slack, double cosine_slack, double* sine,
                            double* cosine) noexcept nogil:
    """Round both, and tell whether what the library rounds may go another way: 2.0 or 0.0."""
    sine[0] = exact.sine + (exact.sine_rest - sine_slack)
    cosine[0] = exact.cosine + (exact.cosine_rest - cosine_slack)
    return 2.0 if (
        (sine[0] != exact.sine + (exact.sine_rest + sine_slack))
        | (cosine[0] != exact.cosine + (exact.cosine_rest + cosine_slack))) else 0.0


cdef inline LaneLoop _try_cosines(Py_ssize_t count, const double* angles, DoubleLane out,
                                  DoubleLane unsure, double trust) noexcept nogil:
    cdef Py_ssize_t e
    cdef _Sum turned
    cdef double slack, cosine
    for e in range(count):
        turned = _sum(angles[e])
        slack = trust * _slack(turned.cosine)
        cosine = turned.cosine + (turned.cosine_rest - slack)
        out[e] = cosine
        unsure[e] = 2.0 if (
            cosine != turned.cosine + (turned.cosine_rest + slack)) else 0.0


cdef inline double _slack(double value) noexcept nogil:
    """How far `value` may be from what the library rounds: 1.4 * 2**-60, 0.45 of it of `_sum`; for
    a value x below 1/8, x**3 * 2**-53 of the library's and 0.35 * 2**-60 * x of the sum's."""
    cdef double size = fabs(value)
    cdef double of_small = size * (
        size * size * 1.1102230246251565e-16 + 0.35 * 8.673617379884035e-19)
    return of_small if size < 0.125 else 1.4 * 8.673617379884035e-19


cdef inline _Sum _sum(double angle) noexcept nogil:
    """Sine and cosine; rests of NaN where the angle is too large, or too near to a zero, for this.
    """
    # The angle less the nearest multiple of pi / 2, as remainder + rest. pi / 2 is three numbers,
    # two of 33 bits, so that products with up to 20 bits are exact (Cody and Waite 1980). Adding
    # and subtracting 1.5 * 2**52 rounds to a whole number.
    cdef double quarters = (angle * 0.6366197723675814 + 6755399441055744.0) - 6755399441055744.0
    cdef double first = angle - quarters * 1.5707963267341256
    cdef double second = quarters * 6.077100506303966e-11
    cdef double remainder = first - second
    cdef double rest = ((first - remainder) - second) - quarters * 2.0222662487959506e-21

    cdef _Sum small = _small_sum(remainder, rest)

    # Then by whole quarters: -2 to 2 of them, whose sine and cosine are 0, 1 or -1.
    cdef double q = quarters - 4.0 * ((quarters * 0.25 + 6755399441055744.0) - 6755399441055744.0)
    cdef double odd = q * q * (4.0 - q * q) * (1.0 / 3.0)                 # 1 or 0
    cdef double sine_q = q * odd
    cdef double cosine_q = (1.0 - odd) * (1.0 - 0.5 * (q * q))

    cdef _Sum turned
    cdef double known = 0.0 if (fabs(angle) < 1048576.0) & (
        fabs(remainder) > 0.0000152587890625) else NAN
    turned.sine = small.sine * cosine_q + small.cosine * sine_q
    turned.sine_rest = (small.sine_rest * cosine_q + small.cosine_rest * sine_q) + known
    turned.cosine = small.cosine * cosine_q - small.sine * sine_q
    turned.cosine_rest = (small.cosine_rest * cosine_q - small.sine_rest * sine_q) + known
    return turned


cdef inline _Sum _small_sum(double angle, double rest) noexcept nogil:
    """Sine and cosine of angle + rest, where that is at most pi / 4 and not tiny."""
    # angle + rest = u + v, where u has the first 10 bits (Veltkamp 1968): u**2 to u**5 are
    # exact, and v is less than 2**-10 of it.
    cdef double scaled = angle * 8796093022209.0      # 2**43 + 1
    cdef double u = scaled - (scaled - angle)
    cdef double v = (angle - u) + rest
    cdef double u2 = u * u
    cdef double u3 = u2 * u
    cdef double u4 = u2 * u2

    # Taylor's series of u, up to u**17 and u**18: what follows is less than 2**-63. The first terms
    # exactly, with 1/6, 1/120 and 1/24 to a few bits: their sums' rounding errors go into the rests
    # (Dekker 1971), and so do the other bits and terms. 1/1920 is what 1/120 has beyond 1/128.
    cdef double cubic = u3 * 0.16666668653488159          # round(2**24 / 6) / 2**24
    cdef double partial = u - cubic
    cdef double sine = partial + u4 * (u * 0.0078125)     # 1 / 128
    cdef double sine_error = ((u - partial) - cubic) + (
        u4 * (u * 0.0078125) - (sine - partial))
    cdef double quartic = u4 * 0.04168701171875           # round(2**14 / 24) / 2**14
    cdef double square = 1.0 - 0.5 * u2
    cdef double cosine = square + quartic
    cdef double cosine_error = quartic - (cosine - square)
    # Not by Horner's rule, which makes each product wait for the one before it.
    cdef double u8 = u4 * u4
    cdef double sine_terms = u3 * (
        (1.0 / 50331648.0 + u2 * (1.0 / 1920.0)) + u4 * (-1.0 / 5040.0 + u2 * (1.0 / 362880.0))
        + u8 * ((-1.0 / 39916800.0 + u2 * (1.0 / 6227020800.0))
                + u4 * (-1.0 / 1307674368000.0 + u2 * (1.0 / 355687428096000.0))))
    cdef double cosine_terms = u4 * (
        (-1.0 / 49152.0 - u2 * (1.0 / 720.0)) + u4 * (1.0 / 40320.0 - u2 * (1.0 / 3628800.0))
        + u8 * ((1.0 / 479001600.0 - u2 * (1.0 / 87178291200.0))
                + u4 * (1.0 / 20922789888000.0 - u2 * (1.0 / 6402373705728000.0))))

    # From u to u + v.
    cdef double sine_u = sine + sine_terms
    cdef double cosine_u = cosine + cosine_terms
    cdef double v2 = v * v
    cdef double sine_v = v - v * v2 * (1.0 / 6.0)
    cdef double versine_v = v2 * (0.5 - v2 * (1.0 / 24.0))                # 1 - cos(v)
    cdef _Sum small
    small.sine = sine
    small.sine_rest = ((sine_terms + sine_error) - sine_u * versine_v) + cosine_u * sine_v
    small.cosine = cosine
    small.cosine_rest = ((cosine_terms + cosine_error) - cosine_u * versine_v) - sine_u * sine_v
    return small

# ---- squares -------------------------------------------------------------------------------------

cdef inline void squares(Py_ssize_t count, const double* x, DoubleLane out,
                         double two) noexcept nogil:
    """The C library's pow(x, 2.0), which is NumPy's ``np.float64(x) ** 2``. `two` is 2.0, from a
    variable: given a literal, C compilers make a product of it. The two arrays may not overlap."""
    cdef double unsure[BLOCK]
    cdef Py_ssize_t places[BLOCK]
    cdef Py_ssize_t start = 0, e, k, some
    while start < count:
        some = min(<Py_ssize_t> BLOCK, count - start)
        if GLIBC:
            _try_squares(some, x + start, out + start, unsure)
        else:
            _mark_all(unsure)
        for k in range(marked(some, unsure, places)):
            e = start + places[k]
            out[e] = pow(x[e], two)
        start += BLOCK


cdef inline LaneLoop _try_squares(Py_ssize_t count, const double* x, DoubleLane out,
                                  DoubleLane unsure) noexcept nogil:
    cdef Py_ssize_t e
    cdef double product, scaled, high, low, error, slack
    for e in range(count):
        product = x[e] * x[e]
        # The product's rounding error, exactly; see `numpy_scalars.square`.
        scaled = x[e] * 134217729.0
        high = scaled - (scaled - x[e])
        low = x[e] - high
        error = ((high * high - product) + 2.0 * high * low) + low * low
        slack = product * 1.6098233857064770e-18           # 0.0145 * 2**-53 of it
        out[e] = product
        unsure[e] = 0.0 if (product + (error + slack) == product) & (
            product + (error - slack) == product) & (product > 1e-20) & (product < 1e20) else 2.0


cdef inline void squares_float32(Py_ssize_t count, const float* x, FloatLane out,
                                 float two) noexcept nogil:
    """The C library's powf(x, 2.0f), NumPy's ``np.float32(x) ** 2``; see `squares`."""
    cdef double unsure[BLOCK]
    cdef Py_ssize_t places[BLOCK]
    cdef Py_ssize_t start = 0, e, k, some
    while start < count:
        some = min(<Py_ssize_t> BLOCK, count - start)
        if GLIBC:
            _try_squares_float32(some, x + start, out + start, unsure)
        else:
            _mark_all(unsure)
        for k in range(marked(some, unsure, places)):
            e = start + places[k]
            out[e] = powf(x[e], two)
        start += BLOCK


cdef inline LaneLoop _try_squares_float32(Py_ssize_t count, const float* x, FloatLane out,
                                          DoubleLane unsure) noexcept nogil:
    cdef Py_ssize_t e
    cdef double product, slack
    for e in range(count):
        product = <double> x[e] * <double> x[e]             # exact
        out[e] = <float> product
        # Of the result: 2**-30.7 and 2**-28.5.
        slack = product * (5.73e-10 if (product > 0.25) & (product < 4.0) else 2.63e-9)
        unsure[e] = 0.0 if (<float> (product + slack) == <float> (product - slack)) & (
            product > 0.000244140625) & (product < 4096.0) else 2.0
