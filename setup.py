"""The package's extension modules: every ``.pyx`` in it. Directives and flags are in build.py."""

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, "pufferlib_cy")
import build  # the file by itself: the package cannot be imported before it is built

setup(
    ext_modules=build.native_extensions(
        sorted(Path("pufferlib_cy").rglob("*.pyx")),
        build_dir=f"build/{'checked' if build.from_environment('CHECKED') else 'release'}-c",
    )
)
