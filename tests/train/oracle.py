"""The slow, obvious oracle for training: advantages row by row, and the loss in NumPy scalars.

Nothing here is shared with the package.
"""

import math

import numpy as np


def gae(rewards, values, terminations, truncations, final_values, gamma, gae_lambda):
    """Generalised advantages (T, N) in float64; `vtrace` with ratios of 1."""
    ones = np.ones_like(rewards)
    return vtrace(rewards, values, terminations, truncations, final_values, ones, gamma,
                  gae_lambda, 1.0, 1.0)


def vtrace(rewards, values, terminations, truncations, final_values, ratios, gamma, gae_lambda,
           rho_clip, c_clip):
    """By the definition: the sum of the rest of the episode's deltas, each weighted."""
    T, N = rewards.shape
    out = np.zeros((T, N))
    for n in range(N):
        for t in range(T):
            weight = 1.0
            for k in range(t, T):
                if terminations[k, n]:
                    following = 0.0
                elif truncations[k, n]:
                    following = final_values[k, n]
                else:
                    following = values[k + 1, n]
                delta = float(rewards[k, n]) + gamma * following - float(values[k, n])
                out[t, n] += weight * min(ratios[k, n], rho_clip) * delta
                if terminations[k, n] or truncations[k, n]:
                    break
                weight *= gamma * gae_lambda * min(ratios[k, n], c_clip)
    return out


def pufferlib(rewards, values, dones, ratios, gamma, gae_lambda, rho_clip, c_clip):
    """PufferLib 3.0's recursion, one row after the other."""
    T, N = rewards.shape
    out = np.zeros((T, N))
    for n in range(N):
        carried = 0.0
        for t in reversed(range(T - 1)):
            live = 1.0 - dones[t + 1, n]
            rho, c = min(ratios[t, n], rho_clip), min(ratios[t, n], c_clip)
            delta = rho * (rewards[t + 1, n] + gamma * values[t + 1, n] * live - values[t, n])
            carried = delta + gamma * gae_lambda * c * carried * live
            out[t, n] = carried
    return out


def policy_loss(ratios, advantages, clip, dual_clip):
    """Mean over rows of the clipped and dual-clipped objective, negated: as the papers write it."""
    total = 0.0
    for r, a in zip(ratios, advantages, strict=True):
        objective = min(r * a, min(max(r, 1 - clip), 1 + clip) * a)
        if a < 0 and dual_clip is not None:
            objective = max(objective, dual_clip * a)
        total -= objective
    return total / len(ratios)


def value_loss(values, old_values, returns, clip):
    """Half the mean squared error over rows, with PPO2's clipping if `clip` is given."""
    total = 0.0
    for value, old, target in zip(values, old_values, returns, strict=True):
        error = (value - target) ** 2
        if clip is not None:
            clipped = old + min(max(value - old, -clip), clip)
            error = max(error, (clipped - target) ** 2)
        total += error / 2
    return total / len(values)


def softmax(logits):
    """Probabilities of a list of logits; -inf has probability 0."""
    powers = [math.exp(x - max(logits)) for x in logits]
    return [p / sum(powers) for p in powers]
