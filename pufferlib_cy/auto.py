"""Which backend, and how many workers: what ``backend="auto"`` and `puffer-cy bench` go by.

One question decides: how long does a step of all environments take in one thread? Sharing it costs
what handing rows over costs, and pays from a multiple of that on. The time is found by trying the
environment out for some milliseconds (`seconds_per_step`); the rule itself is `choose`.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.vector.utils import batch_space

if TYPE_CHECKING:
    from pufferlib_cy.vector import VectorEnv

# Native environments: threads hand rows over in 2 to 5 µs, and the caller steps what a late helper
# leaves, so that each thread is worth its trouble from about that much work on.
THREAD_SECONDS = 5e-6
# Python environments: a worker process that sleeps is awake after about 60 µs, twice in a step, and
# nobody can step its share meanwhile. From four times that on they gain at least a third.
PROCESS_SECONDS = 250e-6

TRIAL_SECONDS = 5e-3          # of stepping, to know how long a step takes,
TRIAL_STEPS = 6, 200          # but so many steps at the least and at the most,
TRIAL_LIMIT = 0.2             # seconds that are not exceeded for that
TRIAL_ENVS = 64               # native environments that are stepped for that
ACTION_SETS = 8               # different rows of random actions, taken in turn


@dataclass(frozen=True)
class Choice:
    """A backend, its workers (the caller among them), and why."""

    backend: str
    num_workers: int
    reason: str


def choose(seconds: float, native: bool, most_workers: int) -> Choice:
    """The backend for environments whose step, of all together, takes so long in one thread."""
    takes = f"a step of all environments takes about {in_words(seconds)} in one thread"
    if most_workers < 2:
        return Choice("serial", 1, "there is one core, or one worker was asked for")
    if native:
        workers = min(most_workers, int(seconds / THREAD_SECONDS))
        if workers < 2:
            return Choice("serial", 1, f"{takes}, too short to share")
        return Choice("threads", workers, f"{takes}, {in_words(THREAD_SECONDS)} or more for each "
                                          f"of {workers} threads")
    if sys.platform == "win32":
        return Choice("serial", 1, "worker processes need POSIX")
    if seconds < PROCESS_SECONDS:
        return Choice("serial", 1, f"{takes}, and worker processes pay from "
                                   f"{in_words(PROCESS_SECONDS)} on")
    return Choice("processes", most_workers, f"{takes}, {in_words(PROCESS_SECONDS)} or more, from "
                                             "which on worker processes pay")


def in_words(seconds: float) -> str:
    """A time of about this size."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def seconds_per_step(vec: VectorEnv) -> float:
    """How long a step takes: the median of some milliseconds of steps, of one if that is longer.

    The first step is left out if there is time for another, since much is done only once.
    """
    vec.reset(seed=0)
    actions = random_actions(vec, 0)
    least, most = TRIAL_STEPS
    taken: list[float] = []
    while len(taken) < least or (sum(taken) < TRIAL_SECONDS and len(taken) < most):
        began = time.perf_counter()
        vec.step(actions[len(taken) % ACTION_SETS])
        taken.append(time.perf_counter() - began)
        if sum(taken) > TRIAL_LIMIT:
            break
    return median(taken[1:] or taken)


def random_actions(vec: VectorEnv, seed: int) -> list[Any]:
    """`ACTION_SETS` arrays of random actions (N, ...), in the dtype that the core keeps; of a
    hybrid space pairs of them."""
    space = batch_space(vec.single_action_space, vec.num_agents)
    space.seed(seed)
    return [_compact(space.sample()) for _ in range(ACTION_SETS)]


def _compact(actions: Any) -> Any:
    if isinstance(actions, tuple):
        return tuple(map(_compact, actions))
    actions = np.asarray(actions)
    return actions.astype(np.float32 if actions.dtype.kind == "f" else np.int32)


def available_cores() -> int:
    """Cores that this process may use now (taskset and the like are respected)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
