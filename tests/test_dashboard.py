"""The dashboard and the loggers, from made-up reports."""

import contextlib
import io
import math
import os
import time

import pytest

pytest.importorskip("torch")
pytest.importorskip("rich")

from rich.console import Console

from pufferlib_cy.dashboard import (
    DRAW_INTERVAL,
    Curve,
    Dashboard,
    big,
    braille,
    can_show,
    duration,
)
from pufferlib_cy.loggers import Lines, TensorBoard, scalars
from pufferlib_cy.train.report import Report


def report(progress=0.5, **changes):
    fields = {
        "env": "cartpole", "steps": round(500_000 * progress), "total_steps": 500_000,
        "seconds": 2 * progress, "sps": 481_203.4, "remaining": 2 * (1 - progress),
        "times": {"environment": 0.13, "inference": 0.27, "learning": 0.51, "copies": 0.02,
                  "other": 0.07},
        "latency_us": {"p50": 41.2, "p90": 52.7, "p99": 88.1, "max": 2312.5},
        "losses": {"policy": -0.0123, "value": 31.25, "entropy": 0.612, "approx_kl": 0.0031,
                   "clip_fraction": 0.112},
        "stats": {"episodes": 312.0, "episode_return": 10 + 490 * progress,
                  "episode_length": 300.0},
        "cpu_percent": 187.0, "memory_mb": 312.4}
    return Report(**(fields | changes))


def terminal(width=80, **options):
    return Console(file=io.StringIO(), width=width, height=24, force_terminal=True, **options)


def shown(dashboard, width, **options):
    console = Console(file=io.StringIO(), width=width, **options)
    console.print(dashboard.render())
    return console.file.getvalue().splitlines()


def fed(reports, width=80, **options):
    dashboard = Dashboard("cpu", terminal(width, **options))
    for r in reports:
        dashboard(r)
    return dashboard


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_shows_everything_inside_the_box_at_any_width(width):
    lines = shown(fed((report(i / 40) for i in range(1, 41)), width), width)
    assert {len(line) for line in lines} == {min(width, 100)}
    assert lines[0].startswith("╭─ puffer-cy · cartpole ─")
    assert lines[-1].endswith(" cpu ─╯")
    assert all(line[0] == "│" == line[-1] for line in lines[1:-1])
    text = "\n".join(lines)
    for word in ("steps/s", "elapsed", "cpu", "187 %", "memory", "312.4 MB", "500,000 of 500,000",
                 "environment", "inference", "learning", "copies", "other", "51%", "vec.step",
                 "p50", "41.2 µs", "p99", "max", "2,312.5 µs", "return", "length", "episodes",
                 "312", "policy", "-0.0123", "entropy", "0.612", "clip fraction"):
        assert word in text
    if width >= 60:
        assert len(lines) <= 23
        assert "⣿" in text


def test_speed_is_large_where_there_is_room():
    def digits(width):
        return any(row.strip() in "\n".join(shown(fed([report()], width), width))
                   for row in big("481,203"))

    assert digits(80)
    assert not digits(46)
    assert "481,203 steps/s" in "\n".join(shown(fed([report()], 46), 46))


def test_time_bar_has_the_proportions_of_the_phases():
    bar = next(line for line in shown(fed([report()], no_color=True), 80) if "▒▒" in line)
    counts = [bar.count(glyph) for glyph in "█▓▒░·"]
    assert sum(counts) == 76
    assert counts == pytest.approx([76 * share for share in report().times.values()], abs=1)


def test_no_color_means_no_colors(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    plain, colorful = terminal(), terminal(no_color=False)
    for console in plain, colorful:
        dashboard = Dashboard("cpu", console)
        dashboard(report())
        console.print(dashboard.render())
    assert "\x1b[3" not in plain.file.getvalue()
    assert "\x1b[3" in colorful.file.getvalue() or "\x1b[9" in colorful.file.getvalue()


def test_odd_reports_do_not_break_it():
    odd = report(0, sps=math.nan, remaining=math.inf, latency_us={}, losses={"value": math.nan},
                 stats={"episodes": 0.0}, times=dict.fromkeys(report().times, 0.0))
    text = "\n".join(shown(fed([odd]), 80))
    assert "- left" in text
    assert "nan" in text
    assert "waiting" in "\n".join(shown(fed([]), 80))


def test_keeps_the_last_episode_statistics_of_intervals_without_episodes():
    dashboard = fed([report(0.4), report(0.5, stats={"episodes": 0.0})])
    line = next(line for line in shown(dashboard, 80) if "return" in line)
    assert "206" in line


def test_draws_at_most_eight_times_a_second_and_for_a_hundredth_of_the_time():
    console = terminal()
    began = time.monotonic()
    with Dashboard("cpu", console) as dashboard:
        spent = 0.0
        while (elapsed := time.monotonic() - began) < 1.0:
            before = time.monotonic()
            dashboard(report(elapsed))
            spent += time.monotonic() - before
            time.sleep(0.002)
        draws = console.file.getvalue().count("puffer-cy ·")
    assert 2 <= draws <= elapsed / DRAW_INTERVAL + 1
    assert spent < 0.05               # a hundredth, the first drawing, and a noisy machine
    assert console.file.getvalue().count("puffer-cy ·") == draws + 1     # the end is always shown


@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals")
def test_gives_the_cursor_back_even_after_an_error():
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as file:
        console = Console(file=file, width=80, height=24, _environ={"TERM": "xterm-256color"})
        assert can_show(console)
        with contextlib.suppress(KeyboardInterrupt), Dashboard("cpu", console) as dashboard:
            dashboard(report())
            raise KeyboardInterrupt
        file.flush()
        os.set_blocking(ours, False)
        written = ""
        with contextlib.suppress(BlockingIOError):
            while True:
                written += os.read(ours, 4096).decode(errors="replace")
    os.close(ours)
    assert 0 <= written.find("\x1b[?25l") < written.rfind("\x1b[?25h")
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h")
    assert "\x1b[?1049" not in written


def test_what_cannot_show_it():
    assert not can_show(Console(file=io.StringIO(), force_terminal=False))
    assert not can_show(Console(file=io.StringIO(), force_terminal=True,
                                _environ={"TERM": "dumb"}))
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert not can_show(Console(file=ascii_only, force_terminal=True))


def test_curve_is_the_mean_of_equal_parts_and_stays_small():
    curve = Curve(capacity=8)
    for i in range(1000):
        curve.add(i)
        curve.add(math.nan)
        assert len(curve.points) < 8
    steps = {b - a for a, b in zip(curve.points, curve.points[1:], strict=False)}
    assert len(steps) == 1
    assert curve.points[0] == pytest.approx((steps.pop() - 1) / 2)


def test_braille_rises_from_one_dot_to_the_top():
    assert braille([0, 1, 2, 3, 4, 5, 6, 7], 4, 2) == ["⠀⠀⣠⣾", "⣠⣾⣿⣿"]
    assert braille([3.0], 2, 2) == ["⠀⠀", "⣀⣀"]


def test_large_digits():
    assert big("1,7") == ["▄█     ▀▀█ ",
                          " █   ▄   █ ",
                          "▀▀▀ ▀    ▀ "]


@pytest.mark.parametrize(("seconds", "text"), [
    (0.04, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"), (125, "2 min 05 s"),
    (3599.7, "1 h 00 min"), (7500, "2 h 05 min"), (math.inf, "-"), (math.nan, "-")])
def test_duration(seconds, text):
    assert duration(seconds) == text


# ---- loggers -------------------------------------------------------------------------------------

def test_lines_are_pairs_in_a_fixed_order_and_the_last_report_is_one():
    stream = io.StringIO()
    with Lines(stream, interval=0.05) as lines:
        lines(report(0.1))                    # too early
        time.sleep(0.06)
        lines(report(0.2))
        lines(report(0.3, stats={"episodes": 0.0}))
        lines(report(0.4, stats={"episodes": 0.0}))
    first, last = (dict(pair.split("=") for pair in line.split(" "))
                   for line in stream.getvalue().splitlines())
    assert (first["steps"], last["steps"]) == ("100000", "200000")
    assert list(first) == list(last)
    assert first["env"] == "cartpole"
    assert first["sps"] == "481203"
    assert first["episode_return"] == "108"
    assert last["episode_return"] == "nan"
    assert first["times/learning"] == "0.51"
    assert first["latency_us/max"] == "2312"


def test_tensorboard_reads_back_what_was_written(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with TensorBoard(tmp_path) as logger:
        logger(report(0.5))
        logger(report(1.0, stats={"episodes": 0.0}))
    events = accumulator.EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload()
    tags = set(events.Tags()["tensors"])
    assert tags == set(scalars(report())) - {"steps", "total_steps"}
    assert [e.step for e in events.Tensors("losses/value")] == [250_000, 500_000]
    assert [e.step for e in events.Tensors("episode_return")] == [250_000]
    assert events.Tensors("sps")[0].tensor_proto.float_val[0] == pytest.approx(481_203.4)
