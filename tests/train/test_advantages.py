"""The compiled advantage estimates against the oracle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from train import oracle

from pufferlib_cy import _advantages


def case(rng, T, N, ends=0.2):
    """Random arrays (T, N): rewards, values, terminations, truncations, final values, ratios."""
    rewards, final_values = rng.standard_normal((2, T, N)).astype(np.float32)
    values = rng.standard_normal((T + 1, N)).astype(np.float32)
    terminations, truncations = rng.random((2, T, N)) < ends
    final_values[~truncations] = np.nan                       # must never be read
    ratios = rng.uniform(0.2, 3.0, (T, N)).astype(np.float32)
    return rewards, values, terminations, truncations, final_values, ratios


cases = given(st.integers(0, 2**32), st.integers(1, 20), st.integers(1, 40),
              st.sampled_from([0.0, 0.1, 0.5]), st.floats(0, 1), st.floats(0, 1))


@cases
@settings(max_examples=150, deadline=None)
def test_gae(seed, T, N, ends, gamma, gae_lambda):
    *arrays, _ = case(np.random.default_rng(seed), T, N, ends)
    out = np.full((T, N), np.nan, np.float32)
    _advantages.gae(*arrays, gamma, gae_lambda, out)
    np.testing.assert_allclose(out, oracle.gae(*arrays, gamma, gae_lambda), rtol=1e-4, atol=1e-4)


@cases
@settings(max_examples=150, deadline=None)
def test_vtrace(seed, T, N, ends, gamma, gae_lambda):
    arrays = case(np.random.default_rng(seed), T, N, ends)
    out = np.full((T, N), np.nan, np.float32)
    _advantages.vtrace(*arrays, gamma, gae_lambda, 1.2, 0.9, out)
    expected = oracle.vtrace(*arrays, gamma, gae_lambda, 1.2, 0.9)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


def test_vtrace_with_ratios_of_one_is_gae():
    *arrays, ratios = case(np.random.default_rng(0), 16, 33)
    out, expected = np.zeros((2, 16, 33), np.float32)
    _advantages.gae(*arrays, 0.99, 0.95, expected)
    _advantages.vtrace(*arrays, np.ones_like(ratios), 0.99, 0.95, 1.0, 2.0, out)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@cases
@settings(max_examples=150, deadline=None)
def test_pufferlib(seed, T, N, ends, gamma, gae_lambda):
    rewards, values, dones, _, _, ratios = case(np.random.default_rng(seed), T, N, ends)
    out = np.full((T, N), np.nan, np.float32)
    _advantages.pufferlib(rewards, values[:T], dones, ratios, gamma, gae_lambda, 1.2, 0.9, out)
    expected = oracle.pufferlib(rewards, values, dones, ratios, gamma, gae_lambda, 1.2, 0.9)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


def test_a_termination_outweighs_a_truncation():
    """Both at once: the episode ended by the rules, nothing follows."""
    one = np.ones((1, 1), np.float32)
    both = np.ones((1, 1), np.bool_)
    out = np.zeros((1, 1), np.float32)
    _advantages.gae(2 * one, np.zeros((2, 1), np.float32), both, both, 100 * one, 0.9, 0.9, out)
    assert out[0, 0] == 2.0


@pytest.mark.parametrize(("index", "change", "error", "message"), [
    (0, lambda a: a[0], ValueError, "rewards: expected a two-dimensional"),
    (1, lambda a: a[:-1], ValueError, r"values: expected shape \(6, 4\), got \(5, 4\)"),
    (1, lambda a: a.astype(np.float64), TypeError, "values: expected a float32 array, got float64"),
    (2, lambda a: a.astype(np.uint8), TypeError, "terminations: expected a bool array"),
    (4, lambda a: a.tolist(), TypeError, "final_values: expected a float32 array, got list"),
    (5, np.asfortranarray, ValueError, "out: expected a C-contiguous array"),
])
def test_wrong_arrays(index, change, error, message):
    *arrays, _ = case(np.random.default_rng(0), 5, 4)
    arrays.append(np.zeros((5, 4), np.float32))
    arrays[index] = change(arrays[index])
    with pytest.raises(error, match=message):
        _advantages.gae(*arrays[:5], 0.99, 0.95, arrays[5])
