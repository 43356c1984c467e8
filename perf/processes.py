"""What worker processes gain with Python environments, and what handing rows over costs.

    python perf/processes.py [--rounds N] [-o REPORT]

The processes backend against the serial one in the same process, bursts taking turns. `Busy` does a
fixed amount of work per step, a loop in Python, that takes 10, 100 or 1000 µs on a free core here.
Then CartPole-v1, more workers than cores, staggered batches against synchronous ones where the work
has a heavy tail and the caller computes between the batches, as a learner does; and the worker
processes of pufferlib-core and Gymnasium with the same environments.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
from interleave import turns
from reporting import parser_of, publish, spread

import pufferlib_cy

BURST = 0.15                   # seconds that one measurement lasts about
ENVS = 64


def work(turns: int) -> int:
    """So many turns of a loop."""
    total = 0
    for i in range(turns):
        total += i & 3
    return total


@functools.cache
def turns_per_second() -> float:
    """Of `work`, on a core that nobody else uses: the best of many tries."""
    def once() -> float:
        began = time.perf_counter()
        work(10_000)
        return 10_000 / (time.perf_counter() - began)

    return max(once() for _ in range(300))


class Busy(gymnasium.Env[Any, Any]):
    """Works `turns` turns per step; with a `tail`, that by Pareto's law (shape 1.5, at most 100
    times the least), the mean as given. And it sleeps `seconds`, with the same tail, as if for a
    simulator or a game that runs elsewhere."""

    observation_space = gymnasium.spaces.Box(0, 1, (4,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, turns: int, tail: bool = False, seconds: float = 0.0) -> None:
        self.turns, self.tail, self.seconds = turns, tail, seconds
        self.row = np.zeros(4, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.row, {}

    def step(self, action: Any) -> Any:
        # The mean of min(u ** (-2 / 3), 100) is 2.8.
        factor = min(self.np_random.random() ** (-2 / 3), 100) / 2.8 if self.tail else 1.0
        work(int(self.turns * factor))
        if self.seconds:
            time.sleep(self.seconds * factor)
        return self.row, 0.0, False, False, {}


def synchronous(vec: pufferlib_cy.VectorEnv, steps: int, learn: int = 0) -> None:
    actions = np.zeros(vec.num_agents, np.int64)
    for _ in range(steps):
        vec.step(actions)
        work(learn)


def staggered(vec: pufferlib_cy.VectorEnv, steps: int, learn: int) -> None:
    """As many environment steps as `steps` synchronous ones; the work of a batch is its share."""
    share = vec.num_envs // vec.batch_size
    actions = np.zeros(vec.batch_size, np.int64)
    for _ in range(steps * share):
        vec.send(actions)
        vec.recv()
        work(learn // share)


def compare(one: Callable[[int], None], other: Callable[[int], None],
            rounds: int) -> tuple[float, list[float]]:
    """Seconds of one step of the first, and per round how many times as fast the other is."""
    began = time.perf_counter()
    one(1)
    other(1)
    steps = max(1, round(2 * BURST / (time.perf_counter() - began)))
    seconds, ratios = [], []
    for order in turns(2, rounds):
        pair = [0.0, 0.0]
        for side in order:
            began = time.perf_counter()
            (one, other)[side](steps)
            pair[side] = (time.perf_counter() - began) / steps
        seconds.append(pair[0])
        ratios.append(pair[0] / pair[1])
    return statistics.median(seconds), ratios


def row(what: str, seconds: float, ratios: list[float]) -> str:
    line = f"| {what} | {seconds * 1e6:.0f} | {spread(ratios, 2)} |"
    print(line, file=sys.stderr)
    return line


def against_serial(what: str, env: Any, num_envs: int, workers: int, rounds: int) -> str:
    with (pufferlib_cy.make(env, num_envs, backend="serial") as serial,
          pufferlib_cy.make(env, num_envs, backend="processes", num_workers=workers) as processes):
        for vec in (serial, processes):
            vec.reset(seed=0)
        return row(f"{what}, {num_envs} environments, {workers} workers", *compare(
            functools.partial(synchronous, serial), functools.partial(synchronous, processes),
            rounds))


def against_synchronous(workers: int, waits: bool, rounds: int) -> str:
    """Two groups per worker, so that it has one to step while the caller learns from the other; the
    learner takes as long as the environments do on all workers together."""
    turns = round(100e-6 * turns_per_second())
    learn = ENVS * turns // workers
    env = functools.partial(Busy, *(0, True, 100e-6) if waits else (turns, True))
    make = functools.partial(pufferlib_cy.make, env, ENVS, backend="processes",
                             num_workers=workers)
    with make() as whole, make(batch_size=ENVS // (2 * workers)) as groups:
        whole.reset(seed=0)
        groups.async_reset(seed=0)
        groups.recv()
        what = "wait" if waits else "work"
        return row(f"staggered against synchronous, environments that {what}, {workers} workers "
                   "and a learner", *compare(
                       functools.partial(synchronous, whole, learn=learn),
                       functools.partial(staggered, groups, learn=learn), rounds))


# ---- other packages' processes: each is started for its burst, and ended, for they spin ---------


@contextlib.contextmanager
def our_processes(num_envs: int, workers: int) -> Iterator[Callable[[], object]]:
    with pufferlib_cy.make("CartPole-v1", num_envs, backend="processes",
                           num_workers=workers) as vec:
        vec.reset(seed=0)
        actions = np.zeros(num_envs, np.int64)
        yield lambda: vec.step(actions)


@contextlib.contextmanager
def pufferlib_core(num_envs: int, workers: int) -> Iterator[Callable[[], object]]:
    import pufferlib.emulation
    import pufferlib.vector

    vec = pufferlib.vector.make(
        functools.partial(pufferlib.emulation.GymnasiumPufferEnv,
                          env_creator=functools.partial(gymnasium.make, "CartPole-v1")),
        backend=pufferlib.vector.Multiprocessing, num_envs=num_envs, num_workers=workers)
    try:
        vec.reset(seed=0)
        actions = np.zeros(num_envs, np.int64)
        yield lambda: vec.step(actions)
    finally:
        vec.close()


@contextlib.contextmanager
def gymnasium_async(num_envs: int, workers: int) -> Iterator[Callable[[], object]]:
    """A process for each environment: `workers` is not asked."""
    make = functools.partial(gymnasium.make, "CartPole-v1")
    vec = gymnasium.vector.AsyncVectorEnv([make] * num_envs)
    try:
        vec.reset(seed=0)
        actions = np.zeros(num_envs, np.int64)
        yield lambda: vec.step(actions)
    finally:
        vec.close()


Contestant = Callable[[int, int], contextlib.AbstractContextManager[Callable[[], object]]]


def seconds_of(contestant: Contestant, num_envs: int, workers: int) -> float:
    """Seconds of one step of all environments, over a burst."""
    with contestant(num_envs, workers) as step:
        for _ in range(20):
            step()
        steps, began = 0, time.perf_counter()
        while (taken := time.perf_counter() - began) < 2 * BURST:
            step()
            steps += 1
    return taken / steps


def against(what: str, theirs: Contestant, num_envs: int, workers: int, rounds: int) -> str:
    seconds, ratios = [], []
    for order in turns(2, rounds):
        pair = [0.0, 0.0]
        for side in order:
            pair[side] = seconds_of((theirs, our_processes)[side], num_envs, workers)
        seconds.append(pair[0])
        ratios.append(pair[0] / pair[1])
    return row(f"CartPole-v1, {num_envs} environments, against {what}",
               statistics.median(seconds), ratios)


def report(rounds: int) -> str:
    """Run everything; Markdown."""
    cores = len(os.sched_getaffinity(0))
    lines = [
        "# Worker processes", "",
        f"{datetime.date.today()}, Python {platform.python_version()}, {cores} cores, {rounds} "
        "interleaved rounds. Ratio: how many times as fast as the other side, per round: median "
        "(lowest - highest).", "",
        "| what | µs per step of the other side | ratio |", "| --- | ---: | ---: |"]
    for micros in (10, 100, 1000):
        env = functools.partial(Busy, round(micros * 1e-6 * turns_per_second()))
        lines.append(against_serial(f"{micros} µs of work", env, ENVS, cores, rounds))
    lines.append(against_serial("CartPole-v1", "CartPole-v1", ENVS, cores, rounds))
    lines.append(against_serial("CartPole-v1", "CartPole-v1", ENVS, 4 * cores, rounds))
    lines += [against_synchronous(cores, waits, rounds) for waits in (False, True)]
    lines += [against(what, theirs, num_envs, cores, rounds) for what, theirs, num_envs in (
        ("pufferlib-core's Multiprocessing", pufferlib_core, ENVS),
        ("Gymnasium's AsyncVectorEnv", gymnasium_async, 16),
        ("Gymnasium's AsyncVectorEnv", gymnasium_async, ENVS))]
    return "\n".join(lines) + "\n"


def main() -> None:
    args = parser_of(__doc__, rounds=15).parse_args()
    publish(report(args.rounds), args.output)


if __name__ == "__main__":
    main()
