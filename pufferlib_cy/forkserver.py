"""A process that forks workers: ``context="forkserver"`` of the processes backend.

A fresh interpreter, without threads, imports once what every worker needs; each worker is a copy of
it, made in milliseconds. Unlike that of `multiprocessing` it serves one vector environment only and
ends with it, and its workers with it, whatever happens to the caller. The caller talks to workers
over their own sockets; from the server it learns how they ended, and through it it signals them.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle

from pufferlib_cy import processes

PARENT_SECONDS = 0.25         # how often the server looks whether its caller lives


class ForkServer:
    """The server, as its caller sees it."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        self.process = processes.interpreter(
            f"from pufferlib_cy.forkserver import serve; serve({theirs.fileno()}, {os.getpid()})",
            theirs.fileno())
        theirs.close()
        self._count = 0
        self._codes: dict[int, int] = {}      # of the workers that have ended, by their number

    def fork(self, socket: int, descriptor: int) -> Served:
        """A copy that becomes a worker with this socket and this memory, as soon as it can."""
        self._count += 1
        with contextlib.suppress(OSError):    # a server that has ended: `code` says so
            self._connection.send(("fork", self._count))
            for handle in (socket, descriptor):
                send_handle(self._connection, handle, self.process.pid)
        return Served(self, self._count)

    def code(self, number: int) -> int | None:
        """A worker's exit code, or minus the signal that ended it; None while it runs. Without the
        server, that of the server: its workers end soon after it."""
        with contextlib.suppress(OSError, EOFError):
            while number not in self._codes and self._connection.poll():
                ended, code = self._connection.recv()
                self._codes[ended] = code
        return self._codes.get(number, self.process.poll())

    def signal(self, how: str, number: int) -> None:
        """Terminate or kill a worker, as `how` says."""
        with contextlib.suppress(OSError):
            self._connection.send((how, number))

    def stop(self) -> None:
        """End the server, and with it all workers."""
        self._connection.close()
        processes.await_end([self.process], processes.LEAVE_SECONDS)
        self.process.kill()
        self.process.wait()


class Served:
    """A worker that the server has forked: a `processes.Process`."""

    def __init__(self, server: ForkServer, number: int) -> None:
        self._server, self._number = server, number
        self.pid = server.process.pid         # who is asked to signal it

    def poll(self) -> int | None:
        return self._server.code(self._number)

    def terminate(self) -> None:
        self._server.signal("terminate", self._number)

    def kill(self) -> None:
        self._server.signal("kill", self._number)


def serve(socket: int, parent: int) -> None:
    """What the server's interpreter runs: fork, signal and tell, until the caller is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    connection, server = Connection(socket), os.getpid()
    bell, ringer = os.pipe()                  # is rung when a worker has ended
    os.set_blocking(bell, False)
    os.set_blocking(ringer, False)
    signal.set_wakeup_fd(ringer)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, processes.Forked] = {}

    def become_worker(own: int, descriptor: int) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for other in (bell, ringer):
            os.close(other)
        connection.close()
        processes.spawned(own, descriptor, server)

    def obey(what: str, number: int) -> None:
        if what == "fork":
            handles = [recv_handle(connection) for _ in range(2)]
            children[number] = processes.Forked(lambda: become_worker(*handles))
            for handle in handles:
                os.close(handle)
        elif number in children:
            getattr(children[number], what)()

    try:
        while os.getppid() == parent:
            select.select([connection.fileno(), bell], [], [], PARENT_SECONDS)
            with contextlib.suppress(BlockingIOError):
                os.read(bell, 4096)
            while connection.poll():
                obey(*connection.recv())
            for number, child in list(children.items()):
                if (code := child.poll()) is not None:
                    del children[number]
                    connection.send((number, code))
    except (EOFError, OSError):               # the caller has closed its end
        pass
    finally:
        for child in children.values():
            child.kill()
        processes.await_end(list(children.values()), processes.LEAVE_SECONDS)
