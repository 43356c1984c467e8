"""Fair comparison: child processes that take turns, and what their ratios say.

A `Worker` is a child interpreter that measures one short burst whenever it is asked and sleeps in
between; asking several in turn makes them share whatever else the machine does. `Ratios` turns the
bursts into a median with an interval that needs no assumption about the noise.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class WorkerFailedError(RuntimeError):
    """A child ended instead of answering; what it said is on standard error."""


class Worker:
    """A child process that runs `command`, a script that calls `serve`.

    Works as a context manager. The child has a session of its own, so that Ctrl-C reaches only the
    parent, which then ends it.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self.command = list(command)
        self._process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=None if env is None else {**os.environ, **env}, start_new_session=True)

    def ask(self, **request: Any) -> Any:
        """Send a request, wait for the answer. Raises WorkerFailedError if the child ends."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise WorkerFailedError(
                f"{' '.join(self.command)} ended with code {self._process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        """End the child."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(measure: Callable[..., Any]) -> None:
    """The child's side: answer each request with ``measure(**request)`` until the parent is gone.

    What libraries print goes to standard error, so that it cannot be taken for an answer.
    """
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for request in sys.stdin:
            print(json.dumps(measure(**json.loads(request))), file=answers, flush=True)


@dataclass(frozen=True)
class Ratios:
    """One ratio per round, larger than 1 where the new side is faster.

    The rounds are taken as independent draws around one true median. How many of n draws lie below
    it is then binomial(n, 1/2), whatever the noise looks like; so the k-th smallest and the k-th
    largest enclose it with probability ``1 - 2 P(binomial(n, 1/2) < k)`` (the sign test; Conover,
    "Practical Nonparametric Statistics", section 3.2).
    """

    values: tuple[float, ...]
    confidence: float = 0.999
    smallest: float = 0.02        # changes below this do not count, however certain

    def __post_init__(self) -> None:
        if self._rank() == 0:
            needed = 1 + math.ceil(-math.log2(1 - self.confidence))
            raise ValueError(f"{len(self.values)} rounds cannot give an interval of "
                             f"{self.confidence:.1%}: it takes at least {needed}")

    def _rank(self) -> int:
        """The largest k whose interval has the confidence; 0 if none has."""
        n, k = len(self.values), 0
        outside = 2.0 * 0.5**n                                # 2 P(binomial(n, 1/2) < k + 1)
        while outside <= 1 - self.confidence:
            k += 1
            outside += 2.0 * math.comb(n, k) * 0.5**n
        return k

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high), which encloses the true median with at least the confidence."""
        ordered, k = sorted(self.values), self._rank()
        return ordered[k - 1], ordered[-k]

    @property
    def verdict(self) -> str:
        """"faster", "slower" or "same within noise"."""
        low, high = self.interval
        if low > 1 and self.median >= 1 + self.smallest:
            return "faster"
        if high < 1 and self.median <= 1 / (1 + self.smallest):
            return "slower"
        return "same within noise"


def turns(sides: int, rounds: int) -> list[list[int]]:
    """The order of the sides in each round: forwards, then backwards (A B, B A, A B, ...), so that
    nobody always goes first."""
    forwards = list(range(sides))
    return [forwards[::1 if r % 2 == 0 else -1] for r in range(rounds)]
