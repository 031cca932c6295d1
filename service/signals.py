"""Signal handling of a server: SIGTERM and SIGINT stop it, SIGHUP rescans its models."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

from service.errors import ServerStopping

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

_IMPATIENCE_S = 0.5
"""A second signal within this many seconds is ignored, since supervisors and shells send signals twice."""


class Stopping:
    """A request to stop: `ask` lets the server drain, `insist` cancels the task that created this object."""

    def __init__(
        self, on_asked: Callable[[], None] = lambda: None, *, on_hurried: Callable[[], None] = lambda: None
    ) -> None:
        self._on_asked = on_asked
        self._on_hurried = on_hurried
        self._asked = asyncio.Event()
        self._asked_at_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()

    @property
    def is_asked(self) -> bool:
        """Whether a stop was requested."""
        return self._asked.is_set()

    async def wait(self) -> None:
        """Wait until a stop is requested."""
        await self._asked.wait()

    def ask(self) -> None:
        """Request a stop that lets running calls finish."""
        if not self._asked.is_set():
            self._asked.set()
            self._asked_at_s = self._loop.time()
            self._on_asked()

    def hurry(self) -> None:
        """End the lame-duck time, in which the server still accepts calls before it drains."""
        self._on_hurried()

    def insist(self) -> None:
        """Stop now: cancel the task that created this object."""
        self.ask()
        if self._task is not None:
            self._task.cancel()

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """While the block runs, SIGTERM and SIGINT call `ask`, a second SIGTERM `hurry`, a second Ctrl-C `insist`."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(signum, self._signal, signum)
        try:
            yield
        finally:
            for signum in (signal.SIGTERM, signal.SIGINT):
                self._loop.remove_signal_handler(signum)

    def _signal(self, signum: int) -> None:
        if not self.is_asked:
            self.ask()
        elif self._loop.time() - self._asked_at_s > _IMPATIENCE_S:
            if signum == signal.SIGINT:
                self.insist()
            else:
                self.hurry()


@contextlib.asynccontextmanager
async def rescan_on_hangup(rescan: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Rescan on SIGHUP, as daemons do. With a controlling terminal SIGHUP ends the process, as usual."""
    if _has_terminal() or signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL:
        yield
        return
    rescans: set[asyncio.Task[None]] = set()

    async def run() -> None:
        with contextlib.suppress(ServerStopping):
            await rescan()

    def on_hangup() -> None:
        task = asyncio.ensure_future(run())
        rescans.add(task)
        task.add_done_callback(rescans.discard)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        for task in rescans:
            task.cancel()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
