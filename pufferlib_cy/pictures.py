"""Pictures of environments, also of those that do not draw themselves.

An environment may draw itself in characters (`ansi`) or in pixels (`render`); a Python environment
does one of them, as its `render_mode` says (`--env-kwargs render_mode=rgb_array`). Where it has no
`ansi`, its text is its first agent's observation. Where it has no `render`, its picture is that
observation in coloured cells if it is a grid of whole numbers, and else its text.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pufferlib_cy._core import NativeEnv

Picture = NDArray[np.uint8]       # (height, width, 3), RGB

# What 0, 1, 2, ... look like: cells of this colour, and in text this character.
COLORS = np.array([(24, 30, 48), (86, 156, 255), (255, 176, 59), (120, 214, 92), (246, 96, 120),
                   (186, 130, 255), (80, 216, 206), (240, 236, 220)], np.uint8)
BRIGHT, DIM = (230, 230, 220), (90, 96, 112)      # of text; of dots, which are mostly floor
DIGITS = ".123456789abcdefghijklmnopqrstuvwxyz"
SIDE = 360                        # of a grid's picture, at least about this many pixels
CELL = 6, 11                      # width and height of a character of Pillow's built-in font
TEXT_SCALE = 3                    # times which text is drawn
NEEDS_EXTRA = 'pip install "pufferlib_cy[render]"'


def ansi(env: NativeEnv, i: int, observation: NDArray[Any]) -> str:
    """Environment i of `env`, whose first agent sees `observation`, in characters."""
    if type(env).ansi is not NativeEnv.ansi and (drawn := env.ansi(i)) is not None:
        return drawn
    if (grid := as_grid(observation)) is not None:
        return "".join(" ".join(DIGITS[min(abs(cell), len(DIGITS) - 1)] for cell in line) + "\n"
                       for line in grid.tolist())
    return "".join(f"{value:10.4g}\n" for value in observation.ravel().tolist())


def render(env: NativeEnv, i: int, observation: NDArray[Any]) -> Picture:
    """Environment i of `env`, whose first agent sees `observation`, in pixels."""
    if type(env).render is not NativeEnv.render and (drawn := env.render(i)) is not None:
        return drawn
    if type(env).ansi is NativeEnv.ansi and (grid := as_grid(observation)) is not None:
        return draw_grid(grid)
    return draw_text(ansi(env, i, observation))


def as_grid(observation: NDArray[Any]) -> NDArray[Any] | None:
    """Whole numbers in two dimensions, or as many as a square has; else None."""
    side = math.isqrt(observation.size)
    if observation.dtype.kind not in "iub" or observation.size < 2:
        return None
    if observation.ndim == 2:
        return observation
    return observation.reshape(side, side) if side * side == observation.size else None


def draw_grid(grid: NDArray[Any]) -> Picture:
    """A cell in the colour of its number each, with dark lines between them."""
    pixels = max(2, -(-SIDE // max(grid.shape)))
    picture = COLORS[grid.astype(np.int64) % len(COLORS)].repeat(pixels, 0).repeat(pixels, 1)
    picture[::pixels] = picture[:, ::pixels] = 12
    return picture


def draw_text(text: str) -> Picture:
    """Text in a fixed-width font.

    Characters that the font (Latin-1) has not become filled cells. Raises ImportError without
    Pillow.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise ImportError(f"drawing text needs Pillow: {NEEDS_EXTRA}") from error
    lines = text.splitlines() or [""]
    width, height = CELL
    size = (width * (2 + max(map(len, lines))), height * (1 + len(lines)))
    image = Image.new("RGB", size, (12, 12, 12))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default_imagefont()
    for y, line in enumerate(lines):
        for x, character in enumerate(line):
            left, top = width * (x + 1), height * y + height // 2
            color = DIM if character == "." else BRIGHT
            if ord(character) < 256:
                draw.text((left, top), character, color, font)
            else:
                draw.rectangle((left, top, left + width - 1, top + height - 1), color)
    return np.asarray(image).repeat(TEXT_SCALE, 0).repeat(TEXT_SCALE, 1)
