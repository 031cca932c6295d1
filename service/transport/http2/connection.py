"""One HTTP/2 connection, server side (RFC 9113): reads frames, writes frames and keeps the streams."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from typing import TYPE_CHECKING, Final, cast

from service.transport.http2 import abuse
from service.transport.http2.fast_path import WholeMessages
from service.transport.http2.receiving import DRAIN_PING, ControlFrames, HeaderFrames
from service.transport.http2.sending import ResetStreams, Sender
from service.transport.http2.stream import RECEIVE_WINDOW
from service.transport.http2.tls import is_resumed
from service.wire import frames
from service.wire.errors import ConnectionFailure, ErrorCode, StreamFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.transport.http2.shared import Shared
    from service.transport.http2.stream import Stream


def _peer_name(transport: asyncio.BaseTransport) -> str:
    """The peer's address as gRPC writes it, for example ``ipv4:127.0.0.1:5000``."""
    address = transport.get_extra_info("peername")
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = str(address[0]), address[1]
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
    return "unix:" if isinstance(address, str | bytes) else "unknown"


def _set_no_delay(transport: asyncio.BaseTransport) -> None:
    """Set TCP_NODELAY, so that small responses are sent at once. asyncio sets it only if the socket object's ``proto``
    is TCP, which sockets from another process may lack.
    """
    plain = transport.get_extra_info("socket")
    if plain is not None and plain.family in (socket.AF_INET, socket.AF_INET6):
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def negotiated_h2(transport: asyncio.BaseTransport) -> bool:
    """Whether the peer negotiated ``h2`` by ALPN; always True without TLS (RFC 9113, section 3.2). OpenSSL does not
    fail the handshake if client and server have no protocol in common.
    """
    secured = transport.get_extra_info("ssl_object")
    return secured is None or secured.selected_alpn_protocol() == "h2"


class Draining:
    """The draining of one connection."""

    def __init__(self, connection: Connection) -> None:
        self.is_under_way = False
        self.since_s = 0.0
        """When draining began, on the loop's clock."""
        self.final_stream_id = frames.LARGEST_STREAM_ID
        """Streams with higher numbers are refused."""
        self._connection = connection
        self._reason = "server stopping"
        self._on_acknowledged: Callable[[], None] | None = None

    @property
    def refuses_streams(self) -> bool:
        """Whether the second GOAWAY, with the last stream that is served, was sent."""
        return self.final_stream_id != frames.LARGEST_STREAM_ID

    def begin(self, reason: str, on_acknowledged: Callable[[], None] | None = None) -> None:
        """Tell the peer to use other connections for new calls. Calls on their way are still served: streams are
        refused only after the peer has acknowledged the GOAWAY.

        ``on_acknowledged`` is called then, or when the connection is gone; at once if it is draining already.
        """
        if self.is_under_way or self._connection.is_closed:
            if on_acknowledged is not None:
                on_acknowledged()
            return
        self.is_under_way = True
        self.since_s = self._connection.loop.time()
        self._reason, self._on_acknowledged = reason, on_acknowledged
        self._connection.write(
            frames.goaway(frames.LARGEST_STREAM_ID, ErrorCode.NO_ERROR, reason) + frames.ping(DRAIN_PING)
        )

    def acknowledged(self) -> None:
        """Refuse further streams: the peer has acknowledged the GOAWAY, or is gone."""
        if self.is_under_way:
            self.refuse_streams()
        on_acknowledged, self._on_acknowledged = self._on_acknowledged, None
        if on_acknowledged is not None:
            on_acknowledged()

    def refuse_streams(self) -> None:
        """Refuse streams beyond the present ones; the connection closes once they are done."""
        connection = self._connection
        if connection.is_closed or self.refuses_streams:
            return
        self.is_under_way = True
        self.final_stream_id = connection.last_stream_id
        connection.write(frames.goaway(self.final_stream_id, ErrorCode.NO_ERROR, self._reason))
        if not connection.streams:
            connection.close()


_log = logging.getLogger(__name__)

_CONNECTION_WINDOW: Final = 16 * 1024 * 1024
MAX_FRAME_BYTES: Final = 256 * 1024
"""Largest payload of a frame that clients may send: a batch of a thousand rows fits into one frame."""
_OF_CALLS: Final = (frames.HEADERS, frames.DATA)
_STREAM_MASK: Final = 0x7FFFFFFF
_TURN_S: Final = 0.001
"""Seconds for which the frames of one connection may occupy the event loop before other work runs."""
_LAST_WORDS_S: Final = 0.05
"""Seconds that a failed peer has to read the GOAWAY before its connection is closed."""
_CLOSE_S: Final = 2.0
"""Seconds that a peer has to read what was written before the connection was closed."""


class Connection(asyncio.Protocol):
    """One connection. `Shared` is what all connections of an engine have in common."""

    def __init__(self, shared: Shared, on_gone: Callable[[], None] = lambda: None) -> None:
        """``on_gone`` is called once the connection is closed."""
        self.shared = shared
        self._on_gone = on_gone
        self.loop = shared.loop
        self.peer = "unknown"
        self.streams: dict[int, Stream] = {}
        self.sender = Sender(shared.loop, shared.flushing, shared.unread)
        self.write = self.sender.write
        self.began_s = self.heard_s = self.idle_since_s = self.loop.time()
        self.expects: int | None = frames.SETTINGS
        """The kind of frame that must come next; None if any may."""
        self.control = ControlFrames(self)
        self.is_closed = False
        self.draining = Draining(self)
        self._unread = b""
        self._waits_for_turn = False
        """Bytes in ``_unread`` wait for the connection's next turn; reading from the transport is paused."""
        self._has_preface = False
        self.last_stream_id = 0
        """The highest stream number that the peer has begun."""
        self.receive_window = _CONNECTION_WINDOW
        """Bytes of DATA that the peer may still send on the whole connection."""
        self.least_window = _CONNECTION_WINDOW // 2
        """Below this ``receive_window``, a WINDOW_UPDATE is sent."""
        self.reset_by_us = ResetStreams()
        self.counted = abuse.Streams()
        self.idle_frames = abuse.Meter(abuse.IDLE_FRAMES)
        self.headers = HeaderFrames(self)
        self._whole = WholeMessages(self, self.headers.blocks)
        self._handlers = {
            frames.DATA: self._on_data,
            frames.RST_STREAM: self._on_rst_stream,
            frames.WINDOW_UPDATE: self._on_window_update,
            **self.headers.handlers,
            **self.control.handlers,
        }

    # ---- asyncio's side ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set up the connection; its TLS handshake, if any, is over."""
        # A cast and no isinstance: uvloop's transports are no subclasses of asyncio's.
        self.sender.transport = cast("asyncio.Transport", transport)
        self.peer = _peer_name(transport)
        _set_no_delay(transport)
        if self.shared.is_stopping:
            self.is_closed = True
            self.sender.transport.abort()
            return
        if not negotiated_h2(transport):
            self.is_closed = True
            self.sender.transport.close()
            return
        self.shared.connections[self] = None
        if self.shared.checks_callers and is_resumed(transport):
            # The client's certificate was verified when the session began, against the roots of that time.
            self.abort()
            return
        limits = self.shared.limits
        self.write(
            frames.settings(
                {
                    frames.MAX_CONCURRENT_STREAMS: limits.max_concurrent_streams,
                    frames.INITIAL_WINDOW_SIZE: RECEIVE_WINDOW,
                    frames.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
                    frames.MAX_HEADER_LIST_SIZE: limits.max_metadata_bytes,
                    frames.NO_PRIORITIES: 1,
                }
            )
            + frames.window_update(0, _CONNECTION_WINDOW - frames.DEFAULT_WINDOW)
        )

    def connection_lost(self, _error: Exception | None) -> None:
        """End every call: the connection is gone."""
        self.is_closed = True
        self.shared.connections.pop(self, None)
        for stream in list(self.streams.values()):
            stream.abandon()
        self.streams.clear()
        self.sender.close()
        self.draining.acknowledged()
        self.shared.connection_gone()
        self._on_gone()

    def pause_writing(self) -> None:
        """Stop sending: the transport's buffer is full."""
        self.sender.pause()

    def resume_writing(self) -> None:
        """Send on: the transport's buffer has room again."""
        self.sender.resume()

    def data_received(self, data: bytes) -> None:
        """Read the frames in ``data``, which may begin and end within one."""
        if self.is_closed:
            return
        if self._unread:
            data = self._unread + data
            self._unread = b""
        if self._waits_for_turn:  # TLS may have buffered this before reading was paused
            self._unread = data
            return
        self._take_turn(data)

    def _next_turn(self) -> None:
        self._waits_for_turn = False
        if self.is_closed:
            return
        data, self._unread = self._unread, b""
        self._take_turn(data)
        transport = self.sender.transport
        if not self._waits_for_turn and transport is not None and not transport.is_closing():
            transport.resume_reading()

    def _take_turn(self, data: bytes) -> None:
        self.heard_s = self.loop.time()
        try:
            self._read(data)
        except ConnectionFailure as failure:
            self.give_up(failure.code, failure.reason)
        except Exception:  # noqa: BLE001 - a defect, which ends this connection only
            _log.exception("unexpected error on a connection", extra={"peer": self.peer})
            self.give_up(ErrorCode.INTERNAL_ERROR, "internal error")

    # ---- frames in -----------------------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        position = 0
        if not self._has_preface:
            position = frames.preface_end(data)
            if not position:
                self._unread = data
                return
            self._has_preface = True
        end = len(data)
        unpack = frames.FRAME_HEADER.unpack_from
        began_at, until_s = position, time.perf_counter() + _TURN_S
        while end - position >= frames.HEADER_BYTES and not self.is_closed:
            if position > began_at and time.perf_counter() > until_s:
                self._yield_turn()
                break
            high, low, kind, flags, stream_id = unpack(data, position)
            length = high << 8 | low
            if length > MAX_FRAME_BYTES:
                raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            start = position + frames.HEADER_BYTES
            position = start + length
            if position > end:
                position = start - frames.HEADER_BYTES
                break
            stream_id &= _STREAM_MASK
            if self.expects is not None:
                self._check_expected(kind, flags, stream_id)
            elif kind in _OF_CALLS:
                after = self._take_whole(data, start - frames.HEADER_BYTES, kind, stream_id)
                if after >= start:
                    position = after
                    continue
            handler = self._handlers.get(kind)
            if handler is None:
                self.idle_frames.count(self.heard_s)  # Unknown types are ignored (section 5.5), up to a limit.
                continue
            try:
                handler(stream_id, flags, data[start:position])
            except StreamFailure as failure:
                self._fail_stream(stream_id, failure)
        self._unread = data[position:]

    def _yield_turn(self) -> None:
        """Pause reading, and leave the remaining frames for a later step of the loop."""
        transport = self.sender.transport
        if transport is not None and not transport.is_closing():
            if transport.is_reading():
                transport.pause_reading()
            self._waits_for_turn = True
            self.loop.call_soon(self._next_turn)

    def _take_whole(self, data: bytes, position: int, kind: int, stream_id: int) -> int:
        """Take the common frames that start at ``position`` by the shortcut; return where they end."""
        if kind == frames.HEADERS:
            return self._whole.take_calls(data, position)
        stream = self.streams.get(stream_id)
        opened = stream.opened if stream is not None else None
        return self._whole.take_streamed(data, position, opened) if opened is not None else position

    def _check_expected(self, kind: int, flags: int, stream_id: int) -> None:
        if self.expects == frames.SETTINGS:
            if kind != frames.SETTINGS or flags & frames.ACK:
                raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "the first frame must be SETTINGS")
        elif kind != frames.CONTINUATION or stream_id != self.headers.interrupted:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "a header block was interrupted")

    def _on_data(self, stream_id: int, flags: int, payload: bytes) -> None:
        flow_bytes = len(payload)
        stream = self.streams.get(stream_id)
        if flow_bytes:
            self.receive_window -= flow_bytes
            if self.receive_window < 0:
                raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "more than the connection's window")
            if self.receive_window < self.least_window:
                # Given back at once: buffered requests are bounded for each stream, and for all of them together.
                self.write(frames.window_update(0, _CONNECTION_WINDOW - self.receive_window))
                self.receive_window = _CONNECTION_WINDOW
        if flags == frames.END_STREAM and stream is not None and stream.receive_whole(payload):
            return
        if flags & frames.PADDED:
            payload = frames.unpadded(payload)
        is_end = bool(flags & frames.END_STREAM)
        if not payload and not is_end:
            self.idle_frames.count(self.heard_s)
        if stream is None:
            self._check_not_idle(stream_id, "DATA")
            if stream_id not in self.reset_by_us:
                raise StreamFailure(ErrorCode.STREAM_CLOSED, "DATA on a stream that is closed")
            self.counted.count_late_frame()
            return
        if stream.is_remote_closed:
            raise StreamFailure(ErrorCode.STREAM_CLOSED, "DATA after END_STREAM")
        if payload and not is_end and stream.requests is None:
            stream.heard_s = self.heard_s
        stream.receive(payload, flow_bytes, is_end=is_end)

    def _on_rst_stream(self, stream_id: int, _flags: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM has 4 bytes")
        self._check_not_idle(stream_id, "RST_STREAM")
        stream = self.streams.pop(stream_id, None)
        self.reset_by_us.discard(stream_id)
        if stream is None:
            self.counted.count_late_frame()
            return
        self.sender.forget(stream)
        stream.abandon()
        self.counted.count_reset(self.heard_s, len(self.streams))
        self.emptied()

    def _on_window_update(self, stream_id: int, _flags: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE has 4 bytes")
        increment = int.from_bytes(payload, "big") & _STREAM_MASK
        if not stream_id:
            if not increment:
                raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "a window update of 0")
            self.sender.window += increment
            if self.sender.window > frames.LARGEST_WINDOW:
                raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window overflows")
            self.sender.window_opened()
            return
        self._check_not_idle(stream_id, "WINDOW_UPDATE")
        stream = self.streams.get(stream_id)
        if stream is None:
            self.counted.count_late_frame()
            return
        if not increment:
            raise StreamFailure(ErrorCode.PROTOCOL_ERROR, "a window update of 0")
        stream.send_window += increment
        if stream.send_window > frames.LARGEST_WINDOW:
            raise StreamFailure(ErrorCode.FLOW_CONTROL_ERROR, "the stream's window overflows")
        self.sender.window_grew(stream)

    def _check_not_idle(self, stream_id: int, what: str) -> None:
        if not stream_id or stream_id > self.last_stream_id or not stream_id & 1:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"{what} on stream {stream_id}, which is idle")

    # ---- streams -------------------------------------------------------------------------------------------------

    def _fail_stream(self, stream_id: int, failure: StreamFailure) -> None:
        """Reset a stream for an error of the peer. It counts like a reset by the peer (CVE-2025-8671)."""
        self.counted.count_reset(self.heard_s, len(self.streams))
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            self.sender.forget(stream)
            stream.abandon()
        self.reset_by_us.add(stream_id)
        self.sender.reply(frames.rst_stream(stream_id, failure.code))
        if stream is not None:
            self.emptied()

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """Reset a stream for a reason that is not the peer's error."""
        self.streams.pop(stream.id, None)
        self.sender.forget(stream)
        stream.abandon()
        self.reset_by_us.add(stream.id)
        try:
            self.sender.reply(frames.rst_stream(stream.id, code))
        except ConnectionFailure as failure:
            self.give_up(failure.code, failure.reason)
        self.emptied()

    def ended(self, stream: Stream) -> None:
        """Forget a stream whose response is complete."""
        self.streams.pop(stream.id, None)
        if not stream.is_remote_closed:
            # Section 8.1: the rest of the request is not needed.
            self.reset_by_us.add(stream.id)
            self.write(frames.rst_stream(stream.id, ErrorCode.NO_ERROR))
        self.emptied()

    def emptied(self) -> None:
        """Note the time if no stream is left, and close the connection if it is draining."""
        if not self.streams:
            self.idle_since_s = self.loop.time()
            if self.draining.refuses_streams:
                self.close()

    # ---- the end -------------------------------------------------------------------------------------------------

    def give_up(self, code: ErrorCode, reason: str) -> None:
        """Send GOAWAY for a fault of the peer or a defect, end every call and close."""
        if self.is_closed:
            return
        self.shared.note_failure(self.peer, code, reason)
        self.write(frames.goaway(self.last_stream_id, code, reason))
        self._end()
        transport = self.sender.transport
        if transport is not None and not transport.is_closing():
            # Read and drop what the peer sends meanwhile: closing a socket with unread bytes in it resets the
            # connection, and the peer would not see the GOAWAY.
            if not transport.is_reading():
                transport.resume_reading()
            self.loop.call_later(_LAST_WORDS_S, self._close_transport)

    def close(self) -> None:
        """Send what is written and close; every call that still runs is cancelled."""
        if not self.is_closed:
            self._end()
            self._close_transport()

    def _end(self) -> None:
        self.sender.flush()
        self.is_closed = True
        for stream in list(self.streams.values()):
            stream.abandon()
        self.streams.clear()
        self.sender.close()

    def _close_transport(self) -> None:
        if self.sender.transport is not None:
            self.sender.transport.close()
            # A peer that does not read would keep the connection open.
            self.loop.call_later(_CLOSE_S, self.abort)

    def abort(self) -> None:
        """Close at once and discard unsent data."""
        if self.sender.transport is not None:
            self.sender.transport.abort()
