"""How fast an environment steps by itself: what `puffer-cy bench` measures.

Every way to run it (number of environments, backend, workers) is set up at once and measured in
turn, round after round, so that a slow moment of the machine falls on all of them. For comparisons
between versions of the code use the pyperf suite in ``perf/``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from pufferlib_cy.vector import VectorEnv, available_cores, make

ACTION_SETS = 8              # different rows of random actions, taken in turn
WORTH_IT = 1.1               # threads are recommended from this speed-up on


@dataclass(frozen=True)
class Timing:
    """Of one way to run the environment: medians over the rounds."""

    num_envs: int
    backend: str
    num_workers: int
    sps: float               # steps of agents (rows) per second, through Python
    spread: float            # (highest - lowest) / median of sps over the rounds
    speedup: float           # sps as a multiple of serial's in the same round, same num_envs
    p50_us: float            # duration of one vec.step, microseconds
    p90_us: float
    p99_us: float
    max_us: float            # the longest of all


def worker_counts(cores: int) -> list[int]:
    """2, 4, 8, ... below `cores`, and `cores`: the threads worth a look."""
    return [2**i for i in range(1, 12) if 2**i < cores] + [cores] * (cores > 1)


def bench(env: str, num_envs: Sequence[int], num_workers: Sequence[int] | None, *, rounds: int,
          seconds: float, seed: int, progress: Callable[[int], None],
          env_kwargs: Mapping[str, Any] | None = None) -> list[Timing]:
    """Measure every way, `seconds` each in each of `rounds`; `progress` is told the rounds done.

    `num_workers`: of the threads backend; None: `worker_counts` of the cores there are.
    Raises ValueError for what `make` does not take.
    """
    workers = worker_counts(available_cores()) if num_workers is None else num_workers
    subjects = [_Subject(make(env, E, backend=backend, num_workers=W, seed=seed,
                              env_kwargs=env_kwargs), seed, seconds)
                for E in num_envs
                for backend, W in [("serial", 1), *(("threads", W) for W in workers)]]
    try:
        for i in range(rounds):
            progress(i)
            for subject in subjects:
                subject.measure()
    finally:
        for subject in subjects:
            subject.vec.close()
    serial = {s.vec.num_envs: s.sps for s in subjects if s.vec.backend == "serial"}
    return [s.timing(serial[s.vec.num_envs]) for s in subjects]


class _Subject:
    """A vector environment under measurement."""

    def __init__(self, vec: VectorEnv, seed: int, seconds: float) -> None:
        self.vec = vec
        self.actions = random_actions(vec, seed)
        self.sps: list[float] = []
        self.latency_us: list[NDArray[np.float64]] = []          # a round each
        vec.reset()
        self.calls = ACTION_SETS
        # Warms up, too. Half of a measurement's time is for throughput, half for latency.
        while (taken := self.throughput()) < seconds / 20:
            self.calls *= 2
        self.calls = max(ACTION_SETS, round(self.calls * seconds / 2 / taken))

    def measure(self) -> None:
        self.sps.append(self.calls * self.vec.num_agents / self.throughput())
        self.latency_us.append(self.latencies())

    def throughput(self) -> float:
        """Seconds that `calls` steps take."""
        step, actions = self.vec.step, self.actions
        began = time.perf_counter()
        for i in range(self.calls):
            step(actions[i % ACTION_SETS])
        return time.perf_counter() - began

    def latencies(self) -> NDArray[np.float64]:
        """Microseconds of each of `calls` steps, (calls,)."""
        step, actions, clock = self.vec.step, self.actions, time.perf_counter_ns
        taken = np.empty(self.calls)
        for i in range(self.calls):
            began = clock()
            step(actions[i % ACTION_SETS])
            taken[i] = clock() - began
        return taken / 1e3

    def timing(self, serial: Sequence[float]) -> Timing:
        """The medians; `serial` is the sps of the serial backend in the same rounds."""
        sps = median(self.sps)
        p50, p90, p99 = np.median([np.percentile(us, (50, 90, 99)) for us in self.latency_us], 0)
        return Timing(
            self.vec.num_envs, self.vec.backend, self.vec.num_workers, sps,
            (max(self.sps) - min(self.sps)) / sps,
            median(own / other for own, other in zip(self.sps, serial, strict=True)),
            float(p50), float(p90), float(p99), float(max(us.max() for us in self.latency_us)))


def random_actions(vec: VectorEnv, seed: int) -> list[NDArray[Any]]:
    """`ACTION_SETS` arrays of random actions (N, ...), in the dtype that the core keeps."""
    space = batch_space(vec.single_action_space, vec.num_agents)
    space.seed(seed)
    samples = (np.asarray(space.sample()) for _ in range(ACTION_SETS))
    return [a.astype(np.float32 if a.dtype.kind == "f" else np.int32) for a in samples]


def advice(timings: Sequence[Timing]) -> list[str]:
    """For each number of environments: which backend to use, and why. Last: the fastest of all."""
    lines = []
    for E in dict.fromkeys(t.num_envs for t in timings):
        serial, *threads = (t for t in timings if t.num_envs == E)
        best = max(threads, key=lambda t: t.sps, default=serial)
        if best.speedup >= WORTH_IT:
            lines.append(f"{E} environments: --backend threads --num-workers {best.num_workers}, "
                         f"{best.speedup:.2f} times as fast as serial")
        elif threads:
            lines.append(f"{E} environments: --backend serial; {best.num_workers} threads are "
                         f"{best.speedup:.2f} times as fast (a step of {serial.p50_us:.0f} µs "
                         "is too short to share, or the cores are busy)")
        else:
            lines.append(f"{E} environments: --backend serial, nothing else was measured")
    best = max(timings, key=lambda t: t.sps)
    lines.append(f"most steps per second: {best.num_envs} environments, {best.backend}, "
                 f"{best.sps:,.0f} steps/s at {best.p50_us:,.0f} µs a step")
    return lines
