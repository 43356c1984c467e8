"""The package's extension modules: every ``.pyx`` in it. Directives and flags are in build.py."""

import sys
from pathlib import Path

import numpy as np
from setuptools import setup

sys.path.insert(0, "pufferlib_cy")
import build  # the file by itself: the package cannot be imported before it is built

modules = build.native_extensions(
    sorted(Path("pufferlib_cy").rglob("*.pyx")),
    build_dir=f"build/{'checked' if build.from_environment('CHECKED') else 'release'}-c",
)
for module in modules:
    if module.name == "pufferlib_cy._spaces":
        module.include_dirs.append(np.get_include())    # it reads arrays by their C fields

setup(ext_modules=modules)
