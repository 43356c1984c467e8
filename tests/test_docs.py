"""The guide tells the truth: every console block is run, in order, as written, every example at
Python's prompt, and every script.

A ``cython`` block that begins with a docstring is the file that the docstring names.
"""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

DOCS = Path(__file__).parents[1] / "docs"
CHECKER = doctest.OutputChecker()


def commands(page):
    """(command, expected output) of every ``console`` block of a page."""
    for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            yield command, output


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_console_blocks(page, tmp_path):
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environ = {**os.environ, "PATH": programs, "PUFFERLIB_CY_CACHE": str(tmp_path / "cache")}
    for text, name in re.findall(r'```cython\n("""(\w+):.*?)```', page.read_text(), re.S):
        (tmp_path / f"{name}.pyx").write_text(text)
    for command, expected in commands(page):
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=environ, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
        assert CHECKER.check_output(expected, done.stdout, doctest.ELLIPSIS), (
            f"{command}\nexpected:\n{expected}\ngot:\n{done.stdout}")


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_examples_at_the_prompt(page):
    """``pycon`` blocks; those of one page share their names."""
    blocks = "\n".join(re.findall(r"```pycon\n(.*?)```", page.read_text(), re.S))
    if "import pettingzoo" in blocks:
        pytest.importorskip("pettingzoo")
    examples = doctest.DocTestParser().get_doctest(blocks, {}, page.name, str(page), 0)
    report: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples, out=report.append)
    assert not report, "".join(report)


SCRIPTS = [(page, code) for page in ("bridges", "vectorisation") for code in
           re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.S)]


@pytest.mark.parametrize(("page", "code"), SCRIPTS)
def test_scripts(page, code):
    """``python`` blocks of pages where each stands by itself."""
    for module in ("stable_baselines3", "pettingzoo"):
        if module in code:
            pytest.importorskip(module)
    exec(compile(code, page, "exec"), {})
