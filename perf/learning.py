"""How well the shipped settings learn: trains environments with several seeds, one after the other.

    python perf/learning.py ENV [ENV ...] [--seeds [1 2 3]] [-o REPORT] [--curves FILE]
                            [--checkpoint-dir DIR]

A line for each run: the final policy's mean return with its standard error, over episodes that it
was not chosen by; means of the environment's own statistics, over whole environments; environment
steps; seconds of training, CPU seconds of all of it, which a busy machine lengthens less, and steps
per second.

--curves adds the runs' learning curves to a JSON file, which `curves.py` draws: what the trainer
reported of the statistic that the target is about, its means in at most POINTS intervals of equally
many steps; and beside them what random actions reach, and the scripted players of the tests.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import itertools
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pufferlib_cy import VectorEnv, make
from pufferlib_cy.train import (
    Report,
    TrainConfig,
    checkpoint,
    evaluate,
    load_config,
    random_policy,
    train,
)
from pufferlib_cy.train.evaluate import FirstEnds

STATISTICS_SEED = 1 << 40     # beyond those of training and evaluation
POINTS = 60                   # of a curve
EVERY_ITERATION = 1e-9        # s, a log_interval
# Scripted players: the module of tests/envs that has it, and its actions by (that module, vec,
# observations, rng).
Player = Callable[[Any, VectorEnv, np.ndarray, np.random.Generator], np.ndarray]
SCRIPTED: dict[str, tuple[str, Player]] = {
    "2048": ("test_game_2048", lambda own, vec, seen, rng: own.corner(seen, vec.action_masks, rng)),
    "commons": ("test_commons", lambda own, vec, seen, rng: own.harvest(seen, rng, least=4)),
    "foraging": ("test_foraging", lambda own, vec, seen, rng: own.forage(
        vec.space_tree.unflatten(seen), rng)),
    "minesweeper": ("test_minesweeper", lambda own, vec, seen, rng: own.deduce(seen, rng)),
    "snake": ("test_snake", lambda own, vec, seen, rng: own.greedy(seen)),
    "tetris": ("test_tetris", lambda own, vec, seen, rng: own.best(
        own.rows_of(seen), vec.action_masks, own.lowest)),
}


class Curve:
    """Sees a run's reports; keeps the statistic that its target is about."""

    def __init__(self, config: TrainConfig) -> None:
        self.statistic = config.target_stat
        self.points: list[tuple[int, float, float, float]] = []

    def __call__(self, report: Report, /) -> None:
        if self.statistic in report.stats:
            self.points.append((report.steps, report.seconds, report.stats["episodes"],
                                report.stats[self.statistic]))

    def compact(self) -> dict[str, list[float]]:
        """Steps and seconds at the ends of intervals, and the mean over each one's episodes."""
        return compact(self.points)


def compact(points: Sequence[tuple[int, float, float, float]],
            most: int = POINTS) -> dict[str, list[float]]:
    """Means of (steps, seconds, episodes, mean) in `most` intervals of equally many steps; those
    in which no episode ended are left out."""
    curve: dict[str, list[float]] = {"steps": [], "seconds": [], "mean": []}
    last = points[-1][0] if points else 0
    for _, group in itertools.groupby(points, lambda point: (point[0] - 1) * most // last):
        steps, seconds, episodes, means = np.array(list(group)).T
        curve["steps"].append(int(steps[-1]))
        curve["seconds"].append(round(float(seconds[-1]), 2))
        curve["mean"].append(float(f"{np.average(means, weights=episodes):.4g}"))
    return curve


def learn(env: str, seed: int, checkpoint_dir: Path) -> tuple[str, dict[str, list[float]]]:
    """Train once; the line of the table, and the curve."""
    config = dataclasses.replace(load_config(env, environ={}), seed=seed,
                                 checkpoint_dir=checkpoint_dir, log_interval=EVERY_ITERATION)
    curve = Curve(config)
    began = time.process_time()
    summary = train(config, curve)
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
            f"{cpu:.0f} | {summary.sps / 1e3:.0f}k |", curve.compact())


def compared_with(env: str) -> dict[str, Any]:
    """What a learning curve is seen beside: the target, random actions, a scripted player."""
    config = load_config(env, environ={})
    policy = random_policy(env, config.env_kwargs)
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)

    def random_actions(vec: VectorEnv, observations: np.ndarray) -> np.ndarray:
        masks = vec.action_masks
        decision, _ = policy.act(
            torch.from_numpy(observations), (), torch.zeros(vec.num_agents, dtype=torch.bool),
            action_masks=None if masks is None else torch.from_numpy(masks), generator=generator)
        return policy.distribution.for_environment(decision.actions)

    def scripted_actions(vec: VectorEnv, observations: np.ndarray) -> np.ndarray:
        return player(module, vec, observations, rng)

    beside = {"statistic": config.target_stat, "target": config.target_return,
              "random": play_once(config, random_actions), "scripted": None}
    if env in SCRIPTED:
        sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / place) for place in ("", "envs")]
        name, player = SCRIPTED[env]
        module = importlib.import_module(name)
        beside["scripted"] = play_once(config, scripted_actions)
    return beside


@torch.inference_mode()
def play_once(config: TrainConfig, act: Callable[[VectorEnv, np.ndarray], np.ndarray]) -> float:
    """The mean of the target's statistic; of returns and lengths, over the first life in each slot
    that has one before its environment ends."""
    with make(config.env, env_kwargs=config.env_kwargs) as one:
        num_envs = max(2, config.evaluation_episodes // one.agents_per_env)
    with make(config.env, num_envs, env_kwargs=config.env_kwargs, seed=STATISTICS_SEED) as vec:
        observations, _ = vec.reset()
        ends, ended = FirstEnds(vec), np.zeros(vec.num_agents, np.bool_)
        returns = np.zeros(vec.num_agents)
        while not ends.over.all():
            observations, rewards, terminations, truncations, _ = vec.step(act(vec, observations))
            returns[~ended] += rewards[~ended]
            ended |= terminations | truncations
            ends.note()
        mean = (ends.stats[:, vec.stat_names.index(config.target_stat)].mean()
                if config.target_stat in vec.stat_names else returns[ended].mean())
    return float(f"{mean:.4g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("envs", nargs="+", metavar="ENV")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3],
                        help="none: only what curves are seen beside is measured")
    parser.add_argument("-o", "--output", type=Path, help="write the table there too")
    parser.add_argument("--curves", type=Path, metavar="FILE", help="add the curves there")
    parser.add_argument("--checkpoint-dir", type=Path, metavar="DIR", help="keep checkpoints there")
    args = parser.parse_args()
    lines = ["| environment | seed | mean return | solved | statistics | steps | s | CPU s | "
             "steps/s |", "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    print("\n".join(lines), flush=True)
    for env in args.envs:
        runs = {}
        for seed in args.seeds:
            with tempfile.TemporaryDirectory() as directory:
                line, runs[str(seed)] = learn(env, seed, args.checkpoint_dir or Path(directory))
            lines.append(line)
            print(line, flush=True)
        if args.curves:
            add_curves(args.curves, env, compared_with(env), runs)
    if args.output:
        args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


def add_curves(path: Path, env: str, beside: dict[str, Any], runs: dict[str, Any]) -> None:
    """Put an environment's runs into the file, in the place of older ones with their seeds."""
    curves = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    runs = curves.get(env, {}).get("runs", {}) | runs
    curves[env] = beside | {"runs": dict(sorted(runs.items(), key=lambda run: int(run[0])))}
    text = json.dumps(curves, indent=1)
    # A list of numbers is a line.
    text = re.sub(r"\[([^]]*)\]", lambda numbers: f"[{' '.join(numbers[1].split())}]", text)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
