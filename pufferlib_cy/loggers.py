"""Observers that write a training run down: as lines of text, and as TensorBoard events.

An observer is called with a `Report` (see `train.report`); `Logger` adds opening and closing.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from pufferlib_cy.train.report import Report

PRINT_INTERVAL = 1.0         # seconds between two lines


class Logger(Protocol):
    """An observer that holds something (a terminal, a file) while the run lasts."""

    def __call__(self, report: Report, /) -> None: ...

    def __enter__(self) -> Logger: ...

    def __exit__(self, *_: object) -> None: ...


def scalars(report: Report) -> dict[str, float]:
    """The numbers of a report under the names of its fields, ``losses/policy`` and the like.

    The order is always the same. Without an ended episode in the interval, episode_return and
    episode_length are NaN.
    """
    numbers = {"steps": report.steps, "total_steps": report.total_steps, "seconds": report.seconds,
               "sps": report.sps, "remaining": report.remaining}
    numbers |= {"episode_return": math.nan, "episode_length": math.nan} | report.stats
    for group in ("losses", "times", "latency_us"):
        numbers |= {f"{group}/{name}": x for name, x in getattr(report, group).items()}
    return numbers | {"cpu_percent": report.cpu_percent, "memory_mb": report.memory_mb}


class Lines:
    """Writes a line of ``key=value`` pairs about every second, and one for the last report."""

    def __init__(self, stream: TextIO, interval: float = PRINT_INTERVAL) -> None:
        self._stream = stream
        self._interval = interval
        self._due = time.monotonic() + interval
        self._unwritten: Report | None = None

    def __call__(self, report: Report, /) -> None:
        self._unwritten = report
        if time.monotonic() >= self._due:
            self._write()

    def _write(self) -> None:
        if self._unwritten is None:
            return
        pairs = (f"{name}={x:.0f}" if abs(x) >= 1000 else f"{name}={x:.4g}"
                 for name, x in scalars(self._unwritten).items())
        print(f"env={self._unwritten.env}", *pairs, file=self._stream, flush=True)
        self._unwritten = None
        self._due = time.monotonic() + self._interval

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()


class TensorBoard:
    """Writes every report as TensorBoard scalars over the steps, into an event file."""

    def __init__(self, directory: Path) -> None:
        # Not torch.utils.tensorboard: it imports TensorFlow if it finds it, which takes seconds.
        from tensorboard.summary import Writer  # type: ignore[import-untyped]

        self._writer = Writer(str(directory))

    def __call__(self, report: Report, /) -> None:
        for name, x in scalars(report).items():
            if math.isfinite(x) and name not in ("steps", "total_steps"):
                self._writer.add_scalar(name, x, step=report.steps)

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()
