"""The arithmetic that follows NumPy's scalars, against NumPy's scalars and arrays."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def numbers():
    """Of all sizes that occur, and some that do not: zeros, tiny and huge ones, whole ones."""
    rng = np.random.default_rng(0)
    wide = rng.uniform(1, 2, 20_000) * 2.0 ** rng.integers(-500, 500, 20_000)
    return np.concatenate([rng.uniform(-30, 30, 300_000), wide, np.arange(-1000.0, 1000.0),
                           [0.0, -0.0, 1e200, 5e-324, np.inf, -np.inf]])


def test_square_is_a_power(native, numbers):
    out = np.empty_like(numbers)
    native["arithmetic"].squares(numbers, out)
    with np.errstate(over="ignore", under="ignore"):
        powers = np.array([x**2 for x in numbers])       # of scalars: an array's ** 2 is a product
        assert out.tobytes() == powers.tobytes()
        assert (out != numbers * numbers).sum() > 100    # or a product would do


def test_float32_square_is_a_power(native, numbers):
    x = numbers[np.abs(numbers) < 1e9].astype(np.float32)
    out = np.empty_like(x)
    native["libm"].wrong_squares_float32(x, out)
    assert out.tobytes() == np.array([value**2 for value in x]).tobytes()
    assert (out != x * x).sum() > 100


def test_float32_sine_and_cosine_are_numpys_polynomials(native):
    x = np.random.default_rng(0).uniform(-np.pi / 4, np.pi / 4, 1_000_000).astype(np.float32)
    cosines, sines = np.empty_like(x), np.empty_like(x)
    native["arithmetic"].cosines_float32(x, cosines)
    native["arithmetic"].sines_float32(x, sines)
    assert cosines.tobytes() == np.cos(x).tobytes()
    assert sines.tobytes() == np.sin(x).tobytes()
