"""Compare this working tree with another revision: is it faster, slower, or the same within noise?

    python perf/compare.py BASE [--only PATTERN] [--rounds N] [-o REPORT]

BASE is a git revision or a directory with a source tree. Both sides are copied to a temporary
directory and built there in the same way (nothing is written to the repository or its list of
worktrees, and nothing stays behind), then measured with this tree's suite in short bursts that take
turns: A B, B A, A B, ... Every round has fresh processes, so that the luck of one memory layout is
not taken for a difference. The report goes to perf/reports/ and says medians of ratios.
"""

from __future__ import annotations

import argparse
import datetime
import io
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

import suite
from interleave import Ratios, Worker, serve, turns
from run import seconds

import pufferlib_cy
from pufferlib_cy.envs import REGISTRY

ROOT = Path(__file__).resolve().parent.parent
BURST = 0.02          # seconds that one measurement lasts at least
PAIRS = 6             # measurements of each side per round and benchmark


def git(*arguments: str) -> bytes:
    """What git prints, run in the repository."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout


def copy_revision(revision: str, target: Path) -> None:
    """The tree of a git revision as files in `target`."""
    with tarfile.open(fileobj=io.BytesIO(git("archive", revision))) as archive:
        archive.extractall(target, filter="data")


def copy_tree(source: Path, target: Path) -> None:
    """What a build needs of a source tree, as it stands, without what earlier builds left."""
    shutil.copytree(source / "pufferlib_cy", target / "pufferlib_cy",
                    ignore=shutil.ignore_patterns("*.so", "*.pyd", "*.c", "__pycache__"))
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(source / name, target / name)


def build(root: Path) -> None:
    """Build the release extensions in place; on failure print the log and raise."""
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"], cwd=root, text=True,
        env={**os.environ, "PUFFERLIB_CY_CHECKED": "0"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        raise SystemExit(f"compare: {root.name} does not build (the log is above)")


def start(root: Path) -> Worker:
    """A child that measures the package in `root`."""
    return Worker([sys.executable, __file__, "--worker", str(root)], {"PYTHONPATH": str(root)})


def measure(name: str, loops: int) -> float | None:
    """In the child: seconds of one benchmark; None if this revision lacks what it measures."""
    [benchmark] = suite.benchmarks(name)
    _, env, *_ = name.split("/")
    if env in suite.ENVS and env not in REGISTRY:
        return None
    try:
        return benchmark.function(loops, *benchmark.args)
    except ImportError:
        return None


def work(root: str) -> None:
    """The child's life: make sure that it measures what it should, then serve."""
    loaded = Path(str(pufferlib_cy.__file__)).resolve()
    if not loaded.is_relative_to(Path(root).resolve()):
        raise SystemExit(f"compare: loaded {loaded} instead of the package in {root}")
    serve(measure)


def calibrate(worker: Worker, name: str) -> int:
    """Loops that last at least BURST; 0 for a benchmark that the revision cannot run."""
    loops = 1
    while (duration := worker.ask(name=name, loops=loops)) is not None and duration < BURST:
        loops *= 2
    return 0 if duration is None else loops


def compare(base: Path, head: Path, names: list[str], rounds: int,
            ) -> dict[str, tuple[float, float, Ratios]]:
    """Per benchmark: seconds per loop of base and of head (medians), and the speed-up per round.

    Benchmarks of things that base does not have are left out.
    """
    with start(base) as worker:
        loops = {name: n for name in names if (n := calibrate(worker, name))}
    times: dict[str, list[list[float]]] = {name: [[], []] for name in loops}
    ratios: dict[str, list[float]] = {name: [] for name in loops}
    for r in range(rounds):
        print(f"round {r + 1} of {rounds}", file=sys.stderr)
        with start(base) as a, start(head) as b:
            for name in loops:
                pairs = []
                for order in turns(2, PAIRS):
                    pair = [0.0, 0.0]
                    for side in order:
                        duration = (a, b)[side].ask(name=name, loops=loops[name])
                        pair[side] = duration / loops[name]
                        times[name][side].append(pair[side])
                    pairs.append(pair[0] / pair[1])
                ratios[name].append(statistics.median(pairs))
    return {name: (statistics.median(times[name][0]), statistics.median(times[name][1]),
                   Ratios(tuple(ratios[name]))) for name in loops}


def report(title: str, results: Mapping[str, tuple[float, float, Ratios]], rounds: int) -> str:
    """The comparison as Markdown."""
    confidence = next(iter(results.values()))[2].confidence
    lines = [
        f"# {title}", "",
        f"{datetime.date.today()}, Python {platform.python_version()}, {os.cpu_count()} cores, "
        f"{rounds} interleaved rounds. Speed-up: base's time over this tree's, the median of the "
        f"rounds; interval: holds the true median with {confidence:.1%}.", "",
        "| benchmark | base | this tree | speed-up | interval | verdict |",
        "| --- | ---: | ---: | ---: | :---: | --- |",
    ]
    calls = {b.name: b.calls for b in suite.benchmarks()}
    for name, (base, head, ratios) in results.items():
        low, high = ratios.interval
        lines.append(
            f"| {name} | {seconds(base / calls[name])} | {seconds(head / calls[name])} | "
            f"{ratios.median:.3f} | {low:.3f} - {high:.3f} | {ratios.verdict} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        return work(sys.argv[2])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    suite.add_arguments(parser)
    parser.add_argument("base", metavar="BASE", help="git revision, or directory of a source tree")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, metavar="REPORT",
                        help="default: perf/reports/compare-BASE.md")
    args = parser.parse_args()
    names = [b.name for b in suite.benchmarks(args.only)]
    if not names:
        parser.error(f"--only {args.only!r} matches no benchmark")
    try:
        Ratios((1.0,) * args.rounds)
    except ValueError as error:
        parser.error(f"--rounds: {error}")
    # `timeout` and friends end us by SIGTERM: leave by the same door as Ctrl-C, tidily.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="compare-") as directory:
        base, head = Path(directory, "base"), Path(directory, "head")
        base.mkdir()
        head.mkdir()
        if Path(args.base).is_dir():
            copy_tree(Path(args.base), base)
            label = Path(args.base).resolve().name
        else:
            try:
                label = git("rev-parse", "--short", f"{args.base}^{{commit}}").decode().strip()
            except subprocess.CalledProcessError:
                parser.error(f"BASE: {args.base!r} is neither a directory nor a git revision")
            copy_revision(label, base)
        copy_tree(ROOT, head)
        for side in (base, head):
            print(f"building {side.name}", file=sys.stderr)
            build(side)
        results = compare(base, head, names, args.rounds)
    tree = git("describe", "--always", "--dirty").decode().strip()
    text = report(f"This tree ({tree}) against {label}", results, args.rounds)
    output = args.output or ROOT / "perf" / "reports" / f"compare-{label}.md"
    output.write_text(text)
    print(text)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
