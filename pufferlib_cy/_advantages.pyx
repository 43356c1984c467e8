"""Advantage estimates over time-major float32 arrays: GAE, its V-trace form, and PufferLib 3.0's.

Letters: T steps, N rows. The loops go back in time, and at each step over all rows at once, which
the compiler turns into vector instructions.
"""

from libc.stdint cimport uint8_t

import numpy as np


def gae(rewards, values, terminations, truncations, final_values, float gamma, float gae_lambda,
        out):
    """Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438), eqs. 11 and 16.

    With n = 0 where an episode ends and else 1, and V' = 0 after a termination, the value of the
    final observation after a truncation, and else the value of the next observation::

        delta[t] = rewards[t] + gamma * V'[t + 1] - values[t]
        out[t] = delta[t] + gamma * gae_lambda * n[t] * out[t + 1],    out[T] = 0

    Parameters
    ----------
    rewards: float32 (T, N), of the actions taken at each step.
    values: float32 (T + 1, N), of the observations acted on; the last row, of those after them.
    terminations, truncations: bool (T, N), what the actions caused.
    final_values: float32 (T, N), read only where an episode was truncated: the value of its last
        observation.
    gamma, gae_lambda: discount factor and decay.
    out: float32 (T, N), written.

    Raises ValueError or TypeError, naming the array, for a wrong shape or dtype.
    """
    T, N = _horizon(rewards)
    cdef const float[:, ::1] r = _checked("rewards", rewards, np.float32, T, N)
    cdef const float[:, ::1] v = _checked("values", values, np.float32, T + 1, N)
    cdef const uint8_t[:, ::1] term = _flags("terminations", terminations, T, N)
    cdef const uint8_t[:, ::1] trunc = _flags("truncations", truncations, T, N)
    cdef const float[:, ::1] final = _checked("final_values", final_values, np.float32, T, N)
    cdef float[:, ::1] a = _checked("out", out, np.float32, T, N)
    cdef Py_ssize_t t
    if r.size == 0:
        return
    with nogil:
        a[r.shape[0] - 1, :] = 0.0        # the last row's own successor: out[T]
        for t in range(r.shape[0] - 1, -1, -1):
            gae_row(r.shape[1], &r[t, 0], &v[t, 0], &v[t + 1, 0], &term[t, 0], &trunc[t, 0],
                    &final[t, 0], gamma, gamma * gae_lambda,
                    &a[min(t + 1, r.shape[0] - 1), 0], &a[t, 0])


def vtrace(rewards, values, terminations, truncations, final_values, ratios, float gamma,
           float gae_lambda, float rho_clip, float c_clip, out):
    """GAE weighted by clipped importance ratios: PufferLib's "puffer advantage".

    The weights are those of V-trace (Espeholt et al. 2018, arXiv 1802.01561), applied as in GAE::

        rho[t] = min(ratios[t], rho_clip),    c[t] = min(ratios[t], c_clip)
        delta[t] = rho[t] * (rewards[t] + gamma * V'[t + 1] - values[t])
        out[t] = delta[t] + gamma * gae_lambda * c[t] * n[t] * out[t + 1],    out[T] = 0

    ratios: float32 (T, N), probability of the action now over that when it was taken; with all 1
    and both clips at least 1 this is GAE. The rest is as for `gae`.
    """
    T, N = _horizon(rewards)
    cdef const float[:, ::1] r = _checked("rewards", rewards, np.float32, T, N)
    cdef const float[:, ::1] v = _checked("values", values, np.float32, T + 1, N)
    cdef const uint8_t[:, ::1] term = _flags("terminations", terminations, T, N)
    cdef const uint8_t[:, ::1] trunc = _flags("truncations", truncations, T, N)
    cdef const float[:, ::1] final = _checked("final_values", final_values, np.float32, T, N)
    cdef const float[:, ::1] ratio = _checked("ratios", ratios, np.float32, T, N)
    cdef float[:, ::1] a = _checked("out", out, np.float32, T, N)
    cdef Py_ssize_t t
    if r.size == 0:
        return
    with nogil:
        a[r.shape[0] - 1, :] = 0.0        # the last row's own successor: out[T]
        for t in range(r.shape[0] - 1, -1, -1):
            vtrace_row(r.shape[1], &r[t, 0], &v[t, 0], &v[t + 1, 0], &term[t, 0], &trunc[t, 0],
                       &final[t, 0], &ratio[t, 0], gamma, gamma * gae_lambda, rho_clip, c_clip,
                       &a[min(t + 1, r.shape[0] - 1), 0], &a[t, 0])


def pufferlib(rewards, values, dones, ratios, float gamma, float gae_lambda, float rho_clip,
              float c_clip, out):
    """What PufferLib 3.0 computes, with its indices, to compare with it; nothing here uses it.

    Rewards and dones stand with the observation that they arrived with, so row t + 1 has what the
    action at t caused; the last step is never learned from::

        delta[t] = rho[t] * (rewards[t + 1] + gamma * n * values[t + 1] - values[t])
        out[t] = delta[t] + gamma * gae_lambda * c[t] * n * out[t + 1],    n = 1 - dones[t + 1]
        out[T - 1] = 0

    All arrays are (T, N) float32, time-major (PufferLib's are (N, T)), but dones, bool. rho and c
    are as in `vtrace`.
    """
    T, N = _horizon(rewards)
    cdef const float[:, ::1] r = _checked("rewards", rewards, np.float32, T, N)
    cdef const float[:, ::1] v = _checked("values", values, np.float32, T, N)
    cdef const uint8_t[:, ::1] done = _flags("dones", dones, T, N)
    cdef const float[:, ::1] ratio = _checked("ratios", ratios, np.float32, T, N)
    cdef float[:, ::1] a = _checked("out", out, np.float32, T, N)
    cdef Py_ssize_t t
    if r.size == 0:
        return
    with nogil:
        a[r.shape[0] - 1, :] = 0.0
        for t in range(r.shape[0] - 2, -1, -1):
            pufferlib_row(r.shape[1], &r[t + 1, 0], &v[t, 0], &v[t + 1, 0], &done[t + 1, 0],
                          &ratio[t, 0], gamma, gamma * gae_lambda, rho_clip, c_clip,
                          &a[t + 1, 0], &a[t, 0])


cdef tuple _horizon(rewards):
    if getattr(rewards, "ndim", None) != 2:
        raise ValueError("rewards: expected a two-dimensional array (steps, rows), got "
                         f"{getattr(rewards, 'shape', type(rewards).__name__)}")
    return rewards.shape


cdef _checked(str name, array, dtype, Py_ssize_t steps, Py_ssize_t rows):
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        raise TypeError(f"{name}: expected a {np.dtype(dtype)} array, got "
                        f"{getattr(array, 'dtype', type(array).__name__)}")
    if array.shape != (steps, rows):
        raise ValueError(f"{name}: expected shape ({steps}, {rows}), got {array.shape}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{name}: expected a C-contiguous array")
    return array


cdef _flags(str name, array, Py_ssize_t steps, Py_ssize_t rows):
    return _checked(name, array, np.bool_, steps, rows).view(np.uint8)


# ---- HOT PATH: one step of N rows ----------------------------------------------------------------

cdef void gae_row(
        Py_ssize_t N, const float* rewards, const float* values, const float* next_values,
        const uint8_t* terminations, const uint8_t* truncations, const float* final_values,
        float gamma, float decay, const float* next_out, float* out) noexcept nogil:
    cdef Py_ssize_t n
    cdef float value, carried
    for n in range(N):
        value = final_values[n] if truncations[n] else next_values[n]
        value = 0.0 if terminations[n] else value
        carried = 0.0 if terminations[n] | truncations[n] else next_out[n]
        out[n] = rewards[n] + gamma * value - values[n] + decay * carried


cdef void vtrace_row(
        Py_ssize_t N, const float* rewards, const float* values, const float* next_values,
        const uint8_t* terminations, const uint8_t* truncations, const float* final_values,
        const float* ratios, float gamma, float decay, float rho_clip, float c_clip,
        const float* next_out, float* out) noexcept nogil:
    cdef Py_ssize_t n
    cdef float value, carried
    for n in range(N):
        value = final_values[n] if truncations[n] else next_values[n]
        value = 0.0 if terminations[n] else value
        carried = 0.0 if terminations[n] | truncations[n] else next_out[n]
        out[n] = (min(ratios[n], rho_clip) * (rewards[n] + gamma * value - values[n])
                  + decay * min(ratios[n], c_clip) * carried)


cdef void pufferlib_row(
        Py_ssize_t N, const float* rewards, const float* values, const float* next_values,
        const uint8_t* dones, const float* ratios, float gamma, float decay, float rho_clip,
        float c_clip, const float* next_out, float* out) noexcept nogil:
    cdef Py_ssize_t n
    cdef float live
    for n in range(N):
        live = 0.0 if dones[n] else 1.0
        out[n] = (min(ratios[n], rho_clip) * (rewards[n] + gamma * next_values[n] * live
                                              - values[n])
                  + decay * min(ratios[n], c_clip) * next_out[n] * live)
