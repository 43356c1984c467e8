"""Fixtures for all tests: the test environments in ``native/``, built against the package."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pufferlib_cy
from pufferlib_cy import _core

HERE = Path(__file__).parent
SETUP = """
import sys
from Cython.Build import cythonize
from setuptools import Extension, setup
package, checked, *names = sys.argv.pop().split("|")
setup(name="native", ext_modules=cythonize(
    [Extension(name, [name + ".pyx"], define_macros=[("PUFFERLIB_CY_CHECKED", checked)])
     for name in names], include_path=[package], language_level=3))
"""


@pytest.fixture(scope="session")
def native(tmp_path_factory):
    """The modules in ``native/``, compiled like the package (CFLAGS may name a sanitizer)."""
    folder = tmp_path_factory.mktemp("native")
    names = sorted(path.stem for path in (HERE / "native").glob("*.pyx"))
    for name in names:
        (folder / f"{name}.pyx").write_text((HERE / "native" / f"{name}.pyx").read_text())
    package = Path(pufferlib_cy.__file__).parents[1]
    arguments = "|".join([str(package), str(int(_core.checked)), *names])
    flags = os.environ.get("CFLAGS", "")
    environ = {**os.environ, "LDFLAGS": flags if "sanitize" in flags else ""}
    environ.pop("LD_PRELOAD", None)          # the compiler needs no sanitizer itself
    subprocess.run([sys.executable, "-c", SETUP, "-q", "build_ext", "--inplace", arguments],
                   cwd=folder, check=True, env=environ, capture_output=True, timeout=300)

    def load(name):
        path = next(folder.glob(f"{name}.*.so"))
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return {name: load(name) for name in names}
