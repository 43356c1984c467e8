"""Worker processes: starting, asking, watching and ending them, and the memory they share.

What a step needs, rows, flags and the words that sides sleep on, is in shared memory and handled by
`pufferlib_cy._engine.Engine` in every process. All else goes over one socket per worker: requests
from the caller, answered in turn, and mail from the worker about a shard that it has just stepped.
Each is announced by a counter in shared memory first, so that nobody looks at a socket for nothing.

Nothing here has a name in the file system, and no process is started but the workers (and their
`pufferlib_cy.forkserver`, if so wished): whatever dies, and however, leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import io
import math
import mmap
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from multiprocessing.spawn import get_executable
from pathlib import Path
from typing import Any, NoReturn, Protocol

import cloudpickle
import gymnasium
import numpy as np
from numpy.typing import DTypeLike, NDArray

from pufferlib_cy import forkserver, pictures
from pufferlib_cy._core import NativeEnv
from pufferlib_cy._emulation import PythonEnvs
from pufferlib_cy._engine import Engine, watch_parent
from pufferlib_cy.arrays import CACHE_LINE

CONTEXTS = ("spawn", "fork", "forkserver")
START_SECONDS = 60.0          # for a worker to make its environments
LEAVE_SECONDS = 0.4           # for workers that were asked to end, before they are terminated,
TERMINATE_SECONDS = 0.2       # and then before they are killed
POLL_SECONDS = 0.05           # between two looks at the workers while waiting for an answer
SMALL_LETTER = 4096           # bytes that an empty socket holds, on every system

# One thread per worker for what would otherwise start one per core.
THREAD_LIMITS = {name: "1" for name in (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS")}

# Environments [first, last) of the vector, and how many each NativeEnv holds.
Construct = Callable[[int, int], tuple[list[NativeEnv], list[int]]]
Layout = Mapping[str, tuple[tuple[int, ...], DTypeLike]]


class WorkerDied(RuntimeError):  # noqa: N818  (a name that says what happened)
    """A worker process ended by itself or was killed; the vector environment is closed."""


class WorkerTraceback(Exception):  # noqa: N818
    """The traceback of an exception, as text from the process where it was raised."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


# ---- shared memory -------------------------------------------------------------------------------


def nbytes(layout: Layout) -> int:
    """Bytes that `place` needs."""
    return sum(_whole_lines(_size(shape, dtype)) for shape, dtype in layout.values())


def _size(shape: Sequence[int], dtype: DTypeLike) -> int:
    return int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize


def _whole_lines(size: int) -> int:
    return -(-size // CACHE_LINE) * CACHE_LINE


def allocate(size: int) -> io.FileIO:
    """`size` bytes of zeros that have no name anywhere, as a file that is closed when it is let go
    of, whatever interrupts those who use it.

    Raises MemoryError, before anything is taken, if that is more than there is.
    """
    free = available_memory()
    if size > free:
        raise MemoryError(
            f"the rows need {_in_words(size)} of shared memory, but only {_in_words(free)} of "
            "memory are free: use fewer environments, smaller observations, or a shorter rollout")
    with uninterrupted():
        if hasattr(os, "memfd_create"):
            file = io.FileIO(os.memfd_create("pufferlib_cy", os.MFD_CLOEXEC), "r+b")
        else:
            file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (the caller closes it)
        file.truncate(max(size, 1))
    return file


def place(descriptor: int, layout: Layout) -> dict[str, NDArray[Any]]:
    """Arrays in the memory of a descriptor, each on a cache line; they keep it alive."""
    memory = mmap.mmap(descriptor, max(nbytes(layout), 1))
    arrays = {}
    offset = 0
    for name, (shape, dtype) in layout.items():
        size = _size(shape, dtype)
        raw = np.frombuffer(memory, np.uint8, size, offset)
        arrays[name] = raw.view(np.dtype(dtype)).reshape(shape)
        offset += _whole_lines(size)
    return arrays


def available_memory() -> int:
    """Bytes that this process may still take: of the machine, and of its control group if any."""
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder, limit, used in _control_groups():
        with contextlib.suppress(OSError, ValueError):              # no limit reads "max"
            free = min(free, int((folder / limit).read_text()) - int((folder / used).read_text()))
    return max(free, 0)


def _control_groups() -> Iterator[tuple[Path, str, str]]:
    """Where the memory limits of this process's control group, and of those above it, are: folder,
    file of the limit, file of what is used. Both versions of control groups."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        root, files = Path("/sys/fs/cgroup"), ("memory.max", "memory.current")
        if controllers == "memory":
            root, files = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        elif controllers:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder == root or root in folder.parents:
                yield folder, *files


def _in_words(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e8 else f"{size / 1e6:.3g} MB"


# ---- what a worker is told -----------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """What the engines of all processes have in common, and whose this is: see `Engine`."""

    worker: int                       # 0 is the caller
    firsts: Sequence[int]             # where each process's environments begin, and behind all E
    arrays: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Job:
    """What a worker needs to begin."""

    worker: int
    firsts: Sequence[int]
    layout: Layout
    construct: Construct
    batch_size: int
    autoreset: int
    cores: int
    kind: Mapping[str, Any]           # `NativeEnv.kind` of the caller's environments
    registered: Sequence[bytes] = ()  # see `registered`


def registered() -> list[bytes]:
    """What the caller's program has registered with Gymnasium, for interpreters that do not run it.

    Each is pickled for itself: one that cannot be sent is of no harm, unless it is asked for.
    """
    specs = []
    for spec in gymnasium.registry.values():
        if not str(spec.entry_point).startswith(("gymnasium.envs", "pufferlib_cy")):
            with contextlib.suppress(Exception):
                specs.append(cloudpickle.dumps(spec))
    return specs


def register(specs: Sequence[bytes]) -> None:
    """Register what the caller has, and this process has not."""
    for letter in specs:
        with contextlib.suppress(Exception):
            spec = pickle.loads(letter)
            gymnasium.registry.setdefault(spec.id, spec)


# ---- the worker's side ---------------------------------------------------------------------------


class _Worker:
    """A worker process's environments, and what it can be asked."""

    def __init__(self, connection: Connection, descriptor: int, job: Job) -> None:
        self.connection = connection
        register(job.registered)
        environments, counts = job.construct(*job.firsts[job.worker:job.worker + 2])
        for env in environments:
            env.check_kind(job.kind)
        share = Share(job.worker, job.firsts, place(descriptor, job.layout))
        os.close(descriptor)
        self.engine = Engine(environments, counts, helpers=0, batch_size=job.batch_size,
                             autoreset=job.autoreset, cores=job.cores, share=share)
        share_rewards(self.engine, share)
        self.allocated: dict[int, NDArray[Any]] = {}   # by the number that the caller gave

    def serve(self) -> None:
        """Step, answer and tell, until asked to leave."""
        while True:
            shard = self.engine.attend()
            if shard is not None:
                self.tell(shard)
                continue
            name, arguments = self.read()
            if name == "listen":          # a long letter follows: nothing is told before it is read
                self.connection.send_bytes(cloudpickle.dumps(("answer", None)))
                name, arguments = self.read()
            if name == "leave":
                return
            try:
                letter = cloudpickle.dumps(("answer", getattr(self, name)(*arguments)))
            except Exception as error:
                letter = cloudpickle.dumps(("refusal", *portable(error)))
            self.connection.send_bytes(letter)

    def read(self) -> tuple[str, tuple[Any, ...]]:
        """The caller's next letter."""
        request: tuple[str, tuple[Any, ...]] = pickle.loads(self.connection.recv_bytes())
        return request

    def tell(self, shard: int) -> None:
        """Mail about a shard."""
        try:
            infos = self.engine.news_of(shard)
            letter = _dumps(("infos", shard, infos),
                            "infos: one cannot be sent from its worker process (leave it out by a "
                            'wrapper, or use backend="serial")')
        except BaseException as error:
            letter = cloudpickle.dumps(("error", *portable(error)))
        self.connection.send_bytes(letter)

    # What the caller asks for, by name.

    def prepare(self, seeds: Sequence[int | None] | None, options: Mapping[str, Any] | None,
                selected: NDArray[np.bool_] | None) -> None:
        if seeds is not None:
            self.engine.seed(seeds)
        self.engine.prepare(options, selected)

    def allocate(self, number: int, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        descriptor = recv_handle(self.connection)
        try:
            self.allocated[number] = place(descriptor, {"rows": (shape, dtype)})["rows"]
        finally:
            os.close(descriptor)

    def attach(self, numbers: Mapping[str, int]) -> None:
        self.engine.follow({name: self.allocated[i] for name, i in numbers.items()})

    def state_sizes(self) -> list[int]:
        return state_sizes(self.engine.envs)

    def states(self) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
        return states_of(self.engine.envs)

    def set_states(self, states: NDArray[np.uint8], rngs: NDArray[np.uint64]) -> None:
        set_states(self.engine.envs, states, rngs)

    def draw(self, how: str, environment: int, observation: NDArray[Any]) -> Any:
        return draw(self.engine.envs, how, environment, observation)

    def apply(self, do: Callable[..., Any], each: Sequence[tuple[Any, ...] | None]) -> list[Any]:
        return apply(self.engine.envs, do, each)


def portable(error: BaseException) -> tuple[BaseException, BaseException | None, str]:
    """An exception that can be sent, its cause, and its traceback as text."""
    text = "".join(traceback.format_exception(error))
    if not isinstance(error, Exception):      # it would end the caller as if it were its own
        error = RuntimeError(f"{type(error).__name__}: {error}")
    cause = error.__cause__
    if not _is_portable(error):
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return error, cause if _is_portable(cause) else None, text


def _is_portable(thing: Any) -> bool:
    try:
        pickle.loads(cloudpickle.dumps(thing))
    except Exception:
        return False
    return True


def work(connection: Connection, descriptor: int, parent: int, job: Job | None = None) -> None:
    """A worker process's life; without a job it waits for that to be sent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)          # Ctrl-C is the caller's business
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    threading.Thread(target=watch_parent, args=(parent,), daemon=True).start()
    try:
        worker = _Worker(connection, descriptor, job or pickle.loads(connection.recv_bytes()))
    except Exception as error:
        connection.send_bytes(cloudpickle.dumps(("refusal", *portable(error))))
        return
    connection.send_bytes(cloudpickle.dumps(("answer", None)))
    worker.serve()
    worker.engine.stop()


def spawned(socket: int, descriptor: int, parent: int) -> None:
    """What a spawned worker's interpreter runs."""
    work(Connection(socket), descriptor, parent)


# ---- environments by their index in the vector ---------------------------------------------------


def draw(envs: Sequence[NativeEnv], how: str, environment: int, observation: NDArray[Any]) -> Any:
    """What `pictures.render` or `pictures.ansi`, as `how` says, gives for an environment."""
    for env in envs:
        if environment < env.num_envs:
            return getattr(pictures, how)(env, environment, observation)
        environment -= env.num_envs
    raise AssertionError("the counts of the environments do not add up")


def python_of(envs: Sequence[NativeEnv]) -> list[Any]:
    """The Python environments, in their order."""
    return [env for each in envs if isinstance(each, PythonEnvs)
            for env in each.envs[:each.num_envs]]


def apply(envs: Sequence[NativeEnv], do: Callable[..., Any],
          each: Sequence[tuple[Any, ...] | None]) -> list[Any]:
    """What ``do(env, *arguments)`` gives for every Python environment, each with its own arguments;
    those whose arguments are None are left out."""
    return [do(env, *arguments) for env, arguments in zip(python_of(envs), each, strict=True)
            if arguments is not None]


def get_attr(env: Any, name: str) -> Any:
    """An attribute of a Python environment, or of what it wraps."""
    return env.get_wrapper_attr(name) if isinstance(env, gymnasium.Env) else getattr(env, name)


def set_attr(env: Any, name: str, value: Any) -> None:
    """Set an attribute of a Python environment, where it is defined."""
    if isinstance(env, gymnasium.Env):
        env.set_wrapper_attr(name, value)
    else:
        setattr(env, name, value)


def invoke(env: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What a method of a Python environment, or of what it wraps, returns."""
    return get_attr(env, name)(*args, **kwargs)


def is_wrapped(env: Any, wrapper_class: type) -> bool:
    """Whether a Python environment is in such a wrapper."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, wrapper_class):
            return True
        env = env.env
    return False


def call(env: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What a method of a Python environment returns; or its attribute, if it is no method."""
    value = get_attr(env, name)
    return value(*args, **kwargs) if callable(value) else value


def close_python(envs: Sequence[NativeEnv]) -> None:
    """Close those that no engine will close."""
    for env in envs:
        if isinstance(env, PythonEnvs):
            with contextlib.suppress(Exception):     # the error that led here is the one to tell
                env.close()


def share_rewards(engine: Engine, share: Share) -> None:
    """Have Python environments write their exact rewards into shared memory."""
    first = share.firsts[share.worker]
    for env in engine.envs:
        if isinstance(env, PythonEnvs):
            env.use_exact_rewards(share.arrays["exact_rewards"][first:first + env.num_envs])
            first += env.num_envs


def state_sizes(envs: Sequence[NativeEnv]) -> list[int]:
    """Bytes of each environment's state; of those in lanes, of each NativeEnv's."""
    return [size for env in envs for size in (
        [env.state_array.size] if env.lanes else [env.state_size] * env.num_envs)]


def states_of(envs: Sequence[NativeEnv]) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """The states of all environments in turn as bytes, and their random streams (E, 2): copies."""
    return (np.concatenate([env.state_array.ravel() for env in envs]),
            np.concatenate([env.rng_array for env in envs]))


def set_states(envs: Sequence[NativeEnv], states: NDArray[np.uint8],
               rngs: NDArray[np.uint64]) -> None:
    """Write what `states_of` gave."""
    byte = environment = 0
    for env in envs:
        size = env.state_array.size
        env.state_array.ravel()[:] = states[byte:byte + size]
        env.rng_array[:] = rngs[environment:environment + env.num_envs]
        byte, environment = byte + size, environment + env.num_envs


# ---- the caller's side ---------------------------------------------------------------------------


class Process(Protocol):
    """A child process: `subprocess.Popen`, or `Forked`."""

    pid: int

    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class Forked:
    """A child process that runs a function and ends."""

    def __init__(self, target: Callable[[], None]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.environ.update(THREAD_LIMITS)
                target()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        if self._code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:         # somebody else has waited for it
                pid, status = self.pid, 0
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def interpreter(code: str, *descriptors: int) -> subprocess.Popen[bytes]:
    """A fresh interpreter that runs the code and inherits the descriptors. The user's main module
    is not run again: what a worker needs of it is sent by value."""
    script = f"import sys; sys.path[:] = {sys.path!r}; {code}"
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return subprocess.Popen([os.fsdecode(get_executable()), *flags, "-c", script],
                            stdin=subprocess.DEVNULL, pass_fds=descriptors,
                            env={**os.environ, **THREAD_LIMITS})


def spawn(socket: int, descriptor: int) -> subprocess.Popen[bytes]:
    """A fresh interpreter that becomes a worker."""
    return interpreter(f"from pufferlib_cy.processes import spawned; spawned({socket}, "
                       f"{descriptor}, {os.getpid()})", socket, descriptor)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the block is done; children that are started in it begin deaf to it.

    The system may hand the signal to another thread, which is not deaf; but Python's handler runs
    in the main thread, and only takes note.
    """
    noted: list[tuple[Any, ...]] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    handler = signal.getsignal(signal.SIGINT)
    mine = callable(handler) and threading.current_thread() is threading.main_thread()
    # The mask changes only while the handler takes note: no interrupt can come in between.
    try:
        if mine:
            signal.signal(signal.SIGINT, lambda *event: noted.append(event))
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if mine:
            signal.signal(signal.SIGINT, handler)
        if noted and callable(handler):
            handler(*noted[0])


class Workers:
    """The worker processes of one vector environment, as its caller sees them.

    Any fault, and any exception that leaves a conversation unfinished, ends all of them: after
    that the engine refuses further use and says why.
    """

    def __init__(self, engine: Engine, job: Job, timeout: float) -> None:
        self.engine, self.firsts = engine, job.firsts
        self.timeout = timeout if timeout >= 0 else math.inf
        self._owner = os.getpid()
        self._processes: list[Process] = []
        self._server: forkserver.ForkServer | None = None
        self._connections: list[Connection] = []
        self._read = [0] * (len(job.firsts) - 2)       # mail read, per worker,
        self._heard = [-math.inf] * len(self._read)    # and when, by time.monotonic
        self._infos: dict[int, list[Any]] = {}         # by shard, see `Engine.take_infos`
        self._allocated: dict[int, tuple[int, NDArray[Any]]] = {}     # (number, rows) by address
        self._allocations = 0
        self._replies: list[tuple[str, list[Any]]] | None = None      # see `collect`

    def start(self, job: Job, descriptor: int, context: str) -> None:
        """Start all, and wait until they have made their environments."""
        if context != "fork":
            job = replace(job, registered=registered())
        try:
            for worker in range(1, len(job.firsts) - 1):
                self._start(replace(job, worker=worker), descriptor, context)
            if context != "fork":
                for worker, connection in enumerate(self._connections, 1):
                    letter = _dumps(replace(job, worker=worker),
                                    "env: what makes the environments cannot be sent to a worker "
                                    f'process, with context="{context}"')
                    with self._unbroken(worker):
                        connection.send_bytes(letter)
            for worker in range(1, len(self._connections) + 1):
                self._answer(worker, START_SECONDS)
        except BaseException:
            self.stop()
            raise
        self.engine.workers = self

    def _start(self, job: Job, descriptor: int, context: str) -> None:
        caller = os.getpid()
        with uninterrupted():
            ours, theirs = Pipe()
            self._connections.append(ours)
            if context == "spawn":
                process: Process = spawn(theirs.fileno(), descriptor)
            elif context == "forkserver":
                self._server = self._server or forkserver.ForkServer()
                process = self._server.fork(theirs.fileno(), descriptor)
            else:
                process = Forked(lambda: work(theirs, descriptor, caller, job))
            self._processes.append(process)
            theirs.close()

    def __len__(self) -> int:
        return len(self._read)

    # ---- conversation ----------------------------------------------------------------------------

    def ask(self, worker: int, name: str, *arguments: Any, handle: int | None = None) -> Any:
        """Have a worker do something by name (see `_Worker`) and return what that returns.

        What it raises is raised here. `handle`: a file descriptor to go with the letter.
        """
        with self._finishing():
            self._send(worker, _request(name, arguments), handle)
            reply = self._reply(worker)
        return self._value(worker, *reply)

    def ask_all(self, name: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Ask all workers at once, each with its own arguments."""
        letters = _requests(name, arguments)
        with self._finishing():
            self._send_all(letters)
            replies = self._take_replies()
        return self._values(replies)

    def send_all(self, name: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        """The first half of `ask_all`."""
        self._send_all(_requests(name, arguments))

    def _send_all(self, letters: Sequence[bytes]) -> None:
        self._replies = []
        with self._finishing():
            for worker, letter in enumerate(letters, 1):
                self._send(worker, letter)

    def collect(self, timeout: float | None = None) -> list[Any]:
        """The second half of `ask_all`. After `timeout` seconds it raises TimeoutError, and may be
        called again."""
        return self._values(self._take_replies(timeout))

    @property
    def asked(self) -> bool:
        """True between `send_all` and the end of `collect`."""
        return self._replies is not None

    def _send(self, worker: int, letter: bytes, handle: int | None = None) -> None:
        self.engine.check_open()
        with self._unbroken(worker):
            self.engine.announce(worker)
            if len(letter) > SMALL_LETTER:
                # It may have to wait for the worker, and that for us to read its mail: so have the
                # worker do nothing but read first.
                self._connections[worker - 1].send_bytes(_request("listen", ()))
                self._answer(worker)
            self._connections[worker - 1].send_bytes(letter)
            if handle is not None:
                send_handle(self._connections[worker - 1], handle,
                            self._processes[worker - 1].pid)

    def _answer(self, worker: int, patience: float = 0.0) -> Any:
        """Wait for a worker's answer and return it; raise a refusal."""
        return self._value(worker, *self._reply(worker, patience))

    def _reply(self, worker: int, patience: float = 0.0,
               until: float | None = None) -> tuple[str, list[Any]]:
        """Wait for a worker's answer or refusal; mail that comes before it is read."""
        while True:
            kind, *content = self._receive(worker, patience, until)
            if kind in ("answer", "refusal"):
                return kind, content
            self._file(worker, kind, content)

    def _take_replies(self, timeout: float | None = None) -> list[tuple[str, list[Any]]]:
        """What each worker answers: see `collect`. All are read before one is looked at: what a
        refusal left unread would answer what is asked next."""
        assert self._replies is not None
        until = None if timeout is None else time.monotonic() + timeout
        with self._finishing():
            while len(self._replies) < len(self):
                self._replies.append(self._reply(len(self._replies) + 1, until=until))
        replies, self._replies = self._replies, None
        return replies

    def _values(self, replies: Sequence[tuple[str, list[Any]]]) -> list[Any]:
        return [self._value(worker, *reply) for worker, reply in enumerate(replies, 1)]

    def _value(self, worker: int, kind: str, content: list[Any]) -> Any:
        if kind == "refusal":
            raise self._told(worker, *content)
        return content[0]

    def read(self) -> None:
        """Read all mail that is announced."""
        with self._finishing():
            for worker in range(1, len(self) + 1):
                while self._read[worker - 1] != self.engine.announced(worker):
                    kind, *content = self._receive(worker)
                    self._file(worker, kind, content)

    def _file(self, worker: int, kind: str, content: list[Any]) -> None:
        """Take note of a worker's mail."""
        self._read[worker - 1] = (self._read[worker - 1] + 1) % 2**32
        self._heard[worker - 1] = time.monotonic()
        if kind == "error":
            self._fail(self._told(worker, *content))
        shard, entries = content
        self._infos[shard] = entries

    def infos_of(self, first_shard: int, last_shard: int) -> list[Any]:
        """The infos of some shards' last step, which are then forgotten: see
        `Engine.take_infos`."""
        return [entry for shard in range(first_shard, last_shard)
                for entry in self._infos.pop(shard, ())]

    def forget(self) -> None:
        """Infos of steps that nobody received."""
        self._infos.clear()

    def _receive(self, worker: int, patience: float = 0.0, until: float | None = None) -> Any:
        """The worker's next message, within `timeout` or `patience`, whichever is longer.

        TimeoutError is the end of the workers; or none, if it comes because it is later than
        `until`.
        """
        connection, limit = self._connections[worker - 1], max(self.timeout, patience)
        deadline = time.monotonic() + limit
        with self._unbroken(worker):
            while not connection.poll(POLL_SECONDS if until is None else
                                      min(POLL_SECONDS, max(until - time.monotonic(), 0.0))):
                self._check_alive()
                if until is not None and time.monotonic() >= until:
                    raise TimeoutError(f"{self._name(worker)} has not answered yet")
                if time.monotonic() > deadline:
                    self._fail(TimeoutError(f"{self._name(worker)} did not answer within "
                                            f"{limit:g} s"))
            return pickle.loads(connection.recv_bytes())

    @contextlib.contextmanager
    def _unbroken(self, worker: int) -> Iterator[None]:
        """Half a message is worse than none: if it is all that was sent or read, end everything."""
        with self._finishing():
            try:
                yield
            except TimeoutError:           # an OSError too, but none of the connection's
                raise
            except (OSError, EOFError):
                self._check_alive(LEAVE_SECONDS)
                self._fail(WorkerDied(f"{self._name(worker)} has closed its connection"))

    @contextlib.contextmanager
    def _finishing(self) -> Iterator[None]:
        """Whatever leaves the block unfinished, such as Ctrl-C, ends everything; but for a
        TimeoutError, after which it can be gone on with, or everything has been ended."""
        try:
            yield
        except TimeoutError:
            raise
        except BaseException as error:
            self.stop(f"{type(error).__name__} while it was talking to a worker process")
            raise

    # ---- faults ----------------------------------------------------------------------------------

    def look(self, timeout: float) -> None:
        """Raise if a worker has died, or if it has been busy for longer than the limits; before we
        heard of it last, it may have waited until we read."""
        self._check_alive()
        seconds, workers = self.engine.late()
        limit = max(self.timeout, timeout)
        if seconds > limit:
            now = time.monotonic()
            late = [worker for worker in sorted(set(workers))
                    if worker and now - self._heard[worker - 1] > limit]
            if late:
                self._fail(TimeoutError(f"{', '.join(map(self._name, late))}: no step within "
                                        f"{limit:g} s"))

    def _check_alive(self, patience: float = 0.0) -> None:
        deadline = time.monotonic() + patience
        while True:
            for worker, process in enumerate(self._processes, 1):
                if (code := process.poll()) is not None:
                    self._fail(WorkerDied(f"{self._name(worker)} {_ending(code)}"))
            if time.monotonic() >= deadline:
                return
            time.sleep(0.001)

    def _fail(self, error: BaseException) -> NoReturn:
        self.stop(str(error).splitlines()[0])
        raise error

    def _told(self, worker: int, error: BaseException, cause: BaseException | None,
              text: str) -> BaseException:
        """An exception from a worker, as it is raised here: with where, and the traceback there."""
        where = f"in {self._name(worker)}:\n{text.rstrip()}"
        if type(error).__str__ is BaseException.__str__ and len(error.args) == 1:
            error.args = (f"{error}\n\n{where}",)
            error.__cause__ = cause
        else:
            error.__cause__ = WorkerTraceback(where)
        return error

    def _name(self, worker: int) -> str:
        first, last = self.firsts[worker:worker + 2]
        return f"worker process {worker} (environments {first} to {last - 1})"

    def stop(self, reason: str | None = None) -> None:
        """End all workers, whatever they are doing; may be called at any time, and twice."""
        if os.getpid() != self._owner:                 # a copy of the caller: not its children
            return
        with uninterrupted():
            self.engine.refuse(reason)
            self.engine.workers = self._replies = None
            processes, self._processes = self._processes, []
            for worker, connection in enumerate(self._connections[:len(processes)], 1):
                with contextlib.suppress(OSError):
                    os.set_blocking(connection.fileno(), False)    # it may be full
                    self.engine.announce(worker)
                    connection.send_bytes(cloudpickle.dumps(("leave", ())))
            await_end(processes, LEAVE_SECONDS)
            for process in processes:
                process.terminate()
            await_end(processes, TERMINATE_SECONDS)
            for process in processes:
                process.kill()
            await_end(processes, LEAVE_SECONDS)
            server, self._server = self._server, None
            if server is not None:
                server.stop()
            for connection in self._connections:
                connection.close()
            self.engine.stop()

    # ---- rollout storage -------------------------------------------------------------------------

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array of zeros that all workers see."""
        layout = {"rows": (shape, dtype)}
        self._allocations += 1
        with allocate(nbytes(layout)) as memory:
            rows = place(memory.fileno(), layout)["rows"]
            for worker in range(1, len(self) + 1):
                self.ask(worker, "allocate", self._allocations, shape, dtype,
                         handle=memory.fileno())
        self._allocated[rows.ctypes.data] = self._allocations, rows
        return rows

    def attach(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Have the workers write their rows into arrays that `allocate` gave."""
        numbers = {}
        for name, array in arrays.items():
            number, rows = self._allocated.get(array.ctypes.data, (0, None))
            if rows is None or rows.shape != array.shape or rows.dtype != array.dtype:
                raise ValueError(f"{name}: worker processes can only write to memory that they "
                                 "share: take the array from vec.allocate(shape, dtype)")
            numbers[name] = number
        self.ask_all("attach", [(numbers,)] * len(self))


def _request(name: str, arguments: tuple[Any, ...]) -> bytes:
    return _dumps((name, arguments), f"{name}: arguments cannot be sent to a worker process")


def _requests(name: str, arguments: Sequence[tuple[Any, ...]]) -> list[bytes]:
    """A letter to each worker. All are written before one is sent: what was not asked of all would
    be answered by some."""
    return [_request(name, own) for own in arguments]


def _dumps(thing: Any, complaint: str) -> bytes:
    """Something of the user's as bytes; a TypeError with the complaint if that cannot be."""
    try:
        letter: bytes = cloudpickle.dumps(thing)
    except Exception as error:
        raise TypeError(f"{complaint}: {error}") from error
    return letter


def _ending(code: int) -> str:
    """How a process ended, from its exit code."""
    if code >= 0:
        return f"has exited with code {code}"
    name = signal.Signals(-code).name
    return f"was ended by {name}" + (": out of memory?" if name == "SIGKILL" else "")


def await_end(processes: Sequence[Process], seconds: float) -> None:
    """Wait until all have ended, at most so long."""
    deadline = time.monotonic() + seconds
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        time.sleep(0.001)
