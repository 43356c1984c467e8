"""The flags of the command line: what each command takes, and the help that teaches it."""

import io
import json
import re
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro

from pufferlib_cy import make
from pufferlib_cy.arguments import parse_arguments

if TYPE_CHECKING:
    from pufferlib_cy.train import TrainConfig

T = TypeVar("T")
HELP = {"-h", "--help"}
MOST_FPS = 1000
MOST_SCALE = 10
Env = tyro.conf.Positional[Annotated[str, tyro.conf.arg(
    metavar="ENV", help="An environment's name (see puffer-cy list), or path/to/NAME.pyx.",
    help_behavior_hint="")]]
EnvKwargs = Annotated[
    dict[str, Any],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*", metavar="NAME=VALUE", instance_from_str=parse_arguments,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda given: [f"{k}={json.dumps(v)}" for k, v in given.items()]),
    tyro.conf.arg(help="Arguments of the environment's constructor, such as frameskip=4 "
                       "two_player=true.", help_behavior_hint=lambda default:
                  f"(default: {default})" if default else "")]
SummaryJson = Annotated[Path | None, tyro.conf.arg(
    metavar="FILE", help="Write the result there as one JSON object when the command ends.",
    help_behavior_hint="")]

TRAIN = """\
Train a policy with PPO until the environment is solved or the steps are used up.
Ctrl-C finishes the iteration, saves a checkpoint and stops; a second Ctrl-C stops at once.

Every setting is a flag. What counts, first to last: flags, environment variables such as
PUFFER_NUM_ENVS=64, the --config file, the environment's own file, and last the defaults.
"puffer-cy train ENV --help" shows what would count for ENV now.

examples:
  puffer-cy train cartpole
  puffer-cy train squared --num-envs 4096 --total-timesteps 5000000 --seed 3
  puffer-cy train cartpole --plain --summary-json summary.json | tee log.txt"""

EVAL = """\
Play whole episodes with the policy of a checkpoint and print mean return and length. With --render,
watch the first of them: in the terminal (ansi), in a window (human), or later in a file (gif, mp4).
"--checkpoint random" takes random actions, to look at an environment before training on it.

examples:
  puffer-cy eval cartpole --checkpoint checkpoints/NAME
  puffer-cy eval cartpole --checkpoint checkpoints/NAME --episodes 1000 --no-deterministic
  puffer-cy eval squared --checkpoint checkpoints/NAME --render gif --out squared.gif
  puffer-cy eval cartpole --checkpoint checkpoints/NAME --render gif --out small.gif \
    --max-frames 100 --every 3 --scale 0.5
  puffer-cy eval pong --checkpoint random --episodes 1 --render ansi"""

PLAY = """\
Play an environment yourself, with the keyboard in the terminal. Games go on in their own time, or
with every key if they take turns. Digits are the actions; arrows and wasd are those called up,
down, left and right. r starts again, q quits.

examples:
  puffer-cy play squared
  puffer-cy play breakout --fps 10
  puffer-cy play snake --env-kwargs num_snakes=1 width=38 height=16 num_food=20"""

BENCH = """\
Step an environment with random actions, without a policy, in the ways that make sense on this
machine, and say which is best, why, and what backend "auto" takes: threads beside one thread for
native environments, worker processes for Python environments. The ways take turns, round by round;
the figures are medians of the rounds. Run it on an idle machine, and expect a few percent of noise
all the same.

examples:
  puffer-cy bench cartpole
  puffer-cy bench CartPole-v1 --num-envs 8 64
  puffer-cy bench squared --num-envs 8 1024 --num-workers 2 3 4 --rounds 9"""

NEW_ENV = """\
Write a small commented environment to start from: NAME.pyx, its training settings NAME.toml, and
test_NAME.py, in this folder.

examples:
  puffer-cy new-env my_game
  puffer-cy train ./my_game.pyx"""

BUILD = """\
Compile an environment and print where the result is. Commands that take an environment do this by
themselves; by hand it shows compile errors early. Unchanged files come from the cache.

examples:
  puffer-cy build my_game.pyx
  puffer-cy build my_game.pyx --checked"""

CHECK = """\
Play an environment with random actions and tell what is wrong with it: what it writes where it
should not, NaN, observations outside their space, and whatever makes a difference that should make
none: playing again, by several threads, alone. Exit code 1 if something is wrong.

examples:
  puffer-cy check ./my_game.pyx
  puffer-cy check squared --steps 10000"""


@dataclass(frozen=True)
class EvalFlags:
    """Of `puffer-cy eval`."""

    env: Env

    checkpoint: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The checkpoint's directory; puffer-cy train prints it. Or "random": random actions."""

    env_kwargs: EnvKwargs = field(default_factory=dict)
    """Over those of the checkpoint."""

    episodes: int = 100
    """Episodes to play."""

    seed: int = 1
    """Seeds the environments, and the actions if they are drawn."""

    deterministic: bool = True
    """Take the most probable action, or else draw actions."""

    device: str = "cpu"
    """Torch device of the policy."""

    render: Annotated[Literal["ansi", "human", "gif", "mp4"] | None,
                      tyro.conf.arg(help_behavior_hint="")] = None
    """Watch the first environment's episode: in the terminal, in a window, or in the file --out."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """The file for --render gif (NAME.gif) or mp4 (NAME.mp4)."""

    fps: Annotated[float | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Steps per second that are shown. Without it: the environment's own rate, or 4 if it takes
    turns. A GIF has 50 at most."""

    max_frames: int = 1000
    """Pictures that are shown at most."""

    every: int = 1
    """Show every second (2), third (3), ... step only, as fast as all would be shown: a smaller
    file."""

    scale: float = 1.0
    """Size of the pictures in a file, as a multiple of what the environment draws."""

    summary_json: SummaryJson = None


@dataclass(frozen=True)
class PlayFlags:
    """Of `puffer-cy play`."""

    env: Env

    env_kwargs: EnvKwargs = field(default_factory=dict)

    fps: Annotated[float | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Steps per second. Without it: the environment's own rate, or a step for every key if it
    takes turns."""

    seed: Annotated[int | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Seeds the environment. Without it: another game every time."""


@dataclass(frozen=True)
class BenchFlags:
    """Of `puffer-cy bench`."""

    env: Env

    env_kwargs: EnvKwargs = field(default_factory=dict)

    num_envs: Annotated[tuple[int, ...], tyro.conf.arg(help_behavior_hint="")] = ()
    """Numbers of environments to measure. Without it: 64, 1024 and 4096; of Python environments 8
    and 64."""

    num_workers: Annotated[tuple[int, ...], tyro.conf.arg(help_behavior_hint="")] = ()
    """Numbers of threads, or for Python environments of processes, to measure. Without it: 2, 4,
    8, ... up to the cores there are."""

    rounds: int = 5
    """Rounds of measurements."""

    seconds: float = 0.1
    """Seconds that each measurement takes."""

    seed: int = 1
    """Seeds the environments and the actions."""

    summary_json: SummaryJson = None


@dataclass(frozen=True)
class NewEnvFlags:
    """Of `puffer-cy new-env`."""

    name: tyro.conf.Positional[Annotated[str, tyro.conf.arg(
        metavar="NAME", help="A lower-case identifier, such as my_game.", help_behavior_hint="")]]


@dataclass(frozen=True)
class BuildFlags:
    """Of `puffer-cy build`."""

    file: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(
        metavar="FILE.pyx", help="The environment's source.", help_behavior_hint="")]]

    checked: tyro.conf.FlagCreatePairsOff[bool] = False
    """Look at everything that the environment writes, at every step."""

    native: tyro.conf.FlagCreatePairsOff[bool] = False
    """Use this machine's own instructions."""


@dataclass(frozen=True)
class CheckFlags:
    """Of `puffer-cy check`."""

    env: Env

    env_kwargs: EnvKwargs = field(default_factory=dict)

    steps: int = 2000
    """Steps of five environments, in each of the ways they are played."""

    seed: int = 0
    """Seeds the environments and the actions."""


@dataclass(frozen=True)
class TrainFlags:
    """Of `puffer-cy train`, beside the settings of the run."""

    env: Env = ""

    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """TOML file of settings, one "num_envs = 64" a line."""

    plain: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print a line every second instead of drawing the dashboard."""

    summary_json: SummaryJson = None

    tensorboard: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Write every report there for TensorBoard."""


def eval_flags(args: Sequence[str]) -> EvalFlags:
    """The flags of `puffer-cy eval`; ValueError if they make no sense."""
    flags = parse(EvalFlags, "eval", EVAL, args)
    if flags.render in ("gif", "mp4"):
        ending = f".{flags.render}"
        if flags.out is None or flags.out.suffix != ending:
            raise ValueError(f"--render {flags.render} needs --out NAME{ending}"
                             f"{'' if flags.out is None else f', not {flags.out}'}")
    elif flags.out is not None:
        raise ValueError(f"--out {flags.out}: say what to write there, --render gif or --render "
                         "mp4")
    check_fps(flags.fps)
    for flag, count in (("--max-frames", flags.max_frames), ("--every", flags.every)):
        if count < 1:
            raise ValueError(f"{flag} {count}: expected at least 1")
    if not 0.0 < flags.scale <= MOST_SCALE:
        raise ValueError(f"--scale {flags.scale:g}: expected more than 0, and {MOST_SCALE} at most")
    if flags.scale != 1.0 and flags.out is None:
        raise ValueError(f"--scale {flags.scale:g}: only for --render gif and --render mp4")
    return flags


def play_flags(args: Sequence[str]) -> PlayFlags:
    """The flags of `puffer-cy play`; ValueError if they make no sense."""
    flags = parse(PlayFlags, "play", PLAY, args)
    check_fps(flags.fps)
    return flags


def check_fps(fps: float | None) -> None:
    """ValueError for a rate that cannot be."""
    if fps is not None and not 0.0 < fps <= MOST_FPS:
        raise ValueError(f"--fps {fps:g}: expected more than 0, and {MOST_FPS} at most")


def new_env_flags(args: Sequence[str]) -> NewEnvFlags:
    """The flags of `puffer-cy new-env`; ValueError if they make no sense."""
    return parse(NewEnvFlags, "new-env", NEW_ENV, args)


def build_flags(args: Sequence[str]) -> BuildFlags:
    """The flags of `puffer-cy build`; ValueError if they make no sense."""
    return parse(BuildFlags, "build", BUILD, args)


def check_flags(args: Sequence[str]) -> CheckFlags:
    """The flags of `puffer-cy check`; ValueError if they make no sense."""
    flags = parse(CheckFlags, "check", CHECK, args)
    if flags.steps < 1:
        raise ValueError(f"--steps {flags.steps}: expected at least 1")
    return flags


def bench_flags(args: Sequence[str]) -> BenchFlags:
    """The flags of `puffer-cy bench`; ValueError if they make no sense."""
    flags = parse(BenchFlags, "bench", BENCH, args)
    if flags.rounds < 1 or not flags.seconds > 0:
        raise ValueError(f"--rounds {flags.rounds} and --seconds {flags.seconds:g}: expected at "
                         "least 1, and more than 0")
    return flags


def train_flags(args: Sequence[str]) -> tuple[TrainFlags, "TrainConfig"]:
    """The flags of `puffer-cy train` and the settings of the run, from all their sources.

    Raises ValueError if they make no sense.
    """
    from pufferlib_cy.train.config import TrainConfig, load_config

    @dataclass(frozen=True)
    class Settings(TrainConfig):
        env: tyro.conf.Suppress[str]          # the positional argument stands for it
        env_kwargs: EnvKwargs = field(default_factory=dict)

    @dataclass(frozen=True)
    class Flags(TrainFlags):
        training: Settings = Settings("")

    def parse_over(config: TrainConfig, args: Sequence[str]) -> tuple[TrainFlags, TrainConfig]:
        """Parse with `config` as the flags' defaults."""
        settings = {field.name: getattr(config, field.name) for field in fields(TrainConfig)}
        flags = parse(Flags, "train", TRAIN, args, Flags(training=Settings(**settings)))
        env_kwargs = config.env_kwargs | flags.training.env_kwargs
        return flags, TrainConfig(**vars(flags.training) | {"env": flags.env,
                                                            "env_kwargs": env_kwargs})

    # Only the flags tell which files the other defaults come from: so they are read twice.
    flags, given = parse_over(TrainConfig(""), [arg for arg in args if arg not in HELP])
    loaded = load_config(flags.env, file=flags.config)
    if flags.env:                             # an unknown one is told before anything else
        make(flags.env, env_kwargs=loaded.env_kwargs | given.env_kwargs).close()
    elif not HELP & set(args):
        raise ValueError("name an environment: puffer-cy train ENV (see puffer-cy list)")
    flags, config = parse_over(loaded, args)
    config.check()
    return flags, config


def parse(kind: type[T], command: str, description: str, args: Sequence[str],
          default: Any = tyro.MISSING_NONPROP) -> T:
    """The dataclass `kind` from arguments. Exits after --help; ValueError if they make no sense."""
    if HELP & set(args):
        print(description, end="\n\n")      # tyro would fill its lines
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            parsed: T = tyro.cli(kind, prog=f"puffer-cy {command}", description="", args=args,
                                 default=default, config=(tyro.conf.OmitArgPrefixes,))
            return parsed
    except SystemExit as stop:
        if not stop.code:
            raise
    raise ValueError(f"{one_line(complaint.getvalue())} (see puffer-cy {command} --help)")


def one_line(box: str) -> str:
    """What tyro's box of several lines says: the message above its first rule, and the flags that
    the message is about or that are suggested."""
    lines = [line[2:].rstrip(" │╮╯") for line in re.sub(r"\x1b\[[\d;]*m", "", box).splitlines()]
    rules = [i for i, line in enumerate(lines) if line and set(line) <= set("─-")] or [len(lines)]
    first = 1
    if rules[0] == 1:                         # where there is no Unicode the title is underlined
        first, rules = 2, rules[1:]
    message = " ".join(line for line in lines[first:rules[0]] if not line.startswith(" "))
    about, suggested = (
        [line.split()[0] for line in part if re.match(r" {4}\S", line)]
        for part in (lines[first:rules[0]], lines[rules[0]:rules[-1]]))
    if about:                                 # "Missing from puffer-cy train:"
        message += f" {', '.join(about)}"
    elif message.startswith("Unrecognized") and suggested:
        message += f"; did you mean {' or '.join(suggested[:3])}?"
    return message.removeprefix("Error parsing training: ").rstrip(".")
