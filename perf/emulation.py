"""Emulation here, in pufferlib-core and in Gymnasium: the same work, taking turns.

    python perf/emulation.py [--rounds N] [-o REPORT]

One process, short bursts in turn: A B C, C B A, ... The space is that of the suite's benchmarks: a
Dict of uint8 (11, 11), float32 (8,), a Discrete and a Tuple of two Boxes. pufferlib-core 3.0.23
(``pip install --no-deps pufferlib-core==3.0.23``) and ours write the same bytes into the same kind
of row, which is checked first; Gymnasium makes a float32 vector with the Discrete as one-hot. Then
CartPole-v1, stepped by us, by Gymnasium and by a bare loop.
"""

from __future__ import annotations

import datetime
import itertools
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import gymnasium.vector
import numpy as np
from interleave import turns
from reporting import parser_of, publish, spread
from run import seconds
from suite import BATCH, mixed_space

import pufferlib_cy
from pufferlib_cy import SpaceTree

BURST = 0.01                  # seconds that one measurement lasts at least
Call = Callable[[], Any]


def flattening() -> dict[str, Call]:
    """One sample into one row."""
    from pufferlib import emulation  # type: ignore[import-not-found,unused-ignore]

    space = mixed_space()
    space.seed(0)
    tree, sample = SpaceTree(space), space.sample()
    row = np.zeros(tree.row_size, np.uint8)
    theirs = np.zeros(1, emulation.dtype_from_space(space))
    tree.flatten(sample, row)
    emulation.emulate(theirs, sample)
    assert row.tobytes() == theirs.tobytes()
    wide = {**sample, "vitals": sample["vitals"].astype(np.float64)}
    return {
        "flatten(sample, out)": partial(tree.flatten, sample, row),
        "flatten(sample), a new array": partial(tree.flatten, sample),
        "flatten(sample, out), one leaf float64": partial(tree.flatten, wide, row),
        "pufferlib-core emulate": partial(emulation.emulate, theirs, sample),
        "gymnasium.spaces.flatten": partial(gymnasium.spaces.flatten, space, sample),
    }


def unflattening() -> dict[str, Call]:
    """Rows into views; Gymnasium has no batches: one sample."""
    import torch
    from pufferlib import emulation, pytorch

    space = mixed_space()
    space.seed(0)
    tree, sample = SpaceTree(space), space.sample()
    rows = np.stack([tree.flatten(sample)] * BATCH)
    tensor = torch.from_numpy(rows)
    layout = pytorch.nativize_dtype({"observation_dtype": np.dtype(np.uint8),
                                     "emulated_observation_dtype": tree.dtype})
    flat = gymnasium.spaces.flatten(space, sample)
    return {
        "unflatten(array)": partial(tree.unflatten, rows),
        "unflatten(tensor)": partial(tree.unflatten, tensor),
        "pufferlib-core nativize, one row": partial(emulation.nativize, rows[0], space, tree.dtype),
        "pufferlib-core nativize_tensor": partial(pytorch.nativize_tensor, tensor, layout),
        "gymnasium.spaces.unflatten, one sample": partial(gymnasium.spaces.unflatten, space, flat),
    }


def stepping() -> dict[str, Call]:
    """One step of BATCH environments of CartPole-v1, random actions."""
    make = partial(gymnasium.make, "CartPole-v1")
    envs = [make() for _ in range(BATCH)]
    ours = pufferlib_cy.make("CartPole-v1", BATCH, backend="serial")
    theirs = gymnasium.vector.SyncVectorEnv([make] * BATCH)
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
    ours.reset(seed=0)
    theirs.reset(seed=0)
    actions = itertools.cycle(np.random.default_rng(0).integers(0, 2, (100, BATCH)))

    def bare() -> None:
        for env, action in zip(envs, next(actions).tolist(), strict=True):
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    return {"a bare Python loop": bare, "make(..., backend=\"serial\")": lambda: ours.step(
        next(actions)), "gymnasium SyncVectorEnv": lambda: theirs.step(next(actions))}


def burst(call: Call, loops: int) -> float:
    """Seconds of CPU per call: other processes on a shared machine count less than in wall time."""
    start = time.thread_time()
    for _ in range(loops):
        call()
    return (time.thread_time() - start) / loops


def race(calls: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """Seconds per call of every contestant in every round."""
    names = list(calls)
    loops = {name: max(1, int(BURST / burst(calls[name], 200))) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for order in turns(len(names), rounds):
        for i in order:
            times[names[i]].append(burst(calls[names[i]], loops[names[i]]))
    return times


def table(times: dict[str, list[float]]) -> list[str]:
    """Medians, and how many times the first one's each takes, per round: median (range)."""
    [first, *_] = times.values()
    lines = ["| call | time | times the first |", "| --- | ---: | ---: |"]
    for name, values in times.items():
        ratios = [b / a for a, b in zip(first, values, strict=True)]
        lines.append(f"| {name} | {seconds(statistics.median(values))} | {spread(ratios, 1)} |")
    return lines


def main() -> None:
    args = parser_of(__doc__, rounds=30).parse_args()
    warnings.simplefilter("ignore", FutureWarning)      # pufferlib-core's, of torch
    lines = [
        "# Emulation: rows of nested spaces, and Python environments as rows", "",
        f"{datetime.date.today()}, Python {platform.python_version()}, NumPy {np.__version__}, "
        f"{os.cpu_count()} cores, {args.rounds} interleaved rounds of one process. "
        f"`{mixed_space()}`. CPU time, medians; the last column is the time over the first line's, "
        "per round: median (lowest - highest).", "",
        "## One sample into its row", "", *table(race(flattening(), args.rounds)), "",
        f"## {BATCH} rows into views", "", *table(race(unflattening(), args.rounds)), "",
        f"## One step of {BATCH} environments of CartPole-v1", "",
        *table(race(stepping(), args.rounds)),
    ]
    publish("\n".join(lines) + "\n", args.output)


if __name__ == "__main__":
    main()
