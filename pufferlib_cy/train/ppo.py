"""Proximal policy optimisation, from top to bottom: rollout, advantages, update, log.

PPO is Schulman et al. 2017 (arXiv 1707.06347), with generalised advantage estimation (Schulman et
al. 2016, arXiv 1506.02438) and the dual clip of Ye et al. 2020 (arXiv 1912.09729). For what the
papers leave open see Huang et al. 2022, "The 37 implementation details of PPO".

Letters: T steps, N rows, S segments (the T steps of S of the rows), M = T * S rows of a minibatch.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pufferlib_cy import VectorEnv, make
from pufferlib_cy.train import checkpoint
from pufferlib_cy.train.config import TrainConfig
from pufferlib_cy.train.distributions import ActionRows
from pufferlib_cy.train.evaluate import EvalSummary, check_target_stat, evaluate
from pufferlib_cy.train.log import Clock, Episodes, Reporter
from pufferlib_cy.train.policies import Assessment, Policy, State
from pufferlib_cy.train.report import Observer
from pufferlib_cy.train.rollout import ALL, Minibatch, Rollout

# Evaluation k of a run has the seeds from k * 2**32 on; the training environments are below.
EVALUATION_SEEDS = 1 << 32


class NonFiniteError(ArithmeticError):
    """NaN or infinity in training; the message names the first tensor that has it."""


@dataclass(frozen=True)
class TrainSummary:
    """What came of a training run."""

    env: str
    seed: int
    steps: int                       # environment steps, of live agents
    seconds: float                   # of training, without the final evaluation
    sps: float                       # steps per second
    episode_return: float | None     # mean of the last training episodes; None: none ended
    episode_length: float | None
    target_return: float | None
    target_stat: str                 # what target_return is about
    solved: bool | None              # evaluation reached target_return; None: either is None
    stopped: bool                    # by should_stop or the observer; then nothing is evaluated
    evaluation: EvalSummary | None   # of the final policy, on episodes that decided nothing
    times: dict[str, float]          # share of the run, 0 to 1, of each of report.PHASES
    checkpoint: str                  # path

    def to_json(self) -> dict[str, Any]:
        """The fields as a dict that JSON can hold."""
        return dataclasses.asdict(self)


def train(config: TrainConfig, observer: Observer | None = None, *,
          should_stop: Callable[[], bool] = lambda: False) -> TrainSummary:
    """Train a policy, save it, evaluate it.

    Ends after `total_timesteps`, when evaluation confirms `target_return`, or when `should_stop` or
    the observer returns True (asked between iterations). Saves a checkpoint in each case. The same
    config on the same machine gives the same weights, byte for byte. Steps are those learned from:
    with `overlap` the rollout that is being collected at the end is not.

    observer: sees a Report every `log_interval` seconds, and one at the end.

    Raises NonFiniteError where training diverges, naming the first bad tensor; what `make` raises;
    ConfigError for settings that do not fit each other; TypeError for spaces that there is no
    policy for.
    """
    config.check()
    with torch_threads(config.torch_threads), make(
            config.env, config.num_envs, backend=config.backend, num_workers=config.num_workers,
            batch_size=config.batch_size, env_kwargs=config.env_kwargs) as vec:
        check_target_stat(vec, config.target_stat)
        device = torch.device(config.device)
        generator = torch.Generator().manual_seed(config.seed)
        spaces = vec.env_observation_space, vec.env_action_space
        policy = checkpoint.make_policy(config, *spaces, generator).to(device)
        weights = join_parameters(policy)
        optimizer = torch.optim.Adam([weights], eps=1e-5, fused=True)
        collector = Collector(vec, policy, config, device)
        keep_freed_memory()
        clock, episodes = Clock(), Episodes(config.evaluation_episodes)
        reporter = Reporter(config, observer, clock, episodes)
        steps, saved, attempts = 0, 0, 0
        confirmed = stopped = done = False
        with collector:
            while not done:
                learning_rate = anneal(config, steps)
                rollout = collector.next(clock)
                losses = update(policy, weights, optimizer, learning_rate, rollout, config,
                                generator, clock)
                if config.normalize_observations:
                    policy.update_statistics(rollout.live_observations())
                steps += rollout.live_steps
                episodes.add(rollout.episodes)
                if reached_target(config, episodes):
                    attempts += 1
                    confirmed = confirms_target(policy, config, attempts)
                clock.lap("other")
                stopped = reporter.report(steps, losses) or should_stop()
                done = stopped or confirmed or steps >= config.total_timesteps
                if done or steps - saved >= (config.checkpoint_interval or math.inf):
                    path, saved = save(policy, config, steps, spaces), steps
        clock.lap("other")
        reporter.report(steps, losses, last=True)
        evaluation = None if stopped else assess(policy, config, 0)
        return summarise(config, steps, clock, episodes, evaluation, stopped, path)


# ---- rollout -------------------------------------------------------------------------------------

class Collector:
    """Gives rollouts one after the other, collected and with their advantages.

    With `overlap` it is one ahead: a thread collects the next rollout, by a copy of the policy,
    while the caller learns from the last. When a rollout is handed over, the copy takes the
    policy's weights and the thread goes on: each rollout, but for the first, is by the policy as it
    was before the last update, whichever of the two takes longer.

    Works as a context manager; at its end the thread ends, and with it the use of `vec`.
    """

    def __init__(self, vec: VectorEnv, policy: Policy, config: TrainConfig,
                 device: torch.device) -> None:
        self.vec, self.policy, self.config = vec, policy, config
        self.acting = copy.deepcopy(policy) if config.overlap else policy
        self.generators = action_generators(config.seed, vec.num_envs // vec.batch_size, device)
        self.rollout = Rollout(vec, self.acting, config.horizon, config.seed, device,
                               overlap=config.overlap)
        self._clock = Clock()                 # of the thread
        self._thread: threading.Thread | None = None
        self._coming: Future[Rollout] = Future()

    def next(self, clock: Clock) -> Rollout:
        """The next rollout: to be learned from until the next call."""
        if not self.config.overlap:
            return self._collect(clock)
        if self._thread is None:
            self._start()
        rollout = self._coming.result()
        clock.lap("environment")
        clock.take_steps(self._clock)
        self.acting.load_state_dict(self.policy.state_dict())
        self.rollout = rollout.other
        self._start()
        return rollout

    def _collect(self, clock: Clock) -> Rollout:
        rollout = self.rollout
        if self.vec.batch_size == self.vec.num_envs:
            collect(rollout, self.acting, self.generators[0], clock)
        else:
            collect_staggered(rollout, self.acting, self.generators, clock)
        rollout.estimate(self.config.gamma, self.config.gae_lambda)
        rollout.episodes = self.vec.episode_stats()
        return rollout

    def _start(self) -> None:
        """Collect in a thread: one per rollout, as cheap as it is, so that none waits for work."""
        def run(coming: Future[Rollout]) -> None:
            try:
                coming.set_result(self._collect(self._clock))
            except BaseException as error:
                coming.set_exception(error)

        self._coming = Future()
        self._thread = threading.Thread(target=run, args=(self._coming,), daemon=True,
                                        name="pufferlib_cy-collector")
        self._thread.start()

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self.vec.cancel("the training it was made for has ended")
            self._thread.join()


def action_generators(seed: int, groups: int, device: torch.device) -> list[torch.Generator]:
    """What draws the actions, of each group of environments by itself: the order in which their
    batches come then changes nothing. The seeds differ in the 32 bits that torch uses."""
    seeds = [seed, *np.random.SeedSequence(seed).generate_state(groups - 1).tolist()]
    return [torch.Generator(device).manual_seed(each) for each in seeds]


@torch.inference_mode()
def collect(rollout: Rollout, policy: Policy, generator: torch.Generator, clock: Clock) -> None:
    """Play T steps of every row into the rollout."""
    rollout.begin()
    for t in range(rollout.horizon):
        actions, rollout.state = decide(rollout, t, policy, rollout.state, generator)
        clock.lap("inference")
        _, _, terminations, truncations, _ = rollout.vec.step(actions)
        clock.step()
        rollout.advance(t, terminations, truncations)
        clock.lap("copies")


@torch.inference_mode()
def collect_staggered(rollout: Rollout, policy: Policy, generators: Sequence[torch.Generator],
                      clock: Clock) -> None:
    """The same, batch by batch as they come: G groups of environments, each with its own t, of
    which a batch is one. Who has made T steps waits for the others."""
    vec, T, G = rollout.vec, rollout.horizon, len(generators)
    R = rollout.rows // G                                                  # rows of a group
    steps = [0] * G
    groups = [slice(R * g, R * (g + 1)) for g in range(G)]
    rollout.begin()
    states = [tuple(part[rows] for part in rollout.state) for rows in groups]
    vec.release()
    for _ in range(G * (T + 1)):
        batch = vec.recv()
        clock.step()
        g = int(batch.env_ids[0]) // vec.batch_size
        t, rows = steps[g], groups[g]
        if t > 0:
            rollout.advance(t - 1, batch.terminations, batch.truncations, rows)
            clock.lap("copies")
        if t == T:
            vec.hold()
            continue
        actions, states[g] = decide(rollout, t, policy, states[g], generators[g], rows)
        clock.lap("inference")
        vec.send(actions)
        steps[g] += 1
    rollout.state = tuple(torch.cat(parts) for parts in zip(*states, strict=True))


def decide(rollout: Rollout, t: int, policy: Policy, state: State, generator: torch.Generator,
           rows: slice = ALL) -> tuple[ActionRows, State]:
    """Let the policy act on step t of the rows; what the environments and it then go on with."""
    observations, action_masks, starts = rollout.observe(t, rows)
    decision, state = policy.act(observations, state, starts, action_masks=action_masks,
                                 generator=generator)
    if not math.isfinite(decision.log_probs.sum()):
        raise NonFiniteError(f"the policy's log-probabilities at step {t} of a rollout are NaN or "
                             "infinite: training diverged, or an observation is not finite")
    return rollout.store(t, decision, rows), state


# ---- update --------------------------------------------------------------------------------------

def update(policy: Policy, weights: nn.Parameter, optimizer: torch.optim.Optimizer,
           learning_rate: float, rollout: Rollout, config: TrainConfig,
           generator: torch.Generator, clock: Clock) -> dict[str, float]:
    """Learn from the rollout; return the means of LOSSES over its minibatches.

    weights: all of the policy's parameters, see `join_parameters`.
    """
    gradient = weights.grad
    assert gradient is not None
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    means: list[Tensor] = []                                               # (LOSSES,) per pass
    for _ in range(config.epochs):
        parts = []
        order = torch.randperm(rollout.rows, generator=generator)
        clock.lap("learning")
        for segments in order.tensor_split(min(config.minibatches, rollout.rows)):
            batch = rollout.minibatch(segments)
            clock.lap("copies")
            new = policy(batch.observations, batch.actions, batch.state, batch.starts,
                         action_masks=batch.action_masks)
            loss, losses = ppo_loss(new, batch, config)
            gradient.zero_()
            loss.backward()
            norm = float(gradient.norm())
            if not math.isfinite(norm):
                raise NonFiniteError(non_finite(rollout, batch, new, policy))
            if norm > config.max_grad_norm:
                gradient.mul_(config.max_grad_norm / norm)
            optimizer.step()
            parts.append(losses)
            clock.lap("learning")
        means.append(torch.stack(parts).mean(0))
        if config.target_kl is not None and means[-1][APPROX_KL] > config.target_kl:
            break
    return dict(zip(LOSSES, torch.stack(means).mean(0).tolist(), strict=True))


LOSSES = ("policy", "value", "entropy", "approx_kl", "clip_fraction")
APPROX_KL = LOSSES.index("approx_kl")


def ppo_loss(new: Assessment, batch: Minibatch, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """The loss, and its parts (LOSSES,) without gradient. Rows of weight 0 have no part in it."""
    weights = batch.weights
    log_ratio = new.log_probs - batch.log_probs                            # (M,)
    ratio = log_ratio.exp()
    advantages = normalise(batch.advantages, weights)
    policy = policy_loss(ratio, advantages, weights, config.clip, config.dual_clip)
    value = value_loss(new.values, batch.values, batch.returns, weights, config.value_clip)
    entropy = new.entropies.dot(weights)
    loss = policy + config.value_coefficient * value - config.entropy_coefficient * entropy
    with torch.no_grad():
        # An unbiased estimate of KL(old, new) that is never negative: k3 of Schulman 2020,
        # "Approximating KL divergence", http://joschu.net/blog/kl-approx.html
        approx_kl = (ratio - 1.0 - log_ratio).dot(weights)
        clip_fraction = ((ratio - 1.0).abs() > config.clip).float().dot(weights)
        return loss, torch.stack((policy, value, entropy, approx_kl, clip_fraction))


def normalise(advantages: Tensor, weights: Tensor) -> Tensor:
    """Advantages (M,) with weighted mean 0 and standard deviation 1."""
    centred = advantages - advantages.dot(weights)
    return centred / (centred.square().dot(weights).sqrt() + 1e-8)


def policy_loss(ratio: Tensor, advantages: Tensor, weights: Tensor, clip: float,
                dual_clip: float | None) -> Tensor:
    """Weighted mean of PPO's clipped objective, to be minimised.

    The objective is min(r A, clip(r, 1 - c, 1 + c) A) (Schulman et al. 2017, eq. 7), and where
    A < 0 at least d A (Ye et al. 2020, eq. 5), which bounds it however large r has become. Both are
    A times r within bounds: r <= 1 + c for A >= 0, and 1 - c <= r <= d for A < 0. All (M,).
    """
    negative = advantages < 0.0
    low = torch.where(negative, 1.0 - clip, 0.0)
    high = torch.where(negative, math.inf if dual_clip is None else dual_clip, 1.0 + clip)
    return -(ratio.clamp(low, high) * advantages).dot(weights)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, weights: Tensor,
               clip: float | None) -> Tensor:
    """Half the weighted mean squared error; all (M,).

    With a clip, values may only move that far from the old ones, and the larger error counts (as in
    OpenAI's baselines, ppo2).
    """
    errors = (values - returns).square()
    if clip is not None:
        clipped = old_values + (values - old_values).clamp(-clip, clip)
        errors = torch.maximum(errors, (clipped - returns).square())
    return 0.5 * errors.dot(weights)


def non_finite(rollout: Rollout, batch: Minibatch, new: Assessment, policy: Policy) -> str:
    """Say which tensor, in the order they are computed, is the first with NaN or infinity."""
    gradients = {f"the gradient of {name}": parameter.grad
                 for name, parameter in policy.named_parameters() if parameter.grad is not None}
    tensors = {
        "the environment's observations": batch.observations,
        "the environment's rewards": rollout.rewards,
        "the policy's values in the rollout": batch.values,
        "the advantages": batch.advantages,
        "the policy's log-probabilities": new.log_probs,
        "the policy's entropies": new.entropies,
        "the policy's values": new.values,
        **gradients}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            return (f"training diverged: {name} became NaN or infinite; the weights are those "
                    "before this step")
    return "training diverged: the norm of the gradient is too large for float32"


# ---- the run -------------------------------------------------------------------------------------

def anneal(config: TrainConfig, steps: int) -> float:
    """The learning rate: constant, or linear to 0 at the end of the run."""
    if not config.anneal_learning_rate:
        return config.learning_rate
    return config.learning_rate * (1.0 - steps / config.total_timesteps)


def reached_target(config: TrainConfig, episodes: Episodes) -> bool:
    """Training episodes, enough since the last time, have the target as their mean return."""
    if config.target_return is None or episodes.fresh < config.evaluation_episodes:
        return False
    if episodes.recent().get(config.target_stat, -math.inf) < config.target_return:
        return False
    episodes.fresh = 0
    return True


def confirms_target(policy: Policy, config: TrainConfig, attempt: int) -> bool:
    """The policy reaches the target in evaluation, and by enough to reach it in another one.

    The difference of two means of as many episodes has sqrt(2) times the standard error of one; by
    three of those the target must be passed.
    """
    assert config.target_return is not None
    reached = assess(policy, config, attempt).stats[config.target_stat]
    margin = 3.0 * math.sqrt(2.0) * reached.std / math.sqrt(reached.episodes)
    return reached.mean - margin >= config.target_return


def assess(policy: Policy, config: TrainConfig, attempt: int) -> EvalSummary:
    """The final evaluation (attempt 0), or one of those that confirm the target (1, 2, ...)."""
    return evaluate(policy, config.env, config.evaluation_episodes,
                    evaluation_seed(config, attempt), env_kwargs=config.env_kwargs,
                    target_stat=config.target_stat)


def evaluation_seed(config: TrainConfig, attempt: int) -> int:
    """Seed of the final evaluation (attempt 0) and of those that confirm the target (1, 2, ...)."""
    return (attempt + 1) * EVALUATION_SEEDS + config.seed


def save(policy: Policy, config: TrainConfig, steps: int, spaces: tuple[Any, Any]) -> Path:
    """Save a checkpoint under a name that is not taken yet."""
    path = checkpoint.unused_path(config.checkpoint_dir,
                                  f"{Path(config.env).stem}-seed{config.seed}-{steps:010d}")
    return checkpoint.save(path, policy, config, steps, *spaces)


def summarise(config: TrainConfig, steps: int, clock: Clock, episodes: Episodes,
              evaluation: EvalSummary | None, stopped: bool, path: Path) -> TrainSummary:
    recent = episodes.recent()
    solved = None
    if evaluation is not None and config.target_return is not None:
        solved = evaluation.stats[config.target_stat].mean >= config.target_return
    return TrainSummary(
        env=config.env, seed=config.seed, steps=steps, seconds=clock.seconds,
        sps=steps / clock.seconds, episode_return=recent.get("episode_return"),
        episode_length=recent.get("episode_length"), target_return=config.target_return,
        target_stat=config.target_stat, solved=solved, stopped=stopped, evaluation=evaluation,
        times=clock.shares(whole_run=True), checkpoint=str(path))


def keep_freed_memory() -> None:
    """Let the C library keep the memory of tensors that are freed, for the next ones.

    glibc gives large blocks back to the system and so pays for their pages again in every minibatch
    (a fifth of its time), unless it has seen one as large as this, the largest it learns from, come
    and go. Elsewhere this does nothing.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def join_parameters(policy: Policy) -> nn.Parameter:
    """Move a policy's parameters and their gradients into one vector each; return it.

    Clearing, clipping and applying a gradient are then one operation each, not one per parameter:
    for small policies that is a fifth of the time of a minibatch.
    """
    parameters = list(policy.parameters())
    joined = nn.Parameter(torch.cat([p.detach().flatten() for p in parameters]))
    joined.grad = torch.zeros_like(joined)
    sizes = [p.numel() for p in parameters]
    for parameter, values, gradient in zip(parameters, joined.detach().split(sizes),
                                           joined.grad.split(sizes), strict=True):
        parameter.data = values.view_as(parameter)
        parameter.grad = gradient.view_as(parameter)
    return joined


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute with `count` threads, and afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
