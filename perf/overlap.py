"""What staggered batches, and learning while environments step, gain in training.

    python perf/overlap.py [--rounds N] [--seconds S] [-o REPORT]

Whole training runs on worker processes, which take turns: synchronous, staggered (`batch_size`),
with `overlap`, and with both. The environment is `Busy` of `processes.py`: a step takes 100 µs in
the mean, with a heavy tail, of work in Python that keeps a core busy, or of sleep, as if for a
simulator that runs elsewhere. The policy is wide enough for learning to take a good part of the
time.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from interleave import turns
from processes import turns_per_second
from reporting import parser_of, publish, spread

from pufferlib_cy.train import Report, TrainConfig, train
from pufferlib_cy.train.report import PHASES

ENVS, WORKERS = 64, 2
MEAN = 100e-6                  # seconds of a step
WARM_UP = 3                    # iterations that are not timed: in the first nothing overlaps
BATCH = ENVS // (2 * WORKERS)  # so that each worker has one to step while one is here
MODES: dict[str, dict[str, Any]] = {
    "synchronous": {}, "staggered": {"batch_size": BATCH}, "overlap": {"overlap": True},
    "staggered, overlap": {"batch_size": BATCH, "overlap": True}}


def settings(waits: bool) -> TrainConfig:
    """A run without end on environments that work, or wait."""
    env_kwargs = ({"turns": 0, "seconds": MEAN} if waits
                  else {"turns": round(MEAN * turns_per_second())})
    return TrainConfig(
        env="processes:Busy", env_kwargs=env_kwargs | {"tail": True}, num_envs=ENVS,
        backend="processes", num_workers=WORKERS, horizon=32, epochs=4, hidden_sizes=(256, 256),
        total_timesteps=10**9, log_interval=0.0)


def measure(config: TrainConfig, seconds: float) -> tuple[float, dict[str, float]]:
    """Steps per second of a run of about so many seconds, and where its time went."""
    reports: list[tuple[float, Report]] = []

    def watch(report: Report) -> bool:
        reports.append((time.perf_counter(), report))
        return len(reports) > WARM_UP and reports[-1][0] - reports[WARM_UP - 1][0] > seconds

    with tempfile.TemporaryDirectory() as directory:
        train(dataclasses.replace(config, checkpoint_dir=Path(directory)), watch)
    (began, first), *_, (ended, last), _ = reports[WARM_UP - 1:]      # one more comes at the end
    shares = {phase: statistics.fmean(report.times[phase] for _, report in reports[WARM_UP:-1])
              for phase in PHASES}
    return (last.steps - first.steps) / (ended - began), shares


def compare(waits: bool, rounds: int, seconds: float) -> list[str]:
    """Lines of the table: one per mode."""
    config = settings(waits)
    modes = [(name, dataclasses.replace(config, **changes)) for name, changes in MODES.items()]
    rates: dict[str, list[float]] = {name: [] for name in MODES}
    shares: dict[str, list[dict[str, float]]] = {name: [] for name in MODES}
    for order in turns(len(modes), rounds):
        for side in order:
            name, changed = modes[side]
            rate, times = measure(changed, seconds)
            rates[name].append(rate)
            shares[name].append(times)
    lines = []
    for name in MODES:
        ratios = [mine / base for mine, base in zip(rates[name], rates["synchronous"], strict=True)]
        spent = [statistics.median(times[phase] for times in shares[name]) for phase in PHASES[:3]]
        lines.append(f"| {'wait' if waits else 'work'} | {name} | {spread(rates[name], 0)} | "
                     f"{spread(ratios, 2)} | " + " | ".join(f"{share:.0%}" for share in spent)
                     + " |")
        print(lines[-1], file=sys.stderr)
    return lines


def report(rounds: int, seconds: float) -> str:
    """Run everything; Markdown."""
    lines = [
        "# Staggered and overlapped training", "",
        f"{datetime.date.today()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at the beginning; "
        f"{rounds} interleaved rounds of {seconds:g} s each. {ENVS} environments, {WORKERS} "
        "workers. Ratio to synchronous training per round. Median (lowest - highest); shares of "
        "the trainer's time are medians, of which \"environment\" is waiting for a step, or with "
        "overlap for a rollout.", "",
        "| environments | training | steps/s | ratio | " + " | ".join(PHASES[:3]) + " |",
        "| --- | --- | ---: | ---: |" + " ---: |" * 3]
    for waits in (False, True):
        lines += compare(waits, rounds, seconds)
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = parser_of(__doc__, rounds=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one training run")
    args = parser.parse_args()
    publish(report(args.rounds, args.seconds), args.output)


if __name__ == "__main__":
    main()
