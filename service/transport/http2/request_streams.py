"""Streams of requests: messages from frames to the handler of a call, with a task (`RequestQueue`) or by callbacks
(`OpenedStream`)."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING

from service.rpc.calls import Call
from service.transport.http2.stream import SEND_AHEAD
from service.wire.messages import MessageError, Packed
from service.wire.statuses import CUT_OFF

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.errors import Status
    from service.rpc.calls import CheckAccess, Observer
    from service.rpc.methods import Opened, OpenStream
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


class OpenedStream:
    """The engine's side of an opened stream, a `service.rpc.methods.Replies`. Requests stay in the buffer as received
    until they are taken, so that the stream's receive window bounds the memory, however small or compressed they are.
    """

    def __init__(
        self,
        stream: Stream,
        method: Opened,
        observer: Observer | None,
        check_access: CheckAccess | None,
    ) -> None:
        self.stream = stream
        self._open = method.open
        self._call = Call(method, stream, observer, check_access)
        # Context variables that observers set apply to the log lines of this call only.
        self._about = contextvars.copy_context()
        self._reader = stream.reader()
        self._taker: OpenStream | None = None
        self._has_ended = False
        self._is_feeding = False
        self._unpacking: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start the call."""
        self.stream.cancel_run = self._cancel
        self._about.run(self._begin)

    def _begin(self) -> None:
        self._call.observe()
        try:
            self._call.check_access()
            self._taker = self._open(self.stream, self)
        except Exception as error:  # noqa: BLE001 - it becomes the call's status
            self.end(error)

    # ---- requests ------------------------------------------------------------------------------------------------

    @property
    def takes_at_once(self) -> bool:
        """Whether the next message can be taken directly from its frame, without waiting or buffering."""
        taker = self._taker
        return (
            taker is not None
            and taker.has_room
            and not self._has_ended
            and not self._is_feeding
            and not self._reader.buffered_bytes
        )

    def take(self, message: bytes) -> None:
        """Pass on a whole message; only while `takes_at_once`."""
        try:
            if self._taker is not None:
                self._taker.take(message)
        except Exception as error:  # noqa: BLE001 - a defect, which ends this call only
            self.end(error)

    def arrived(self) -> None:
        """Pass on the buffered messages while the taker has room."""
        taker = self._taker
        if taker is None or self._is_feeding:  # An outer call of this method, or `_unpack`, goes on.
            return
        self._is_feeding = True
        is_unpacking = False
        try:
            while taker.has_room and not self.stream.is_over:
                message = self._reader.next()
                if message is None:
                    self._end_requests(taker)
                    break
                self.stream.consumed()
                if isinstance(message, Packed):
                    is_unpacking = True
                    self._unpacking = self.stream.connection.shared.runner.spawn(self._unpack(message))
                    break
                self.take(message)
        except MessageError as error:
            self.stream.fail(error.status)
        finally:
            self._is_feeding = is_unpacking

    async def _unpack(self, packed: Packed) -> None:
        """Decompress and pass on a long message, then those that arrived after it."""
        try:
            message = await self.stream.connection.shared.runner.unpacked(packed)
        except MessageError as error:
            self.stream.fail(error.status)
            return
        self._is_feeding = False
        if self._taker is not None and not self.stream.is_over:
            self.take(message)
            self.arrived()

    def end_of_requests(self) -> None:
        """Note that the request stream has ended."""
        self._has_ended = True
        self.arrived()

    def _end_requests(self, taker: OpenStream) -> None:
        if not self._has_ended:
            return
        if self._reader.buffered_bytes:
            self.stream.fail(CUT_OFF)
        else:
            taker.end()

    # ---- responses -----------------------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether more than SEND_AHEAD bytes of responses wait for the client to read."""
        return self.stream.pending_bytes > SEND_AHEAD

    def send(self, messages: Sequence[bytes]) -> None:
        """Send responses."""
        self.stream.put(messages)

    def flush(self) -> None:
        """Flush written responses to the transport now."""
        self.stream.connection.shared.flushing.now()

    def more(self) -> None:
        """Pass on requests again: the taker has room."""
        self.arrived()

    def drained(self) -> None:
        """Let the taker send again: the client has read enough."""
        if self._taker is not None and not self.stream.is_over:
            self._taker.resume()

    def end(self, error: Exception | None = None) -> None:
        """End the call: after the last response, or with the error that failed it."""
        stream, self._taker = self.stream, None
        stream.cancel_run = None
        if error is None:
            self._about.copy().run(self._call.ended)
            stream.finish()
        else:
            stream.fail(self._about.copy().run(self._call.failed, error).status)

    def _cancel(self) -> None:
        """Cancel the call: the caller has gone, or its deadline has passed."""
        taker, self._taker = self._taker, None
        if self._unpacking is not None:
            self._unpacking.cancel()
        if taker is not None:
            taker.cancel()
        self._about.copy().run(self._call.cancelled)
