"""What the scripts that write a report share: their flags, how a spread reads, where the text goes.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path


def parser_of(description: str, *, rounds: int) -> argparse.ArgumentParser:
    """A parser with ``--rounds`` and ``-o``; described by the first line of a docstring."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds,
                        help=f"measurements of each (default: {rounds})")
    parser.add_argument("-o", "--output", type=Path, metavar="REPORT",
                        help="write the report there too")
    return parser


def publish(text: str, output: Path | None) -> None:
    """Print a report, and write it to `output` if there is one."""
    if output:
        output.write_text(text, encoding="utf-8")
    print(text)


def spread(values: Sequence[float], digits: int) -> str:
    """``median (lowest - highest)``."""
    return (f"{statistics.median(values):.{digits}f} "
            f"({min(values):.{digits}f} - {max(values):.{digits}f})")
