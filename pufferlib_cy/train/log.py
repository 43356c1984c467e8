"""What a training run notes about itself: where its time goes, its episodes, its reports."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from time import perf_counter_ns

import numpy as np
import psutil

from pufferlib_cy.train.config import TrainConfig
from pufferlib_cy.train.report import PHASES, Observer, Report

LATENCIES = 1 << 16           # environment steps of an interval whose latencies are kept


class Clock:
    """Bills the time since the last lap to a phase. Allocates nothing while it runs."""

    def __init__(self) -> None:
        self.began = self.last = perf_counter_ns()
        self.spent = dict.fromkeys(PHASES, 0)                  # ns, in this interval
        self.before = dict.fromkeys(PHASES, 0)                 # ns, in the intervals before
        self._latencies = np.zeros(LATENCIES, np.int64)        # ns
        self._steps = 0

    def lap(self, phase: str) -> int:
        """Bill the time since the last lap to `phase`; return it, in nanoseconds."""
        now = perf_counter_ns()
        elapsed = now - self.last
        self.spent[phase] += elapsed
        self.last = now
        return elapsed

    def step(self) -> None:
        """The lap of one ``vec.step``."""
        self._latencies[self._steps % LATENCIES] = self.lap("environment")
        self._steps += 1

    def take_steps(self, other: Clock) -> None:
        """Move the latencies of another clock's steps here."""
        count = min(other._steps, LATENCIES)
        places = np.arange(self._steps, self._steps + count) % LATENCIES
        self._latencies[places] = other._latencies[:count]
        self._steps += count
        other._steps = 0

    @property
    def seconds(self) -> float:
        """From the start to the last lap."""
        return (self.last - self.began) / 1e9

    def shares(self, *, whole_run: bool = False) -> dict[str, float]:
        """The part of the interval, or of the run, that each phase took, 0 to 1."""
        spent = {phase: ns + whole_run * self.before[phase] for phase, ns in self.spent.items()}
        total = max(1, sum(spent.values()))
        return {phase: ns / total for phase, ns in spent.items()}

    def latency_us(self) -> dict[str, float]:
        """Percentiles of one ``vec.step`` in the interval, or of a send and the recv after it, in
        microseconds."""
        if not self._steps:
            return {}
        us = self._latencies[:self._steps] / 1000
        p50, p90, p99 = np.percentile(us, (50, 90, 99)).tolist()
        return {"p50": p50, "p90": p90, "p99": p99, "max": float(us.max())}

    def begin_interval(self) -> None:
        """Add the interval to the ones before, and begin another."""
        for phase, ns in self.spent.items():
            self.before[phase] += ns
            self.spent[phase] = 0
        self._steps = 0


class Episodes:
    """Means over training episodes: of the last ones, at least `window`, and of an interval."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.fresh = 0.0              # episodes since somebody set this to 0
        self._recent: deque[Mapping[str, float]] = deque()
        self._interval: list[Mapping[str, float]] = []

    def add(self, stats: Mapping[str, float]) -> None:
        """Add what ``vec.episode_stats()`` gave."""
        if not stats["episodes"]:
            return
        self._recent.append(stats)
        self._interval.append(stats)
        self.fresh += stats["episodes"]
        total = sum(entry["episodes"] for entry in self._recent)
        while total - self._recent[0]["episodes"] >= self.window:
            total -= self._recent.popleft()["episodes"]

    def recent(self) -> dict[str, float]:
        """As ``vec.episode_stats()``, of the last episodes."""
        return _means(self._recent)

    def drain_interval(self) -> dict[str, float]:
        """As ``vec.episode_stats()``, of the episodes since the last call."""
        means = _means(self._interval)
        self._interval.clear()
        return means


def _means(entries: Collection[Mapping[str, float]]) -> dict[str, float]:
    """The means of all episodes, from the means of some and how many they were."""
    means = {"episodes": float(sum(entry["episodes"] for entry in entries))}
    for key in dict.fromkeys(key for entry in entries for key in entry if key != "episodes"):
        having = [entry for entry in entries if key in entry]
        means[key] = (sum(entry["episodes"] * entry[key] for entry in having)
                      / sum(entry["episodes"] for entry in having))
    return means


class Reporter:
    """Makes a `Report` of every interval for an observer."""

    def __init__(self, config: TrainConfig, observer: Observer | None, clock: Clock,
                 episodes: Episodes) -> None:
        self.config, self.observer = config, observer
        self.clock, self.episodes = clock, episodes
        self._process = psutil.Process()
        self._process.cpu_percent()           # the first call only starts its interval
        self._seconds, self._steps = 0.0, 0   # at the last report

    def report(self, steps: int, losses: Mapping[str, float], *, last: bool = False) -> bool:
        """Report if an interval is over, or the run is; True: the observer asks it to stop."""
        clock, total = self.clock, self.config.total_timesteps
        elapsed = clock.seconds - self._seconds
        if self.observer is None or (elapsed < self.config.log_interval and not last):
            return False
        answer = self.observer(Report(
            env=self.config.env, steps=steps, total_steps=total, seconds=clock.seconds,
            sps=(steps - self._steps) / max(elapsed, 1e-9),
            remaining=0.0 if last else max(0, total - steps) * clock.seconds / max(1, steps),
            times=clock.shares(), latency_us=clock.latency_us(), losses=dict(losses),
            stats=self.episodes.drain_interval(), cpu_percent=self._process.cpu_percent(),
            memory_mb=self._process.memory_info().rss / 2**20))
        self._seconds, self._steps = clock.seconds, steps
        clock.begin_interval()
        return bool(answer)
