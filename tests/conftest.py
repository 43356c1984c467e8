"""Fixtures for all tests: the test environments in ``native/``, built against the package."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pufferlib_cy import _core, build

NATIVE = Path(__file__).parent / "native"

# A shell's background jobs ignore Ctrl-C, and so would all that they start: also the programs that
# tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def run_script(tmp_path):
    """A function that runs a text as a program, which may complain of nothing, and gives what it
    printed."""
    def run(text):
        script = tmp_path / "plain.py"
        script.write_text(text)
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60,
                              check=False)
        assert done.stderr == ""
        return done.stdout

    return run


@pytest.fixture(scope="session")
def load_native(tmp_path_factory):
    """A function (name, checked) that gives a module in ``native/``, sanitized if the package is.
    """
    cache = str(tmp_path_factory.mktemp("native"))

    def load(name, checked):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PUFFERLIB_CY_CACHE", cache)
            if "sanitize" in os.environ.get("CFLAGS", ""):
                patch.setenv("LDFLAGS", os.environ["CFLAGS"])
                patch.delenv("LD_PRELOAD")           # the compiler itself needs no sanitizer
            return build.load_module(NATIVE / f"{name}.pyx", checked=checked)

    return load


@pytest.fixture(scope="session")
def native(load_native):
    """The modules in ``native/`` by name, checked if the package is."""
    names = sorted(path.stem for path in NATIVE.glob("*.pyx"))
    return {name: load_native(name, _core.checked) for name in names}
