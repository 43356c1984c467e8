"""CartPole-v1 in other packages and here, same work, same run, taking turns.

    python perf/versus.py [--envpool-python PYTHON] [--rounds N] [-o REPORT]

EnvPool brings a gigabyte of assets, so it is no dependency of this project. Install it where you
like and say which interpreter has it:

    python -m venv build/envpool && build/envpool/bin/pip install envpool==1.2.5
    python perf/versus.py --envpool-python build/envpool/bin/python

Every contestant steps 1024 environments in a process of its own with the same random actions,
through its own public ``step``; an episode's end takes one step of its own to reset (Gymnasium's
next-step mode), which is what EnvPool and Gymnasium do, so that "steps" means the same everywhere.
"""

from __future__ import annotations

import datetime
import importlib
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from interleave import Worker, serve, turns
from reporting import parser_of, publish, spread

NUM_ENVS = 1024
ROTATION = 64                 # action arrays that take turns
BURST = 0.2                   # seconds that one measurement lasts at least
Step = Callable[[Any], Any]


def ours(env: str, num_envs: int, num_workers: int) -> Step:
    pufferlib_cy = importlib.import_module("pufferlib_cy")
    vec = pufferlib_cy.make(env, num_envs, num_workers=num_workers, autoreset="next_step",
                            backend="serial" if num_workers == 1 else "threads", seed=0)
    vec.reset()
    step: Step = vec.step
    return step


def envpool() -> Step:
    env = importlib.import_module("envpool").make(
        "CartPole-v1", env_type="gymnasium", num_envs=NUM_ENVS, num_threads=2, seed=0)
    env.reset()
    step: Step = env.step
    return step


def gymnasium(mode: str) -> Step:
    env = importlib.import_module("gymnasium").make_vec(
        "CartPole-v1", NUM_ENVS, vectorization_mode=mode)
    env.reset(seed=0)
    step: Step = env.step
    return step


# Name: how to make it, its number of environments and of actions to choose from.
CONTESTANTS: dict[str, tuple[Callable[[], Step], int, int]] = {
    "pufferlib_cy, 2 threads": (lambda: ours("cartpole", NUM_ENVS, 2), NUM_ENVS, 2),
    "pufferlib_cy, 1 thread": (lambda: ours("cartpole", NUM_ENVS, 1), NUM_ENVS, 2),
    "EnvPool, 2 threads": (envpool, NUM_ENVS, 2),
    "Gymnasium CartPoleVectorEnv": (lambda: gymnasium("vector_entry_point"), NUM_ENVS, 2),
    "Gymnasium SyncVectorEnv": (lambda: gymnasium("sync"), NUM_ENVS, 2),
    "pufferlib_cy squared, 4096, 1 thread": (lambda: ours("squared", 4096, 1), 4096, 5),
    "pufferlib_cy cartpole, 4096, 1 thread": (lambda: ours("cartpole", 4096, 1), 4096, 2),
}
FIRST = "pufferlib_cy, 2 threads"        # the others are compared with this one
ENVPOOL = "EnvPool, 2 threads"


def work(name: str) -> None:
    """The child's life: warm up, then measure bursts on request, answering steps per second."""
    make, num_envs, choices = CONTESTANTS[name]
    step = make()
    actions = list(np.random.default_rng(0).integers(
        0, choices, (ROTATION, num_envs), dtype=np.int32))
    for rows in actions:
        step(rows)

    def measure() -> float:
        calls, start = 0, time.perf_counter()
        while (seconds := time.perf_counter() - start) < BURST:
            for rows in actions[:8]:
                step(rows)
            actions.append(actions.pop(0))
            calls += 8
        return calls * num_envs / seconds

    serve(measure)


def race(workers: dict[str, Worker], rounds: int) -> dict[str, list[float]]:
    """Steps per second of every contestant in every round."""
    names = list(workers)
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for order in turns(len(names), rounds):
        for i in order:
            speeds[names[i]].append(workers[names[i]].ask())
    return speeds


def report(speeds: dict[str, list[float]]) -> str:
    """Medians and, against the first, the medians and ranges of the ratios per round."""
    lines = [
        "# CartPole-v1 against other packages", "",
        f"{datetime.date.today()}, Python {platform.python_version()}, {os.cpu_count()} cores, "
        f"{len(speeds[FIRST])} interleaved rounds, {NUM_ENVS} environments. Medians; the ratio is "
        f"the speed of \"{FIRST}\" over the row's, per round: median (lowest - highest).", "",
        "| contestant | M steps/s | ratio |", "| --- | ---: | ---: |",
    ]
    for name, values in speeds.items():
        ratios = [a / b for a, b in zip(speeds[FIRST], values, strict=True)]
        ratio = spread(ratios, 1) if "4096" not in name else ""
        lines.append(f"| {name} | {statistics.median(values) / 1e6:.3g} | {ratio} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = parser_of(__doc__, rounds=9)
    parser.add_argument("--envpool-python", default=sys.executable, metavar="PYTHON",
                        help="an interpreter that can import envpool (default: this one)")
    args = parser.parse_args()
    workers: dict[str, Worker] = {}
    try:
        for name in CONTESTANTS:
            python = args.envpool_python if name == ENVPOOL else sys.executable
            workers[name] = Worker([python, "-W", "ignore", __file__, "--worker", name])
        text = report(race(workers, args.rounds))
    finally:
        for worker in workers.values():
            worker.close()
    publish(text, args.output)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2])
    else:
        main()
