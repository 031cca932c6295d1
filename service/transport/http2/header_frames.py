"""HEADERS and CONTINUATION frames (RFC 9113, 6.2, 6.10, 8): they begin calls, and end requests as trailers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.transport.http2.block_assembly import BlockAssembly
from service.transport.http2.header_blocks import HeaderBlocks
from service.transport.http2.stream import Stream
from service.wire import frames
from service.wire.errors import ConnectionFailure, ErrorCode, StreamFailure
from service.wire.statuses import TOO_MUCH_UNREAD

if TYPE_CHECKING:
    from service.transport.http2.connection import Connection
    from service.transport.http2.request_head import RequestHead


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
