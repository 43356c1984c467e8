"""The C library's functions in lanes, against the C library, bit by bit."""

import math
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pufferlib_cy._core import checked

HALF_PI = math.pi / 2


@pytest.fixture(params=["in lanes", "by the library"])
def libm(native, request):
    """The module, made to compute in lanes, or to call the library, whatever it does by itself."""
    module = native["libm"]
    before = module.known()
    if request.param == "in lanes" and not module.recognises_librarys():
        pytest.skip("this C library's operations are not known")
    module.pretend(request.param == "in lanes")
    yield module
    module.pretend(before)


def neighbours(x, steps=40):
    """The float64 just below and above each number, `steps` on either side."""
    bits = np.asarray(x, np.float64).view(np.int64)
    return (bits[:, None] + np.arange(-steps, steps + 1)).ravel().view(np.float64)


def hard():
    """Near what the functions distinguish: zeros, whole quarters, ties, ends of their ranges."""
    quarters = np.arange(1, 3000) * HALF_PI
    halfway = (np.arange(110) + 0.5) / 128           # between two entries of the table
    return np.concatenate([
        neighbours([0.125, 0.126, 0.85546875, 2.4262638092041016, HALF_PI / 2, 2.0**-16, 2.0**-26,
                    2.0**20, 2.0**26, 0.25, 105414350.0, math.asin(0.126), math.acos(0.126)], 3000),
        neighbours(quarters), neighbours(quarters - HALF_PI / 2, 5),
        neighbours(halfway), neighbours(HALF_PI + halfway), neighbours(HALF_PI - halfway),
        quarters + 2.0**-16, quarters - 2.0**-16,
        np.ldexp(1.0, np.arange(-1074, 1024)), np.ldexp(1.9, np.arange(-1074, 1023)),
        np.arange(0.0, 4000.0), np.arange(0.0, 2.0, 2.0**-11), [0.0, 1e308, np.inf, np.nan]])


@pytest.mark.parametrize("reach", [1e-4, 0.126, 0.25, 0.86, 2.43, 7.0, 100.0, 2.0**20, 2.0**27])
def test_sines_and_cosines_are_the_librarys(libm, reach):
    rng = np.random.default_rng(0)
    room = np.empty(250_000), np.empty(250_000)
    for _ in range(8):
        x = rng.uniform(-reach, reach, 250_000)
        assert libm.wrong_sines_and_cosines(x, *room) == (0, 0, 0, 0)


def test_hard_angles_are_the_librarys(libm):
    x = hard()
    x = np.concatenate([x, -x])
    room = np.empty_like(x), np.empty_like(x)
    assert libm.wrong_sines_and_cosines(x, *room) == (0, 0, 0, 0)


@pytest.mark.parametrize("count", [1, 2, 7, 127, 128, 129, 300])
def test_any_number_of_them(libm, count):
    x = np.linspace(-4, 4, count)
    room = np.full(count + 1, 7.0), np.full(count + 1, 7.0)
    assert libm.wrong_sines_and_cosines(x, *room) == (0, 0, 0, 0)
    assert libm.wrong_squares(x, room[0]) == 0
    assert libm.error_of_near_ones(x, *room) < 2.0**-50
    assert room[0][count] == room[1][count] == 7.0
    floats = np.full(count + 1, 7.0, np.float32)
    assert libm.wrong_squares_float32(x.astype(np.float32), floats) == 0
    assert floats[count] == 7.0


@pytest.mark.parametrize("angle", [1e300, math.inf, math.nan, 1.6762650767948966])
def test_one_angle_that_needs_the_library_spoils_no_other(libm, angle):
    """The last is halfway between two entries of the table for the sine, and not for the cosine."""
    x = np.linspace(-4, 4, 384)
    x[200] = angle
    room = np.empty_like(x), np.empty_like(x)
    assert libm.wrong_sines_and_cosines(x, *room) == (0, 0, 0, 0)


# Angles for each of which the library's result tells something about its operations.
TELLING = ["0x1.27ca6f20ff1dap+2", "0x1.0ec9360a1c344p+2", "0x1.d43596df99ed9p+19",
           "0x1.3eefb4bbb1388p+0", "0x1.a30484f288673p+18"]


@pytest.mark.parametrize("angle", TELLING)
def test_one_bit_is_enough_not_to_recognise_the_library(native, angle):
    if not native["libm"].recognises_librarys():
        pytest.skip("this C library's operations are not known")
    another = native["libm"].recognises_with_another_bit(float.fromhex(angle))
    assert another == (False, False)
    assert native["libm"].recognises_with_another_bit(1.0) == (True, True)     # not looked at


def test_the_library_is_known_where_it_should_be(native):
    """By a process of its own: with the processor's instructions, and told to do without them."""
    processor = Path("/proc/cpuinfo")
    if platform.libc_ver()[0] != "glibc" or not {"fma", "avx2", "movbe"} <= set(
            processor.read_text().split()):
        pytest.skip("another C library or processor")
    if checked or "sanitize" in os.environ.get("CFLAGS", ""):
        pytest.skip("built without those instructions")
    code = ("import importlib.util, sys\n"
            "spec = importlib.util.spec_from_file_location('libm', sys.argv[1])\n"
            "libm = importlib.util.module_from_spec(spec)\n"
            "spec.loader.exec_module(libm)\n"
            "print(libm.known(), libm.recognises_librarys())")

    def asked(**environ):
        return subprocess.run([sys.executable, "-c", code, native["libm"].__file__], text=True,
                              capture_output=True, check=True, env=os.environ | environ).stdout

    assert native["libm"].known()
    assert asked() == "True True\n"
    assert asked(GLIBC_TUNABLES="glibc.cpu.hwcaps=-FMA,-AVX2,-AVX2_Usable") == "False False\n"


def test_near_ones_are_near(libm):
    x = np.random.default_rng(0).uniform(-1000, 1000, 1_000_000)
    x[:1000] = np.arange(-500, 500) * HALF_PI
    x[1000:2000] *= 1e-3
    assert libm.error_of_near_ones(x, np.empty_like(x), np.empty_like(x)) < 2.0**-50


def test_numpy_has_the_same(native):
    """Gymnasium's environments call NumPy's, on scalars."""
    x = np.concatenate([np.random.default_rng(0).uniform(-10, 10, 200_000), neighbours([1.0])])
    for ours, theirs in ((math.sin, np.sin), (math.cos, np.cos)):
        assert [ours(value) for value in x] == [theirs(value) for value in x]


def test_squares_are_powers(libm):
    rng = np.random.default_rng(0)
    wide = rng.uniform(1, 2, 100_000) * 2.0 ** rng.integers(-500, 500, 100_000)
    for x in [wide, hard(), *(rng.uniform(-30, 30, 500_000) for _ in range(10))]:
        out = np.empty_like(x)
        assert libm.wrong_squares(x, out) == 0
    assert (out != x * x).sum() > 100                # or a product would do


def test_float32_squares_are_powers(libm):
    every = np.arange(0x3F000000, 0x40000000, dtype=np.uint32).view(np.float32)      # 0.5 to 2
    rng = np.random.default_rng(0)
    wide = rng.uniform(1, 2, 100_000) * 2.0 ** rng.integers(-100, 100, 100_000)
    for x in (every, -every[::9], wide.astype(np.float32), np.zeros(3, np.float32)):
        out = np.empty_like(x)
        assert libm.wrong_squares_float32(x, out) == 0


@pytest.mark.parametrize("marks", [
    [], [0, 0, 1], [1] * 8, [1] * 21, [0] * 40 + [1], [1, 0, 0, 0, 0, 0, 0, 1] * 16,
    list(np.random.default_rng(0).integers(0, 2, 384)), [0] * 384])
def test_places_of_marks(native, marks):
    places = native["libm"].places_of(bytes(map(int, marks)))
    assert sorted(places) == list(np.flatnonzero(marks))
