"""Who is let in while the server stops: running requests finish, new ones are told to go elsewhere.

A transport that just stops cuts off whatever is already on its way to it; those callers see CANCELLED, which says
nothing and which nobody retries. Here they get UNAVAILABLE, the code that clients do retry.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from service.errors import ServerStopping

if TYPE_CHECKING:
    from collections.abc import Iterator


class Admission:
    """Counts the requests that run. Belongs to one event loop."""

    def __init__(self) -> None:
        self._running = 0
        self._is_closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Hold a place while the block runs; raises ServerStopping once closed."""
        if self._is_closed:
            raise ServerStopping("Server exiting")
        self._running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    def close(self) -> None:
        """Let nobody in any more."""
        self._is_closed = True

    async def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until nothing runs; False if something still does after ``timeout_s`` seconds."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True
