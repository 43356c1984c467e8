"""How well the shipped settings learn: trains environments with several seeds, one after the other.

    python perf/learning.py ENV [ENV ...] [--seeds 1 2 3] [-o REPORT]

A line for each run: the final policy's mean return with its standard error, over episodes that it
was not chosen by; means of the environment's own statistics, over whole environments; environment
steps; seconds of training, CPU seconds of all of it, which a busy machine lengthens less, and steps
per second.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

from pufferlib_cy import make
from pufferlib_cy.train import checkpoint, evaluate, load_config, train

STATISTICS_SEED = 1 << 40     # beyond those of training and evaluation


def learn(env: str, seed: int) -> str:
    """Train once; the line of the table."""
    with tempfile.TemporaryDirectory() as directory:
        config = dataclasses.replace(load_config(env, environ={}), seed=seed,
                                     checkpoint_dir=Path(directory))
        began = time.process_time()
        summary = train(config)
        cpu = time.process_time() - began
        policy = checkpoint.load(Path(summary.checkpoint)).policy
    assert summary.evaluation is not None
    stats = summary.evaluation.stats
    score = stats["episode_return"]
    with make(env, env_kwargs=config.env_kwargs) as one:
        own, agents = one.stat_names, one.agents_per_env
    if own and own[0] not in stats:
        stats = evaluate(policy, env, max(2, config.evaluation_episodes // agents),
                         STATISTICS_SEED, env_kwargs=config.env_kwargs, target_stat=own[0]).stats
    said = ", ".join(f"{name} {stats[name].mean:.4g}" for name in own)
    return (f"| {env} | {seed} | {score.mean:.4g} ± {score.std / score.episodes**0.5:.2g} | "
            f"{summary.solved} | {said} | {summary.steps / 1e6:.2f} M | {summary.seconds:.0f} | "
            f"{cpu:.0f} | {summary.sps / 1e3:.0f}k |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("envs", nargs="+", metavar="ENV")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("-o", "--output", type=Path, help="write the table there too")
    args = parser.parse_args()
    lines = ["| environment | seed | mean return | solved | statistics | steps | s | CPU s | "
             "steps/s |", "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    print("\n".join(lines), flush=True)
    for env in args.envs:
        for seed in args.seeds:
            lines.append(learn(env, seed))
            print(lines[-1], flush=True)
    if args.output:
        args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
