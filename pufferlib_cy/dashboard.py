"""The live dashboard of a training run: one box on the terminal that shows the newest report.

It is an observer (see `train.report`) and draws in the training thread, so it rations itself: at
most 8 drawings a second, and never more than a hundredth of the run's time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment

from pufferlib_cy.train.report import PHASES, Report

T = TypeVar("T")
Line = list[tuple[str, str]]                                 # pieces of text with their styles
DRAW_INTERVAL = 1 / 8        # seconds, at least, between two drawings
DRAW_SHARE = 0.01            # of the run's time, at most, spent on drawing
MAX_WIDTH = 100              # columns; a wider box is harder to read, not easier
FRAME, SPEED = "bright_black", "bold bright_green"           # styles
PHASE_STYLES = dict(zip(PHASES, ("green", "cyan", "magenta", "yellow", "bright_black"),
                        strict=True))
PHASE_GLYPHS = dict(zip(PHASES, "█▓▒░·", strict=True))       # where there are no colours
# Digits of 3 x 5 pixels: one octal digit per pixel row, top row first.
DIGITS = {"0": 0o75557, "1": 0o26227, "2": 0o71747, "3": 0o71717, "4": 0o55711, "5": 0o74717,
          "6": 0o74757, "7": 0o71111, "8": 0o75757, "9": 0o75717, ",": 0o00024}
HALF_BLOCKS = " ▀▄█"         # index: upper pixel + 2 * lower pixel
# Braille dots filled from the bottom to a level of 0..4, left and right column.
BRAILLE_LEFT = (0x00, 0x40, 0x44, 0x46, 0x47)
BRAILLE_RIGHT = (0x00, 0x80, 0xA0, 0xB0, 0xB8)


def can_show(console: Console) -> bool:
    """Whether the console is a terminal that can redraw lines and print Unicode."""
    return (console.is_terminal and not console.is_dumb_terminal
            and console.encoding.startswith("utf"))


class Dashboard:
    """A box on the terminal that shows the newest report and the curve of the episode return."""

    def __init__(self, subtitle: str, console: Console) -> None:
        self._subtitle = subtitle
        self._console = console
        self._due = -math.inf
        self._report: Report | None = None
        self._stats: dict[str, float] = {}
        self._returns = Curve()
        self._live = Live(get_renderable=self.render, console=console, auto_refresh=False,
                          vertical_overflow="crop")

    def __call__(self, report: Report, /) -> None:
        self._report = report
        self._stats |= report.stats
        if "episode_return" in report.stats:
            self._returns.add(report.stats["episode_return"])
        began = time.monotonic()
        if began >= self._due:
            self._live.refresh()
            ended = time.monotonic()
            self._due = ended + max(DRAW_INTERVAL, (ended - began) / DRAW_SHARE)

    def __enter__(self) -> Dashboard:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()                     # draws the newest report and gives the cursor back

    def render(self) -> RenderableType:
        """The box at the console's present width."""
        width = min(self._console.width, MAX_WIDTH)
        if self._report is None:
            return Box("puffer-cy", [[("waiting for the first iteration", "dim")]],
                       self._subtitle, width)
        return Box(f"puffer-cy · {self._report.env}", self._body(self._report, width - 4),
                   self._subtitle, width)

    def _body(self, report: Report, width: int) -> list[Line]:
        """Every line inside the box, for `width` columns."""
        glyphs = PHASE_GLYPHS if self._console.no_color else dict.fromkeys(PHASES, "■")
        return [
            *_headline(report, width),
            _progress(report, width),
            [],
            _time_bar(report, width, PHASE_GLYPHS if self._console.no_color
                      else dict.fromkeys(PHASES, "█")),
            *_columns([(f"{glyphs[phase]} {phase}", f"{share:3.0%}", PHASE_STYLES[phase])
                       for phase, share in report.times.items()], width, 1),
            *_columns([("vec.step", "", "bold"),
                       *((name, f"{us:>8,.1f} µs", "dim")
                         for name, us in report.latency_us.items())], width, 2),
            [],
            *_episodes(self._stats, self._returns.points, width),
            [],
            *_columns([(f"{name.replace('_', ' '):<14.14}", f"{_number(loss):>9}", "dim")
                       for name, loss in report.losses.items()], width, 2),
        ]


@dataclass(frozen=True)
class Box:
    """A frame with a title above, a subtitle below, and lines that are cropped to fit.

    rich has one (Panel), but it measures and wraps every line, which costs twice as much.
    """

    title: str
    body: Sequence[Line]
    subtitle: str
    width: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        def styled(line: Line) -> Iterator[Segment]:
            return (Segment(text, console.get_style(style)) for text, style in line)

        inside = self.width - 4
        title, subtitle = self.title[:inside - 2], self.subtitle[:inside - 2]
        yield from styled([("╭─ ", FRAME), (title, "bold"),
                           (f" {'─' * (inside - 1 - len(title))}╮", FRAME)])
        for line in self.body:
            yield Segment.line()
            yield from styled([("│ ", FRAME), *_fitted(line, inside), (" │", FRAME)])
        yield Segment.line()
        yield from styled([(f"╰{'─' * (inside - 1 - len(subtitle))} ", FRAME), (subtitle, "dim"),
                           (" ─╯", FRAME)])
        yield Segment.line()


def _length(line: Line) -> int:
    """In columns: no character here is wider than one."""
    return sum(len(text) for text, _ in line)


def _fitted(line: Line, width: int) -> Line:
    """The line, cropped or filled up to `width` columns."""
    fitted, left = [], width
    for text, style in line:
        fitted.append((text[:left], style))
        left -= len(fitted[-1][0])
    return [*fitted, (" " * left, "")]


def _headline(report: Report, width: int) -> list[Line]:
    """Steps per second in large digits, and beside them time and machine."""
    speed = f"{report.sps:,.0f}" if math.isfinite(report.sps) else "0"
    facts = [("elapsed", duration(report.seconds)),
             ("cpu", f"{report.cpu_percent:.0f} %"),
             ("memory", f"{_number(report.memory_mb)} MB")]
    digits = big(speed)
    facts_at = width - 19                     # 8 columns for a name, 11 for a value
    if len(digits[0]) + len(" steps/s") > facts_at:
        return [[(f"{speed} steps/s", SPEED)],
                *_columns([(name, value, "dim") for name, value in facts], width, 2)]
    return [[*_fitted([(row, SPEED), (unit, "dim")], facts_at),
             (f"{name:<8}", "dim"), (f"{value:>11}", "")]
            for row, unit, (name, value) in zip(digits, ("", "", " steps/s"), facts, strict=True)]


def _progress(report: Report, width: int) -> Line:
    """How far the run is, as a bar, in steps, and how long it will still take."""
    share = min(max(report.steps / report.total_steps, 0.0), 1.0)
    total = f"{report.total_steps:,}"
    words = f" {share:4.0%}  {report.steps:>{len(total)},} of {total}"
    if width >= 70:
        words += f"  {duration(report.remaining):>8} left"
    bar = max(width - len(words), 8)
    done = round(share * bar)
    return [("━" * done, "bright_green"), ("─" * (bar - done), FRAME), (words, "")]


def _time_bar(report: Report, width: int, glyphs: Mapping[str, str]) -> Line:
    """The interval's time, cut into the phases."""
    total = sum(report.times.values()) or 1.0
    bar: Line = []
    sum_so_far, edge = 0.0, 0
    for phase, share in report.times.items():
        sum_so_far += share
        next_edge = round(sum_so_far / total * width)
        bar.append((glyphs[phase] * (next_edge - edge), PHASE_STYLES[phase]))
        edge = next_edge
    return bar


def _episodes(stats: Mapping[str, float], points: Sequence[float], width: int) -> list[Line]:
    """Four lines: episode statistics, and beside them the curve of the return so far."""
    names = ["episode_return", "episode_length", "episodes"]
    names += [name for name in stats if name not in names]
    lines: list[Line] = [
        [(f"{name.removeprefix('episode_'):<10.10}", "dim"),
         (f"{_number(stats[name]) if name in stats else '-':>9}   ", "")] for name in names[:4]]
    lines += [[(" " * 22, "")]] * (4 - len(lines))
    columns = width - 22 - 9                  # the numbers at its left and right
    if not points or columns < 8:
        return lines
    scale = [_number(max(points)), "", "", _number(min(points))]
    return [[*line, (row, "bright_green"), (f"{number:>9}", "dim")]
            for line, row, number in zip(lines, braille(points, columns, 4), scale, strict=True)]


def _columns(pairs: Sequence[tuple[str, str, str]], width: int, gap: int) -> list[Line]:
    """(name, value, style of the name) side by side, on as many lines as they need."""
    lines: list[Line] = [[]]
    for name, value, style in pairs:
        used = _length(lines[-1])
        if used and used + gap + len(name) + 1 + len(value) > width:
            lines.append([])
        elif used:
            lines[-1].append((" " * gap, ""))
        lines[-1] += [(name, style), (f" {value}" if value else "", "")]
    return lines


# ---- drawing with characters ---------------------------------------------------------------------

class Curve:
    """The means of a series at up to `capacity` points, evenly spaced from its start to now.

    When the points are full, neighbours are merged: so its memory and drawing cost are bounded.
    """

    def __init__(self, capacity: int = 256) -> None:
        self.points: list[float] = []
        self._capacity = capacity
        self._stride = 1
        self._pending: list[float] = []

    def add(self, value: float) -> None:
        """Append a value; a value that is not finite is left out."""
        if not math.isfinite(value):
            return
        self._pending.append(value)
        if len(self._pending) < self._stride:
            return
        self.points.append(fmean(self._pending))
        self._pending.clear()
        if len(self.points) == self._capacity:
            self.points = [(a + b) / 2 for a, b in _pairs(self.points)]
            self._stride *= 2


def braille(points: Sequence[float], width: int, height: int) -> list[str]:
    """The area under a curve in `height` lines of `width` braille characters, top line first.

    The lowest point is one dot high and the highest 4 * height.
    """
    low, high = min(points), max(points)
    scale = (4 * height - 1) / (high - low) if high > low else 0.0
    levels = [1 + round((points[x * len(points) // (2 * width)] - low) * scale)
              for x in range(2 * width)]
    lines = []
    for row in reversed(range(height)):
        filled = [min(max(level - 4 * row, 0), 4) for level in levels]
        lines.append("".join(chr(0x2800 + BRAILLE_LEFT[a] + BRAILLE_RIGHT[b])
                             for a, b in _pairs(filled)))
    return lines


def _pairs(items: Sequence[T]) -> Iterable[tuple[T, T]]:
    """Neighbours two by two; the number of items is even."""
    return zip(items[::2], items[1::2], strict=True)


def big(text: str) -> list[str]:
    """Digits and commas as three lines of half blocks."""
    lines = ["", "", ""]
    for character in text:
        pixels = DIGITS[character]
        columns = (2, 1, 0) if character != "," else (2, 1)
        for i in range(3):
            upper = pixels >> 12 - 6 * i & 7                   # pixel rows 2 i and 2 i + 1
            lower = pixels >> 9 - 6 * i & 7 if i < 2 else 0
            lines[i] += "".join(HALF_BLOCKS[(upper >> c & 1) + 2 * (lower >> c & 1)]
                                for c in columns) + " "
    return lines


def duration(seconds: float) -> str:
    """``4.2 s``, ``3 min 05 s``, ``2 h 05 min``; a dash if nobody knows."""
    if not math.isfinite(seconds):
        return "-"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {s:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def _number(value: float) -> str:
    """At most 9 characters: thousands with commas, small numbers with four digits."""
    if math.isfinite(value) and 1000 <= abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value:.4g}"
