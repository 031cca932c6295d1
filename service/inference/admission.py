"""Who is let in while the server stops: running requests finish, new ones are told to go elsewhere.

A transport that just stops cuts off whatever is already on its way to it; those callers see CANCELLED, which says
nothing and which few retry. Here they get UNAVAILABLE, the code that clients do retry. While others still run they get
it at once; in the last moment they are held, and get it when the transport has told its clients to use other
connections: told before, they would try again on this one, and be cut off with what they sent last.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NoReturn

from service.errors import ServerStopping

_PATIENT_S = 1.0
"""Who has less time than this is not kept waiting for an answer that is no."""


class Admission:
    """Counts the requests that run. Belongs to one event loop."""

    def __init__(self) -> None:
        self._running = 0
        self._is_closed = False
        self._is_holding = False
        self._idle: asyncio.Event | None = None
        self._is_dismissed = asyncio.Event()

    @property
    def is_closed(self) -> bool:
        """Whether newcomers are refused."""
        return self._is_closed

    def begin(self) -> None:
        """Take a place, until `end`; raises ServerStopping once closed."""
        if self._is_closed:
            raise _stopping()
        self._running += 1

    def try_begin(self) -> bool:
        """Take a place, until `end`; False once closed."""
        if self._is_closed:
            return False
        self._running += 1
        return True

    def end(self, count: int = 1) -> None:
        """Give the place back, or so many places."""
        self._running -= count
        if not self._running and self._idle is not None:
            self._idle.set()

    def close(self) -> None:
        """Let nobody in any more."""
        self._is_closed = True

    async def refuse(self, time_remaining_s: float | None) -> NoReturn:
        """Raise ServerStopping; between `hold` and `dismiss`, callers with time for it wait for the latter."""
        if self._is_holding and (time_remaining_s is None or time_remaining_s >= _PATIENT_S):
            await self._is_dismissed.wait()
        raise _stopping()

    def hold(self) -> None:
        """Keep those who are refused from now on waiting, until `dismiss`."""
        self._is_holding = True

    def dismiss(self) -> None:
        """Refuse at once, and whoever was kept waiting."""
        self._is_dismissed.set()

    async def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until nothing runs; False if something still does after ``timeout_s`` seconds."""
        if self._running:
            self._idle = asyncio.Event()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), timeout_s)
            self._idle = None
        return not self._running


def _stopping() -> ServerStopping:
    return ServerStopping("Server exiting")
