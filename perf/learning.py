"""How well the shipped settings learn: trains environments with several seeds, one after the other.

    python perf/learning.py ENV [ENV ...] [--seeds 1 2 3] [-o REPORT]

A line for each run: the final policy's mean return and standard error over `evaluation_episodes`
episodes that it was not chosen by, the environment's statistics over games that the policy plays
afterwards, environment steps, seconds, CPU seconds (which other processes do not lengthen so much),
and steps per second.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import torch

from pufferlib_cy import make
from pufferlib_cy.train import Policy, checkpoint, load_config, train

STATISTICS_SEED = 1 << 40     # beyond those of training and evaluation
STATISTICS_STEPS = 1000       # of each environment; a map of snakes lasts as long


@torch.inference_mode()
def statistics(policy: Policy, env: str, num_envs: int) -> dict[str, float]:
    """``episode_stats`` of the most probable actions, over the games of STATISTICS_STEPS steps."""
    with make(env, num_envs, seed=STATISTICS_SEED) as vec:
        observations, _ = vec.reset()
        for _ in range(STATISTICS_STEPS):
            masks = vec.action_masks
            decision, _ = policy.act(
                torch.from_numpy(observations),
                action_masks=None if masks is None else torch.from_numpy(masks))
            observations = vec.step(policy.distribution.for_environment(decision.actions))[0]
        return vec.episode_stats()


def learn(env: str, seed: int) -> str:
    """Train once; the line of the table."""
    with tempfile.TemporaryDirectory() as directory:
        config = dataclasses.replace(load_config(env, environ={}), seed=seed,
                                     checkpoint_dir=Path(directory))
        cpu = time.process_time()
        summary = train(config)
        cpu = time.process_time() - cpu
        policy = checkpoint.load(Path(summary.checkpoint)).policy
    evaluation = summary.evaluation
    assert evaluation is not None
    # As many environments as give a few hundred agents.
    with make(env) as vec:
        num_envs = max(2, 256 // vec.agents_per_env)
    played = statistics(policy, env, num_envs)
    own = ", ".join(f"{name} {value:.4g}" for name, value in played.items()
                    if not name.startswith("episode"))
    return (f"| {env} | {seed} | {evaluation.mean_return:.4g} ± "
            f"{evaluation.std_return / evaluation.episodes**0.5:.2g} | {summary.solved} | {own} | "
            f"{summary.steps / 1e6:.2f} M | {summary.seconds:.0f} | {cpu:.0f} | "
            f"{summary.sps / 1e3:.0f}k |")


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
