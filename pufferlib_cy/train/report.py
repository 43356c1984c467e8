"""What the training loop tells whoever watches it: one `Report` per logging interval."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

PHASES = ("environment", "inference", "learning", "copies", "other")


@dataclass(frozen=True)
class Report:
    """The state of a training run after an interval. Times are in seconds unless they say so."""

    env: str
    steps: int                    # environment steps so far (rows of live agents)
    total_steps: int              # steps the run is asked for
    seconds: float                # of training so far
    sps: float                    # steps per second in this interval
    remaining: float              # estimated seconds to the end
    # Share of the interval, 0 to 1, for each of PHASES. Where rollouts are collected meanwhile,
    # "environment" is waiting for one, and "inference" is nothing.
    times: dict[str, float]
    latency_us: dict[str, float]  # one vec.step in this interval: p50, p90, p99, max; microseconds
    losses: dict[str, float] = field(default_factory=dict)   # policy, value, entropy, ...
    stats: dict[str, float] = field(default_factory=dict)    # vec.episode_stats()
    cpu_percent: float = 0.0      # of one core, this process
    memory_mb: float = 0.0        # resident


class Observer(Protocol):
    """Sees every report. Returning True asks the run to stop (after this iteration)."""

    def __call__(self, report: Report, /) -> bool | None: ...
