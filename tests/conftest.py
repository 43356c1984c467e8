"""Fixtures for all tests: the test environments in ``native/``, built against the package."""

import os
from pathlib import Path

import pytest

from pufferlib_cy import _core, build

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def native(tmp_path_factory):
    """The modules in ``native/`` by name, built like the package: checked, sanitized, if it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUFFERLIB_CY_CACHE", str(tmp_path_factory.mktemp("native")))
        if "sanitize" in os.environ.get("CFLAGS", ""):
            patch.setenv("LDFLAGS", os.environ["CFLAGS"])
            patch.delenv("LD_PRELOAD")               # the compiler itself needs no sanitizer
        return {path.stem: build.load_module(path, checked=_core.checked)
                for path in sorted((HERE / "native").glob("*.pyx"))}
