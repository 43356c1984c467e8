"""The C library's sines, cosines and squares of many numbers at once; see the ``.pxd`` for the use.

Sine and cosine: the GNU C library's results are not always the float64 nearest to the true value.
But with fused multiply-add, which its versions for nearly every processor since 2013 use, it takes
the same forty operations for every angle, up to choices that a vector instruction makes as well. So
this file does those same operations in the same order, for a block of angles, in loops that the C
compiler makes vector instructions of. (s_sin.c since 2.28 tells which; it goes back to Ziv and
others' IBM Accurate Mathematical Library, 2001.)

* `_reduce` turns each angle into a multiple of pi / 2, a remainder of at most pi / 4, and a rest,
  what the remainder lacks. Angles up to 0.855 and up to 2.426 rad have ways of their own.
* `_place_...` splits the remainder into a multiple k / 128 and a step of at most 1 / 256. Sines of
  less than 0.126 rad it does by Taylor's series.
* `_look_up` copies the sine and cosine of k / 128 from a table, to twice a float64's precision.
* `_finish_...` adds the step, by short polynomials for its own sine and cosine.

Several loops, since a processor that waits for one operation's result does later ones meanwhile,
but looks only so far ahead: as one loop this took a third longer.

When the module is imported, `recognised` compares 4096 results with the library's, and those for
angles of which another order of operations, or of fusing them, is known to end in other bits. Where
one differs, `known` is false, and the library is called for every number: another C library, a
processor without fused multiply-add, a future version. So it is where the C compiler was not
allowed to use that instruction. Squares go by it, too: pow changed in the same version of the GNU
library as sin and cos. (The table's rests are exact; the GNU library's own are off by their last
digit in a third of the entries. That changes one of about 2**59 results.)

pow(x, 2.0) is x * x but for about one of a thousand numbers. Before its last rounding pow errs by
less than 0.0105 * 2**-53 of the result, if that is neither huge nor tiny (five roundings of 2**-62
in e_pow.c, and a polynomial that is off by 2**-65.4); powf by 1.83 * 2**-33 for each unit of its
logarithm and 1.69 * 2**-34 (e_powf.c). So where the exact square is farther than that from halfway
between two float64, both round to the same. For the others, 15 of a thousand, the library is
called. (Ziv 1991, "Fast evaluation of elementary mathematical functions with correctly rounded last
bit", asks so whether more digits are needed.)
"""

from libc.math cimport cos, fabs, fma, pow, powf, sin
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

from pufferlib_cy._core cimport ByteLane, DoubleLane, FloatLane, LaneLoop

cdef extern from *:
    """
    /* Whether the loops below have an instruction for `fma`, and not a call, on this processor. */
    static inline int pufferlib_cy_fused(void) {
    #if PUFFERLIB_CY_LANE_CLONES
        __builtin_cpu_init();
        return __builtin_cpu_supports("x86-64-v3") != 0;
    #elif defined(__FMA__) || defined(__aarch64__) || defined(_M_ARM64)
        return 1;
    #else
        return 0;
    #endif
    }

    /* Of eight bytes, 0 or 1, read as one number: which one its lowest bit comes from; any if all
       are 0. */
    #ifdef _MSC_VER
    #include <intrin.h>
    static inline Py_ssize_t pufferlib_cy_first_mark(uint64_t marks) {
        unsigned long bit;
        return _BitScanForward64(&bit, marks) ? bit / 8 : 0;
    }
    #else
    static inline Py_ssize_t pufferlib_cy_first_mark(uint64_t marks) {
        Py_ssize_t place = __builtin_ctzll(marks | 1ull << 63) / 8;
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        place = 7 - place;
    #endif
        return place;
    }
    #endif
    """
    ctypedef int64_t* WordLane "int64_t* __restrict"
    bint fused "pufferlib_cy_fused"() noexcept nogil
    Py_ssize_t first_mark "pufferlib_cy_first_mark"(uint64_t marks) noexcept nogil

cdef enum:
    ENTRIES = 128             # of the table: k / 128 for k up to 109, and room for what NaN makes
    WIDTH = 8                 # of an entry
    MANY = 3 * BLOCK          # squares at a time

# sin(k / 128), its rest, cos(k / 128), its rest; then cosine, rest, sine, rest.
cdef BlockDouble table[ENTRIES * WIDTH]

cdef double ROUNDER = 6755399441055744.0         # 1.5 * 2**52: adding rounds to a whole number,
cdef double GRID = 52776558133248.0              # 1.5 * 2**45: to a multiple of 1 / 128
cdef double TWO_OVER_PI = 0.6366197723675814
cdef double HALF_PI = 1.5707963267948966         # and what it lacks:
cdef double HALF_PI_REST = 6.123233995736766e-17
# pi / 2 again, as four numbers; the products of the first two with small numbers are exact.
cdef double PART1 = 1.5707963407039642
cdef double PART2 = -1.3909067564377153e-08
cdef double PART3 = -4.97899623147991e-17
cdef double PART4 = -1.9034889620193266e-25
cdef double SMALL = 0.85546875                   # rad: up to here an angle is its own remainder,
cdef double MIDDLE = 2.4262638092041016          # up to here less than HALF_PI away from it
cdef double LARGE = 67108864.0                   # 2**26: beyond, ask the library
cdef double TAYLOR = 0.126                       # rad
cdef double TIE = 0.00390625                     # 1 / 256, halfway between two entries
cdef int64_t SIGN = <int64_t> 0x8000000000000000ull

# Angles of which a sine or a cosine has another last bit if one of the operations is not fused, or
# another in its place: two for each operation for which such an angle was found among 10**9.
cdef double[20] TELLING
TELLING[:] = [
    float.fromhex(angle) for angle in
    """0x1.27ca6f20ff1dap+2 0x1.661a7cbd8fe86p-1 0x1.114fa6d813f74p+18 0x1.948b218755b99p-2
    0x1.8d6d7bd3ed1b5p+2 0x1.a2edd26a5669bp-4 0x1.8e76aa833968ep+2 0x1.9ec34c4fa880fp+1
    0x1.35607a39343c8p+2 0x1.80ba51213deb9p+8 0x1.0ec9360a1c344p+2 0x1.d43596df99ed9p+19
    0x1.1e586fd0850a7p+2 0x1.98c966651534cp+5 0x1.7da5b8fe79fcp+5 0x1.8f77e0d5b6576p+18
    0x1.3eefb4bbb1388p+0 0x1.7530d86cb44e3p+19 0x1.ada521f3b8ddbp-1 0x1.a30484f288673p+18
    """.split()]

cdef double TWO = 2.0         # from a variable: of a literal, C compilers make a product
cdef float TWO_FLOAT32 = 2.0

# ---- sine and cosine -----------------------------------------------------------------------------

cdef struct Angles:           # a block of them, after `_reduce`
    # |angle| = quadrant * pi / 2 + remainder + rest, where only the last two bits of the quadrant
    # count. `unfit` is negative if the library has to be called for one of them.
    BlockDouble remainders[BLOCK]
    BlockDouble rests[BLOCK]
    int64_t quadrants[BLOCK]
    int64_t unfit

cdef struct Steps:            # from the nearest entries of the table
    # `sizes` are those of the remainders; for a cosine alone they have the result's sign, and are
    # 1.0 in odd quadrants, where it is not a sine. `signs` are the remainders', with the quadrants
    # in their last two bits.
    BlockDouble sizes[BLOCK]
    BlockDouble steps[BLOCK]
    BlockDouble rests[BLOCK]
    BlockDouble smalls[BLOCK]  # sines by Taylor's series
    int64_t offsets[BLOCK]    # of the entries, in the table; with bit 2 of those for a cosine
    int64_t signs[BLOCK]
    BlockDouble entries[4 * BLOCK]


cdef void sines_and_cosines(Py_ssize_t count, const double* angles, DoubleLane sines,
                            DoubleLane cosines) noexcept nogil:
    cdef Py_ssize_t e = 0
    while e < count:
        _sines_and_cosines(min(<Py_ssize_t> BLOCK, count - e), angles + e, sines + e, cosines + e)
        e += BLOCK


cdef void small_sines_and_cosines(Py_ssize_t count, const double* angles, DoubleLane sines,
                                  DoubleLane cosines) noexcept nogil:
    cdef Steps steps
    cdef int64_t unfit = -1
    cdef Py_ssize_t e = 0, some
    while e < count:
        some = min(<Py_ssize_t> BLOCK, count - e)
        if known:
            _place_small(some, angles + e, steps.sizes, steps.steps, steps.rests, steps.smalls,
                         steps.offsets, steps.signs, &unfit)
        if unfit >= 0:
            _look_up(some, steps.offsets, steps.entries)
            _finish_both(some, angles + e, steps.sizes, steps.steps, steps.rests, steps.smalls,
                         steps.signs, steps.entries, sines + e, cosines + e)
        else:
            _sines_and_cosines(some, angles + e, sines + e, cosines + e)
        e += BLOCK


cdef void cosines(Py_ssize_t count, const double* angles, DoubleLane out) noexcept nogil:
    cdef Py_ssize_t e = 0
    while e < count:
        _cosines(min(<Py_ssize_t> BLOCK, count - e), angles + e, out + e)
        e += BLOCK


cdef void _sines_and_cosines(Py_ssize_t count, const double* angles, DoubleLane sines,
                             DoubleLane cosines) noexcept nogil:
    cdef Angles reduced
    cdef Steps steps
    if known:
        _reduce(count, angles, reduced.remainders, reduced.rests, reduced.quadrants,
                &reduced.unfit)
        _place_both(count, reduced.remainders, reduced.rests, reduced.quadrants, steps.sizes,
                    steps.steps, steps.rests, steps.smalls, steps.offsets, steps.signs,
                    &reduced.unfit)
        if reduced.unfit >= 0:
            _look_up(count, steps.offsets, steps.entries)
            _finish_both(count, angles, steps.sizes, steps.steps, steps.rests, steps.smalls,
                         steps.signs, steps.entries, sines, cosines)
            return
    _call_both(count, angles, sines, cosines)


cdef void _call_both(Py_ssize_t count, const double* angles, double* sines,
                     double* cosines) noexcept nogil:
    """The library. In one loop C compilers would make one call of ``sincos``, whose results may
    differ from those of ``sin`` and ``cos``: in the GNU library that of 1.6762650767948966 does."""
    cdef Py_ssize_t e
    for e in range(count):
        sines[e] = sin(angles[e])
    for e in range(count):
        cosines[e] = cos(angles[e])


cdef void _cosines(Py_ssize_t count, const double* angles, DoubleLane out) noexcept nogil:
    cdef Angles reduced
    cdef Steps steps
    cdef Py_ssize_t e
    if known:
        _reduce(count, angles, reduced.remainders, reduced.rests, reduced.quadrants,
                &reduced.unfit)
        if reduced.unfit >= 0:
            _place_cosines(count, reduced.remainders, reduced.rests, reduced.quadrants,
                           steps.sizes, steps.steps, steps.rests, steps.smalls,
                           steps.offsets)
            _look_up(count, steps.offsets, steps.entries)
            _finish_cosines(count, steps.sizes, steps.steps, steps.rests, steps.smalls,
                            steps.offsets, steps.entries, out)
            return
    for e in range(count):
        out[e] = cos(angles[e])


cdef LaneLoop _reduce(Py_ssize_t count, const double* angles, DoubleLane remainders,
                      DoubleLane rests, WordLane quadrants, WordLane unfit) noexcept nogil:
    cdef Py_ssize_t e
    cdef int64_t large = 0, quadrant
    cdef double size, shifted, whole, near, third, far, far_rest, less, middle, middle_rest
    cdef double remainder, rest
    for e in range(count):
        size = fabs(angles[e])
        shifted = fma(size, TWO_OVER_PI, ROUNDER)
        whole = shifted - ROUNDER
        near = fma(-whole, PART2, fma(-whole, PART1, size))
        third = fma(-whole, PART3, near)
        far = fma(-whole, PART4, third)
        far_rest = fma(-whole, PART3, near - third) + fma(-whole, PART4, third - far)
        less = size - HALF_PI
        middle = less - HALF_PI_REST
        middle_rest = (less - middle) - HALF_PI_REST
        remainder = middle if size < MIDDLE else far
        rest = middle_rest if size < MIDDLE else far_rest
        quadrant = 1 if size < MIDDLE else _bits(shifted)
        remainders[e] = size if size < SMALL else remainder
        rests[e] = 0.0 if size < SMALL else rest
        quadrants[e] = 0 if size < SMALL else quadrant
        large |= _bits(LARGE - size)
    unfit[0] = large


cdef LaneLoop _place_cosines(Py_ssize_t count, const double* remainders, const double* rests,
                             const int64_t* quadrants, DoubleLane sizes, DoubleLane steps,
                             DoubleLane step_rests, DoubleLane smalls,
                             WordLane offsets) noexcept nogil:
    """A cosine is the sine of a quadrant more. For that of an odd quadrant the library takes a
    cosine, up to sign, and the rest goes into the step at once."""
    cdef Py_ssize_t e
    cdef int64_t quadrant, odd, sign, turned
    cdef double size, rest, shifted, step
    for e in range(count):
        quadrant = quadrants[e] + 1
        odd = quadrant & 1
        sign = _bits(remainders[e]) & SIGN
        rest = _double(_bits(rests[e]) ^ sign)
        size = fabs(remainders[e])
        shifted = size + GRID
        step = size - (shifted - GRID)
        turned = _sign_of(quadrant) ^ (0 if odd else sign)
        sizes[e] = _double((_bits(1.0) if odd else _bits(size)) | turned)
        steps[e] = step + rest if odd else step
        step_rests[e] = 0.0 if odd else rest
        smalls[e] = _taylor(size, rest)
        offsets[e] = ((_bits(shifted) & (ENTRIES - 1)) << 3) | (odd << 2)


cdef LaneLoop _finish_cosines(Py_ssize_t count, const double* sizes, const double* steps,
                              const double* rests, const double* smalls,
                              const int64_t* offsets, const double* entries,
                              DoubleLane out) noexcept nogil:
    cdef Py_ssize_t e
    cdef double step, cubic, factor, sine, versine, value
    for e in range(count):
        step = steps[e]
        cubic = step * (step * step)
        factor = _cubic_factor(step * step)
        sine = -fma(cubic, factor, step) if offsets[e] & 4 else step + fma(cubic, factor, rests[e])
        versine = fma(step, rests[e], _versine(step * step))
        value = entries[4 * e] + fma(
            entries[4 * e + 2], sine, fma(-entries[4 * e], versine,
                                          fma(sine, entries[4 * e + 3], entries[4 * e + 1])))
        value = smalls[e] if fabs(sizes[e]) < TAYLOR else value
        out[e] = _double(_bits(value) ^ (_bits(sizes[e]) & SIGN))


cdef LaneLoop _place_small(Py_ssize_t count, const double* angles, DoubleLane sizes,
                           DoubleLane steps, DoubleLane rests, DoubleLane smalls,
                           WordLane offsets, WordLane signs, WordLane unfit) noexcept nogil:
    """Of angles that are their own remainders."""
    cdef Py_ssize_t e
    cdef int64_t large = 0
    cdef double size, shifted
    for e in range(count):
        size = fabs(angles[e])
        shifted = size + GRID
        sizes[e] = size
        steps[e] = size - (shifted - GRID)
        rests[e] = 0.0
        smalls[e] = _taylor(size, 0.0)
        offsets[e] = (_bits(shifted) & (ENTRIES - 1)) << 3
        signs[e] = 0
        large |= _bits((SMALL - 1e-9) - size)         # negative, and not 0, if size is SMALL
    unfit[0] = large


cdef LaneLoop _place_both(Py_ssize_t count, const double* remainders, const double* rests,
                          const int64_t* quadrants, DoubleLane sizes, DoubleLane steps,
                          DoubleLane step_rests, DoubleLane smalls, WordLane offsets,
                          WordLane signs, WordLane unfit) noexcept nogil:
    """For the sine of an angle between SMALL and MIDDLE the library chooses the entry by the
    difference from HALF_PI alone, before it adds what that lacks. So near the middle between two
    entries it may take another one than for the cosine: `unfit`."""
    cdef Py_ssize_t e
    cdef int64_t tie = 0, sign
    cdef double size, shifted, step, rest
    for e in range(count):
        sign = _bits(remainders[e]) & SIGN
        size = fabs(remainders[e])
        shifted = size + GRID
        step = size - (shifted - GRID)
        sizes[e] = size
        steps[e] = step
        rest = _double(_bits(rests[e]) ^ sign)
        step_rests[e] = rest
        smalls[e] = _taylor(size, rest)
        offsets[e] = (_bits(shifted) & (ENTRIES - 1)) << 3
        signs[e] = sign | (quadrants[e] & 3)
        tie |= _bits((TIE - 2e-16) - fabs(step))
    unfit[0] |= tie


cdef LaneLoop _finish_both(Py_ssize_t count, const double* angles, const double* sizes,
                           const double* steps, const double* rests, const double* smalls,
                           const int64_t* signs, const double* entries, DoubleLane sines,
                           DoubleLane cosines) noexcept nogil:
    cdef Py_ssize_t e
    cdef int64_t sign
    cdef double step, rest, small_sine, versine, sine, cosine
    for e in range(count):
        rest = rests[e]
        step = steps[e]
        small_sine = step + fma(step * (step * step), _cubic_factor(step * step), rest)
        versine = fma(step, rest, _versine(step * step))
        sine = entries[4 * e] + fma(
            entries[4 * e + 2], small_sine,
            fma(-entries[4 * e], versine,
                fma(small_sine, entries[4 * e + 3], entries[4 * e + 1])))
        sine = smalls[e] if sizes[e] < TAYLOR else sine

        step = step + rest
        small_sine = -fma(step * (step * step), _cubic_factor(step * step), step)
        versine = _versine(step * step)
        cosine = entries[4 * e + 2] + fma(
            entries[4 * e], small_sine,
            fma(-entries[4 * e + 2], versine,
                fma(small_sine, entries[4 * e + 1], entries[4 * e + 3])))

        # Then by whole quadrants.
        sign = signs[e]
        sine = _double(_bits(sine) ^ (sign & SIGN))
        sines[e] = _double(_bits(cosine if sign & 1 else sine)
                           ^ _sign_of(sign) ^ (_bits(angles[e]) & SIGN))
        cosines[e] = _double(_bits(sine if sign & 1 else cosine) ^ _sign_of(sign + 1))


cdef LaneLoop _look_up(Py_ssize_t count, const int64_t* offsets,
                       DoubleLane entries) noexcept nogil:
    """No vector loop, but with AVX2 one copy is one load and one store."""
    cdef Py_ssize_t e
    for e in range(count):
        memcpy(entries + 4 * e, table + offsets[e], 4 * sizeof(double))


cdef inline double _cubic_factor(double square) noexcept nogil:
    """(sin(x) - x) / x**3 of a small x, given its square."""
    return fma(square, 0.008333332142857223, -0.16666666666666488)


cdef inline double _versine(double square) noexcept nogil:
    """1 - cos(x) of a small x, given its square."""
    return square * fma(square, fma(square, 0.001388888740079376, -0.04166666666666644), 0.5)


cdef inline double _taylor(double x, double rest) noexcept nogil:
    """sin(x + rest), 0 <= x < 0.126."""
    cdef double square = x * x
    cdef double factor = fma(fma(fma(fma(
        square, -2.5022014848318398e-08, 2.755729806860771e-06), square, -0.00019841269834414642),
        square, 0.008333333333332329), square, -0.16666666666666666)
    return x + fma(fma(factor, x, -0.5 * rest), square, rest)


cdef inline int64_t _sign_of(int64_t quadrant) noexcept nogil:
    """That of a sine, as a float64's first bit."""
    return <int64_t> (<uint64_t> quadrant << 62) & SIGN


cdef inline int64_t _bits(double x) noexcept nogil:
    cdef int64_t bits
    memcpy(&bits, &x, sizeof(bits))
    return bits


cdef inline double _double(int64_t bits) noexcept nogil:
    cdef double x
    memcpy(&x, &bits, sizeof(x))
    return x


cdef void near_sines_and_cosines(Py_ssize_t count, const double* angles, DoubleLane sines,
                                 DoubleLane cosines) noexcept nogil:
    if known:
        _near_sines_and_cosines(count, angles, sines, cosines)
    else:
        _call_both(count, angles, sines, cosines)


cdef LaneLoop _near_sines_and_cosines(Py_ssize_t count, const double* angles, DoubleLane sines,
                                      DoubleLane cosines) noexcept nogil:
    """Taylor's series of the angle less the nearest multiple of pi / 2, up to x**15 and x**16."""
    cdef Py_ssize_t e
    cdef int64_t quadrant
    cdef double shifted, whole, x, z, sine, cosine
    for e in range(count):
        shifted = fma(angles[e], TWO_OVER_PI, ROUNDER)
        whole = shifted - ROUNDER
        quadrant = _bits(shifted)
        x = fma(-whole, PART3, fma(-whole, PART2, fma(-whole, PART1, angles[e])))
        z = x * x
        sine = fma(z, -1.0 / 1307674368000.0, 1.0 / 6227020800.0)
        sine = fma(z, fma(z, sine, -1.0 / 39916800), 1.0 / 362880)
        sine = fma(z, fma(z, sine, -1.0 / 5040), 1.0 / 120)
        sine = fma(x * z, fma(z, sine, -1.0 / 6), x)
        cosine = fma(z, 1.0 / 20922789888000.0, -1.0 / 87178291200.0)
        cosine = fma(z, fma(z, cosine, 1.0 / 479001600), -1.0 / 3628800)
        cosine = fma(z, fma(z, cosine, 1.0 / 40320), -1.0 / 720)
        cosine = fma(z, fma(z, fma(z, cosine, 1.0 / 24), -0.5), 1.0)
        sines[e] = _double(_bits(cosine if quadrant & 1 else sine) ^ _sign_of(quadrant))
        cosines[e] = _double(_bits(sine if quadrant & 1 else cosine) ^ _sign_of(quadrant + 1))

# ---- squares -------------------------------------------------------------------------------------

cdef void squares(Py_ssize_t count, const double* x, DoubleLane out) noexcept nogil:
    cdef uint8_t unsure[MANY + 7]
    cdef Py_ssize_t places[MANY]
    cdef Py_ssize_t start = 0, e, k, some
    while start < count:
        some = min(<Py_ssize_t> MANY, count - start)
        if known:
            _try_squares(some, x + start, out + start, unsure)
        else:
            memset(unsure, 1, some)
        for k in range(marked(some, unsure, places)):
            e = start + places[k]
            out[e] = pow(fabs(x[e]), TWO)             # faster than of negative ones
        start += MANY


cdef LaneLoop _try_squares(Py_ssize_t count, const double* x, DoubleLane out,
                           ByteLane unsure) noexcept nogil:
    """Products, and 1 where the library's square may be another."""
    cdef Py_ssize_t e
    cdef int64_t signs
    cdef double product, error
    for e in range(count):
        product = x[e] * x[e]
        # What the product lacks, and 0.0106 * 2**-53 of it. The number below is no farther than the
        # one above, so this asks for both. By signs: comparisons take longer.
        error = fma(product, 1.1768364e-18, fabs(fma(x[e], x[e], -product)))
        out[e] = product
        signs = _bits((product - error) - product) | _bits(product - 1e-6) | _bits(1e6 - product)
        unsure[e] = <uint8_t> (<uint64_t> signs >> 63)


cdef void squares_float32(Py_ssize_t count, const float* x, FloatLane out) noexcept nogil:
    cdef uint8_t unsure[BLOCK + 7]
    cdef Py_ssize_t places[BLOCK]
    cdef Py_ssize_t start = 0, e, k, some
    while start < count:
        some = min(<Py_ssize_t> BLOCK, count - start)
        if known:
            _try_squares_float32(some, x + start, out + start, unsure)
        else:
            memset(unsure, 1, some)
        for k in range(marked(some, unsure, places)):
            e = start + places[k]
            out[e] = powf(x[e], TWO_FLOAT32)
        start += BLOCK


cdef LaneLoop _try_squares_float32(Py_ssize_t count, const float* x, FloatLane out,
                                   ByteLane unsure) noexcept nogil:
    cdef Py_ssize_t e
    cdef double product, slack
    for e in range(count):
        product = <double> x[e] * <double> x[e]             # exact
        out[e] = <float> product
        # Of the result: 2**-30.7 and 2**-28.5.
        slack = product * (5.73e-10 if (product > 0.25) & (product < 4.0) else 2.63e-9)
        unsure[e] = not ((<float> (product + slack) == <float> (product - slack))
                         & (product > 0.000244140625) & (product < 4096.0))


cdef Py_ssize_t marked(Py_ssize_t count, ByteLane marks, Py_ssize_t* places) noexcept nogil:
    """Eight at a time, of which the first without a branch: it would often be mispredicted."""
    cdef Py_ssize_t start = 0, found = 0
    cdef uint64_t eight
    memset(marks + count, 0, 7)
    while start < count:
        memcpy(&eight, marks + start, 8)
        places[found] = start + first_mark(eight)
        found += eight != 0
        eight &= eight - 1
        while eight:
            places[found] = start + first_mark(eight)
            found += 1
            eight &= eight - 1
        start += 8
    return found

# ---- which library this is -----------------------------------------------------------------------

cdef void pretend(bint librarys_known) noexcept nogil:
    global known
    known = librarys_known


cdef bint recognised(Function sine, Function cosine) noexcept nogil:
    """Whether our results are theirs, for angles of every size and those that tell most."""
    cdef double angles[BLOCK]
    cdef double sines[BLOCK]
    cdef double cosines_[BLOCK]
    cdef double alone[BLOCK]
    cdef double theirs[2]
    cdef double fraction, reach = 0.3
    cdef bint before = known, same = True
    cdef Py_ssize_t e, k
    pretend(True)
    for k in range(32):
        for e in range(BLOCK):
            # Multiples of the golden ratio are spread evenly.
            fraction = 0.6180339887498949 * (BLOCK * k + e)
            angles[e] = reach * (2.0 * (fraction - <double> <int64_t> fraction) - 1.0)
        if k < <Py_ssize_t> (sizeof(TELLING) // sizeof(double)):
            angles[k] = TELLING[k]
        reach = 0.3 if reach > 1e6 else 2.0 * reach
        sines_and_cosines(BLOCK, angles, sines, cosines_)
        cosines(BLOCK, angles, alone)
        for e in range(BLOCK):
            theirs[0], theirs[1] = sine(angles[e]), cosine(angles[e])
            same &= (sines[e] == theirs[0]) & (cosines_[e] == theirs[1]) & (alone[e] == theirs[1])
    pretend(before)
    return same


cdef _fill_table():
    """Sines and cosines of k / 128 by Taylor's series of whole numbers, 2**200 for 1."""
    cdef double high, low
    one = 1 << 200
    for k in range(ENTRIES):
        sums = [0, 0]                       # of cosine and sine
        term, power = one, 0                # x**power / power!
        while term:
            sums[power % 2] += -term if power % 4 > 1 else term
            power += 1
            term = term * k // (128 * power)
        for place, value in ((0, sums[1]), (2, sums[0])):
            high = value / one
            numerator, denominator = high.as_integer_ratio()
            low = (value * denominator - numerator * one) / (one * denominator)
            for start in (place, 4 + (place + 2) % 4):
                table[WIDTH * k + start] = high
                table[WIDTH * k + start + 1] = low


_fill_table()
known = fused() and recognised(sin, cos)
