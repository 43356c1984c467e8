"""The package's one extension module; everything else is in pyproject.toml."""

from setuptools import setup

from pufferlib_cy.build import native_extensions

setup(ext_modules=native_extensions(["puffer_maze/maze.pyx"], build_dir="build"))
