"""Draws the learning curves that `learning.py --curves` has recorded, a panel per environment.

    python perf/curves.py [--curves FILE] [-o PICTURE]

Each line is a seed. The dashed line is the target at which the environment counts as solved; below
it, dotted, what random actions reach, and dash-dotted a scripted player, where the tests have one.
In training actions are drawn, and all lives count (an evaluation counts the first in each slot), so
that curves end below what the final policy reaches.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

ROOT = Path(__file__).parents[1]
CURVES = ROOT / "perf" / "reports" / "learning-curves.json"
PICTURE = ROOT / "docs" / "images" / "learning-curves.png"
COLUMNS = 4
PANEL = 3.1, 2.2              # width and height of a panel, inches
LEGEND = 0.35                 # height of the legend, inches
DPI = 110
# Seeds 1, 2, 3, ..., told apart by colour-blind readers too: Okabe and Ito 2008,
# "Color universal design", https://jfly.uni-koeln.de/color/
COLORS = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"
INK, GREY = "#22262e", "#8a909c"
# The lines beside the curves: the key in the file, what it is called, colour, dashes.
BESIDE = (("target", "target", INK, (0, (5, 2))),
          ("scripted", "scripted player", INK, (0, (5, 2, 1, 2))),
          ("random", "random actions", GREY, (0, (1, 1.5))))
WIDE = 30.0                   # times as far from the target as the curve's end: on a log scale


def draw(curves: dict[str, Any]) -> Figure:
    """A figure with a panel per environment, and the legend below them."""
    rows = -(-len(curves) // COLUMNS)
    figure = Figure((COLUMNS * PANEL[0], rows * PANEL[1] + LEGEND),
                    layout=ConstrainedLayoutEngine(h_pad=0.09, w_pad=0.06))
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for panel, (env, recorded) in zip(axes, curves.items(), strict=False):
        draw_panel(panel, env, recorded)
    for panel in axes[len(curves):]:
        panel.set_axis_off()
    seeds = sorted({int(seed) for recorded in curves.values() for seed in recorded["runs"]})
    lines = [Line2D([], [], color=color_of(seed), label=f"seed {seed}") for seed in seeds]
    lines += [Line2D([], [], color=color, linestyle=dashes, linewidth=1.2, label=name)
              for _, name, color, dashes in BESIDE]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), frameon=False,
                  fontsize=9)
    return figure


def draw_panel(panel: Axes, env: str, recorded: dict[str, Any]) -> None:
    """The seeds' curves over the steps, and the lines that they are seen beside."""
    values = [np.array(run["mean"]) for run in recorded["runs"].values()]
    for key, _, color, dashes in BESIDE:
        if recorded[key] is not None:
            panel.axhline(recorded[key], color=color, linestyle=dashes, linewidth=1.2, zorder=1)
            values.append(np.array([recorded[key]]))
    for seed, run in recorded["runs"].items():
        panel.plot(np.array(run["steps"]) / 1e6, run["mean"], color=color_of(int(seed)),
                   linewidth=1.6, zorder=2)
    everything = np.concatenate(values)
    if everything.max() < 0 and everything.min() < WIDE * everything.max():
        panel.set_yscale("symlog", linthresh=-everything.max())
        panel.set_ylim(2 * everything.min(), 0.7 * everything.max())
    panel.set_title(env, loc="left", fontsize=10, fontweight="bold", color=INK)
    statistic = recorded["statistic"].removeprefix("episode_")
    panel.set_title(statistic, loc="right", fontsize=8, color=GREY)
    panel.set_xlabel("million steps", fontsize=8, color=GREY, labelpad=1)
    panel.set_xlim(left=0)
    panel.tick_params(labelsize=8, color=GREY, labelcolor=INK)
    panel.grid(color="#e8eaee", linewidth=0.8)
    panel.set_axisbelow(True)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        panel.spines[side].set_color("#c4c8d0")


def color_of(seed: int) -> str:
    return COLORS[(seed - 1) % len(COLORS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--curves", type=Path, default=CURVES, metavar="FILE")
    parser.add_argument("-o", "--output", type=Path, default=PICTURE, metavar="PICTURE")
    args = parser.parse_args()
    matplotlib.use("agg")
    figure = draw(json.loads(args.curves.read_text(encoding="utf-8")))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.output, dpi=DPI, facecolor="white")


if __name__ == "__main__":
    main()
