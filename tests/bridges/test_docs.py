"""The Python blocks of docs/bridges.md run as they stand, each by itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "bridges.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
NEEDS = ("stable_baselines3", "pettingzoo")


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_blocks(number):
    code = BLOCKS[number]
    for module in NEEDS:
        if module in code:
            pytest.importorskip(module)
    exec(compile(code, f"{PAGE.name}, block {number + 1}", "exec"), {})
