"""Run the suite once and write what it measured: pyperf's JSON, and a table to standard output.

    python perf/run.py [--fast] [--only PATTERN] -o FILE

The JSON keeps what explains a figure (versions, processor, number of cores) and loses what names a
machine or a person (host name, paths), so that it can be published. To compare two revisions use
`compare.py`: two runs of this one, minutes apart, differ by what else the machine was doing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyperf  # type: ignore[import-untyped]
import suite

from pufferlib_cy import _core

# The metadata that stays, at every level of the file.
KEPT = {
    "name", "unit", "loops", "inner_loops", "work", "work_unit", "date", "duration", "timer",
    "calibrate_loops", "recalibrate_loops", "calibrate_warmups", "recalibrate_warmups",
    "cpu_count", "cpu_affinity", "cpu_model_name", "perf_version", "python_implementation",
    "python_version", "python_compiler",
}


def scrub(node: Any) -> Any:
    """A copy of pyperf's JSON in which every ``metadata`` holds only the keys in `KEPT`."""
    if isinstance(node, list):
        return [scrub(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {key: {k: v for k, v in value.items() if k in KEPT} if key == "metadata"
            else scrub(value) for key, value in node.items()}


def seconds(value: float) -> str:
    """A time with three digits and its unit."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def rate(value: float) -> str:
    """A number per second with three digits."""
    for scale, unit in ((1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.3g}"


def table(results: pyperf.BenchmarkSuite) -> str:
    """Markdown: per benchmark the median time of a call, the spread of the values, the rate.

    The spread is half the distance between the quartiles, relative to the median.
    """
    lines = ["| benchmark | one call | spread | rate |", "| --- | ---: | ---: | ---: |"]
    for benchmark in results.get_benchmarks():
        metadata = benchmark.get_metadata()
        median = benchmark.median()
        spread = (benchmark.percentile(75) - benchmark.percentile(25)) / 2 / median
        lines.append(f"| {benchmark.get_name()} | {seconds(median)} | ±{spread:.0%} | "
                     f"{rate(metadata['work'] / median)} {metadata['work_unit']}/s |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    suite.add_arguments(parser)
    parser.add_argument("--fast", action="store_true", help="fewer processes and values")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    args = parser.parse_args()
    if _core.checked:
        parser.error("this is the checked build, whose speed says nothing: build the release first")
    if not suite.benchmarks(args.only):
        parser.error(f"--only {args.only!r} matches no benchmark")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        raw = Path(directory) / "raw.json"
        command = [sys.executable, suite.__file__, "--only", args.only, "-o", str(raw), "--quiet"]
        # pyperf's own chatter goes where the table does not.
        subprocess.run(command + ["--fast"] * args.fast, check=True, stdout=sys.stderr)
        args.output.write_text(json.dumps(scrub(json.loads(raw.read_text()))) + "\n")
    print(table(pyperf.BenchmarkSuite.load(str(args.output))))


if __name__ == "__main__":
    main()
