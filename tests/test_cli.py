"""The command line `puffer-cy`, in this process where that is enough, else in one of its own."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("tyro")

from pufferlib_cy import bench, cli, envs
from pufferlib_cy.train.config import TrainConfig

PROGRAM = [sys.executable, "-m", "pufferlib_cy.cli"]
TINY = ["--num-envs", "16", "--horizon", "8", "--total-timesteps", "512", "--torch-threads", "1",
        "--evaluation-episodes", "4", "--hidden-sizes", "8"]
UNIX = pytest.mark.skipif(os.name == "nt", reason="signals and terminals of Unix")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every test has a working directory of its own, and no settings from outside."""
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith(("PUFFER_", "PUFFERLIB_CY_TRACE"))]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def run(capsys):
    """Runs a command; gives exit code, stdout and stderr."""

    def run(*args):
        try:
            code = cli.main(args)
        except SystemExit as stop:            # after --help
            code = stop.code
        out, err = capsys.readouterr()
        return code or 0, out, err

    return run


# ---- help, list, bench ---------------------------------------------------------------------------

def test_help_names_every_command_and_every_command_has_help(run):
    code, out, _ = run("--help")
    assert code == 0
    assert run() == (0, out, "")
    for command in ("train", "eval", "play", "bench", "list", "new-env", "build", "check"):
        assert re.search(rf"^  {command}\b", out, re.MULTILINE)
        code, text, err = run(command, "--help")
        assert (code, err) == (0, "")
        assert f"usage: puffer-cy {command}" in text
        assert command == "list" or "examples:\n  puffer-cy " in text


def test_version(run):
    assert re.fullmatch(r"puffer-cy \S+\n", run("--version")[1])


def test_train_help_has_every_setting_with_its_default(run):
    _, out, _ = run("train", "--help")
    for field in TrainConfig.__dataclass_fields__:
        assert field == "env" or f"--{field.replace('_', '-')}" in out
    for flag in ("ENV", "--plain", "--summary-json", "--config", "--tensorboard"):
        assert flag in out
    assert re.search(r"--num-envs.*\(default:\s+1024\)", out)


def test_list_has_every_environment_with_its_spaces(run):
    code, out, err = run("list")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[::2]] == sorted(envs.REGISTRY)
    assert "cartpole      Balance a pole on a cart" in out
    assert "observation float32 (4,), action Discrete(2), agents 1" in out
    assert "observation of 3 parts, " in out            # foraging's, which are nested
    assert "None" not in out


def test_bench_measures_every_way_and_says_which_to_use(run, folder):
    code, out, err = run("bench", "squared", "--num-envs", "4", "600", "--num-workers", "2", "3",
                         "--rounds", "3", "--seconds", "0.01", "--summary-json", "bench.json")
    assert (code, err) == (0, "")
    timings = json.loads((folder / "bench.json").read_text())["timings"]
    assert [(t["num_envs"], t["backend"], t["num_workers"]) for t in timings] == [
        (E, *way) for E in (4, 600) for way in (("serial", 1), ("threads", 2), ("threads", 3))]
    for t in timings:
        assert t["sps"] > 1000
        assert 0 < t["p50_us"] <= t["p90_us"] <= t["p99_us"] <= t["max_us"]
        # Half of the calls take at most the median, so all of them at least half of it.
        assert t["num_envs"] / t["sps"] * 1e6 > 0.2 * t["p50_us"]
    assert {t["speedup"] for t in timings if t["backend"] == "serial"} == {1.0}
    assert "600 environments: --backend " in out
    assert f"{max(t['sps'] for t in timings):,.0f} steps/s" in out


def test_bench_measures_processes_where_the_environment_is_python(run, folder):
    code, out, err = run("bench", "CartPole-v1", "--num-envs", "1", "2", "--num-workers", "2",
                         "--rounds", "1", "--seconds", "0.01", "--summary-json", "bench.json")
    assert (code, err) == (0, "")
    timings = json.loads((folder / "bench.json").read_text())["timings"]
    assert [(t["num_envs"], t["backend"], t["num_workers"]) for t in timings] == [
        (1, "serial", 1), (2, "serial", 1), (2, "processes", 2)]
    assert "    auto takes serial: " in out


def test_bench_advice_weighs_threads_against_serial():
    def timing(num_envs, workers, sps, us=10.0):
        return bench.Timing(num_envs, "threads" if workers > 1 else "serial", workers, sps, 0.0,
                            sps / 100, us, us, us, us)

    lines = bench.advice([timing(8, 1, 100, 1.0), timing(8, 2, 104), timing(64, 1, 100, 60.0),
                          timing(64, 2, 190), timing(64, 4, 150)], 2)
    assert lines[0].startswith("8 environments: --backend serial; 2 threads are 1.04 times")
    assert lines[1] == ("    auto takes serial: a step of all environments takes about 1 µs in one "
                        "thread, too short to share")
    assert lines[2] == ("64 environments: --backend threads --num-workers 2, 1.90 times as fast as "
                        "serial")
    assert lines[3].startswith("    auto takes threads with 2 workers: ")
    assert lines[4].startswith("most steps per second: 64 environments, threads, 190 steps/s")


def test_worker_counts():
    assert [bench.worker_counts(n) for n in (1, 2, 6, 8)] == [[], [2], [2, 4, 6], [2, 4, 8]]


def test_what_needs_no_torch_does_not_import_it():
    script = """if True:
        import contextlib, sys
        from pufferlib_cy.cli import main
        assert main(["--help"]) == main(["--version"]) == main(["list"]) == 0
        heavy = {"torch", "tyro", "rich", "tensorboard", "psutil", "PIL", "imageio_ffmpeg",
                 "tkinter", "tomllib"} & set(sys.modules)
        assert not heavy, heavy
        assert main(["bench", "bandit", "--num-envs", "2", "--seconds", "0.001"]) == 0
        with contextlib.suppress(SystemExit):
            main(["eval", "--help"])
        assert main(["play", "pendulum"]) == 2
        assert main(["eval", "nothing", "--checkpoint", "nowhere"]) == 2
        assert "torch" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, capture_output=True)


# ---- errors --------------------------------------------------------------------------------------

@pytest.mark.parametrize(("args", "message"), [
    (["tran", "cartpole"], "there is no command 'tran'; did you mean train?"),
    (["list", "all"], "list takes no arguments"),
    (["train"], "name an environment"),
    (["train", "cartpol"], "did you mean cartpole"),
    (["bench", "cartpol"], "did you mean cartpole"),
    (["eval", "cartpol", "--checkpoint", "x"], "did you mean cartpole"),
    (["eval", "cartpole"], "Missing from puffer-cy eval: --checkpoint ("),
    (["eval", "cartpole", "--checkpoint", "nowhere"], "nowhere does not exist"),
    (["eval", "cartpole", "--checkpoint", "x", "--seed"], "Missing value for argument '--seed'"),
    (["train", "cartpole", "--num-env", "8"], "did you mean --num-envs?"),
    (["train", "cartpole", "--num-envs", "many"], "Error parsing --num-envs"),
    (["train", "cartpole", "--num-envs", "0"], "num_envs: expected at least 1, got 0"),
    (["train", "cartpole", "--batch-size", "0"], "batch_size: expected at least 1, got 0"),
    (["train", "cartpole", "--batch-size", "100"], "batch_size: expected a divisor of num_envs "
                                                   "(512), got 100"),
    (["train", "cartpole", "--backend", "gpu"], "invalid choice 'gpu' for argument '--backend'"),
    (["train", "cartpole", "--device", "abacus"], "--device abacus: "),
    (["train", "cartpole", "--config", "no.toml"], "no.toml: No such file"),
    (["train", "cartpole", "--summary-json", "no/s.json"], "--summary-json: cannot write in"),
    (["train", "cartpole", "--summary-json", "."], "--summary-json: . is a directory"),
    (["train", "cartpole", "--checkpoint-dir", "file"], "file: File exists"),
    (["train", "cartpole", "--plain", "--backend", "serial", "--num-workers", "2"], "num_workers"),
    (["bench", "cartpole", "--num-envs", "-1"], "num_envs: expected at least 1, got -1"),
    (["bench", "cartpole", "--rounds", "0"], "expected at least 1"),
    (["eval", "squared", "--checkpoint", "random", "--render", "gif"], "needs --out NAME.gif"),
    (["eval", "squared", "--checkpoint", "random", "--render", "mp4", "--out", "x.gif"],
     "--render mp4 needs --out NAME.mp4, not x.gif"),
    (["eval", "squared", "--checkpoint", "random", "--out", "x.gif"], "--out x.gif: say what to"),
    (["eval", "squared", "--checkpoint", "random", "--render", "gif", "--out", "no/x.gif"],
     "--out: cannot write in"),
    (["eval", "squared", "--checkpoint", "random", "--fps", "0"], "--fps 0: expected more than 0"),
    (["eval", "squared", "--checkpoint", "random", "--max-frames", "0"], "--max-frames 0: expect"),
    (["eval", "squared", "--checkpoint", "random", "--every", "0"], "--every 0: expected at least"),
    (["eval", "squared", "--checkpoint", "random", "--render", "gif", "--out", "x.gif", "--scale",
      "0"], "--scale 0: expected more than 0, and 10 at most"),
    (["eval", "squared", "--checkpoint", "random", "--render", "ansi", "--scale", "0.5"],
     "--scale 0.5: only for --render gif and --render mp4"),
    (["bench", "squared", "--env-kwargs", "siz=3"], "env_kwargs: Squared(siz=3): "),
    (["check", "squared", "--env-kwargs", "size=1"], "squared: size is at least 2, not 1"),
    (["play", "squared", "--env-kwargs", "size"], "expected NAME=VALUE, such as length=20"),
    (["train", "squared", "--env-kwargs", "size=True"], "size: expected a value as in TOML"),
    (["train", "squared", "--env-kwargs", "size=1"], "squared: size is at least 2, not 1"),
    (["train", "squared", "--target-stat", "score"], "target_stat: the environment has no statis"),
    (["play", "squared"], "play needs a terminal"),
    (["play", "pendulum"], "play has keys for Discrete actions, 10 at most; those of pendulum are"),
    (["play", "squared", "--fps", "-1"], "--fps -1: expected more than 0"),
])
def test_what_cannot_be_is_one_line_and_exit_code_2(run, folder, args, message):
    (folder / "file").touch()
    code, out, err = run(*args)
    assert code == 2
    assert out == ""
    assert err.startswith("puffer-cy: ")
    assert message in err
    assert err.count("\n") == 1


def test_settings_from_outside_are_named_when_wrong(run, folder, monkeypatch):
    (folder / "settings.toml").write_text("num_envz = 3\n")
    assert "settings.toml: there is no setting called 'num_envz'" in run(
        "train", "cartpole", "--config", "settings.toml")[2]
    monkeypatch.setenv("PUFFER_NUM_ENVS", "few")
    assert "PUFFER_NUM_ENVS: expected an integer" in run("train", "cartpole")[2]


def test_a_traceback_on_request(run, monkeypatch):
    monkeypatch.setenv("PUFFERLIB_CY_TRACEBACK", "1")
    with pytest.raises(ValueError, match="did you mean cartpole"):
        run("bench", "cartpol")


@pytest.mark.parametrize("package", ["tyro", "rich"])
def test_a_missing_package_is_told_with_its_cure(run, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    for name in [n for n in sys.modules if n.startswith(f"{package}.")] + ["pufferlib_cy.flags"]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    code, _, err = run("bench", "cartpole")
    assert code == 2
    assert package in err
    assert 'pip install "pufferlib_cy[train]"' in err


# ---- environments of one's own -------------------------------------------------------------------

def test_a_new_environment_is_sound_and_keeps_what_is_there(run, folder, monkeypatch):
    monkeypatch.setenv("PUFFERLIB_CY_CACHE", str(folder / "cache"))
    code, out, _ = run("new-env", "my_game")
    assert code == 0
    assert [path.name for path in sorted(folder.iterdir())] == [
        "my_game.pyx", "my_game.toml", "test_my_game.py"]
    assert "@" not in "".join(path.read_text().replace("@cython.final", "")
                              for path in folder.iterdir())
    code, out, _ = run("build", "my_game.pyx", "--checked")
    assert code == 0
    assert Path(out.strip()).is_file()
    code, out, _ = run("check", "./my_game.pyx", "--steps", "200")
    assert (code, out[:40]) == (0, "./my_game.pyx: nothing wrong in 200 step")
    own = pytest.main(["-q", "-p", "no:cacheprovider", "--import-mode=importlib",
                       "test_my_game.py"])
    assert own == 0
    (folder / "my_game.pyx").write_text("mine")
    (folder / "test_my_game.py").unlink()
    code, _, err = run("new-env", "my_game")
    assert code == 2
    assert err == "puffer-cy: my_game.pyx is there already; nothing was written\n"
    assert not (folder / "test_my_game.py").exists()


def test_check_tells_what_is_wrong(run, folder, monkeypatch):
    monkeypatch.setenv("PUFFERLIB_CY_CACHE", str(folder / "cache"))
    run("new-env", "game")
    source = folder / "game.pyx"
    good = source.read_text()
    for wrong, words in (
            ("rewards[0] = 1e300 * 1e300", "Game, environment 0, agent slot 0: the reward is NaN"),
            ("rewards[0] = 1 / rows.terminations[0]", "step 1: game.Game.step raised ZeroDivision"),
    ):
        source.write_text(good.replace("rewards[0] = -0.01", wrong))
        code, out, _ = run("check", "game.pyx", "--steps", "50")
        assert code == 1
        assert out.startswith(f"game.pyx: {words}")


@pytest.mark.parametrize("name", ["My-Game", "class", "2048", "UPPER"])
def test_names_that_cannot_be(run, folder, name):
    code, _, err = run("new-env", name)
    assert code == 2
    assert "cannot be the name of an environment" in err
    assert not list(folder.iterdir())


# ---- train and eval ------------------------------------------------------------------------------

def test_train_then_eval(run, folder):
    code, out, err = run("train", "cartpole", *TINY, "--seed", "3", "--plain",
                         "--summary-json", "train.json", "--tensorboard", "events")
    assert (code, err) == (0, "")
    summary = json.loads((folder / "train.json").read_text())
    assert {"env", "seed", "steps", "seconds", "sps", "episode_return", "episode_length", "solved",
            "checkpoint"} <= set(summary)
    assert (summary["env"], summary["seed"], summary["steps"]) == ("cartpole", 3, 512)
    assert list(folder.glob("events/*tfevents*"))
    *lines, verdict, checkpoint, command = out.splitlines()
    assert lines[-1].startswith("env=cartpole steps=512 total_steps=512 ")
    assert re.match(r"(trained|solved|not solved): cartpole reached [\d.]+ .*over 4 episodes after "
                    r"512 steps in [\d.]+ s", verdict)
    assert checkpoint == f"checkpoint: {summary['checkpoint']}"
    assert Path(summary["checkpoint"]).is_dir()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]

    args = command.partition("puffer-cy ")[2].split()
    assert args == ["eval", "cartpole", "--checkpoint", summary["checkpoint"]]
    code, out, err = run(*args, "--episodes", "5", "--summary-json", "eval.json")
    assert (code, err) == (0, "")
    result = json.loads((folder / "eval.json").read_text())
    assert {"episodes", "mean_return", "std_return", "mean_length"} <= set(result)
    assert result["episodes"] == 5
    assert f"cartpole: mean return {result['mean_return']:.2f}" in out
    again = run(*args, "--episodes", "5")[1]
    assert again == out
    assert run(*args, "--episodes", "0")[0] == 2


def test_eval_shows_and_records(run, folder, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("imageio_ffmpeg")
    look = ["eval", "squared", "--checkpoint", "random", "--episodes", "2", "--env-kwargs",
            "size=3"]
    code, out, err = run(*look, "--render", "gif", "--out", "look.gif", "--fps", "20",
                         "--max-frames", "2")
    assert (code, err) == (0, "")
    assert out.splitlines()[1:] == [
        "look.gif: 2 pictures", "the episode that was shown went on after 2 pictures; to see more "
        "of it, --max-frames"]
    with image.open(folder / "look.gif") as gif:
        assert (gif.n_frames, gif.size) == (2 + 20, (360, 360))
    assert run(*look, "--render", "gif", "--out", "small.gif", "--fps", "20", "--every", "5",
               "--scale", "0.25")[0] == 0
    with image.open(folder / "small.gif") as gif:
        assert (gif.size, gif.info["duration"]) == ((90, 90), 250)
    code, out, _ = run(*look, "--render", "mp4", "--out", "look.mp4")
    assert re.search(r"^look\.mp4: \d+ pictures$", out, re.MULTILINE)
    assert (folder / "look.mp4").stat().st_size > 1000
    code, out, _ = run(*look, "--render", "ansi")
    *pictures, result = out.split("\n\n")
    assert all(sorted(picture.split()) in ([*"......." "12"], [*"........" "1"])
               for picture in pictures)
    assert result.startswith("squared: mean return ")
    code, out, err = run(*look, "--render", "human")
    assert (code, out) == (2, "")
    assert "a window needs" in err
    assert err.count("\n") == 1


def test_arguments_of_the_constructor_go_everywhere(run, folder):
    size = ["--env-kwargs", "size=4"]
    assert run("bench", "squared", *size, "--num-envs", "2", "--seconds", "0.001")[0] == 0
    assert run("check", "squared", *size, "--steps", "20")[0] == 0
    (folder / "settings.toml").write_text("[env_kwargs]\nsize = 3\n")
    code, _, err = run("train", "squared", "--config", "settings.toml", *TINY, *size, "--plain",
                       "--summary-json", "s.json")
    assert (code, err) == (0, "")
    checkpoint = json.loads((folder / "s.json").read_text())["checkpoint"]
    ended = run("eval", "squared", "--checkpoint", checkpoint, "--episodes", "2")
    assert ended[0] == 0
    assert "trained on the observation space" in run(
        "eval", "squared", "--checkpoint", checkpoint, "--env-kwargs", "size=5")[2]
    out = run("train", "squared", "--config", "settings.toml", "--help")[1]
    assert re.search(r"--env-kwargs.*size=3", out, re.DOTALL)


def test_solved_by_a_statistic(run, folder):
    code, out, _ = run("train", "breakout", *TINY, "--plain", "--target-stat", "score",
                       "--target-return", "-1", "--summary-json", "s.json", "--env-kwargs",
                       "max_ticks=80")
    assert code == 0
    summary = json.loads((folder / "s.json").read_text())
    assert (summary["solved"], summary["target_stat"]) == (True, "score")
    score = summary["evaluation"]["stats"]["score"]
    assert score["episodes"] == 4
    assert f"solved: breakout reached score {score['mean']:.4g} (>= -1) over 4 episodes" in out


def test_a_checkpoint_of_an_environment_that_moved(run, folder, monkeypatch):
    monkeypatch.setenv("PUFFERLIB_CY_CACHE", str(folder / "cache"))
    run("new-env", "my_game")
    run("train", "./my_game.pyx", *TINY, "--plain", "--summary-json", "s.json")
    checkpoint = json.loads((folder / "s.json").read_text())["checkpoint"]
    assert run("eval", "my_game.pyx", "--checkpoint", checkpoint, "--episodes", "2")[0] == 0
    (folder / "elsewhere").mkdir()
    (folder / "my_game.pyx").rename(folder / "elsewhere" / "my_game.pyx")
    moved = str(folder / "elsewhere" / "my_game.pyx")
    assert run("eval", moved, "--checkpoint", checkpoint, "--episodes", "2")[0] == 0
    (folder / "other.pyx").write_text(Path(moved).read_text())
    code, _, err = run("eval", "other.pyx", "--checkpoint", checkpoint)
    assert code == 2
    assert "trained on './my_game.pyx', not on 'other.pyx'" in err


def test_flags_come_before_variables_before_the_file(run, folder, monkeypatch):
    (folder / "settings.toml").write_text("seed = 11\nhidden_sizes = [4]\nnum_envs = 3\n")
    monkeypatch.setenv("PUFFER_SEED", "12")
    monkeypatch.setenv("PUFFER_HORIZON", "5")
    given = ["--config", "settings.toml", "--horizon", "7", "--gamma", "0.5"]
    from pufferlib_cy.flags import train_flags

    _, config = train_flags([*given, "cartpole"])
    assert (config.env, config.seed, config.hidden_sizes) == ("cartpole", 12, (4,))
    assert (config.num_envs, config.horizon, config.gamma) == (3, 7, 0.5)
    assert type(config) is TrainConfig
    out = run("train", "cartpole", *given, "--help")[1]
    assert re.search(r"--seed.*?\(default:\s+12\)", out, re.DOTALL)


def test_the_summary_is_json_also_where_numbers_are_not_finite(folder):
    cli.write_summary(folder / "s.json", {"a": float("nan"), "b": float("inf"), "c": 1.5})
    assert json.loads((folder / "s.json").read_text()) == {"a": None, "b": None, "c": 1.5}


def test_a_summary_that_cannot_be_finished_leaves_the_old_one(folder, monkeypatch):
    cli.write_summary(folder / "s.json", {"a": 1})
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        cli.write_summary(folder / "s.json", {"a": 2})
    assert json.loads((folder / "s.json").read_text()) == {"a": 1}
    assert [path.name for path in folder.iterdir()] == ["s.json"]


@UNIX
def test_a_summary_can_go_into_a_pipe(folder):
    os.mkfifo(folder / "pipe")
    reader = os.open(folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    cli.check_summary_path(folder / "pipe")
    cli.write_summary(folder / "pipe", {"a": 1})
    assert json.loads(os.read(reader, 1000)) == {"a": 1}
    assert (folder / "pipe").is_fifo()
    os.close(reader)


# ---- play ----------------------------------------------------------------------------------------

@UNIX
def test_play_in_turns_waits_for_keys_and_restores_the_terminal(folder):
    with on_terminal("play", "squared", "--seed", "0", "--env-kwargs", "size=5") as session:
        session.read_until("0 stay | 1 ↓ s down | 2 ↑ w up | 3 ← a left | 4 → d right | r restart "
                           "| q quit", ". . 1 . .")
        assert session.terminal_modes() != session.modes      # no echo, no lines
        session.type("a")
        session.read_until("return 0, 1 steps", ". 1 . . .")
        session.type("\x1b[C4")                  # the arrow to the right, and the digit
        session.read_until("return 0, 3 steps", ". . . 1 .")
        session.type("x")                        # no action
        session.type("dd")
        session.read_until("return -1, 5 steps   the end")
        session.type("r")
        session.read_until("return 0, 0 steps", ". . 1 . .")
        session.type("q")
        session.read_until("\x1b[?25h")          # the cursor is back
        assert session.code == 0
        assert session.terminal_modes() == session.modes
    assert session.text.count("\x1b[?25l") == session.text.count("\x1b[?25h") == 1


@UNIX
def test_play_in_time_goes_on_by_itself(folder):
    with on_terminal("play", "pong", "--fps", "50") as session:
        session.read_until("return 0, 0 steps   the first key begins")
        session.type("w")
        session.read_until(", 20 steps")
        session.type("\x03")                     # Ctrl-C
        assert session.code == cli.INTERRUPTED
        assert session.terminal_modes() == session.modes
    assert "Traceback" not in session.text


@UNIX
def test_play_knows_what_is_not_possible_now(folder):
    with on_terminal("play", "connect4", "--seed", "1") as session:
        session.read_until("0 1 2 3 4 5 6")
        session.type("7")                        # to pass
        session.read_until("0 steps   that is not possible now")
        session.type("3")
        session.read_until("return 0, 1 steps", "X")
        session.process.send_signal(signal.SIGTERM)
        assert session.code == cli.INTERRUPTED
        assert session.terminal_modes() == session.modes


@UNIX
def test_an_exception_in_play_restores_the_terminal(folder, monkeypatch):
    monkeypatch.setenv("PUFFERLIB_CY_CACHE", str(folder / "cache"))
    cli.main(["new-env", "game"])
    source = (folder / "game.pyx").read_text()
    (folder / "game.pyx").write_text(source.replace(
        "        cdef State* state = <State*> self.state_of(i)\n        return",
        "        cdef State* state = <State*> self.state_of(i)\n"
        "        assert state.steps < 2, 'no picture'\n        return"))
    with on_terminal("play", "game.pyx") as session:
        session.read_until("return 0, 0 steps")
        session.type("0")
        session.read_until("return -0.01, 1 steps")
        session.type("0")
        session.read_until("AssertionError: no picture")
        assert session.code == 1
        assert session.terminal_modes() == session.modes
    assert session.text.count("\x1b[?25l") == session.text.count("\x1b[?25h") == 1


@UNIX
def test_eval_draws_in_place_on_a_terminal(folder):
    with on_terminal("eval", "squared", "--checkpoint", "random", "--episodes", "1", "--render",
                     "ansi", "--fps", "100") as session:
        session.read_until(". . . . . 1 . . . . .", "mean return")
        assert session.code == 0
    assert session.text.count("\x1b[?25l") == session.text.count("\x1b[?25h") == 1


# ---- signals -------------------------------------------------------------------------------------

@UNIX
def test_ctrl_c_on_a_terminal_saves_and_restores(folder):
    with on_terminal("train", "cartpole", "--total-timesteps", "1000000000", "--log-interval",
                     "0.05", "--summary-json", "s.json", "--target-return", "None") as session:
        session.read_until("steps/s")
        assert session.terminal_modes() == session.modes      # it does not take the keyboard
        session.type("\x03")
        text = session.read_until("to play it: ", "\n")
    assert session.code == cli.INTERRUPTED
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    assert text.index("\x1b[?25h") < text.index("stopped: cartpole")
    summary = json.loads((folder / "s.json").read_text())
    assert summary["stopped"]
    assert Path(summary["checkpoint"], "weights.safetensors").is_file()
    assert Path(summary["checkpoint"]).name in text


@UNIX
def test_a_second_ctrl_c_stops_at_once(folder):
    # An iteration of minutes.
    with on_terminal("train", "cartpole", "--num-envs", "256", "--horizon", "64", "--epochs",
                     "100000", "--summary-json", "s.json") as session:
        session.read_until("waiting for the first iteration")
        time.sleep(0.5)
        session.type("\x03")
        time.sleep(0.5)
        assert session.process.poll() is None
        session.type("\x03")
        began = time.monotonic()
        text = session.read_until("nothing was saved")
    # Python ends itself by the signal if that hit code run from a string, as some imports do; to a
    # shell both are 130.
    assert session.code in (cli.INTERRUPTED, -signal.SIGINT)
    assert time.monotonic() - began < 5
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert "Traceback" not in text
    assert not (folder / "s.json").exists()
    assert list((folder / "checkpoints").iterdir()) == []


@UNIX
@pytest.mark.parametrize("unbuffered", ["", "1"])       # at once, or all together in the end
@pytest.mark.parametrize("args", [
    ["list"], ["eval", "--help"],
    ["train", "cartpole", "--plain", "--target-return", "None", "--log-interval", "0.1"]],
    ids=lambda args: args[0])
def test_it_ends_quietly_when_nobody_reads_any_more(folder, args, unbuffered):
    process = subprocess.Popen([*PROGRAM, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**os.environ, "PYTHONUNBUFFERED": unbuffered})
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(30) == cli.CLOSED


@UNIX
def test_another_pipe_that_is_closed_is_told(folder, run, monkeypatch):
    def broken(*_):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(cli, "list_environments", broken)
    ours, theirs = os.pipe()
    with open(theirs, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert run("list") == (cli.REFUSED, "", "puffer-cy: [Errno 32] Broken pipe\n")
        os.close(ours)
        assert run("list") == (cli.CLOSED, "", "")


@UNIX
def test_sigterm_without_a_terminal(folder):
    process = subprocess.Popen(
        [*PROGRAM, "train", "cartpole", "--total-timesteps", "1000000000", "--target-return",
         "None"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == cli.INTERRUPTED
    assert err == ""
    assert first.startswith("env=cartpole steps=")
    assert "\x1b" not in first + out
    assert "\nstopped: cartpole" in f"\n{out}"
    assert len(list((folder / "checkpoints").iterdir())) == 1


class Session:
    """The program on a pseudo-terminal of 80 x 24, as its controlling terminal."""

    def __init__(self, *args):
        import fcntl
        import struct
        import termios

        self.ours, theirs = os.openpty()
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        self.text = ""
        self.modes = self.terminal_modes()
        environ = {**os.environ, "TERM": "xterm-256color", "PYTHONUTF8": "1"}
        for name in ("NO_COLOR", "COLUMNS", "LINES"):
            environ.pop(name, None)
        self.process = subprocess.Popen(
            [*PROGRAM, *args], stdin=theirs, stdout=theirs, stderr=theirs, env=environ,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(theirs)

    def terminal_modes(self):
        import termios

        return termios.tcgetattr(self.ours)

    def type(self, keys):
        os.write(self.ours, keys.encode())

    def read_until(self, *words):
        """All that was written, once each of `words` has come after the one before."""
        deadline = time.monotonic() + 40
        at = len(self.text)
        os.set_blocking(self.ours, False)
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):       # nothing there, or all gone
                self.text += os.read(self.ours, 4096).decode(errors="replace")
            if re.search(".*".join(map(re.escape, words)), self.text[at:], re.DOTALL):
                return self.text
            time.sleep(0.005)
        raise AssertionError(f"{words} did not come, but {self.text[-500:]!r}")

    @property
    def code(self):
        return self.process.wait(10)


@contextlib.contextmanager
def on_terminal(*args):
    session = Session(*args)
    try:
        yield session
        session.process.wait(10)
    finally:
        session.process.kill()
        session.process.wait()
        os.close(session.ours)
