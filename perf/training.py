"""How fast training is, where its time goes, and how far that is from the matrix products.

    python perf/training.py [--rounds N] [--steps N] [-o REPORT]

cartpole, a policy with two hidden layers of 64, one pass over each rollout, in some sizes and
numbers of torch threads, next to the products of matrices that the same run's torch makes: square
ones of 1024, as near to the machine's peak as torch comes, and those of the policy's own hidden
layer. Rounds take turns, each measures everything once; the table has the medians. Two torch
threads wait for each other at every operation: on a busy machine they can be many times slower.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from reporting import parser_of, publish

from pufferlib_cy.train import TrainConfig, TrainSummary, load_config, train
from pufferlib_cy.train.report import PHASES

SIZES = ((512, 8), (1024, 4), (2048, 8), (4096, 16))     # environments, minibatches
OBSERVATIONS, OUTPUTS = 4, 3                             # of cartpole; two logits and a value


def product_speed(rows: int, inner: int, columns: int, threads: int) -> float:
    """FLOP/s of ``torch.mm`` of (rows, inner) and (inner, columns): the best of 20."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    a, b, out = (torch.rand(shape) for shape in ((rows, inner), (inner, columns), (rows, columns)))
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        best = min(best, time.perf_counter() - start)
    torch.set_num_threads(before)
    return 2 * rows * inner * columns / best


def flop_per_step(config: TrainConfig) -> int:
    """Floating-point operations of the matrix products for one environment step.

    Forward in the rollout and in training; backward to the weights of all layers and to the inputs
    of all but the first. The values after a rollout add 1/horizon of a forward pass, left out.
    """
    widths = [OBSERVATIONS, *config.hidden_sizes, OUTPUTS]
    layers = [2 * inputs * outputs for inputs, outputs in itertools.pairwise(widths)]
    forward = sum(layers)
    return forward + config.epochs * (3 * forward - layers[0])


def measure(config: TrainConfig) -> TrainSummary:
    """A training run that nothing but its steps ends."""
    with tempfile.TemporaryDirectory() as directory:
        return train(dataclasses.replace(config, checkpoint_dir=Path(directory)))


def main() -> None:
    parser = parser_of(__doc__, rounds=5)
    parser.add_argument("--steps", type=int, default=1_000_000, help="of one training run")
    args = parser.parse_args()

    base = dataclasses.replace(
        load_config("cartpole", environ={}), hidden_sizes=(64, 64), epochs=1, target_return=None,
        total_timesteps=args.steps, evaluation_episodes=1)
    threads = [1, 2] if (os.cpu_count() or 1) > 1 else [1]
    configs = [dataclasses.replace(base, num_envs=num_envs, minibatches=minibatches,
                                   torch_threads=count)
               for num_envs, minibatches in SIZES for count in threads]
    runs: list[list[TrainSummary]] = [[] for _ in configs]
    square: dict[int, list[float]] = {count: [] for count in threads}
    hidden: dict[int, list[float]] = {count: [] for count in threads}
    for _ in range(args.rounds):
        for count in threads:
            square[count].append(product_speed(1024, 1024, 1024, count))
            hidden[count].append(product_speed(8192, 64, 64, count))
        for config, summaries in zip(configs, runs, strict=True):
            summaries.append(measure(config))

    lines = [f"torch {torch.__version__}, Python {platform.python_version()}, "
             f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end; "
             f"medians of {args.rounds}", ""]
    lines += [f"torch.mm, {count} threads: {statistics.median(square[count]) / 1e9:.0f} GFLOP/s "
              f"(1024, 1024) x (1024, 1024), {statistics.median(hidden[count]) / 1e9:.0f} "
              "(8192, 64) x (64, 64)" for count in threads]
    lines += ["", "| envs | rows per minibatch | torch threads | steps/s | " + " | ".join(PHASES)
              + " | GFLOP/s | of the square product |", "| --- " * (6 + len(PHASES)) + "|"]
    for config, summaries in zip(configs, runs, strict=True):
        sps = statistics.median(summary.sps for summary in summaries)
        shares = [statistics.median(summary.times[phase] for summary in summaries)
                  for phase in PHASES]
        flops = sps * flop_per_step(config)
        peak = statistics.median(square[config.torch_threads])
        lines.append(
            f"| {config.num_envs} | {config.num_envs * config.horizon // config.minibatches} | "
            f"{config.torch_threads} | {sps / 1e3:.0f}k | "
            + " | ".join(f"{share:.0%}" for share in shares)
            + f" | {flops / 1e9:.0f} | {flops / peak:.0%} |")
    publish("\n".join(lines) + "\n", args.output)


if __name__ == "__main__":
    main()
