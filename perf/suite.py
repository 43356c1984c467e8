"""The benchmarks: what is measured, each a function ``bench_x(loops, ...)`` timed inside.

`benchmarks` lists them all; as a program this file runs them under pyperf (`run.py` calls it so,
`compare.py` calls the functions itself). Names read theme/what/how/size. No function times its own
set-up: vectors are made and stepped a little before the clock starts.
"""

from __future__ import annotations

import argparse
import fnmatch
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import pyperf  # type: ignore[import-untyped]
from gymnasium.spaces import Box, Dict, Discrete, Tuple
from numpy.typing import NDArray

import pufferlib_cy
from pufferlib_cy.auto import available_cores

ENVS = {"squared": 5, "cartpole": 2, "cartpole_fast": 2}     # and their numbers of actions
SIZES = (8, 64, 1024, 4096)     # environments in the vector
ROTATION = 64                   # action arrays that take turns, so that no step can be learnt
RESETS = 8                      # resets per loop
HANDOVERS = 16                  # hand-overs per loop
HORIZON, ROWS = 128, 1024       # of the advantages
SAMPLES = 256                   # flattened per loop
BATCH = 64                      # rows that are unflattened at once
UNTOUCHED = 255                 # no cell of a squared grid holds it


@dataclass(frozen=True)
class Benchmark:
    """One entry of the suite.

    ``function(loops, *args)`` returns the seconds of ``loops * calls`` calls of the thing measured;
    each call does `work` units.
    """

    name: str
    function: Callable[..., float]
    args: tuple[Any, ...]
    calls: int
    work: int
    unit: str


def benchmarks(pattern: str = "*") -> list[Benchmark]:
    """The suite, or those whose name matches the shell `pattern`."""
    suite = [
        Benchmark(f"step/{env}/{backend}/{size}", bench_step, (env, size, workers),
                  ROTATION, size, "steps")
        for env in ENVS for backend, workers in (("serial", 1), ("threads2", 2)) for size in SIZES
    ]
    suite += [Benchmark(f"reset/{env}/serial/4096", bench_reset, (env, 4096), RESETS, 4096,
                        "resets") for env in ENVS]
    if available_cores() > 1:
        suite += [Benchmark("handover/awake", bench_handover_awake, (), HANDOVERS, 1, "hand-overs"),
                  Benchmark("handover/asleep", bench_handover_asleep, (), HANDOVERS, 1,
                            "hand-overs")]
    suite.append(Benchmark(f"advantages/gae/{HORIZON}x{ROWS}", bench_gae, (HORIZON, ROWS), 1,
                           HORIZON * ROWS, "steps"))
    suite += [Benchmark("emulation/flatten", bench_flatten, (), SAMPLES, 1, "samples"),
              Benchmark(f"emulation/unflatten/{BATCH}", bench_unflatten, (), SAMPLES, 1, "batches"),
              Benchmark(f"emulation/step/{BATCH}", bench_adapter, (), 1, BATCH, "steps")]
    return [b for b in suite if fnmatch.fnmatch(b.name, pattern)]


def make_vec(env: str, num_envs: int, num_workers: int) -> pufferlib_cy.VectorEnv:
    """A vector for timing: serial for one worker, else threads."""
    if num_workers == 1:
        return pufferlib_cy.make(env, num_envs, backend="serial", seed=0)
    return pufferlib_cy.make(env, num_envs, backend="threads", num_workers=num_workers, seed=0)


def random_actions(choices: int, num_envs: int) -> list[NDArray[np.int32]]:
    """ROTATION arrays of uniform actions, int32 (num_envs,), the same every time."""
    rng = np.random.default_rng(0)
    return list(rng.integers(0, choices, (ROTATION, num_envs), dtype=np.int32))


def bench_step(loops: int, env: str, num_envs: int, num_workers: int) -> float:
    """Seconds of ``loops * ROTATION`` whole ``vec.step`` calls from Python, random actions.

    What a rollout pays the environment: actions checked, environments stepped and reset, views
    returned. The warm-up also spreads the episodes, so that they do not end in step.
    """
    with make_vec(env, num_envs, num_workers) as vec:
        vec.reset()
        actions = random_actions(ENVS[env], num_envs)
        step = vec.step
        for rows in actions:
            step(rows)
        start = time.perf_counter()
        for _ in range(loops):
            for rows in actions:
                step(rows)
        return time.perf_counter() - start


def bench_reset(loops: int, env: str, num_envs: int) -> float:
    """Seconds of ``loops * RESETS`` resets of the whole vector, streams going on (no seed)."""
    with make_vec(env, num_envs, 1) as vec:
        vec.reset()
        start = time.perf_counter()
        for _ in range(loops * RESETS):
            vec.reset()
        return time.perf_counter() - start


def bench_handover_awake(loops: int) -> float:
    """Seconds of ``loops * HANDOVERS`` hand-overs to a helper thread that spins on its flag.

    One hand-over is `send` of one squared environment's action until the caller sees, in the
    observation row, that the helper has begun to write it: the flag going over, the row coming
    back, and the caller's own part of `send`. The caller only looks: it does not call `recv`,
    which would step the environment itself.
    """
    return _handovers(loops, idle=0.0)


def bench_handover_asleep(loops: int) -> float:
    """The same with a helper that sleeps in the kernel: the caller idles 1 ms before each."""
    return _handovers(loops, idle=1e-3)


def _handovers(loops: int, idle: float) -> float:
    with make_vec("squared", 1, 2) as vec:
        observation = np.empty((1, 1, 121), np.uint8)    # (slots, N, D)
        vec.attach(observations=observation)
        vec.async_reset()
        vec.recv()
        cells, action = observation[0, 0], np.zeros(1, np.int32)
        seconds = 0.0
        for _ in range(loops * HANDOVERS):
            if idle:
                time.sleep(idle)
            cells[0] = UNTOUCHED
            start = time.perf_counter()
            vec.send(action)
            while cells[0] == UNTOUCHED:
                if time.perf_counter() - start > 10.0:
                    raise TimeoutError("no helper took the environment within 10 s")
            seconds += time.perf_counter() - start
            vec.recv()
        return seconds


def bench_gae(loops: int, horizon: int, rows: int) -> float:
    """Seconds of `loops` generalised advantage estimations over (horizon, rows) steps.

    The compiled `pufferlib_cy._advantages.gae`; an episode ends on one step in 32, half of them
    by truncation.
    """
    from pufferlib_cy._advantages import gae

    rng = np.random.default_rng(0)
    rewards, final_values, out = rng.standard_normal((3, horizon, rows), np.float32)   # (T, N)
    values = rng.standard_normal((horizon + 1, rows), np.float32)
    ends = rng.random((horizon, rows))
    terminations, truncations = ends < 1 / 64, ends > 63 / 64
    start = time.perf_counter()
    for _ in range(loops):
        gae(rewards, values, terminations, truncations, final_values, 0.99, 0.95, out)
    return time.perf_counter() - start


def mixed_space() -> Dict:
    """The space of the emulation benchmarks: an image, vectors and a number, 180 bytes."""
    return Dict(map=Box(0, 255, (11, 11), np.uint8), vitals=Box(-1, 1, (8,)), role=Discrete(5),
                pair=Tuple((Box(-1, 1, (3,)), Box(-1, 1, (2,)))))


def bench_flatten(loops: int) -> float:
    """Seconds of ``loops * SAMPLES`` calls of `SpaceTree.flatten` into a row that is there."""
    from pufferlib_cy import SpaceTree

    tree = SpaceTree(mixed_space())
    sample, row = tree.space.sample(), np.zeros(tree.row_size, np.uint8)
    flatten = tree.flatten
    start = time.perf_counter()
    for _ in range(loops * SAMPLES):
        flatten(sample, row)
    return time.perf_counter() - start


def bench_unflatten(loops: int) -> float:
    """Seconds of ``loops * SAMPLES`` calls of `SpaceTree.unflatten` of BATCH rows, as NumPy views.
    """
    from pufferlib_cy import SpaceTree

    tree = SpaceTree(mixed_space())
    rows = np.zeros((BATCH, tree.row_size), np.uint8)
    unflatten = tree.unflatten
    start = time.perf_counter()
    for _ in range(loops * SAMPLES):
        unflatten(rows)
    return time.perf_counter() - start


class Idle(gymnasium.Env[Any, Any]):
    """An environment that does nothing: what remains of its step is the adapter."""

    observation_space, action_space = Box(-1, 1, (4,)), Discrete(2)
    outcome = np.zeros(4, np.float32), 1.0, False, False, {}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.outcome[0], {}

    def step(self, action: Any) -> Any:
        return self.outcome


def bench_adapter(loops: int) -> float:
    """Seconds of ``loops`` steps of BATCH Gymnasium environments that do nothing, serially."""
    with pufferlib_cy.make(Idle, BATCH, backend="serial") as vec:
        vec.reset()
        actions, step = np.zeros(BATCH, np.int64), vec.step
        start = time.perf_counter()
        for _ in range(loops):
            step(actions)
        return time.perf_counter() - start


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The suite's own argument, shared with `run.py`."""
    parser.add_argument("--only", default="*", metavar="PATTERN",
                        help="benchmarks to run, a shell pattern such as 'step/squared/*'")


def main() -> None:
    """Run under pyperf, whose arguments this program takes."""
    def pass_on(command: list[str], args: argparse.Namespace) -> None:
        command += ["--only", args.only]

    runner = pyperf.Runner(processes=6, values=5, min_time=0.05, add_cmdline_args=pass_on)
    add_arguments(runner.argparser)
    for b in benchmarks(runner.parse_args().only):
        runner.bench_time_func(b.name, b.function, *b.args, inner_loops=b.calls,
                               metadata={"work": b.work, "work_unit": b.unit})


if __name__ == "__main__":
    main()
