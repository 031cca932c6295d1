"""The way out of a connection: one write for all that one tick brings, and responses wait for the peer's windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from service.transport.http2 import abuse
from service.wire import frames, responses
from service.wire.errors import ConnectionFailure, ErrorCode
from service.wire.messages import PREFIX_BYTES

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from service.transport.http2.stream import Stream


_FLUSH_FRAMES: Final = 16
"""DATA frames of blocked responses that are handed to the transport at once; it can then pause the writing."""


class Unread:
    """Counts the bytes of responses that wait for their peers, on all connections of an engine."""

    bytes = 0


class Sender:
    """The sending side of one connection. The windows are the peer's (RFC 9113, section 5.2)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, flushing: Flushing, unread: Unread) -> None:
        self.transport: asyncio.Transport | None = None
        self.window = frames.DEFAULT_WINDOW
        """Bytes of DATA that may still be sent on the whole connection."""
        self.max_frame_bytes = frames.DEFAULT_MAX_FRAME_SIZE
        self.is_paused = False
        """Whether the transport's buffer is full because the peer does not read."""
        self.paused_since_s = 0.0
        self.pending_bytes = 0
        """Bytes of all streams' responses that wait for flow control."""
        self.has_sent_since_ping = False
        """Whether anything was sent since the peer's last PING, apart from `reply` frames."""
        self._loop = loop
        self._flushing = flushing
        self._unread = unread
        self._out: list[bytes] = []
        self._is_flush_due = False
        self._blocked: dict[Stream, None] = {}
        """Streams that wait for the connection's window or for a full transport."""
        self._stream_blocked: dict[Stream, None] = {}
        """Streams that wait for the stream's window; opening the connection's does not help them."""
        self._unread_replies = 0

    def hold(self, count: int) -> None:
        """Add ``count`` bytes, which may be negative, to the responses that wait."""
        self.pending_bytes += count
        self._unread.bytes += count

    @property
    def holds_too_much(self) -> bool:
        """Whether no more responses may wait, for this peer or for all of them."""
        return self.pending_bytes > abuse.UNREAD_BYTES or self._unread.bytes > abuse.MAX_UNREAD_BYTES

    def pause(self) -> None:
        """Stop sending: the transport's buffer is full."""
        self.is_paused = True
        self.paused_since_s = self._loop.time()

    def resume(self) -> None:
        """Send on: the transport's buffer has room again."""
        self.is_paused = False
        self._unread_replies = 0
        self.pump_all()

    def write(self, data: bytes) -> None:
        """Send ``data`` with the next flush, together with all that is written until then."""
        self._out.append(data)
        self.has_sent_since_ping = True
        if not self._is_flush_due:
            self._is_flush_due = True
            self._flushing.later(self)

    def reply(self, data: bytes) -> None:
        """Send an acknowledgement or a reset, which cost the peer nothing to cause; raises ConnectionFailure if it
        leaves too many of them unread.
        """
        if self.is_paused:
            self._unread_replies += 1
            if self._unread_replies > abuse.MAX_UNREAD_REPLIES:
                raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "replies are not read")
        before = self.has_sent_since_ping
        self.write(data)
        self.has_sent_since_ping = before

    def flush(self) -> None:
        """Hand the written data to the transport."""
        self._is_flush_due = False
        if self._out and self.transport is not None and not self.transport.is_closing():
            self.transport.write(b"".join(self._out))
        self._out.clear()

    def write_messages(self, stream: Stream, messages: Sequence[bytes]) -> int:
        """Send the first of ``messages`` that fit into the windows now, if nothing of the stream waits before them;
        return how many were sent.
        """
        if self.is_paused or stream.is_head_due or stream.pending or not stream.has_begun_response:
            return 0
        window, most = min(self.window, stream.send_window), self.max_frame_bytes
        sent = written = 0
        parts: list[bytes] = []
        for message in messages:
            size = len(message) + PREFIX_BYTES
            if size > window - sent or size > most:
                break
            sent += size
            written += 1
            header = frames.MESSAGE_HEADER.pack(
                size >> 8, size & 0xFF, frames.DATA, 0, stream.id, 0, size - PREFIX_BYTES
            )
            parts += (header, message)
        if written:
            self.window -= sent
            stream.send_window -= sent
            self.write(b"".join(parts))
        return written

    def pump(self, stream: Stream) -> None:
        """Send what the windows allow of one stream's response; the rest waits."""
        written = 0
        if stream.is_head_due and not self.is_paused:
            stream.is_head_due = False
            self.write(responses.head(stream.id))
        while stream.pending and not self.is_paused:
            most = min(self.window, stream.send_window, self.max_frame_bytes)
            if most <= 0:
                break
            data = stream.take(most)
            self.window -= len(data)
            stream.send_window -= len(data)
            self.write(frames.frame(frames.DATA, 0, stream.id, data))
            written += 1
            if written % _FLUSH_FRAMES == 0:
                self.flush()
        # A peer that does not read gets no ends of responses either: they would let it begin any number of calls.
        if stream.pending and not self.is_paused and stream.send_window <= 0:
            self._blocked.pop(stream, None)
            self._stream_blocked[stream] = None
            return
        self._stream_blocked.pop(stream, None)
        if stream.pending or self.is_paused:
            self._blocked[stream] = None
            return
        self._blocked.pop(stream, None)
        stream.complete()

    def pump_all(self) -> None:
        """Send for each blocked stream in turn; those that are still blocked go to the end of the queue."""
        for stream in list(self._blocked):
            if self.is_paused:
                return
            if stream.pending and self.window <= 0:
                continue
            self._pump_blocked(stream)

    def window_opened(self) -> None:
        """Send for blocked streams until the connection's window is used up. Streams that wait for their own windows
        are not looked at, since a peer may open the connection's window byte by byte.
        """
        for _ in range(len(self._blocked)):
            stream = next(iter(self._blocked), None)
            if stream is None or self.is_paused or self.window <= 0:
                return
            self._pump_blocked(stream)

    def _pump_blocked(self, stream: Stream) -> None:
        del self._blocked[stream]
        if not stream.is_over:
            self.pump(stream)

    def windows_changed(self) -> None:
        """Send for all waiting streams: SETTINGS changed their windows."""
        for stream in list(self._stream_blocked):
            if not stream.is_over:
                self.pump(stream)
        self.pump_all()

    def window_grew(self, stream: Stream) -> None:
        """Send for a waiting stream whose window grew."""
        if stream in self._stream_blocked or stream in self._blocked:
            self.pump(stream)

    def forget(self, stream: Stream) -> None:
        """Remove a stream from those that wait."""
        self._blocked.pop(stream, None)
        self._stream_blocked.pop(stream, None)

    def close(self) -> None:
        """Discard data that were not flushed, and forget all waiting streams."""
        self._out.clear()
        self._blocked.clear()
        self._stream_blocked.clear()


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


_MOST: Final = 1000


class ResetStreams:
    """The numbers of the streams that were reset last, up to 1000 of them."""

    def __init__(self) -> None:
        self._numbers: dict[int, None] = {}

    def add(self, stream_id: int) -> None:
        """Add a stream, and forget the oldest one if there are too many."""
        self._numbers[stream_id] = None
        if len(self._numbers) > _MOST:
            del self._numbers[next(iter(self._numbers))]

    def discard(self, stream_id: int) -> None:
        """Forget a stream that the peer has reset too: no more frames will come."""
        self._numbers.pop(stream_id, None)

    def __contains__(self, stream_id: int) -> bool:
        return stream_id in self._numbers
