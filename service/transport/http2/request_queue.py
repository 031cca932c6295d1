"""The messages of a streaming request, between the connection that cuts them out and the handler that reads them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from service.transport.http2.stream import Stream


class RequestQueue:
    """An async iterator with one reader. What it holds is bounded by the stream's receive window."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._messages: deque[bytes] = deque()
        self._has_ended = False
        self._waiter: asyncio.Future[None] | None = None
        self.bytes = 0
        """In messages that nobody has taken."""

    def put(self, message: bytes) -> None:
        """One more."""
        self._messages.append(message)
        self.bytes += len(message)
        self._wake()

    def end(self) -> None:
        """No more will come."""
        self._has_ended = True
        self._wake()

    def __aiter__(self) -> RequestQueue:
        return self

    async def __anext__(self) -> bytes:
        while not self._messages:
            if self._has_ended:
                raise StopAsyncIteration
            self._waiter = self._stream.connection.loop.create_future()
            await self._waiter
        message = self._messages.popleft()
        self.bytes -= len(message)
        self._stream.consumed(len(message))
        return message

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
