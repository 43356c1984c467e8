"""Mazes for pufferlib_cy: ``pufferlib_cy.make("puffer_maze")``."""

from puffer_maze.maze import Maze

__all__ = ["Maze"]
