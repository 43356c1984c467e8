"""The extension modules and the one table of compiler directives.

Two switches, both environment variables: PUFFERLIB_CY_CHECKED=1 makes the checked build (array
bounds, and a look at everything an environment writes); PUFFERLIB_CY_NATIVE=1 compiles for this
machine's own instruction set (the result may not run elsewhere). Overflow and wild pointers are the
sanitizers' part: `make sanitize`.
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

CHECKED = os.environ.get("PUFFERLIB_CY_CHECKED", "0") == "1"
NATIVE = os.environ.get("PUFFERLIB_CY_NATIVE", "0") == "1"

COMPILER_DIRECTIVES = {
    "language_level": 3,
    "boundscheck": CHECKED,
    "wraparound": CHECKED,
    "initializedcheck": CHECKED,
    "cdivision": not CHECKED,
    "auto_pickle": False,
    "embedsignature": True,
    "freethreading_compatible": True,
}

if sys.platform == "win32":
    COMPILE_ARGS = ["/O2", "/std:c11"]
else:
    # Contraction to fused multiply-add would make results depend on the machine.
    COMPILE_ARGS = ["-O3", "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-unused-parameter"]
    if NATIVE:
        COMPILE_ARGS.append("-march=native")

SOURCES = sorted(Path("pufferlib_cy").rglob("*.pyx"))

setup(
    ext_modules=cythonize(
        [
            Extension(
                ".".join(path.with_suffix("").parts),
                [str(path)],
                extra_compile_args=COMPILE_ARGS,
                define_macros=[("PUFFERLIB_CY_CHECKED", str(int(CHECKED)))],
            )
            for path in SOURCES
        ],
        compiler_directives=COMPILER_DIRECTIVES,
        build_dir=f"build/{'checked' if CHECKED else 'release'}-c",
    )
)
