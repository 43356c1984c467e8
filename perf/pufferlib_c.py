"""PufferLib 3.0's C environments and ours: same games, same run, taking turns on one core.

    python perf/pufferlib_c.py --pufferlib-python PYTHON [--rounds N] [-o REPORT]

PufferLib 3.0 pins numpy<2 and has no wheel, so it gets an interpreter of its own. Its source
distribution, pufferlib-3.0.0.tar.gz, holds all that its games need (on Linux also raylib, which
they draw with); only its setup.py wants torch and downloads more. So leave that out and compile
the games' bindings alone, with setup.py's own flags:

    python -m venv build/pufferlib
    build/pufferlib/bin/pip install "numpy<2" gymnasium==0.29.1 gym==0.23 pettingzoo==1.24.1
    build/pufferlib/bin/pip install "setuptools<81" wheel
    tar -xzf pufferlib-3.0.0.tar.gz --strip-components 1 \\
        -C build/pufferlib/lib/python3*/site-packages
    build/pufferlib/bin/python perf/pufferlib_c.py --compile

Both sides have a process for each game, 4096 agents, equal settings, the same random actions, and
are asked through their own public ``step`` from Python. Both reset in the step that ends an
episode. Both are one thread, so that seconds are the processor's: what other processes take of the
core does not count. The report says where their rules differ.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib
import io
import os
import platform
import statistics
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from interleave import Worker, serve, turns
from reporting import parser_of, publish, spread

AGENTS = 4096
WARM_UP = 32                  # steps before the first measurement
ROTATION = 64                 # action arrays that take turns
BURST = 0.2                   # seconds that one measurement lasts at least
SIDES = ("ours", "pufferlib")


@dataclass(frozen=True)
class Game:
    """A game of ours and what it is compared with: `theirs` is "NAME.Class", the class in
    ``pufferlib.ocean.NAME.NAME``."""

    actions: int
    theirs: str
    difference: str           # between the rules, as the report tells it
    num_envs: int = AGENTS
    our_settings: dict[str, Any] = field(default_factory=dict)
    their_settings: dict[str, Any] = field(default_factory=dict)


GAMES = {
    "squared": Game(
        5, "squared.Squared",
        "None. They keep the grid in the observation and move the agent's mark; we write all of "
        "its 121 bytes in every step, as the rows may lie elsewhere."),
    "pong": Game(
        3, "pong.Pong",
        "At frameskip 1. They serve the ball level or upwards, we up or downwards; when a point is "
        "won they leave the observation as it was, we write the new serve's.",
        our_settings={"frameskip": 1}, their_settings={"frameskip": 1}),
    "breakout": Game(
        3, "breakout.Breakout",
        "At frameskip 4, the same sizes, speeds and points; theirs in float32, ours in float64. "
        "Both try the bricks in the box that the ball sweeps; we skip ticks in which it stays "
        "between wall and paddle, away from the sides.",
        our_settings={"frameskip": 4}, their_settings={"frameskip": 4}),
    "snake": Game(
        4, "snake.Snake",
        "16 maps of 256 snakes without an end. Their map has its border of walls inside 640 x 360, "
        "ours around it; they put a dead snake back in the same step and do not report its end, we "
        "report it and put one back in the next.",
        num_envs=16, our_settings={"max_ticks": 0}),
    "connect4": Game(
        7, "connect4.Connect4",
        "Their opponent searches four plies, ours wins or blocks where it can; this compares a "
        "search with a rule. They spend a step on a reset; their observation is float32 (42,), "
        "ours uint8 (85,) and an action mask."),
    "cartpole": Game(
        2, "cartpole.Cartpole",
        "They compute in float32 and end after 200 steps; we compute in float64, Gymnasium's bits, "
        "and end after 500. Random actions reach neither limit."),
    "cartpole_fast": Game(
        2, "cartpole.Cartpole",
        "As cartpole, but in float32 like theirs; our sine and cosine are polynomials, and one "
        "instruction steps several environments."),
}


def ours(name: str) -> Any:
    game = GAMES[name]
    vec = importlib.import_module("pufferlib_cy").make(
        name, game.num_envs, backend="serial", env_kwargs=game.our_settings, seed=0)
    vec.reset()
    return vec


def pufferlib(name: str) -> Any:
    game = GAMES[name]
    # Its import leaves a link in the current directory, and gym a message.
    with (tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder),
          contextlib.redirect_stderr(io.StringIO())):
        theirs, kind = game.theirs.split(".")
        module = importlib.import_module(f"pufferlib.ocean.{theirs}.{theirs}")
    vec = getattr(module, kind)(num_envs=game.num_envs, **game.their_settings)
    vec.reset()
    return vec


def work(side: str, name: str) -> None:
    """The child's life: warm up, then measure bursts on request, answering steps per second."""
    vec = (ours if side == "ours" else pufferlib)(name)
    assert vec.num_agents == AGENTS
    actions = list(np.random.default_rng(0).integers(
        0, GAMES[name].actions, (ROTATION, AGENTS), dtype=np.int32))
    for rows in actions[:WARM_UP]:
        vec.step(rows)

    def measure() -> float:
        calls, start = 0, time.process_time()
        while (seconds := time.process_time() - start) < BURST:
            vec.step(actions[calls % ROTATION])
            calls += 1
        return calls * AGENTS / seconds

    serve(measure)


def race(name: str, python: str, rounds: int) -> dict[str, list[float]]:
    """Agent steps per second of both sides, two bursts of each in fresh processes every round."""
    speeds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        with (Worker(_command(sys.executable, SIDES[0], name)) as own,
              Worker(_command(python, SIDES[1], name)) as theirs):
            for order in turns(2, 2):
                for i in order:
                    speeds[SIDES[i]].append((own, theirs)[i].ask())
    return speeds


def _command(python: str, side: str, name: str) -> list[str]:
    return [python, "-W", "ignore", __file__, "--worker", side, name]


def report(results: dict[str, dict[str, list[float]]]) -> str:
    """Medians, the medians and ranges of the ratios per round, and how the rules differ."""
    rounds = len(next(iter(results.values()))["ours"]) // 2
    lines = [
        "# Against PufferLib 3.0's C environments", "",
        f"{datetime.date.today()}, Python {platform.python_version()}, one core, {rounds} rounds "
        f"of fresh processes with two bursts each, in turns, {AGENTS} agents, random actions. "
        "Medians, in million agent steps per second; the ratio is ours over theirs, of "
        "neighbouring bursts: median (lowest - highest).", "",
        "| game | ours | PufferLib 3.0 | ratio |", "| --- | ---: | ---: | ---: |",
    ]
    for name, speeds in results.items():
        ratios = [a / b for a, b in zip(*(speeds[side] for side in SIDES), strict=True)]
        own, theirs = (statistics.median(speeds[side]) / 1e6 for side in SIDES)
        lines.append(f"| {name} | {own:.3g} | {theirs:.3g} | {spread(ratios, 2)} |")
    lines += ["", "Where the rules differ:", ""]
    lines += [f"* {name}: {GAMES[name].difference}" for name in results]
    return "\n".join(lines) + "\n"


def compile_bindings() -> None:
    """Compile the games of the unpacked source distribution beside which this Python's packages
    lie, with the flags of its setup.py."""
    from setuptools import Extension, setup

    site = Path(sysconfig.get_path("purelib"))
    raylib = site / "raylib-5.5_linux_amd64"
    extensions = [Extension(
        f"pufferlib.ocean.{name}.binding", [str(site / f"pufferlib/ocean/{name}/binding.c")],
        include_dirs=[np.get_include(), str(raylib / "include")],
        extra_compile_args=["-DNPY_NO_DEPRECATED_API=NPY_1_7_API_VERSION", "-DPLATFORM_DESKTOP",
                            "-O2", "-flto", "-Wno-alloc-size-larger-than",
                            "-Wno-implicit-function-declaration", "-fmax-errors=3"],
        extra_link_args=["-fwrapv", "-O2", "-Bsymbolic-functions"],
        extra_objects=[str(raylib / "lib" / "libraylib.a")])
        for name in sorted({game.theirs.split(".")[0] for game in GAMES.values()})]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)                       # away from any pyproject.toml
        setup(name="bindings", ext_modules=extensions, script_args=[
            "--quiet", "build_ext", "--build-lib", str(site), "--build-temp", folder])


def main() -> None:
    parser = parser_of(__doc__, rounds=9)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--pufferlib-python", metavar="PYTHON",
                      help="an interpreter that can import pufferlib 3.0")
    task.add_argument("--compile", action="store_true",
                      help="compile PufferLib's games for the interpreter that runs this")
    parser.add_argument("--games", nargs="+", choices=GAMES, default=list(GAMES))
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)),
                        help="the core that everything runs on (default: the last)")
    args = parser.parse_args()
    if args.compile:
        compile_bindings()
        return
    os.sched_setaffinity(0, {args.core})       # the children inherit it
    text = report({name: race(name, args.pufferlib_python, args.rounds) for name in args.games})
    publish(text, args.output)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
    else:
        main()
