"""The C library's functions in lanes, against the C library, bit by bit."""

import math

import numpy as np
import pytest

HALF_PI = math.pi / 2


def neighbours(x, steps=40):
    """The float64 just below and above each number, `steps` on either side."""
    bits = np.asarray(x, np.float64).view(np.int64)
    return (bits[:, None] + np.arange(-steps, steps + 1)).ravel().view(np.float64)


def hard():
    """Near what the functions distinguish: zeros, whole quarters, 1/8, the ends of their ranges."""
    quarters = np.arange(1, 3000) * HALF_PI
    return np.concatenate([
        neighbours([0.125, 0.126, 0.855469, 2.426265, HALF_PI / 2, 2.0**-16, 2.0**-26, 2.0**20,
                    0.25, 105414350.0, math.asin(0.125), math.acos(0.125)], 3000),
        neighbours(quarters), neighbours(quarters - HALF_PI / 2, 5),
        quarters + 2.0**-16, quarters - 2.0**-16,
        np.ldexp(1.0, np.arange(-1074, 1024)), np.ldexp(1.9, np.arange(-1074, 1023)),
        np.arange(0.0, 4000.0), np.arange(0.0, 2.0, 2.0**-11), [0.0, 1e308, np.inf, np.nan]])


@pytest.mark.parametrize("reach", [1e-4, 0.126, 0.25, 0.86, 2.43, 7.0, 100.0, 2.0**20])
def test_sines_and_cosines_are_the_librarys(native, reach):
    rng = np.random.default_rng(0)
    room = np.empty(250_000), np.empty(250_000)
    for _ in range(8):
        x = rng.uniform(-reach, reach, 250_000)
        assert native["libm"].wrong_sines_and_cosines(x, *room) == (0, 0, 0, 0)


def test_hard_angles_are_the_librarys(native):
    x = hard()
    x = np.concatenate([x, -x])
    room = np.empty_like(x), np.empty_like(x)
    assert native["libm"].wrong_sines_and_cosines(x, *room) == (0, 0, 0, 0)


def test_float32_cosines_are_the_librarys(native):
    rng = np.random.default_rng(0)
    # Cosines at the midpoints of float32, too, where rounding twice matters.
    middles = np.arange(0.25, 1.0, 2.0**-12).astype(np.float32).astype(np.float64) + 2.0**-26
    angles = np.concatenate([hard(), neighbours(np.arccos(middles), 3),
                             rng.uniform(-80, 80, 1_000_000)])
    room = np.empty_like(angles), np.empty_like(angles, np.float32)
    assert native["libm"].wrong_sines_and_float32_cosines(angles, *room) == 0


@pytest.mark.parametrize("count", [1, 2, 7, 127, 128, 129, 300])
def test_any_number_of_them(native, count):
    x = np.linspace(-4, 4, count)
    room = np.full(count + 1, 7.0), np.full(count + 1, 7.0)
    assert native["libm"].wrong_sines_and_cosines(x, *room) == (0, 0, 0, 0)
    assert room[0][count] == room[1][count] == 7.0


def test_too_much_trust_would_be_seen(native):
    """The library needs the slack: with a quarter of it, these tests would fail. And the angles
    that it is asked for are few."""
    x = np.random.default_rng(0).uniform(-7, 7, 1_000_000)
    small = x / 28
    assert native["libm"].wrong_when_trusted(x, 1.0)[0] == 0
    assert native["libm"].wrong_when_trusted(small, 1.0)[2] == 0
    if not native["libm"].GLIBC_KNOWN:
        pytest.skip("another C library is always asked")
    assert 0.01 * len(x) < native["libm"].wrong_when_trusted(x, 1.0)[1] < 0.1 * len(x)
    assert 0.01 * len(x) < native["libm"].wrong_when_trusted(small, 1.0)[3] < 0.05 * len(x)
    for trust in (0.25, 0.1, 0.0):
        assert native["libm"].wrong_when_trusted(x, trust)[0] > 10
        assert native["libm"].wrong_when_trusted(small, trust)[2] > 10


def test_numpy_has_the_same(native):
    """Gymnasium's environments call NumPy's, on scalars."""
    x = np.concatenate([np.random.default_rng(0).uniform(-10, 10, 200_000), neighbours([1.0])])
    for ours, theirs in ((math.sin, np.sin), (math.cos, np.cos)):
        assert [ours(value) for value in x] == [theirs(value) for value in x]


def test_squares_are_powers(native):
    rng = np.random.default_rng(0)
    wide = rng.uniform(1, 2, 100_000) * 2.0 ** rng.integers(-500, 500, 100_000)
    for x in [wide, hard(), *(rng.uniform(-30, 30, 500_000) for _ in range(10))]:
        out = np.empty_like(x)
        assert native["libm"].wrong_squares(x, out) == 0
    assert (out != x * x).sum() > 100                # or a product would do


def test_float32_squares_are_powers(native):
    rng = np.random.default_rng(0)
    every = np.arange(0x3F000000, 0x40000000, dtype=np.uint32).view(np.float32)      # 0.5 to 2
    wide = rng.uniform(1, 2, 100_000) * 2.0 ** rng.integers(-100, 100, 100_000)
    for x in (every, -every[::9], wide.astype(np.float32), np.zeros(3, np.float32)):
        out = np.empty_like(x)
        assert native["libm"].wrong_squares_float32(x, out) == 0
