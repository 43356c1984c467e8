"""How many times the steps per second of ``gymnasium.make``, for the same environments, bit by bit.

    python perf/gymnasium_ratio.py [--rounds N] [-o REPORT]

Two processes per environment take turns: one steps ``gymnasium.make(ID)`` with prepared actions
and resets it when an episode ends; the other steps 4096 of ours in one thread, through the whole
``vec.step``, which resets what ended. Both sides take uniformly random actions. Neither is given
more than one core, and all processes sleep while one is measured.
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
from interleave import Ratios, Worker, serve, turns
from reporting import parser_of, publish

NUM_ENVS = 4096
ROTATION = 64                 # arrays of actions, or actions, that take turns
BURST = 0.2                   # seconds that one measurement lasts at least
WARM_UP = 300                 # steps before the first: episodes must not end all at once
TARGET = 1000
FEWEST = 8                    # rounds

# Module and class of ours, Gymnasium's id.
PAIRS = {
    "cartpole": ("CartPole", "CartPole-v1"),
    "mountain_car": ("MountainCar", "MountainCar-v0"),
    "acrobot": ("Acrobot", "Acrobot-v1"),
    "pendulum": ("Pendulum", "Pendulum-v1"),
}


def draw(space: Any, *shape: int) -> Any:
    """Uniformly random actions of a Discrete or a Box, in the dtype that both sides take as is."""
    rng = np.random.default_rng(0)
    if hasattr(space, "n"):
        return rng.integers(0, space.n, shape, dtype=np.int32)
    return rng.uniform(space.low, space.high, (*shape, *space.shape)).astype(np.float32)


def ours(name: str) -> Callable[[int], int]:
    """A function that makes some calls of ``vec.step`` and tells how many steps those were."""
    pufferlib_cy = importlib.import_module("pufferlib_cy")
    kind = getattr(importlib.import_module(f"pufferlib_cy.envs.{name}"), PAIRS[name][0])
    vec = pufferlib_cy.make(kind, NUM_ENVS, backend="serial", seed=0)
    vec.reset()
    actions = draw(vec.single_action_space, ROTATION, NUM_ENVS)

    def run(calls: int) -> int:
        for k in range(calls):
            vec.step(actions[k % ROTATION])
        return calls * NUM_ENVS

    return run


def theirs(name: str) -> Callable[[int], int]:
    env = importlib.import_module("gymnasium").make(PAIRS[name][1])
    env.reset(seed=0)
    actions = list(draw(env.action_space, ROTATION))

    def run(calls: int) -> int:
        for k in range(calls):
            _, _, terminated, truncated, _ = env.step(actions[k % ROTATION])
            if terminated or truncated:
                env.reset()
        return calls

    return run


SIDES = {"ours": ours, "theirs": theirs}


def work(side: str, name: str) -> None:
    """The child's life: warm up, then measure bursts on request, answering steps per second."""
    run = SIDES[side](name)
    run(WARM_UP)

    def measure() -> float:
        steps, start = 0, time.perf_counter()
        while (seconds := time.perf_counter() - start) < BURST:
            steps += run(ROTATION)
        return steps / seconds

    serve(measure)


def race(name: str, rounds: int) -> dict[str, list[float]]:
    """Steps per second of both sides in every round."""
    workers: dict[str, Worker] = {}
    speeds: dict[str, list[float]] = {side: [] for side in SIDES}
    try:
        for side in SIDES:
            workers[side] = Worker(
                [sys.executable, "-W", "ignore", __file__, "--worker", side, name])
        for order in turns(len(SIDES), rounds):
            for i in order:
                side = list(SIDES)[i]
                speeds[side].append(workers[side].ask())
    finally:
        for worker in workers.values():
            worker.close()
    return speeds


def report(results: dict[str, dict[str, list[float]]]) -> str:
    """Medians of both sides and of their ratio, with its interval and the best round."""
    rounds = len(next(iter(results.values()))["ours"])
    lines = [
        "# Steps per second against gymnasium.make, one core", "",
        f"{datetime.date.today()}, Python {platform.python_version()}, NumPy {np.__version__}, "
        f"{os.cpu_count()} cores, {rounds} interleaved rounds, {NUM_ENVS} environments on our "
        f"side. Medians; the interval of the ratio holds its median with 99 %. The target is "
        f"{TARGET}.", "",
        "| environment | ours, M/s | Gymnasium, k/s | ratio | interval | best round |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, speeds in results.items():
        ratios = Ratios(tuple(a / b for a, b in zip(speeds["ours"], speeds["theirs"],
                                                    strict=True)), confidence=0.99)
        low, high = ratios.interval
        lines.append(f"| {name} | {statistics.median(speeds['ours']) / 1e6:.1f} "
                     f"| {statistics.median(speeds['theirs']) / 1e3:.0f} | {ratios.median:.0f} "
                     f"| {low:.0f} - {high:.0f} | {max(ratios.values):.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = parser_of(__doc__, rounds=12)
    parser.add_argument("--only", choices=PAIRS, help="one environment")
    args = parser.parse_args()
    if args.rounds < FEWEST:
        parser.error(f"--rounds: an interval of 99 % takes at least {FEWEST}, not {args.rounds}")
    text = report({name: race(name, args.rounds)
                   for name in ([args.only] if args.only else PAIRS)})
    publish(text, args.output)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
    else:
        main()
