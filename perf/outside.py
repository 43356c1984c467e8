"""An outside package against our wheel, in a virtual environment of its own: is it as fast?

    python perf/outside.py [--rounds N] [-o REPORT]

Builds a wheel of this tree and a virtual environment that has it, and in there the package
``examples/puffer_maze`` with some of our own environments copied into it. Then each of these is
stepped against the one in the wheel, the same ``.pyx``: in one process, in turns, with the same
actions. The report has the ratios, outside over inside.

`install` alone is what the tests use.
"""

from __future__ import annotations

import datetime
import importlib
import os
import platform
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from interleave import Ratios, Worker, serve, turns
from reporting import parser_of, publish

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "puffer_maze"
COMPARED = ("squared", "cartpole", "pong")
NUM_ENVS = 4096
PAIRS = 15                    # of bursts in one round
BURST = 0.02                  # seconds that a burst lasts at least


def install(folder: Path, copies: Sequence[str] = ()) -> Path:
    """Make ``folder/venv`` with our wheel and the outside package; return its Python.

    copies: environments of ours whose ``.pyx`` becomes a module of the outside package too.
    Third-party packages are those of the Python that runs this; ours is only in the wheel.
    Raises CalledProcessError, with what was printed, if a step fails.
    """
    venv, package = folder / "venv", folder / EXAMPLE.name
    _run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation",
         "--wheel-dir", folder / "dist", ROOT)
    [wheel] = (folder / "dist").glob("pufferlib_cy-*.whl")
    _run(sys.executable, "-m", "venv", "--without-pip", venv)
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    # A path in a .pth file is searched last, and the .pth files that lie there are not read: so an
    # editable install of ours in it stays out.
    site = Path(_run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    (site / "third_party.pth").write_text(sysconfig.get_path("purelib"))
    shutil.copytree(EXAMPLE, package, ignore=shutil.ignore_patterns("build", "*.c", "*.egg-info"))
    for name in copies:
        shutil.copy(ROOT / "pufferlib_cy" / "envs" / f"{name}.pyx", package / EXAMPLE.name)
        setup = package / "setup.py"
        setup.write_text(setup.read_text().replace(
            '["', f'["{EXAMPLE.name}/{name}.pyx", "'))
    for what in (wheel, package):
        _run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index",
             "--no-build-isolation", what)
    return python


def _run(*command: str | Path) -> str:
    """What the command prints; elsewhere than here, so that no package is imported from here."""
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            command, cwd=elsewhere, capture_output=True, text=True, check=False,
            env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")})
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        done.check_returncode()
    return done.stdout.strip()


def work(name: str) -> None:
    """The child's life: on request, the median ratio of pairs of bursts, outside over inside."""
    pufferlib_cy = importlib.import_module("pufferlib_cy")
    kind = importlib.import_module("pufferlib_cy.envs").REGISTRY[name][1]
    vecs = [pufferlib_cy.make(env, NUM_ENVS, backend="serial", seed=0)
            for env in (name, f"{EXAMPLE.name}.{name}:{kind}")]
    actions = np.random.default_rng(0).integers(
        0, vecs[0].single_action_space.n, (64, NUM_ENVS), dtype=np.int32)
    for vec in vecs:
        vec.reset()
        for rows in actions:
            vec.step(rows)

    def burst(vec: Any) -> float:
        """Steps per second of the processor's time: what other processes take does not count."""
        calls, start = 0, time.process_time()
        while (seconds := time.process_time() - start) < BURST:
            vec.step(actions[calls % len(actions)])
            calls += 1
        return calls * NUM_ENVS / seconds

    def measure() -> dict[str, float]:
        speeds: tuple[list[float], list[float]] = ([], [])
        for order in turns(2, PAIRS):
            for i in order:
                speeds[i].append(burst(vecs[i]))
        return {"ratio": statistics.median(b / a for a, b in zip(*speeds, strict=True)),
                "inside": statistics.median(speeds[0])}

    serve(measure)


def race(python: Path, rounds: int) -> dict[str, list[dict[str, float]]]:
    """What `work` measures, in a fresh process for every environment and round."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in COMPARED}
    for _ in range(rounds):
        for name in COMPARED:
            with Worker([str(python), __file__, "--worker", name]) as worker:
                results[name].append(worker.ask())
    return results


def report(results: dict[str, list[dict[str, float]]]) -> str:
    """The median ratio of each environment, with its interval."""
    rounds = len(next(iter(results.values())))
    lines = [
        "# An outside package's environments against the same in our wheel", "",
        f"{datetime.date.today()}, Python {platform.python_version()}, one thread, {NUM_ENVS} "
        f"environments, {rounds} processes with {PAIRS} pairs of bursts each. The ratio is the "
        "speed outside over the speed inside: median, and an interval that holds it with 99.9%.",
        "", "| environment | inside, M steps/s | ratio |", "| --- | ---: | ---: |",
    ]
    for name, measured in results.items():
        ratios = Ratios(tuple(m["ratio"] for m in measured))
        low, high = ratios.interval
        inside = statistics.median(m["inside"] for m in measured) / 1e6
        lines.append(f"| {name} | {inside:.3g} | {ratios.median:.3f} ({low:.3f} - {high:.3f}) |")
    return "\n".join(lines) + "\n"


def main() -> None:
    args = parser_of(__doc__, rounds=11).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = report(race(install(Path(folder), COMPARED), args.rounds))
    publish(text, args.output)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2])
    else:
        main()
