"""Admission control for a graceful stop: running requests finish, new ones are refused with UNAVAILABLE.

A transport that just stops cuts off requests that are already on their way; their callers see CANCELLED, which gives
no reason and which few clients retry. Here they get UNAVAILABLE, which clients do retry. While other requests still
run, a new one is refused at once. Shortly before the end refusals are held back until the transport has told
clients to use other connections: clients refused earlier would retry on the same one, and be cut off again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NoReturn

from service.errors import ServerStopping

_PATIENT_S = 1.0
"""Callers whose deadline is nearer than this, in seconds, are refused without being held."""


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
        """Whether new requests are refused."""
        return self._is_closed

    def begin(self) -> None:
        """Count a request as running until `end`; raises ServerStopping once closed."""
        if self._is_closed:
            raise _stopping()
        self._running += 1

    def try_begin(self) -> bool:
        """Count a request as running until `end`; returns False once closed."""
        if self._is_closed:
            return False
        self._running += 1
        return True

    def end(self, count: int = 1) -> None:
        """Count ``count`` requests as finished."""
        self._running -= count
        if not self._running and self._idle is not None:
            self._idle.set()

    def close(self) -> None:
        """Refuse new requests from now on."""
        self._is_closed = True

    async def refuse(self, time_remaining_s: float | None) -> NoReturn:
        """Raise ServerStopping; after `hold`, callers whose deadline allows it wait for `dismiss` first."""
        if self._is_holding and (time_remaining_s is None or time_remaining_s >= _PATIENT_S):
            await self._is_dismissed.wait()
        raise _stopping()

    def hold(self) -> None:
        """Hold back refusals from now on, until `dismiss`."""
        self._is_holding = True

    def dismiss(self) -> None:
        """Send the refusals that were held back, and refuse at once from now on."""
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
