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
from numpy.typing import NDArray

from pufferlib_cy.auto import ACTION_SETS, available_cores, choose, random_actions
from pufferlib_cy.construct import environment_class, is_native_class
from pufferlib_cy.vector import VectorEnv, make

# To measure, where nothing else is asked for: by the backend that is measured against serial.
NUM_ENVS = {"threads": (64, 1024, 4096), "processes": (8, 64)}
WORTH_IT = 1.1               # threads or processes are recommended from this speed-up on


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


def bench(env: str, num_envs: Sequence[int] | None, num_workers: Sequence[int] | None, *,
          rounds: int, seconds: float, seed: int, progress: Callable[[int], None],
          env_kwargs: Mapping[str, Any] | None = None) -> list[Timing]:
    """Measure every way, `seconds` each in each of `rounds`; `progress` is told the rounds done.

    `num_envs` None: NUM_ENVS. `num_workers`: of threads, or for Python environments processes;
    None: `worker_counts` of the cores there are. Raises ValueError for what `make` does not take.
    """
    workers = worker_counts(available_cores()) if num_workers is None else num_workers
    shared = "threads" if is_native_class(environment_class(env)) else "processes"
    ways = [(E, backend, W) for E in num_envs or NUM_ENVS[shared]
            for backend, W in [("serial", 1), *((shared, W) for W in workers if W <= E)]]
    subjects: list[_Subject] = []
    try:
        for E, backend, W in ways:
            vec = make(env, E, backend=backend, num_workers=W, seed=seed, env_kwargs=env_kwargs)
            subjects.append(_Subject(vec, seed, seconds))
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


def advice(timings: Sequence[Timing], most_workers: int) -> list[str]:
    """For each number of environments: which backend to use, and why, and what ``"auto"`` takes
    with so many workers at the most. Last: the fastest of all."""
    lines = []
    for E in dict.fromkeys(t.num_envs for t in timings):
        serial, *shared = (t for t in timings if t.num_envs == E)
        best = max(shared, key=lambda t: t.sps, default=serial)
        if best.speedup >= WORTH_IT:
            words = (f"--backend {best.backend} --num-workers {best.num_workers}, "
                     f"{best.speedup:.2f} times as fast as serial")
        elif shared:
            words = (f"--backend serial; {best.num_workers} {best.backend} are {best.speedup:.2f} "
                     f"times as fast (a step of {serial.p50_us:.0f} µs is too short to share, or "
                     "the cores are busy)")
        else:
            words = "--backend serial, nothing else was measured"
        choice = choose(serial.p50_us * 1e-6, all(t.backend != "processes" for t in timings),
                        min(most_workers, E))
        workers = f" with {choice.num_workers} workers" if choice.num_workers > 1 else ""
        lines += [f"{E} environments: {words}",
                  f"    auto takes {choice.backend}{workers}: {choice.reason}"]
    best = max(timings, key=lambda t: t.sps)
    lines.append(f"most steps per second: {best.num_envs} environments, {best.backend}, "
                 f"{best.sps:,.0f} steps/s at {best.p50_us:,.0f} µs a step")
    return lines
