"""Compile environments: the package's own, an outside package's, and a ``.pyx`` on the fly.

`native_extensions` is for a ``setup.py``: it knows the compiler directives, flags and include path
that the core's inlined loop needs. `build` compiles one file into a cache and `load` imports it:
that is what happens to ``make("my_env.pyx")``. This file imports nothing of the package, so that
the package's own ``setup.py`` can use it before anything is built.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = Path(__file__).resolve().parent


class BuildError(RuntimeError):
    """A ``.pyx`` did not compile; the message shows the author's line."""


def from_environment(switch: str) -> bool:
    """PUFFERLIB_CY_CHECKED=1 asks for the checked build, PUFFERLIB_CY_NATIVE=1 for this machine's
    own instructions (the result may not run elsewhere)."""
    return os.environ.get(f"PUFFERLIB_CY_{switch}", "0") == "1"


def compiler_directives(checked: bool) -> dict[str, Any]:
    """Cython's directives for environments and core: one table for all."""
    return {
        "language_level": 3,
        "boundscheck": checked,
        "wraparound": checked,
        "initializedcheck": checked,
        "cdivision": not checked,
        "auto_pickle": False,
        "embedsignature": True,
        "freethreading_compatible": True,
    }


def compile_args(checked: bool, native: bool) -> list[str]:
    """The C compiler's flags; `native` allows this machine's own instructions."""
    if sys.platform == "win32":
        return ["/O2", "/std:c11"]
    # Contraction to fused multiply-add would make results depend on the machine.
    # Nobody reads the floating-point exception flags, and with them a comparison is no instruction
    # that could be done for several numbers at once.
    flags = ["-O3", "-ffp-contract=off", "-fno-trapping-math",
             "-Wall", "-Wextra", "-Wno-unused-parameter"]
    if checked:
        flags += ["-include", str(PACKAGE / "_checked.h"),
                  "-fsanitize=signed-integer-overflow,shift,bounds",
                  "-fno-wrapv"]               # Python's own flags define overflow, which hides it
    return [*flags, "-march=native"] if native else flags


def native_extensions(paths: Iterable[str | Path], *, root: str | Path = ".",
                      checked: bool | None = None, native: bool | None = None,
                      build_dir: str | Path | None = None) -> list[Any]:
    """``ext_modules`` for environments' ``.pyx`` files, to hand to setuptools' ``setup``.

    Parameters
    ----------
    paths: the files; each becomes the module of its path relative to `root`.
    checked: look at everything an environment writes; default: PUFFERLIB_CY_CHECKED=1.
    native: use this machine's own instructions; default: PUFFERLIB_CY_NATIVE=1.
    build_dir: where the generated C goes; default: beside each ``.pyx``.

    Needs Cython and setuptools (``pip install "pufferlib_cy[build]"``).
    """
    try:
        from Cython.Build import cythonize
        from setuptools import Extension
    except ImportError as error:
        raise ImportError('compiling environments needs Cython and setuptools: '
                          'pip install "pufferlib_cy[build]"') from error
    checked = from_environment("CHECKED") if checked is None else checked
    native = from_environment("NATIVE") if native is None else native
    modules = [
        Extension(".".join(Path(path).relative_to(root).with_suffix("").parts), [str(path)],
                  extra_compile_args=compile_args(checked, native),
                  define_macros=[("PUFFERLIB_CY_CHECKED", str(int(checked)))])
        for path in paths]
    extensions: list[Any] = cythonize(
        modules, include_path=[str(PACKAGE.parent)], build_dir=build_dir,
        compiler_directives=compiler_directives(checked), emit_linenums=checked)
    return extensions


def build(path: str | Path, *, checked: bool = False, native: bool = False) -> Path:
    """Compile a ``.pyx`` and return its shared library, from the cache if nothing has changed.

    The cache is keyed by the file's content, the flags, the compiler, Python, and the package's
    contract; it lies in PUFFERLIB_CY_CACHE, or the user's cache folder. Two processes that build
    the same file at once both succeed. Raises FileNotFoundError, and BuildError with the author's
    line where Cython or the C compiler refuses.
    """
    source = Path(path).resolve()
    if source.suffix != ".pyx":
        raise ValueError(f"{path}: expected a Cython file, NAME.pyx")
    if not source.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    if not source.stem.isidentifier():
        raise ValueError(f"{path}: the name of the file becomes that of a module, but "
                         f"{source.stem!r} is not an identifier")
    suffix: str = sysconfig.get_config_var("EXT_SUFFIX")
    target = cache_folder() / f"{source.stem}-{_key(source, checked, native)}{suffix}"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="building-") as folder:
            _compile(source, Path(folder), checked, native)
            os.replace(Path(folder) / (source.stem + suffix), target)   # last wins: same bytes
    return target


def load(path: str | Path, *, checked: bool = False, native: bool = False) -> type:
    """Compile a ``.pyx`` if need be, import it, and return its environment class.

    Raises what `build` raises, and ValueError if the file does not have exactly one subclass of
    NativeEnv.
    """
    from pufferlib_cy import NativeEnv

    kinds = [thing for thing in vars(load_module(path, checked=checked, native=native)).values()
             if isinstance(thing, type) and issubclass(thing, NativeEnv) and thing is not NativeEnv]
    if len(kinds) != 1:
        found = ", ".join(kind.__name__ for kind in kinds) or "none"
        raise ValueError(f"{path}: expected one subclass of NativeEnv, found {found}")
    return kinds[0]


_loaded: dict[Path, ModuleType] = {}


def load_module(path: str | Path, *, checked: bool = False, native: bool = False) -> ModuleType:
    """Compile a ``.pyx`` if need be and import it, once; not by name, so that it shadows nothing.
    """
    library = build(path, checked=checked, native=native)
    if library not in _loaded:
        spec = importlib.util.spec_from_file_location(Path(path).stem, library)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        _loaded[library] = module
    return _loaded[library]


def cache_folder() -> Path:
    """Where compiled environments are kept; it may be deleted at any time."""
    if folder := os.environ.get("PUFFERLIB_CY_CACHE"):
        return Path(folder)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home()))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "pufferlib_cy"


def _key(source: Path, checked: bool, native: bool) -> str:
    """A digest of all that the library depends on."""
    parts = [source.read_bytes(), *(path.read_bytes() for path in [
        *sorted(PACKAGE.rglob("*.pxd")), PACKAGE / "_checked.h"])]
    facts = (compile_args(checked, native), sys.version, version("cython"),
             sysconfig.get_config_var("CC"), os.environ.get("CC"), os.environ.get("CFLAGS"),
             platform.processor() if native else platform.machine())
    return hashlib.sha256(b"\0".join(parts) + repr(facts).encode()).hexdigest()[:16]


def _compile(source: Path, folder: Path, checked: bool, native: bool) -> None:
    """Compile a copy of the file in an empty folder, by a process of its own."""
    shutil.copy(source, folder)
    script = f"""
import sys
sys.path.insert(0, {str(PACKAGE)!r})
import build
from setuptools import setup
setup(name="environment", ext_modules=build.native_extensions(
    [{source.name!r}], checked={checked}, native={native}))
"""
    done = subprocess.run([sys.executable, "-c", script, "--quiet", "build_ext", "--inplace"],
                          cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{source} does not compile:\n{_relevant(done.stdout + done.stderr)}")


def _relevant(output: str) -> str:
    """Cython's error blocks if there are any, else the C compiler's errors, else everything.

    One block for a line: the first error there is the mistake, the others follow from it.
    """
    blocks = re.findall(r"Error compiling Cython file:\n-+\n(.*?:(\d+):\d+: [^\n]*)", output, re.S)
    if blocks:
        first = {line: block for block, line in reversed(blocks)}
        return "\n\n".join(first[line] for line in dict.fromkeys(line for _, line in blocks))
    errors = [line for line in output.splitlines() if " error:" in line]
    return "\n".join(errors or [output.strip()])
