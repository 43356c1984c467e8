"""perf/: every benchmark runs, and the statistics tell a change from noise. No absolute times."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyperf
import pytest

import pufferlib_cy

PERF = Path(__file__).resolve().parent.parent / "perf"
PACKAGE_ROOT = Path(pufferlib_cy.__file__).resolve().parent.parent

# The scripts of perf/ import each other as scripts do: from their own directory.
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(PERF)
    suite, interleave, run, compare, versus, limits, oversubscription, pufferlib_c, outside = map(
        importlib.import_module,
        ("suite", "interleave", "run", "compare", "versus", "limits", "oversubscription",
         "pufferlib_c", "outside"))
Ratios = interleave.Ratios


# ---- the suite -----------------------------------------------------------------------------------

@pytest.mark.parametrize("name", [b.name for b in suite.benchmarks()])
def test_benchmark_runs_and_takes_time(name):
    [benchmark] = suite.benchmarks(name)
    assert benchmark.function(1, *benchmark.args) > 0


def test_pattern_selects_by_name():
    names = [b.name for b in suite.benchmarks("step/squared/serial/*")]
    assert names == [f"step/squared/serial/{size}" for size in (8, 64, 1024, 4096)]


def test_actions_are_the_same_every_time_and_use_every_choice():
    first, again = suite.random_actions(5, 100), suite.random_actions(5, 100)
    np.testing.assert_array_equal(first, again)
    assert first[0].dtype == np.int32
    assert set(np.unique(first)) == {0, 1, 2, 3, 4}
    assert len({rows.tobytes() for rows in first}) == suite.ROTATION


# ---- results -------------------------------------------------------------------------------------

def a_run(**metadata):
    return pyperf.Run([2e-6, 2e-6, 4e-6], metadata={
        "name": "step/x", "loops": 1, "inner_loops": 1, "work": 100, "work_unit": "steps",
        **metadata}, collect_metadata=False)


def test_scrub_keeps_the_figures_and_drops_what_names_the_machine(tmp_path):
    results = pyperf.BenchmarkSuite([pyperf.Benchmark([
        a_run(hostname="secret", command="/secret/python", cpu_model_name="A CPU")])])
    results.dump(str(tmp_path / "raw.json"))
    clean = run.scrub(json.loads((tmp_path / "raw.json").read_text()))
    assert "secret" not in json.dumps(clean)
    (tmp_path / "clean.json").write_text(json.dumps(clean))
    [benchmark] = pyperf.BenchmarkSuite.load(str(tmp_path / "clean.json")).get_benchmarks()
    assert benchmark.get_values() == (2e-6, 2e-6, 4e-6)
    assert benchmark.get_metadata()["cpu_model_name"] == "A CPU"


def test_table_gives_median_and_rate():
    row = run.table(pyperf.BenchmarkSuite([pyperf.Benchmark([a_run()])])).splitlines()[-1]
    assert row == "| step/x | 2 us | ±25% | 50 M steps/s |"


@pytest.mark.parametrize(("value", "text"), [
    (2.5, "2.5 s"), (0.0312, "31.2 ms"), (1.234e-6, "1.23 us"), (5e-10, "0.5 ns")])
def test_seconds(value, text):
    assert run.seconds(value) == text


@pytest.mark.parametrize("path", sorted((PERF / "baselines").glob("*.json")), ids=lambda p: p.stem)
def test_baselines_are_scrubbed_and_load(path):
    content = json.loads(path.read_text())
    assert run.scrub(content) == content
    names = {b.get_name() for b in pyperf.BenchmarkSuite.load(str(path)).get_benchmarks()}
    assert {"step/squared/serial/4096", "step/cartpole/threads2/1024"} <= names


# ---- statistics ----------------------------------------------------------------------------------

def noisy(rng, speedup, rounds=20, noise=0.05):
    """Ratios with log-normal noise, and one round in twenty disturbed by half or double."""
    disturbed = np.where(rng.random(rounds) < 0.05, rng.choice([0.5, 2.0], rounds), 1.0)
    return Ratios(tuple(speedup * disturbed * np.exp(noise * rng.standard_normal(rounds))))


@pytest.mark.parametrize(("speedup", "verdict"), [(1.2, "faster"), (1 / 1.2, "slower")])
def test_a_change_of_20_percent_is_seen_through_noise(speedup, verdict):
    rng = np.random.default_rng(0)
    verdicts = [noisy(rng, speedup).verdict for _ in range(300)]
    assert verdicts.count(verdict) > 0.95 * 300


def test_noise_is_called_noise():
    rng = np.random.default_rng(1)
    verdicts = [noisy(rng, 1.0, noise=0.2).verdict for _ in range(3000)]
    assert verdicts.count("same within noise") >= 0.998 * 3000


def test_a_certain_but_tiny_change_is_no_change():
    assert Ratios((1.01,) * 16).verdict == "same within noise"
    assert Ratios((1.03,) * 16).verdict == "faster"
    assert Ratios((1 / 1.03,) * 16).verdict == "slower"


@pytest.mark.parametrize(("rounds", "rank"), [(11, 1), (14, 1), (15, 2), (19, 3)])
def test_interval_ranks_follow_the_binomial(rounds, rank):
    # 2 P(binomial(n, 1/2) < k) <= 0.001: see a table of the sign test.
    values = tuple(float(v) for v in range(1, rounds + 1))
    assert Ratios(values[::-1]).interval == (rank, rounds + 1 - rank)


def test_too_few_rounds_are_refused():
    with pytest.raises(ValueError, match=r"10 rounds cannot .* at least 11"):
        Ratios((1.0,) * 10)


def test_turns_alternate_who_goes_first():
    assert interleave.turns(2, 3) == [[0, 1], [1, 0], [0, 1]]
    assert interleave.turns(3, 2) == [[0, 1, 2], [2, 1, 0]]


# ---- children ------------------------------------------------------------------------------------

def worker(code):
    return interleave.Worker([sys.executable, "-c", f"from interleave import serve\n{code}"],
                             {"PYTHONPATH": str(PERF)})


def test_worker_answers_and_is_not_confused_by_prints():
    with worker("def f(x):\n    print('noise')\n    return x + 1\nserve(f)") as child:
        assert [child.ask(x=x) for x in (1, 2)] == [2, 3]


def test_worker_that_ends_is_an_error():
    with worker("raise SystemExit(7)") as child, pytest.raises(
            interleave.WorkerFailedError, match="ended with code 7"):
        child.ask()


def test_compare_measures_the_package_it_is_told_to(tmp_path):
    with compare.start(PACKAGE_ROOT) as child:
        assert child.ask(name="step/squared/serial/8", loops=1) > 0
    with compare.start(tmp_path) as child, pytest.raises(interleave.WorkerFailedError):
        child.ask(name="step/squared/serial/8", loops=1)


def test_comparing_a_package_with_itself_fills_the_report():
    name = "step/squared/serial/8"
    results = compare.compare(PACKAGE_ROOT, PACKAGE_ROOT, [name], rounds=11)
    *_, row = compare.report("A against A", results, 11).splitlines()
    assert row.startswith(f"| {name} | ")
    assert row.split(" | ")[-1].rstrip(" |") in ("faster", "slower", "same within noise")


@pytest.mark.skipif(os.name == "nt", reason="process groups and SIGINT are POSIX")
def test_an_interrupted_comparison_leaves_nothing_behind(tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(PERF / "compare.py"), str(PERF.parent)], stderr=subprocess.PIPE,
        text=True, env={**os.environ, "TMPDIR": str(tmp_path)}, start_new_session=True,
        # These tests may run where SIGINT is ignored, in the background of a shell: that is
        # inherited, and at a terminal it is not so.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == "building base\n"
        assert list(tmp_path.iterdir())
        time.sleep(0.5)                               # into the build
        os.killpg(process.pid, signal.SIGINT)         # as a terminal's Ctrl-C does
        process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 130
    assert not list(tmp_path.iterdir())


# ---- learning curves -----------------------------------------------------------------------------

@pytest.fixture
def learning(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(PERF)
    return importlib.import_module("learning")


@pytest.fixture
def curves(monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(PERF)
    return importlib.import_module("curves")


def test_a_curve_keeps_means_over_episodes_in_equal_intervals(learning):
    # steps, seconds, episodes, mean; no episode ended from step 31 to 60
    points = [(10, 1.0, 1.0, 2.0), (20, 2.0, 3.0, 6.0), (30, 3.5, 1.0, 1.0), (70, 4.0, 1.0, 1.0),
              (80, 5.0, 1.0, 3.0)]
    assert learning.compact(points, most=4) == {
        "steps": [20, 30, 80], "seconds": [2.0, 3.5, 5.0], "mean": [5.0, 1.0, 2.0]}
    assert learning.compact([]) == {"steps": [], "seconds": [], "mean": []}


def test_curves_are_added_to_those_that_are_there(learning, tmp_path):
    path, beside = tmp_path / "curves.json", {"statistic": "score", "target": 1.0}
    run = {"steps": [1, 2], "seconds": [0.5, 1.0], "mean": [3.0, 4.0]}
    learning.add_curves(path, "pong", beside, {"2": run})
    learning.add_curves(path, "pong", beside | {"target": 2.0}, {"1": run})
    learning.add_curves(path, "breakout", beside, {"1": run})
    recorded = json.loads(path.read_text())
    assert list(recorded) == ["pong", "breakout"]
    assert recorded["pong"] == {"statistic": "score", "target": 2.0,
                                "runs": {"1": run, "2": run}}
    assert '"mean": [3.0, 4.0]\n' in path.read_text()


def test_what_curves_are_seen_beside(learning):
    bandit = learning.compared_with("bandit")
    assert bandit["random"] == pytest.approx(0.5, abs=0.06)    # 1000 pulls: 4 standard errors
    assert (bandit["target"], bandit["scripted"]) == (0.7, None)
    foraging = learning.compared_with("foraging")
    assert foraging["random"] < 2 < foraging["scripted"] < foraging["target"]


def test_every_seed_is_drawn_and_the_lines_beside_it(curves):
    def recorded(values, **beside):
        run = {"steps": [1_000_000, 3_000_000], "seconds": [1, 2], "mean": values}
        return {"statistic": "episode_return", "runs": {"1": run, "3": run}, **beside}

    figure = curves.draw({
        "up": recorded([0.0, 2.0], target=1.5, random=0.1, scripted=1.0),
        "far": recorded([-9000.0, -100.0], target=-110.0, random=-9500.0, scripted=None)})
    up, far, *empty = figure.axes
    assert not any(panel.axison for panel in empty)
    assert [panel.get_title(loc="left") for panel in (up, far)] == ["up", "far"]
    assert [len(panel.lines) for panel in (up, far)] == [3 + 2, 2 + 2]
    np.testing.assert_array_equal(up.lines[-1].get_xydata(), [[1, 0], [3, 2]])
    assert (up.get_yscale(), far.get_yscale()) == ("linear", "symlog")
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "seed 1", "seed 3", "target", "scripted player", "random actions"]


def test_the_recorded_curves_go_most_of_the_way_to_their_targets(curves):
    """Not all of it: in training actions are drawn, and late lives count."""
    recorded = json.loads(curves.CURVES.read_text())
    for env, beside in recorded.items():
        if beside["target"] is not None:
            way = beside["target"] - beside["random"]
            for seed, run in beside["runs"].items():
                assert max(run["mean"]) > beside["random"] + 0.6 * way, (env, seed)
                assert len(run["steps"]) == len(run["seconds"]) == len(run["mean"]) <= 60


# ---- the other programs --------------------------------------------------------------------------

@pytest.mark.parametrize("name", [n for n in versus.CONTESTANTS if n != versus.ENVPOOL])
def test_contestants_step(name):
    make, num_envs, _ = versus.CONTESTANTS[name]
    observations, rewards, *_ = make()(np.zeros(num_envs, np.int32))
    assert len(observations) == num_envs
    assert rewards.shape == (num_envs,)


def test_versus_reports_medians_of_ratios():
    text = versus.report({versus.FIRST: [50e6, 60e6, 40e6], versus.ENVPOOL: [1e6, 1e6, 1e6]})
    assert f"| {versus.ENVPOOL} | 1 | 50.0 (40.0 - 60.0) |" in text


@pytest.mark.parametrize("name", pufferlib_c.GAMES)
def test_our_side_of_the_games_has_as_many_agents(name):
    with pufferlib_c.ours(name) as vec:
        assert vec.num_agents == pufferlib_c.AGENTS
        vec.step(np.full(pufferlib_c.AGENTS, pufferlib_c.GAMES[name].actions - 1))


def test_games_are_reported_with_ratios_and_differences():
    text = pufferlib_c.report({"pong": {"ours": [50e6, 60e6, 40e6], "pufferlib": [2e7, 2e7, 2e7]}})
    assert "| pong | 50 | 20 | 2.50 (2.00 - 3.00) |" in text
    assert f"* pong: {pufferlib_c.GAMES['pong'].difference}" in text


def test_outside_reports_the_median_and_its_interval():
    measured = [{"ratio": ratio, "inside": 8e7} for ratio in np.linspace(0.9, 1.1, 11)]
    assert "| squared | 80 | 1.000 (0.900 - 1.100) |" in outside.report({"squared": measured})



def test_oversubscription_gives_a_pair_per_round(monkeypatch):
    monkeypatch.setattr(oversubscription, "BURST", 1e-3)
    speeds = oversubscription.measure("cartpole", 64, 3, rounds=2)
    assert np.shape(speeds) == (2, 2)
    assert np.all(np.array(speeds) > 0)


def test_overlap_compares_every_mode_with_synchronous_training(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(PERF)         # for the workers too
    overlap = importlib.import_module("overlap")
    monkeypatch.setattr(overlap, "ENVS", 8)
    for name in ("staggered", "staggered, overlap"):
        monkeypatch.setitem(overlap.MODES[name], "batch_size", 2)
    lines = overlap.compare(waits=True, rounds=1, seconds=0.05)
    assert [line.split(" | ")[1] for line in lines] == list(overlap.MODES)
    assert " | 1.00 (1.00 - 1.00) | " in lines[0]
    rates = [float(line.split(" | ")[2].split()[0]) for line in lines]
    shortest = overlap.MEAN / 2.8             # of the sleeps, see Busy
    assert 0 < min(rates) <= max(rates) < overlap.WORKERS / shortest


def test_limits_divide_the_machine_by_the_work():
    rates = limits.limits({"fill": 157e9, "copy": 1.0, "rows": 3e8, "trig": 1e8,
                           "divisions": 1e8})
    assert rates["squared"] == {"writing 157 bytes to L2": 1e9,
                                "clearing 121 bytes by one memset": 3e8}
    assert rates["cartpole"]["the same and three divisions"] == pytest.approx(5e7)
