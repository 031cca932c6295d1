"""gRPC's unary calls over one HTTP/2 connection, as cheap as Python allows; `http2_stream` has calls on a stream.

A request is one tuple of prepared pieces, frames of one tick of the event loop are sent in one write, and repeated
header blocks are cached. The rest of HTTP/2 that servers use is supported (windows, settings, pings, padding,
continuations, GOAWAY). This module handles bytes and status codes, not models, and measures no time.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, cast

from service.bench.outcome import Headers, of_reset, outcome, summary
from service.errors import Code
from service.wire import frames
from service.wire.errors import ConnectionFailure, ErrorCode
from service.wire.frames import COMPACT_HEADER, UINT32
from service.wire.hpack import Decoder, HpackError

if TYPE_CHECKING:
    from service.bench.prepared import Prepared

GRPC_PREFIX_BYTES = 5
_TOP_UP_BYTES = 2**30
_WRITE_BUFFER_BYTES = 2**20
_MAX_HEADER_BYTES = 2**20


class Caller(Protocol):
    """Callbacks of the user of a connection. Called on the event loop; must not raise."""

    def replied(self, token: Any, code: int, message: str, body: bytes) -> None:  # noqa: ANN401 - the caller's own
        """A call has ended; ``body`` is the response message if ``code`` is 0."""

    def refused(self, token: Any) -> None:  # noqa: ANN401 - the caller's own
        """The server has not processed this call, so that it may be sent again."""

    def woken(self, connection: Http2Connection) -> None:
        """Data was received, so that there may be room for more calls. Requests made now are sent in one write."""

    def lost(self, connection: Http2Connection) -> None:
        """The connection is closed; its calls were ended with UNAVAILABLE before."""


class Stream:
    """The state of one open HTTP/2 stream."""

    __slots__ = ("body", "goes_on", "headers", "token", "unsent", "window")

    def __init__(self, token: Any) -> None:  # noqa: ANN401 - the caller's own
        self.token = token
        self.goes_on = False
        """Whether more data follows the unsent part."""
        self.headers: Headers | None = None
        self.body = b""
        self.unsent: memoryview | None = None
        self.window = 0


class Http2Connection(asyncio.Protocol):
    """A connection for ``loop.create_connection``; use `request` and `flush` to send calls."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._transport: asyncio.Transport | None = None
        self._decoder = Decoder(summary)
        self._streams: dict[int, Stream] = {}
        self._next_stream = 1
        self._out: list[bytes] = []
        self._rest = b""
        self._block = b""
        self._block_of: tuple[int, int] | None = None
        """Stream and flags of an unfinished header block, which a CONTINUATION frame must follow."""
        self._received_bytes = 0
        self._window = frames.DEFAULT_WINDOW
        self._stream_window = frames.DEFAULT_WINDOW
        self._frame_bytes = frames.DEFAULT_MAX_FRAME_SIZE
        self._blocked: deque[int] = deque()
        self._writable = True
        self._going_away = False
        self._reason = ""
        self.max_streams = 2**31
        """Most concurrent calls that the server allows; it may change the number."""
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the server's first SETTINGS have arrived; fails if the connection is lost before."""

    @property
    def room(self) -> int:
        """Number of calls that can be requested now."""
        return max(0, self.max_streams - len(self._streams)) if self._can_send else 0

    @property
    def oldest(self) -> tuple[int, Any] | None:
        """Number and token of the oldest call without an answer."""
        for number, stream in self._streams.items():
            return number, stream.token
        return None

    @property
    def open_calls(self) -> int:
        """Number of calls without an answer."""
        return len(self._streams)

    @property
    def _can_send(self) -> bool:
        return not self._going_away and self._writable and self._transport is not None and not self._blocked

    @property
    def is_leaving(self) -> bool:
        """Whether the connection takes no more calls."""
        return self._going_away

    def request(self, prepared: Prepared, token: Any) -> int:  # noqa: ANN401 - the caller's own
        """Start a call and return its number on this connection. Nothing is sent before `flush`."""
        number = self._next_stream
        self._next_stream = number + 2
        if number + 2 > frames.LARGEST_STREAM_ID:
            self._going_away = True
        stream = Stream(token)
        self._streams[number] = stream
        word = UINT32.pack(number)
        size = prepared.size
        if size <= self._window and size <= self._stream_window and size <= self._frame_bytes and not self._blocked:
            self._window -= size
            self._out += (prepared.head, word, prepared.middle, word, prepared.message)
        else:
            self._out += (prepared.head, word, prepared.block)
            stream.unsent = memoryview(prepared.message)
            stream.window = self._stream_window
            self._blocked.append(number)
            self._send_blocked()
        return number

    def flush(self) -> None:
        """Send all requests since the last flush in one write."""
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def cancel(self, number: int) -> None:
        """Cancel a call; there are no more callbacks for it."""
        if self._streams.pop(number, None) is not None:
            self._out.append(frames.frame(frames.RST_STREAM, 0, number, UINT32.pack(ErrorCode.CANCEL)))
            self._send_blocked()

    def close(self) -> None:
        """Send GOAWAY and close."""
        self._going_away = True
        if self._transport is not None:
            self._out.append(frames.frame(frames.GOAWAY, 0, 0, bytes(4) + UINT32.pack(ErrorCode.NO_ERROR)))
            self.flush()
            self._transport.close()

    def abort(self) -> None:
        """Close at once without sending anything more."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        # uvloop's transports have these methods, but are not of this class.
        self._transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(_WRITE_BUFFER_BYTES)
        tcp = transport.get_extra_info("socket")
        if tcp is not None and tcp.family in (socket.AF_INET, socket.AF_INET6):
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._out += (
            frames.PREFACE,
            frames.settings({frames.ENABLE_PUSH: 0, frames.INITIAL_WINDOW_SIZE: frames.LARGEST_WINDOW}),
            frames.window_update(0, frames.LARGEST_WINDOW - frames.DEFAULT_WINDOW),
        )
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._transport = None
        self._going_away = True
        reason = self._reason or (str(exc) if exc is not None else "the server closed the connection")
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(reason))
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            self._replied(stream, Code.UNAVAILABLE, reason)
        self._caller.lost(self)

    def pause_writing(self) -> None:
        """Called by asyncio when the server reads more slowly than this client writes."""
        self._writable = False

    def resume_writing(self) -> None:
        """Called by asyncio."""
        self._writable = True
        self._caller.woken(self)
        self.flush()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        if self._rest:
            data = self._rest + data
        try:
            at = self._read(data)
        except (ValueError, ConnectionFailure, HpackError) as error:
            self._fail(f"the server broke the protocol: {error}")
            return
        self._rest = data[at:] if at < len(data) else b""
        self._caller.woken(self)
        self.flush()

    def _read(self, data: bytes) -> int:
        """Process the complete frames; returns where the rest begins. Raises ValueError for a protocol error."""
        at, end = 0, len(data)
        while end - at >= frames.HEADER_BYTES:
            word, flags, number = COMPACT_HEADER.unpack_from(data, at)
            start = at + frames.HEADER_BYTES
            size = word >> 8
            if size > frames.DEFAULT_MAX_FRAME_SIZE:
                raise ValueError(f"a frame of {size} bytes")
            stop = start + size
            if stop > end:
                break
            at = stop
            kind = word & 0xFF
            if self._block_of is not None and kind != frames.CONTINUATION:
                raise ValueError(f"frame type {kind} within a header block")
            if kind == frames.DATA:
                self._data(number, flags, data[start:stop])
            elif kind == frames.HEADERS:
                self._headers(number, flags, data[start:stop])
            else:
                self._control(kind, flags, number, data[start:stop])
        return at

    def _data(self, number: int, flags: int, payload: bytes) -> None:
        self._received_bytes += len(payload)
        if self._received_bytes > _TOP_UP_BYTES:
            self._out.append(frames.window_update(0, self._received_bytes))
            self._received_bytes = 0
        stream = self._streams.get(number)
        if stream is None:
            return
        if flags & frames.PADDED:
            payload = frames.unpadded(payload)
        stream.body = stream.body + payload if stream.body else payload
        if flags & frames.END_STREAM:
            self._end(number, stream, stream.headers)

    def _headers(self, number: int, flags: int, payload: bytes) -> None:
        if flags & (frames.PADDED | frames.HAS_PRIORITY):
            payload = _content(payload, flags)
        if not flags & frames.END_HEADERS:
            self._block, self._block_of = payload, (number, flags)
            return
        # Decoded even for a call that is over, to keep the HPACK table in sync.
        headers = self._decoder.decode(payload)
        stream = self._streams.get(number)
        if stream is None:
            return
        if flags & frames.END_STREAM:
            if stream.headers is not None and headers.grpc_status < 0:
                headers = stream.headers
            self._end(number, stream, headers)
        elif not 100 <= headers.http_status < 200:
            stream.headers = headers

    def _end(self, number: int, stream: Stream, headers: Headers | None) -> None:
        del self._streams[number]
        if stream.unsent is not None:
            # The answer came before all of the request was sent.
            self._out.append(frames.frame(frames.RST_STREAM, 0, number, UINT32.pack(ErrorCode.CANCEL)))
        code, message = outcome(headers, stream.headers)
        body = stream.body
        if code == 0:
            if len(body) < GRPC_PREFIX_BYTES or len(body) != GRPC_PREFIX_BYTES + int.from_bytes(body[1:5], "big"):
                code, message = Code.INTERNAL, f"a response of {len(body)} bytes that is not one message"
            elif body[0]:
                code, message = Code.INTERNAL, "a compressed response, which was not asked for"
        self._replied(stream, code, message, body[GRPC_PREFIX_BYTES:])

    def _replied(self, stream: Stream, code: int, message: str, body: bytes = b"") -> None:
        self._caller.replied(stream.token, code, message, body)

    def _refused(self, stream: Stream) -> None:
        self._caller.refused(stream.token)

    def _control(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == frames.WINDOW_UPDATE:
            self._enlarge(number, UINT32.unpack(_exactly(payload, 4))[0] & frames.LARGEST_WINDOW)
        elif kind == frames.PING:
            if not flags & frames.ACK:
                self._out.append(frames.frame(frames.PING, frames.ACK, 0, _exactly(payload, 8)))
        elif kind == frames.SETTINGS:
            if not flags & frames.ACK:
                self._apply(dict(frames.read_settings(payload)))
        elif kind == frames.RST_STREAM:
            self._reset(number, UINT32.unpack(_exactly(payload, 4))[0])
        elif kind == frames.GOAWAY:
            if len(payload) < 8:
                raise ValueError(f"a GOAWAY frame of {len(payload)} bytes")
            last, error = UINT32.unpack_from(payload, 0)[0], UINT32.unpack_from(payload, 4)[0]
            self._leave(last & frames.LARGEST_STREAM_ID, error, payload[8:])
        elif kind == frames.CONTINUATION:
            if self._block_of is None or self._block_of[0] != number:
                raise ValueError("a CONTINUATION frame of nothing")
            self._block += payload
            if len(self._block) > _MAX_HEADER_BYTES:
                raise ValueError(f"headers of more than {_MAX_HEADER_BYTES} bytes")
            if flags & frames.END_HEADERS:
                (_, first), block = self._block_of, self._block
                self._block, self._block_of = b"", None
                self._headers(number, first & frames.END_STREAM | frames.END_HEADERS, block)
        elif kind == frames.PUSH_PROMISE:
            raise ValueError("a pushed stream")
        # Everything else, including PRIORITY, is ignored.

    def _apply(self, values: dict[int, int]) -> None:
        self.max_streams = values.get(frames.MAX_CONCURRENT_STREAMS, self.max_streams)
        self._frame_bytes = values.get(frames.MAX_FRAME_SIZE, self._frame_bytes)
        window = values.get(frames.INITIAL_WINDOW_SIZE, self._stream_window)
        if window > frames.LARGEST_WINDOW or self._frame_bytes < frames.DEFAULT_MAX_FRAME_SIZE:
            raise ValueError(f"settings {values}")
        for stream in self._streams.values():
            stream.window += window - self._stream_window
        self._stream_window = window
        self._out.append(frames.frame(frames.SETTINGS, frames.ACK, 0))
        self._send_blocked()
        if not self.ready.done():
            self.ready.set_result(None)

    def _enlarge(self, number: int, increment: int) -> None:
        if number == 0:
            self._window += increment
        elif number in self._streams:
            self._streams[number].window += increment
        if self._blocked:
            self._send_blocked()

    def _send_blocked(self) -> None:
        """Send what the windows allow, in turns, so that one stream's window does not block the others."""
        for _ in range(len(self._blocked)):
            number = self._blocked.popleft()
            stream = self._streams.get(number)
            if stream is None or stream.unsent is None:
                continue
            while (
                stream.unsent and (size := min(len(stream.unsent), self._window, stream.window, self._frame_bytes)) > 0
            ):
                last = size == len(stream.unsent)
                payload = bytes(stream.unsent[:size])
                ends = last and not stream.goes_on
                self._out.append(frames.frame(frames.DATA, frames.END_STREAM if ends else 0, number, payload))
                self._window -= size
                stream.window -= size
                stream.unsent = None if last else stream.unsent[size:]
            if stream.unsent is not None:
                self._blocked.append(number)

    def _reset(self, number: int, error: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is None:
            return
        if error == ErrorCode.REFUSED_STREAM:
            self._refused(stream)
        else:
            self._replied(stream, of_reset(error), f"the server reset the call (HTTP/2 error {error})")

    def _leave(self, last: int, error: int, text: bytes) -> None:
        self._going_away = True
        if error != ErrorCode.NO_ERROR:
            self._reason = f"the server sent GOAWAY {error} {text.decode(errors='replace')}".rstrip()
        for number in [number for number in self._streams if number > last]:
            self._refused(self._streams.pop(number))
        if not self._streams:
            self.close()

    def _fail(self, reason: str) -> None:
        self._reason = reason
        self._going_away = True
        if self._transport is not None:
            self._transport.abort()


def _content(payload: bytes, flags: int) -> bytes:
    """The header block in the payload of a HEADERS frame."""
    if flags & frames.PADDED:
        payload = frames.unpadded(payload)
    return frames.without_priority(payload) if flags & frames.HAS_PRIORITY else payload


def _exactly(payload: bytes, size: int) -> bytes:
    if len(payload) != size:
        raise ValueError(f"a frame with {len(payload)} bytes where {size} were expected")
    return payload
