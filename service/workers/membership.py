"""The worker's side of the backplane: the supervisor's calls, its own notices, and its cluster-wide methods."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
from typing import TYPE_CHECKING

from service.workers import totals
from service.workers.backplane import Backplane, BackplaneClosed, BackplaneFailed, Message
from service.workers.child import CONTROL
from service.workers.ordered_changes import CHANGE_S
from service.workers.shared_methods import SharedMethods

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from service.health.readiness import Readiness
    from service.observability.exposition import Family
    from service.rpc.methods import Method
    from service.server.listeners import Listeners
    from service.signals import Stopping
    from service.status import ServerStatus
    from service.workers.child import WorkerConfig

_log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_FINAL_METRICS_S = 1.0
"""Time to send the supervisor the last metrics."""


class Membership:
    """A worker's membership in a server: its connection to the supervisor. Belongs to one event loop."""

    def __init__(self, worker_config: WorkerConfig) -> None:
        self.number = worker_config.number
        self.listens_at_once = worker_config.listens_at_once
        self._connection = socket.socket(fileno=worker_config.backplane_fd)
        self._connections = socket.socket(fileno=worker_config.connections_fd)
        self._connections.setblocking(False)
        self._adopting: set[asyncio.Task[None]] = set()
        self._backplane = Backplane(max_body_bytes=worker_config.max_body_bytes)
        self._shared = SharedMethods(self._backplane, worker_config.number)
        self._families: Callable[[], Iterable[Family]] = tuple
        self._tasks: list[asyncio.Task[None]] = []
        self._backplane.on("ping", _pong)
        self._backplane.on("families", self._tell_families)

    def share(self, methods: Iterable[Method]) -> tuple[Method, ...]:
        """Return the method table with some rows replaced by cluster-wide ones, which answer for all workers."""
        return self._shared.wrap(methods)

    def serve(self, families: Callable[[], Iterable[Family]], rescan: Callable[[], Awaitable[None]]) -> None:
        """Let the supervisor ask for this worker's metrics and for a rescan of the repository. ``families`` is called
        in other threads.
        """
        self._families = families

        async def run(_: Message) -> None:
            await rescan()

        self._backplane.on("rescan", run)

    def obey(self, stopping: Stopping) -> None:
        """Pass the supervisor's stop notices to ``stopping``."""

        async def stop(_: Message) -> None:
            stopping.ask()

        async def hurry(_: Message) -> None:
            stopping.hurry()

        async def abort(_: Message) -> None:
            stopping.insist()

        self._backplane.on("stop", stop)
        self._backplane.on("hurry", hurry)
        self._backplane.on("abort", abort)

    async def open(self, readiness: Readiness) -> None:
        """Connect to the supervisor, and tell it from now on when readiness changes."""
        await self._backplane.open(self._connection)
        self._backplane.notify("began")
        self._tasks = [
            asyncio.create_task(self._tell_readiness(readiness), name="readiness for the supervisor"),
            asyncio.create_task(self._outlive_no_supervisor(), name="end of the supervisor"),
        ]

    def take_connections(self, listeners: Listeners) -> None:
        """Let the supervisor hand over connections that it has accepted, until `refuse_connections`."""
        if not listeners.adopt_connections:
            return
        asyncio.get_running_loop().add_reader(self._connections, self._take, listeners)
        self._backplane.notify("takes connections")

    def refuse_connections(self) -> None:
        """Take no more connections; those still on their way are closed."""
        asyncio.get_running_loop().remove_reader(self._connections)
        self._backplane.notify("takes no connections")
        self._connections.close()

    async def join(self) -> None:
        """Report that the first scan of the models is over; return when this worker has made all earlier changes."""
        await self._backplane.call("join", timeout_s=2 * CHANGE_S)

    def up(self, status: ServerStatus) -> None:
        """Report that this worker's start is complete, and how it stands."""
        self._backplane.notify("up", status.to_dict())

    def leave(self) -> None:
        """Report that this worker takes no new calls from now on."""
        self._backplane.notify("leaving")

    async def close(self) -> None:
        """Send the last metrics and disconnect."""
        tasks = [*self._tasks, *self._adopting]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(BackplaneClosed, BackplaneFailed, TimeoutError):
            page = totals.dump(self._families())
            await self._backplane.call("final metrics", body=page, timeout_s=_FINAL_METRICS_S)
        await self._backplane.close()

    def _take(self, listeners: Listeners) -> None:
        while True:
            try:
                kind, descriptors, _, _ = socket.recv_fds(self._connections, 1, 1)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                _log.error("connections cannot be taken", extra={"reason": str(error)})
                kind = b""
            if not kind:
                asyncio.get_running_loop().remove_reader(self._connections)
                return
            if not descriptors:
                # The descriptor was lost: this process had too many files open.
                _log.error("connection lost: too many open files")
                self._gone()
                continue
            task = asyncio.ensure_future(self._adopt(listeners, socket.socket(fileno=descriptors[0]), kind == CONTROL))
            self._adopting.add(task)
            task.add_done_callback(self._adopting.discard)

    async def _adopt(self, listeners: Listeners, connection: socket.socket, is_control: bool) -> None:
        connection.setblocking(False)
        try:
            await listeners.adopt(connection, is_control=is_control, on_gone=self._gone)
        except (OSError, asyncio.CancelledError) as error:
            # The TLS handshake failed, most likely.
            _log.debug("connection not established", extra={"reason": str(error)})
            connection.close()
            self._gone()

    def _gone(self) -> None:
        self._backplane.notify("connection gone")

    async def _tell_families(self, _: Message) -> Message:
        return Message(body=await asyncio.to_thread(lambda: totals.dump(self._families())))

    async def _tell_readiness(self, readiness: Readiness) -> None:
        changes = readiness.subscribe()
        told: bool | None = None
        try:
            while True:
                is_ready = readiness.server_is_ready()
                if is_ready != told:
                    told = is_ready
                    self._backplane.notify("ready", {"ready": is_ready})
                await readiness.wait_for_change(changes)
        finally:
            readiness.unsubscribe(changes)

    async def _outlive_no_supervisor(self) -> None:
        await self._backplane.closed.wait()
        # Without its supervisor this worker exits at once, as a server of one process would that is killed.
        _log.error("the supervisor is gone, its worker leaves at once")
        logging.shutdown()
        os._exit(1)


async def _pong(_: Message) -> None:
    pass


def belong_to_parent() -> None:
    """Have Linux kill this process when its parent ends, even if this one hangs; and ignore SIGTTOU, so that a
    background process may write to the terminal.
    """
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
