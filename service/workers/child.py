"""One worker as its supervisor sees it: its process, the backplane to it, and its phase."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
import sys
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from service.workers.backplane import Backplane, BackplaneClosed, BackplaneFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.workers.backplane import Handler

_log = logging.getLogger(__name__)

_PING_EVERY_S = 5.0
_HUNG_AFTER_S = 60.0
"""A worker whose event loop does not answer for this long will not recover, and blocks its callers; it is killed."""


MAIN, CONTROL = b"m", b"c"
"""Which of the two addresses a connection belongs to."""


class Phase(Enum):
    """The phases of a worker's life."""

    STARTING = "starting"
    SERVING = "serving"
    """The worker has scanned the models once, and has made all earlier ordered changes."""
    LEAVING = "leaving"
    """The worker takes no new calls."""
    GONE = "gone"


@dataclass(frozen=True)
class WorkerConfig:
    """A worker's start parameters, passed as JSON on its standard input."""

    number: int
    config: Mapping[str, Any]
    """Settings of the whole server, with the ports that were really bound."""
    listens_at_once: bool
    """Whether to listen before the models are loaded: some worker must answer that the server is live and not ready."""
    backplane_fd: int
    connections_fd: int
    """The socket on which accepted connections arrive: a byte for each, `MAIN` or `CONTROL`, with a descriptor."""
    log_lock_fd: int
    max_body_bytes: int

    @classmethod
    def from_json(cls, text: str) -> WorkerConfig:
        """Parse the output of ``json.dumps(vars(worker_config))``."""
        return cls(**json.loads(text))


class Child:
    """Starts a worker process and communicates with it until it is gone."""

    def __init__(self, number: int, *, max_body_bytes: int) -> None:
        self.number = number
        self.phase = Phase.STARTING
        self.is_ready = False
        """The worker's answer to ServerReady."""
        self.listens = False
        """Whether the worker listens already, possibly before any worker serves."""
        self.up_at_s: float | None = None
        """When the worker came up, on the event loop's clock."""
        self.takes_connections = False
        """Whether accepted connections can be handed to the worker."""
        self.connections = 0
        """How many connections handed to the worker are open."""
        self.backplane = Backplane(max_body_bytes=max_body_bytes)
        self._max_body_bytes = max_body_bytes
        self._handing: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The id of the process; 0 if it has not been started."""
        return self._process.pid if self._process is not None else 0

    @property
    def is_connected(self) -> bool:
        """Whether calls can be sent to the worker."""
        return self._process is not None and not self.backplane.closed.is_set()

    def on(self, name: str, handler: Handler) -> None:
        """Register a handler, as `Backplane.on` describes."""
        self.backplane.on(name, handler)

    async def start(self, config: Mapping[str, Any], *, listens_at_once: bool, log_lock_fd: int) -> None:
        """Start the process in a new process group, so that Ctrl-C on the terminal reaches only the supervisor."""
        self.listens = listens_at_once
        ours, theirs = socket.socketpair()
        # A separate socket: connections do not wait behind large messages, nor messages behind connections.
        self._handing, taking = socket.socketpair()
        self._handing.setblocking(False)
        with theirs, taking:
            worker_config = WorkerConfig(
                self.number,
                config,
                listens_at_once,
                theirs.fileno(),
                taking.fileno(),
                log_lock_fd,
                self._max_body_bytes,
            )
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "service.cli.commands.worker", str(self.number)),
                stdin=asyncio.subprocess.PIPE,
                pass_fds=(theirs.fileno(), taking.fileno(), log_lock_fd),
                process_group=0,
            )
        await self.backplane.open(ours)
        if self._process.stdin is not None:
            self._process.stdin.write(json.dumps(vars(worker_config)).encode())
            with contextlib.suppress(OSError):  # It is gone already, as `wait` will tell.
                await self._process.stdin.drain()
            self._process.stdin.close()

    def began(self) -> None:
        """Note that the worker answers now; from here on it is killed if it stops answering."""
        if self._watch is None:
            self._watch = asyncio.create_task(self._watch_over(), name=f"watch worker {self.number}")

    def serves(self) -> None:
        """Note that the worker has made all earlier changes, and serves from now on."""
        if self.phase is Phase.STARTING:
            self.phase = Phase.SERVING
            self.listens = True

    def is_up(self) -> None:
        """Note that the worker's start is complete."""
        self.up_at_s = asyncio.get_running_loop().time()

    def hand_over(self, connection: socket.socket, *, is_control: bool) -> bool:
        """Give the worker a connection; return False if it cannot take one now."""
        if self._handing is None:
            return False
        try:
            socket.send_fds(self._handing, [CONTROL if is_control else MAIN], [connection.fileno()])
        except OSError:  # The worker's queue is full, or it is gone.
            return False
        self.connections += 1
        return True

    async def wait(self) -> int:
        """Wait until the process ends; return its exit code, or the signal that ended it as a negative number."""
        if self._process is None:
            raise RuntimeError("waited for before it was started")
        code = await self._process.wait()
        self.phase = Phase.GONE
        self.is_ready = self.takes_connections = False
        if self._handing is not None:
            self._handing.close()
        if self._watch is not None:
            self._watch.cancel()
        await self.backplane.close()
        return code

    def stop(self) -> None:
        """Ask the worker to drain and exit."""
        self.backplane.notify("stop")

    def hurry(self) -> None:
        """Ask the worker to end its lame-duck time and drain now."""
        self.backplane.notify("hurry")

    def abort(self) -> None:
        """Ask the worker to exit now, without waiting for running calls."""
        self.backplane.notify("abort")

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)

    async def _watch_over(self) -> None:
        with contextlib.suppress(BackplaneClosed, BackplaneFailed):
            while True:
                await asyncio.sleep(_PING_EVERY_S)
                try:
                    await self.backplane.call("ping", timeout_s=_HUNG_AFTER_S)
                except TimeoutError:
                    self.kill()  # before the log line, whose lock it may hold
                    _log.error(
                        "worker does not answer, it is killed",
                        extra={"worker": self.number, "pid": self.pid, "after_s": _HUNG_AFTER_S},
                    )
                    return
