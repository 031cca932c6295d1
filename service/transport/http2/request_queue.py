"""The messages of a streaming request, queued between the connection and the handler that reads them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from service.wire.messages import MessageError, Packed
from service.wire.statuses import CUT_OFF

if TYPE_CHECKING:
    from service.errors import Status
    from service.transport.http2.stream import Stream


class RequestQueue:
    """An async iterator with one reader. Messages stay in the buffer as received until they are taken, so that the
    stream's receive window bounds the memory, however small or compressed they are.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._reader = stream.reader()
        self._has_ended = False
        self._waiter: asyncio.Future[None] | None = None

    def drained(self) -> None:
        """Do nothing: a handler that waits for the client to read waits in `Stream.send`."""

    def arrived(self) -> None:
        """Wake the reader: data have arrived or the requests have ended."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def end_of_requests(self) -> None:
        """Note that the request stream has ended."""
        self._has_ended = True
        self.arrived()

    def __aiter__(self) -> RequestQueue:
        return self

    async def __anext__(self) -> bytes:
        while True:
            try:
                message = self._reader.next()
                if isinstance(message, Packed):
                    message = await self._stream.connection.shared.runner.unpacked(message)
            except MessageError as error:
                await self._fail(error.status)
            else:
                if message is not None:
                    self._stream.consumed()
                    return message
            if self._has_ended:
                if self._reader.buffered_bytes:
                    await self._fail(CUT_OFF)
                raise StopAsyncIteration
            self._waiter = self._stream.connection.loop.create_future()
            await self._waiter

    async def _fail(self, status: Status) -> None:
        """End the call with ``status``; this cancels the handler, which is the caller."""
        self._stream.fail(status)
        await asyncio.sleep(0)
