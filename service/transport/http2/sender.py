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

    from service.transport.http2.flushing import Flushing
    from service.transport.http2.stream import Stream

_FLUSH_FRAMES: Final = 16
"""So many DATA frames of blocked responses are handed to the transport at once: it then says when it has enough."""


class Unread:
    """Responses that wait for their peers, on all connections of an engine."""

    bytes = 0


class Sender:
    """The sending side of one connection. The windows are the peer's (RFC 9113, section 5.2)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, flushing: Flushing, unread: Unread) -> None:
        self.transport: asyncio.Transport | None = None
        self.window = frames.DEFAULT_WINDOW
        """Bytes of DATA that the peer takes on the whole connection."""
        self.max_frame_bytes = frames.DEFAULT_MAX_FRAME_SIZE
        self.is_paused = False
        """The transport's buffer is full: the peer does not read."""
        self.paused_since_s = 0.0
        self.pending_bytes = 0
        """Bytes of all streams' responses that wait for flow control."""
        self.has_sent_since_ping = False
        """Anything but answers that the peer can ask for as often as it likes."""
        self._loop = loop
        self._flushing = flushing
        self._unread = unread
        self._out: list[bytes] = []
        self._is_flush_due = False
        self._blocked: dict[Stream, None] = {}
        """By the connection's window, or by a transport that is full."""
        self._shut: dict[Stream, None] = {}
        """By their own windows: nothing else helps them."""
        self._unread_replies = 0

    def hold(self, count: int) -> None:
        """Keep the account of what waits: so many bytes more, or fewer."""
        self.pending_bytes += count
        self._unread.bytes += count

    @property
    def holds_too_much(self) -> bool:
        """Whether no more responses may wait, for this peer or for all of them."""
        return self.pending_bytes > abuse.UNREAD_BYTES or self._unread.bytes > abuse.MAX_UNREAD_BYTES

    def pause(self) -> None:
        """The transport's buffer is full."""
        self.is_paused = True
        self.paused_since_s = self._loop.time()

    def resume(self) -> None:
        """The transport's buffer has room again."""
        self.is_paused = False
        self._unread_replies = 0
        self.pump_all()

    def write(self, data: bytes) -> None:
        """Send, with whatever else is sent in this tick of the loop."""
        self._out.append(data)
        self.has_sent_since_ping = True
        if not self._is_flush_due:
            self._is_flush_due = True
            self._flushing.later(self)

    def reply(self, data: bytes) -> None:
        """Send what the peer can make us send for nothing; raises ConnectionFailure if it does not read that."""
        if self.is_paused:
            self._unread_replies += 1
            if self._unread_replies > abuse.MAX_UNREAD_REPLIES:
                raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "replies are not read")
        before = self.has_sent_since_ping
        self.write(data)
        self.has_sent_since_ping = before

    def flush(self) -> None:
        """Hand what is written to the transport."""
        self._is_flush_due = False
        if self._out and self.transport is not None and not self.transport.is_closing():
            self.transport.write(b"".join(self._out))
        self._out.clear()

    def write_messages(self, stream: Stream, messages: Sequence[bytes]) -> int:
        """Send some messages of several, as far as the windows allow it at once and nothing comes before them; returns
        how many.
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
        # A peer that does not read gets no ends of responses either: they would let it begin as many calls as it likes.
        if stream.pending and not self.is_paused and stream.send_window <= 0:
            self._blocked.pop(stream, None)
            self._shut[stream] = None
            return
        self._shut.pop(stream, None)
        if stream.pending or self.is_paused:
            self._blocked[stream] = None
            return
        self._blocked.pop(stream, None)
        stream.complete()

    def pump_all(self) -> None:
        """Each blocked stream in turn; whoever is still blocked goes to the end of the row."""
        for stream in list(self._blocked):
            if self.is_paused:
                return
            if stream.pending and self.window <= 0:
                continue
            self._pump_blocked(stream)

    def window_opened(self) -> None:
        """The connection's: the same as far as it goes. A peer may open it byte by byte, so nobody else is looked at,
        and not those that wait for their own windows.
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
        """SETTINGS changed the windows of all streams."""
        for stream in list(self._shut):
            if not stream.is_over:
                self.pump(stream)
        self.pump_all()

    def window_grew(self, stream: Stream) -> None:
        """The window of one stream grew."""
        if stream in self._shut or stream in self._blocked:
            self.pump(stream)

    def forget(self, stream: Stream) -> None:
        """It is over, sent or not."""
        self._blocked.pop(stream, None)
        self._shut.pop(stream, None)

    def close(self) -> None:
        """Nothing more is sent; what is written and not handed over is lost."""
        self._out.clear()
        self._blocked.clear()
        self._shut.clear()
