"""draws: what an author draws from a random stream, as lists."""

from pufferlib_cy cimport Rng, next_uint64, normal, uniform, uniform_int


def draws(unsigned long long state, unsigned long long gamma, str kind, int n, int count):
    """`count` draws from the stream (state, gamma): bits, integers in [0, n), uniform, normal."""
    cdef Rng rng
    rng.state, rng.gamma = state, gamma
    if kind == "bits":
        return [next_uint64(&rng) for _ in range(count)]
    if kind == "integers":
        return [uniform_int(&rng, n) for _ in range(count)]
    if kind == "uniform":
        return [uniform(&rng, -2.0, 3.0) for _ in range(count)]
    return [normal(&rng) for _ in range(count)]
