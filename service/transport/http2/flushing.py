"""When what is written goes out: at the end of a tick of the loop, or at once where its work is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from service.transport.http2.sender import Sender


class Flushing:
    """The connections of one engine that have something to send."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: list[Sender] = []

    def later(self, sender: Sender) -> None:
        """At the end of this tick, or when somebody asks for it."""
        if not self._due:
            self._loop.call_soon(self.now)
        self._due.append(sender)

    def now(self) -> None:
        """All of them."""
        due, self._due = self._due, []
        for sender in due:
            sender.flush()
