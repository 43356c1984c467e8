"""How E environments are divided: into groups, which a batch takes together, and shards, which one
worker steps at a time.

Both are runs of consecutive environments, and a shard never reaches over the end of a group. Worker
processes own runs of environments as well (their states live there); a shard lies within one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

SHARDS_PER_THREAD = 2         # a late helper then holds back half of its share, not all of it


class Group(NamedTuple):
    """Half-open ranges: ``[first, last)``."""

    first_shard: int
    last_shard: int
    first_env: int
    last_env: int


class Shard(NamedTuple):
    """Environments ``[first_env, last_env)``, stepped by `worker`: 0 is the caller's process."""

    first_env: int
    last_env: int
    worker: int


def owners(num_envs: int, num_workers: int, synchronous: bool) -> list[int]:
    """Where the environments of each process begin, the caller's first, and behind them E.

    In synchronous use the caller is one of the workers; else all environments live in the others.
    No process is without environments but the caller's.
    """
    W = min(num_workers, num_envs)
    firsts = [num_envs * w // W for w in range(W + 1)]
    return firsts if synchronous else [0, *firsts]


def divide(num_envs: int, batch_size: int, threads: int,
           firsts: Sequence[int]) -> tuple[list[Group], list[Shard]]:
    """The groups of E environments and their shards.

    A batch of B environments is always the same number of groups, so that a group has
    gcd(E, B) of them. `threads` step in the caller's process; `firsts` is as `owners` gives it.
    """
    per_group = math.gcd(num_envs, batch_size)
    num_groups = num_envs // per_group
    wanted = 1 if threads == 1 else SHARDS_PER_THREAD * threads
    per_shard_count = max(1, min(per_group, -(-wanted // num_groups)))
    groups: list[Group] = []
    shards: list[Shard] = []
    for first in range(0, num_envs, per_group):
        cuts = {first + per_group * i // per_shard_count for i in range(per_shard_count + 1)}
        cuts.update(cut for cut in firsts if first < cut < first + per_group)
        ordered = sorted(cuts)
        groups.append(Group(len(shards), len(shards) + len(ordered) - 1, first, first + per_group))
        for low, high in itertools.pairwise(ordered):
            worker = max(w for w, begin in enumerate(firsts[:-1]) if begin <= low)
            shards.append(Shard(low, high, worker))
    return groups, shards
