"""The frames of a peer other than DATA: SETTINGS, control frames, and header blocks put together from frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from service.transport.http2 import abuse
from service.transport.http2.request_heads import HeaderBlocks
from service.transport.http2.stream import Stream
from service.wire import frames
from service.wire.errors import ConnectionFailure, ErrorCode, StreamFailure
from service.wire.statuses import TOO_MUCH_UNREAD

if TYPE_CHECKING:
    from service.transport.http2.connection import Connection
    from service.transport.http2.request_heads import RequestHead

DRAIN_PING: Final = b"drain..."
"""Payload of the PING whose answer shows that the peer has read the GOAWAY before it."""


class PeerSettings:
    """The peer's settings that matter to a server without dynamic HPACK entries, pushes and large header lists."""

    def __init__(self) -> None:
        self.initial_window = frames.DEFAULT_WINDOW
        """Send window of each stream that begins from now on, in bytes."""
        self.max_frame_bytes = frames.DEFAULT_MAX_FRAME_SIZE

    def apply(self, payload: bytes) -> int:
        """Apply one frame's values; return by how many bytes the windows of open streams change.

        Raises ConnectionFailure for values out of range. Unknown settings are ignored.
        """
        before = self.initial_window
        for key, value in frames.read_settings(payload):
            if key == frames.ENABLE_PUSH and value > 1:
                raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"SETTINGS_ENABLE_PUSH: expected 0 or 1, got {value}")
            if key == frames.INITIAL_WINDOW_SIZE:
                if value > frames.LARGEST_WINDOW:
                    raise ConnectionFailure(
                        ErrorCode.FLOW_CONTROL_ERROR,
                        f"SETTINGS_INITIAL_WINDOW_SIZE: at most {frames.LARGEST_WINDOW}, got {value}",
                    )
                self.initial_window = value
            elif key == frames.MAX_FRAME_SIZE:
                if not frames.DEFAULT_MAX_FRAME_SIZE <= value <= frames.LARGEST_MAX_FRAME_SIZE:
                    raise ConnectionFailure(
                        ErrorCode.PROTOCOL_ERROR,
                        f"SETTINGS_MAX_FRAME_SIZE: expected {frames.DEFAULT_MAX_FRAME_SIZE} to "
                        f"{frames.LARGEST_MAX_FRAME_SIZE}, got {value}",
                    )
                self.max_frame_bytes = value
        return self.initial_window - before


class BlockAssembly:
    """The unfinished header block of a connection, if any: no other frame may come in between."""

    def __init__(self, max_bytes: int) -> None:
        self.stream_id: int | None = None
        """The stream of the unfinished block; None if there is none."""
        self.ends_stream = False
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._bytes = 0

    def begin(self, stream_id: int, part: bytes, *, ends_stream: bool) -> None:
        """Start a block with the payload of a HEADERS frame without END_HEADERS."""
        self.stream_id, self.ends_stream = stream_id, ends_stream
        self._parts, self._bytes = [], 0
        self.add(part)

    def add(self, part: bytes) -> None:
        """Add a part; raises ConnectionFailure for too many parts or too many bytes (CVE-2024-27316)."""
        self._parts.append(part)
        self._bytes += len(part)
        if self._bytes > self._max_bytes or len(self._parts) > abuse.MAX_CONTINUATIONS + 1:
            raise ConnectionFailure(
                ErrorCode.ENHANCE_YOUR_CALM, f"a header block of {self._bytes} bytes in {len(self._parts)} frames"
            )

    def finish(self) -> bytes:
        """Return the whole block and forget it."""
        block = b"".join(self._parts)
        self.stream_id, self._parts = None, []
        return block


_ALIVE_PING: Final = b"alive..."
_PING_STRIKES: Final = 2


class ControlFrames:
    """Handles the control frames of one connection and limits how many its peer may send."""

    def __init__(self, connection: Connection) -> None:
        self.peer = PeerSettings()
        self.pinged_s: float | None = None
        """When our unanswered keepalive PING was sent, on the loop's clock; None if there is none."""
        self.handlers = {
            frames.PRIORITY: self._on_priority,
            frames.SETTINGS: self._on_settings,
            frames.PUSH_PROMISE: self._on_push_promise,
            frames.PING: self._on_ping,
            frames.GOAWAY: self._on_goaway,
        }
        self._connection = connection
        self._sender = connection.sender
        self._settings = abuse.Meter(abuse.SETTINGS)
        self._pings = abuse.Meter(abuse.PINGS)
        self._last_ping_s = float("-inf")
        self._ping_strikes = 0
        self._priorities = 0

    def _on_settings(self, stream_id: int, flags: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "an acknowledgement has no payload")
            return
        self._settings.count(self._connection.heard_s)
        change = self.peer.apply(payload)
        self._connection.expects = None
        self._sender.max_frame_bytes = self.peer.max_frame_bytes
        self._sender.reply(frames.SETTINGS_ACK)
        if change:
            for stream in self._connection.streams.values():
                stream.send_window += change
                if stream.send_window > frames.LARGEST_WINDOW:
                    raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "the new window overflows a stream's")
            self._sender.windows_changed()

    def _on_push_promise(self, _stream_id: int, _flags: int, _payload: bytes) -> None:
        raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "a client does not push")

    def _on_ping(self, stream_id: int, flags: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "PING has 8 bytes")
        if flags & frames.ACK:
            if payload == DRAIN_PING:
                self._connection.draining.acknowledged()
            elif payload == _ALIVE_PING:
                self.pinged_s = None
            return
        if not self._sender.has_sent_since_ping:
            self._pings.count(self._connection.heard_s)
        is_early = self._connection.heard_s - self._last_ping_s < self._connection.shared.limits.keepalive_min_ping_s
        self._ping_strikes = self._ping_strikes + 1 if is_early and not self._sender.has_sent_since_ping else 0
        self._last_ping_s, self._sender.has_sent_since_ping = self._connection.heard_s, False
        if self._ping_strikes > _PING_STRIKES:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")
        self._sender.reply(frames.ping(payload, is_ack=True))

    def _on_goaway(self, stream_id: int, _flags: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY has at least 8 bytes")
        # GOAWAY concerns streams that the server begins, and there are none. The client closes when it is done.

    def _on_priority(self, stream_id: int, _flags: int, payload: bytes) -> None:
        if not stream_id:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        self._priorities += 1
        if self._priorities > self._connection.counted.begun:  # clients of RFC 7540 send one with each call
            self._connection.idle_frames.count(self._connection.heard_s)
        if len(payload) != 5:
            if stream_id > self._connection.last_stream_id or not stream_id & 1:
                # RST_STREAM must not be sent for a stream that was never opened (section 6.4).
                raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY has 5 bytes")
            raise StreamFailure(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY has 5 bytes")

    def ping(self) -> None:
        """Send a keepalive PING."""
        self.pinged_s = self._connection.loop.time()
        self._sender.write(frames.ping(_ALIVE_PING))


class HeaderFrames:
    """Handles the header frames of one connection."""

    def __init__(self, connection: Connection) -> None:
        shared = connection.shared
        self.blocks = HeaderBlocks(shared.methods, shared.limits.max_metadata_bytes)
        self._assembly = BlockAssembly(self.blocks.max_block_bytes)
        self._connection = connection
        self._max_streams = shared.limits.max_concurrent_streams
        self.handlers = {frames.HEADERS: self._on_headers, frames.CONTINUATION: self._on_continuation}

    @property
    def interrupted(self) -> int | None:
        """The stream of the unfinished header block; None if there is none."""
        return self._assembly.stream_id

    def _on_headers(self, stream_id: int, flags: int, payload: bytes) -> None:
        connection = self._connection
        if (
            flags == frames.END_HEADERS
            and connection.last_stream_id < stream_id <= connection.draining.final_stream_id
            and stream_id & 1
            and len(connection.streams) < self._max_streams
        ):
            # The shortcut for a cached block of a method with one request, which comes in later frames.
            plain = self.blocks.plain(payload)
            if plain is not None:
                connection.last_stream_id = stream_id
                connection.counted.begun += 1
                stream = Stream(connection, stream_id, *plain, connection.control.peer.initial_window)
                stream.heard_s = connection.heard_s
                connection.streams[stream_id] = stream
                return
        if not stream_id:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "HEADERS on stream 0")
        if flags & frames.PADDED:
            payload = frames.unpadded(payload)
        if flags & frames.HAS_PRIORITY:
            payload = frames.without_priority(payload)
        is_end = bool(flags & frames.END_STREAM)
        if flags & frames.END_HEADERS:
            self._on_block(stream_id, payload, is_end=is_end)
            return
        self._assembly.begin(stream_id, payload, ends_stream=is_end)
        connection.expects = frames.CONTINUATION

    def _on_continuation(self, stream_id: int, flags: int, payload: bytes) -> None:
        connection = self._connection
        if self._assembly.stream_id is None:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._assembly.add(payload)
        if flags & frames.END_HEADERS:
            connection.expects = None
            self._on_block(stream_id, self._assembly.finish(), is_end=self._assembly.ends_stream)

    def _on_block(self, stream_id: int, block: bytes, *, is_end: bool) -> None:
        connection = self._connection
        if stream_id <= connection.last_stream_id:
            self._on_trailers(stream_id, block, is_end=is_end)
            return
        if not stream_id & 1:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"a client's streams have odd numbers, got {stream_id}")
        connection.last_stream_id = stream_id
        connection.counted.begun += 1
        if not self._takes(stream_id):
            self.blocks.skip(block)
            raise StreamFailure(ErrorCode.REFUSED_STREAM, "no further stream is taken")
        head = self.blocks.request(block)
        self._begin(stream_id, head, is_end=is_end)

    def _takes(self, stream_id: int) -> bool:
        """Whether the stream is within the limit of concurrent streams and not refused by a GOAWAY."""
        connection = self._connection
        return len(connection.streams) < self._max_streams and stream_id <= connection.draining.final_stream_id

    def _begin(self, stream_id: int, head: RequestHead, *, is_end: bool) -> None:
        connection = self._connection
        stream = Stream(connection, stream_id, head, head.timeout_s, connection.control.peer.initial_window)
        connection.streams[stream_id] = stream
        if head.method is None:
            stream.is_remote_closed = is_end
            stream.refuse()
        elif head.timeout_s is not None and head.timeout_s <= 0:
            stream.is_remote_closed = is_end
            stream.expire()
        elif connection.sender.holds_too_much:
            stream.is_remote_closed = is_end
            stream.fail(TOO_MUCH_UNREAD)
        else:
            connection.shared.runner.begin(stream)
            if is_end:
                stream.end_of_request()
            elif stream.requests is None:
                stream.heard_s = connection.heard_s

    def _on_trailers(self, stream_id: int, block: bytes, *, is_end: bool) -> None:
        connection = self._connection
        stream = connection.streams.get(stream_id)
        if stream is None:
            self.blocks.skip(block)
            if stream_id not in connection.reset_by_us:
                raise ConnectionFailure(ErrorCode.STREAM_CLOSED, f"HEADERS on stream {stream_id}, which is closed")
            connection.counted.count_late_frame()
            return
        if stream.is_remote_closed:
            self.blocks.skip(block)
            raise StreamFailure(ErrorCode.STREAM_CLOSED, "HEADERS after END_STREAM")
        self.blocks.trailers(block)
        if not is_end:
            raise StreamFailure(ErrorCode.PROTOCOL_ERROR, "trailers must end the stream")
        stream.end_of_request()
