"""What more threads than cores cost, and what two threads gain.

    python perf/oversubscription.py [--rounds N] [-o REPORT]

The threads backend against the serial one in the same process, bursts taking turns: 2 and 8
threads, on all cores, on one (as under ``taskset -c 0``), and on all while a stranger, a process
that only spins, keeps one of them busy. With more threads than cores the speed should stay at 0.8
of one thread's or above: helpers sleep where there is no core for them, and the caller steps what
nobody has taken. Of the stranger the backend cannot know.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator

import suite
from interleave import Worker, serve, turns
from reporting import parser_of, publish, spread

BURST = 0.05          # seconds that one measurement lasts about
SIZES = (1024, 4096)
THREADS = (2, 8)


def measure(env: str, num_envs: int, num_workers: int, rounds: int) -> list[list[float]]:
    """In the child: per round the steps per second of one thread and of `num_workers`."""
    steps = suite.ROTATION * num_envs
    loops = max(1, round(BURST / suite.bench_step(1, env, num_envs, 1)))
    speeds = []
    for order in turns(2, rounds):
        pair = [0.0, 0.0]
        for side in order:
            workers = (1, num_workers)[side]
            pair[side] = loops * steps / suite.bench_step(loops, env, num_envs, workers)
        speeds.append(pair)
    return speeds


def work(cores: int) -> None:
    """The child's life: keep to that many cores, then measure."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    serve(measure)


@contextlib.contextmanager
def strangers(count: int) -> Iterator[None]:
    """So many processes that spin."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def report(rounds: int) -> str:
    """Run everything; Markdown."""
    every = len(os.sched_getaffinity(0))
    lines = [
        "# Threads against one thread", "",
        f"{datetime.date.today()}, Python {platform.python_version()}, {rounds} interleaved rounds."
        " Ratio: speed of the threads over one thread's, per round: median (lowest - highest).", "",
        "| environment | size | cores | strangers | threads | one thread, M steps/s | ratio |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for cores, busy in dict.fromkeys(((every, 0), (1, 0), (every, 1))):
        with strangers(busy), Worker([sys.executable, __file__, "--worker", str(cores)]) as worker:
            for env in suite.ENVS:
                for size in SIZES:
                    for threads in THREADS:
                        speeds = worker.ask(env=env, num_envs=size, num_workers=threads,
                                            rounds=rounds)
                        one = statistics.median(pair[0] for pair in speeds) / 1e6
                        ratios = [pair[1] / pair[0] for pair in speeds]
                        lines.append(
                            f"| {env} | {size} | {cores} | {busy} | {threads} | {one:.3g} | "
                            f"{spread(ratios, 2)} |")
                        print(lines[-1], file=sys.stderr)
    return "\n".join(lines) + "\n"


def main() -> None:
    args = parser_of(__doc__, rounds=15).parse_args()
    publish(report(args.rounds), args.output)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(int(sys.argv[2]))
    else:
        main()
