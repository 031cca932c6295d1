"""Batches writes: data go to the transports once per iteration of the event loop, or at once on request."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from service.transport.http2.sender import Sender


class Flushing:
    """The connections of one engine that have data to send."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: list[Sender] = []

    def later(self, sender: Sender) -> None:
        """Flush ``sender`` in the loop's next iteration, or in the next call of `now`."""
        if not self._due:
            self._loop.call_soon(self.now)
        self._due.append(sender)

    def now(self) -> None:
        """Flush all senders that are due."""
        due, self._due = self._due, []
        for sender in due:
            sender.flush()
