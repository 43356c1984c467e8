"""Compiling environments: the cache, two builders at once, and errors at the author's line."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pufferlib_cy import build, make
from pufferlib_cy.envs import squared

SQUARED = Path(squared.__file__).with_name("squared.pyx")


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A copy of squared.pyx that is built into an empty cache."""
    monkeypatch.setenv("PUFFERLIB_CY_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "my_squared.pyx"
    path.write_text(SQUARED.read_text())
    return path


def test_a_file_is_compiled_once_and_plays_like_the_original(source):
    library = build.build(source)
    built = library.stat().st_mtime_ns
    assert build.build(source) == library
    assert library.stat().st_mtime_ns == built
    actions = np.random.default_rng(0).integers(0, 5, (100, 9))
    with make(str(source), 9) as ours, make("squared", 9) as theirs:
        assert ours.reset(seed=4)[0].tobytes() == theirs.reset(seed=4)[0].tobytes()
        for action in actions:
            for a, b in zip(ours.step(action)[:4], theirs.step(action)[:4], strict=True):
                assert a.tobytes() == b.tobytes()
    source.write_text(source.read_text().replace("int size=11", "int size=5"))
    assert build.build(source) != library
    with make(str(source)) as smaller:
        assert smaller.single_observation_space.shape == (25,)


def test_two_processes_may_build_at_once(source):
    command = [sys.executable, "-c", f"import pufferlib_cy; "
               f"print(pufferlib_cy.make({str(source)!r}).reset(seed=0)[0].sum())"]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [run.communicate(timeout=120)[0] for run in runs] == ["3\n", "3\n"]
    cache = list((source.parent / "cache").iterdir())
    assert len(cache) == 1, "one library, and nothing else left behind"


@pytest.mark.parametrize(("right", "wrong", "words"), [
    ("cdef int size", "cdef intt size", r"cdef intt size.*my_squared.pyx:\d+:\d+: 'intt' is not"),
    ("rows.actions[0]", "rows.action[0]", r"rows.action\[0\].*squared.pyx:\d+.*no attribute"),
    ("state.y, state.x = y, x", "print(y)", r"without gil"),
    ("slice) noexcept nogil", "slice) nogil", r"run.*squared.pyx:\d+:\d+: Signature not comp.*"
                                              r"Must be implemented.*slice\) noexcept nogil"),
    ("slice) noexcept nogil", "slice) noexcept", r"run.*squared.pyx:\d+:\d+: Signature not comp"),
    ("Rows* rows) noexcept nogil", "Rows* rows)", r"squared.pyx:\d+:\d+: Calling gil-requiring"),
    ("int y, x, target", "object y, x, target", r"squared.pyx:\d+.*without the GIL"),
    ("state.y, state.x = y, x", "rows.actions[0] = 1", r"squared.pyx:\d+:\d+: Assignment to const"),
])
def test_errors_point_to_the_line(source, right, wrong, words):
    source.write_text(source.read_text().replace(right, wrong))
    with pytest.raises(build.BuildError, match=r"(?s)my_squared.pyx does not compile:.*" + words):
        build.build(source)
    assert not [path for path in (source.parent / "cache").iterdir() if path.suffix == ".so"]


def test_what_is_not_an_environment(tmp_path, source):
    with pytest.raises(FileNotFoundError, match=r"absent\.pyx: there is no such file"):
        make(str(tmp_path / "absent.pyx"))
    with pytest.raises(ValueError, match="expected a Cython file"):
        build.build(tmp_path)
    odd = tmp_path / "my-env.pyx"
    odd.write_text("")
    with pytest.raises(ValueError, match="not an identifier"):
        build.build(odd)
    empty = tmp_path / "empty.pyx"
    empty.write_text("x = 1\n")
    with pytest.raises(ValueError, match="expected one subclass of NativeEnv, found none"):
        make(str(empty))
