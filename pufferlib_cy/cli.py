"""The command line `puffer-cy`.

A command is a function here; it takes its arguments, does its work and returns the exit code. What
only one command needs (torch above all) is imported there, so that the others start quickly.

Exit codes: 0 done; 1 training diverged, or `check` found something; 2 the user asked for something
that cannot be; 130 stopped by SIGINT or SIGTERM; 141 nobody reads the output any more, as after
``| head``. One line on stderr says what was wrong, and with PUFFERLIB_CY_TRACEBACK=1 a traceback
where.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import select
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from pufferlib_cy import __version__, envs, make
from pufferlib_cy.build import BuildError

if TYPE_CHECKING:
    from pufferlib_cy.flags import EvalFlags, TrainFlags
    from pufferlib_cy.loggers import Logger
    from pufferlib_cy.train import EvalSummary, Report, TrainConfig, TrainSummary
    from pufferlib_cy.viewers import FirstPictures

DIVERGED = FOUND = 1                               # exit codes
REFUSED, INTERRUPTED, CLOSED = 2, 130, 141
RANDOM = "random"                                  # a checkpoint's name for there being none
NEEDS_EXTRA = 'pip install "pufferlib_cy[train]"'

USAGE = """\
puffer-cy: fast vector environments, trained

usage: puffer-cy COMMAND ...

  train ENV   train a policy on an environment, with a live dashboard
  eval ENV    let a trained policy play, watch it or record it, and tell how it does
  play ENV    play an environment yourself, with the keyboard
  bench ENV   steps per second and latency of the environment alone, per backend
  list        the environments there are, with their spaces

  new-env NAME     write an environment to start from
  build FILE.pyx   compile an environment
  check ENV        play an environment and tell what is wrong with it

  --version   print the version
  --help      this; after a command: its flags

examples:
  puffer-cy list
  puffer-cy train cartpole
  puffer-cy eval cartpole --checkpoint checkpoints/... --episodes 100
  puffer-cy bench cartpole --num-envs 64 4096"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code. `argv` without the program's name."""
    command, *args = (sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        try:
            return run(command, args)
        finally:
            sys.stdout.flush()               # at Python's exit it is too late to say that it failed
    except KeyboardInterrupt:
        print("puffer-cy: stopped at once, nothing was saved", file=sys.stderr)
        return INTERRUPTED
    except BuildError as error:              # several lines: the author's own, and what is wrong
        print(f"puffer-cy: {error}", file=sys.stderr)
        return REFUSED
    except (ValueError, OSError, ImportError) as error:
        if isinstance(error, BrokenPipeError) and is_closed(sys.stdout):
            redirect_to_nowhere(sys.stdout)
            return CLOSED
        if os.environ.get("PUFFERLIB_CY_TRACEBACK") == "1":
            raise
        message = " ".join(str(error).split())
        if isinstance(error, ModuleNotFoundError) and "pufferlib_cy" not in str(error.name):
            message += f"; it comes with {NEEDS_EXTRA}"
        elif isinstance(error, OSError) and error.filename:
            message = f"{error.filename}: {error.strerror}"
        print(f"puffer-cy: {message}", file=sys.stderr)
        return REFUSED


def run(command: str, args: Sequence[str]) -> int:
    """Run a command; returns its exit code, or raises what `main` tells."""
    commands = {"train": train, "eval": evaluate, "play": play, "bench": bench,
                "list": list_environments, "new-env": new_env, "build": build, "check": check}
    if command in commands:
        return commands[command](args)
    if command in ("--help", "-h"):
        print(USAGE)
    elif command == "--version":
        print(f"puffer-cy {__version__}")
    else:
        near = difflib.get_close_matches(command, commands, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else "see puffer-cy --help"
        raise ValueError(f"there is no command {command!r}; {hint}")
    return 0


# ---- commands ------------------------------------------------------------------------------------

def train(args: Sequence[str]) -> int:
    """Train a policy while somebody watches, and say how it went."""
    from pufferlib_cy import flags as parsers

    flags, config = parsers.train_flags(args)
    check_summary_path(flags.summary_json)
    config.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    check_folder("--checkpoint-dir", config.checkpoint_dir)
    from pufferlib_cy.train import ppo

    check_device(config.device)
    seen = 0
    try:
        with ExitStack() as stack:
            should_stop = stack.enter_context(stop_on_signal())
            loggers = [stack.enter_context(logger) for logger in make_loggers(flags, config)]

            def observe(report: Report) -> None:
                nonlocal seen
                # The report at the end may follow the one before without a step between them.
                for logger in loggers if report.steps > seen else ():
                    logger(report)
                seen = report.steps

            summary = ppo.train(config, observe, should_stop=should_stop)
    except ppo.NonFiniteError as error:
        print(f"puffer-cy: {error}", file=sys.stderr)
        return DIVERGED
    print(train_result(summary))
    if flags.summary_json:
        write_summary(flags.summary_json, summary.to_json())
    return INTERRUPTED if should_stop() else 0


def evaluate(args: Sequence[str]) -> int:
    """Play episodes with the policy of a checkpoint, and show one of them."""
    from pufferlib_cy.flags import eval_flags

    flags = eval_flags(args)
    # An unknown one is told before torch is imported.
    make(flags.env, env_kwargs=flags.env_kwargs).close()
    check_summary_path(flags.summary_json)
    if flags.out is not None:
        check_file_path("--out", flags.out)
    from pufferlib_cy import train as training

    check_device(flags.device)
    policy: training.Policy
    if str(flags.checkpoint) == RANDOM:
        policy = training.random_policy(flags.env, flags.env_kwargs).to(flags.device)
        env_kwargs, target_stat, deterministic = flags.env_kwargs, "episode_return", False
    else:
        checkpoint = training.checkpoint.load(flags.checkpoint, flags.env,
                                              env_kwargs=flags.env_kwargs, device=flags.device)
        policy, deterministic = checkpoint.policy, flags.deterministic
        env_kwargs, target_stat = checkpoint.config.env_kwargs, checkpoint.config.target_stat
    with ExitStack() as stack:
        pictures = start_pictures(flags, env_kwargs, stack)
        summary = training.evaluate(
            policy, flags.env, flags.episodes, flags.seed, env_kwargs=env_kwargs,
            deterministic=deterministic, target_stat=target_stat, watch=pictures)
    print(eval_result(flags.env, summary))
    if pictures is not None and flags.out is not None:
        print(f"{flags.out}: {pictures.shown:,} pictures")
    if pictures is not None and pictures.cut:
        print(f"the episode that was shown went on after {pictures.shown:,} pictures; to see more "
              "of it, --max-frames")
    if flags.summary_json:
        write_summary(flags.summary_json, summary.to_json())
    return 0


def play(args: Sequence[str]) -> int:
    """Let a person play an environment."""
    from pufferlib_cy.flags import play_flags

    flags = play_flags(args)
    from pufferlib_cy import play as game

    with (make(flags.env, env_kwargs=flags.env_kwargs, autoreset="disabled",
               seed=flags.seed) as vec,
          stop_on_signal() as should_stop):
        game.play(vec, title=flags.env, fps=flags.fps, seed=flags.seed, should_stop=should_stop)
    return INTERRUPTED if should_stop() else 0


def bench(args: Sequence[str]) -> int:
    """Measure the environment alone, and say which backend to use."""
    from pufferlib_cy.flags import bench_flags

    flags = bench_flags(args)
    check_summary_path(flags.summary_json)
    from rich.console import Console
    from rich.table import Table

    from pufferlib_cy import bench as benchmark
    from pufferlib_cy.auto import available_cores

    console = Console()

    def progress(done: int) -> None:
        if console.is_terminal:               # no spinner: its thread would disturb the figures
            console.print(f"measuring: round {done + 1} of {flags.rounds}", end="\r",
                          highlight=False)

    timings = benchmark.bench(
        flags.env, flags.num_envs or None, flags.num_workers or None, rounds=flags.rounds,
        seconds=flags.seconds, seed=flags.seed, progress=progress, env_kwargs=flags.env_kwargs)
    table = Table("envs", "backend", "workers", "steps/s", "±", "serial", "p50 µs", "p90", "p99",
                  "max", title=f"{flags.env}: one vec.step, medians of {flags.rounds} rounds",
                  box=None, pad_edge=False, title_justify="left")
    for column in table.columns:
        column.no_wrap, column.justify = True, "right"
    table.columns[1].justify = "left"
    for t in timings:
        table.add_row(str(t.num_envs), t.backend, str(t.num_workers), f"{t.sps:,.0f}",
                      f"{t.spread / 2:.0%}", f"{t.speedup:.2f}x",
                      *(f"{us:,.{int(us < 100)}f}"
                        for us in (t.p50_us, t.p90_us, t.p99_us, t.max_us)))
    console.print(table)
    for line in benchmark.advice(timings, available_cores()):
        print(line)
    if flags.summary_json:
        write_summary(flags.summary_json, {
            "env": flags.env, "rounds": flags.rounds,
            "timings": [dataclasses.asdict(t) for t in timings]})
    return 0


def list_environments(args: Sequence[str]) -> int:
    """Print the environments, two lines each."""
    if args and args[0] in ("--help", "-h"):
        print("usage: puffer-cy list\n\nThe environments there are: what they are about, what an "
              "agent sees and does.")
        return 0
    if args:
        raise ValueError(f"list takes no arguments, got {shlex.join(args)}")
    width = max(map(len, envs.REGISTRY)) + 1
    for name in sorted(envs.REGISTRY):
        kind = envs.load(name)
        env = kind()
        # Cython writes the signature before the docstring.
        paragraphs = [p for p in (kind.__doc__ or "").split("\n\n") if not p.startswith(
            f"{kind.__name__}(")]
        print(f"{name:<{width}}{' '.join(paragraphs[0].split()) if paragraphs else ''}")
        seen = env.observation_space
        words = (f"{seen.dtype} {seen.shape}" if seen.shape is not None else
                 f"of {len(env.space_tree.leaves)} parts, {env.space_tree.dtype.itemsize} bytes")
        print(f"{'':<{width}}observation {words}, action {env.action_space}, "
              f"agents {env.agents_per_env}")
    return 0


def new_env(args: Sequence[str]) -> int:
    """Write an environment to start from."""
    from pufferlib_cy import template
    from pufferlib_cy.flags import new_env_flags

    name = new_env_flags(args).name
    for path in template.new_env(name, Path(".")):
        print(f"wrote {path}")
    print(f"next: puffer-cy check ./{name}.pyx, then puffer-cy train ./{name}.pyx")
    return 0


def build(args: Sequence[str]) -> int:
    """Compile an environment."""
    from pufferlib_cy import build as builder
    from pufferlib_cy.flags import build_flags

    flags = build_flags(args)
    print(builder.build(flags.file, checked=flags.checked, native=flags.native))
    return 0


def check(args: Sequence[str]) -> int:
    """Play an environment and tell what is wrong with it."""
    from pufferlib_cy.check import check as find_faults
    from pufferlib_cy.check import how_played
    from pufferlib_cy.flags import check_flags

    flags = check_flags(args)
    findings = find_faults(flags.env, steps=flags.steps, seed=flags.seed,
                           env_kwargs=flags.env_kwargs)
    for finding in findings:
        print(f"{flags.env}: {finding}")
    if findings:
        return FOUND
    print(f"{flags.env}: nothing wrong in {flags.steps:,} steps {how_played(flags.env)}")
    return 0


# ---- the pieces of a command ---------------------------------------------------------------------

def make_loggers(flags: TrainFlags, config: TrainConfig) -> list[Logger]:
    """Who watches the run: the dashboard, or lines where it cannot be shown; and TensorBoard."""
    from rich.console import Console

    from pufferlib_cy import dashboard, loggers

    console = Console()
    watching: list[Logger] = []
    if flags.plain or not dashboard.can_show(console):
        watching.append(loggers.Lines(sys.stdout))
    else:
        watching.append(dashboard.Dashboard(
            f"{config.device} · {config.num_envs:,} environments · Ctrl-C saves and stops",
            console))
    if flags.tensorboard:
        watching.append(loggers.TensorBoard(flags.tensorboard))
    return watching


def train_result(summary: TrainSummary) -> str:
    """What a person wants to know when training has ended."""
    target, evaluation = summary.target_return, summary.evaluation
    if evaluation is not None:
        verdict = "solved" if summary.solved else "trained" if target is None else "not solved"
        wanted = "" if target is None else f" ({'>=' if summary.solved else '<'} {target:g})"
        reached = evaluation.stats[summary.target_stat]
        name = "" if summary.target_stat == "episode_return" else f"{summary.target_stat} "
        achieved = f"reached {name}{reached.mean:.4g}{wanted} over {reached.episodes} episodes"
    else:
        verdict = "stopped"
        achieved = ("has not ended an episode" if summary.episode_return is None else
                    f"reached {summary.episode_return:.1f} in its last training episodes")
    checkpoint = shlex.quote(str(summary.checkpoint))
    return (f"{verdict}: {summary.env} {achieved} after {summary.steps:,} steps in "
            f"{summary.seconds:.1f} s ({summary.sps:,.0f} steps/s)\n"
            f"checkpoint: {checkpoint}\n"
            f"to play it: puffer-cy eval {shlex.quote(summary.env)} --checkpoint {checkpoint}")


def eval_result(env: str, summary: EvalSummary) -> str:
    """How the policy did, in a line."""
    own = "".join(f"; {name} {spread.mean:.4g}" for name, spread in summary.stats.items()
                  if name not in ("episode_return", "episode_length"))
    return (f"{env}: mean return {summary.mean_return:.2f}, standard deviation "
            f"{summary.std_return:.2f}, mean length {summary.mean_length:.1f} over "
            f"{summary.episodes} episodes{own}")


def start_pictures(flags: EvalFlags, env_kwargs: Mapping[str, Any],
                   stack: ExitStack) -> FirstPictures | None:
    """What the evaluation is to be shown to, open until the stack is left; None: to nobody."""
    if flags.render is None:
        return None
    from pufferlib_cy import viewers

    with make(flags.env, env_kwargs=env_kwargs) as vec:
        fps = flags.fps or viewers.default_fps(vec)
    viewer = viewers.open_viewer(flags.render, fps / flags.every, title=flags.env, out=flags.out,
                                 scale=flags.scale)
    return viewers.FirstPictures(stack.enter_context(viewer), flags.max_frames, flags.every)


def is_closed(stream: TextIO) -> bool:
    """Nobody reads any more what is written there."""
    if not hasattr(select, "poll"):          # Windows, which knows no better
        return True
    poll = select.poll()
    poll.register(stream.fileno(), 0)        # errors are told always
    return bool(poll.poll(0))


def redirect_to_nowhere(stream: TextIO) -> None:
    """What is still to be written there is lost, instead of being complained about at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def check_device(name: str) -> None:
    """Raise ValueError if torch cannot compute on the device."""
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:     # unknown; or torch is built without it
        raise ValueError(f"--device {name}: {str(error).splitlines()[0]}") from error


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether SIGINT or SIGTERM has come; a second SIGINT raises
    KeyboardInterrupt. The old handlers are back at the end."""
    came = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came = True

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_summary_path(path: Path | None) -> None:
    """Raise ValueError now if `write_summary` could not write there at the end."""
    if path is not None and (path.is_dir() or not is_special(path)):
        check_file_path("--summary-json", path)


def check_file_path(flag: str, path: Path) -> None:
    """Raise ValueError if no file can be made there."""
    if path.is_dir():
        raise ValueError(f"{flag}: {path} is a directory, expected the name of a file")
    check_folder(flag, path.resolve().parent)


def check_folder(flag: str, folder: Path) -> None:
    """Raise ValueError if no file can be made in the folder."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{flag}: cannot write in {folder}: {error.strerror}") from error


def is_special(path: Path) -> bool:
    """A pipe or a device: can be written to, not replaced."""
    return path.exists() and not path.is_file()


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write one JSON object, whole or not at all. Numbers that JSON has not (NaN) become null."""
    plain = json.loads(json.dumps(summary), parse_constant=lambda name: None)
    text = json.dumps(plain, indent=2) + "\n"
    if is_special(path):
        path.write_text(text, encoding="utf-8")
        return
    target = path.resolve()
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
