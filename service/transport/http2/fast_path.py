"""The shortcut for the common case: calls whose HEADERS were seen before and whose request is one DATA frame, and DATA
frames that are one message of a stream.

All that follow each other in the received bytes are taken in one go. All other frames are left to `Connection`, which
implements all of RFC 9113; the frames taken here need no further checks.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from service.transport.http2.stream import Stream
from service.wire import frames
from service.wire.messages import PREFIX_BYTES

if TYPE_CHECKING:
    from service.transport.http2.connection import Connection
    from service.transport.http2.request_heads import HeaderBlocks
    from service.transport.http2.request_streams import OpenedStream


_MESSAGE_AT: Final = frames.MESSAGE_HEADER.size
LARGEST_BYTES: Final = 64 * 1024
"""Largest DATA frame that is taken here."""
MOST_AT_ONCE: Final = 128
"""Calls or messages that are taken before `Connection` checks whether to let other work run."""


class WholeMessages:
    """The shortcut for one connection."""

    def __init__(self, connection: Connection, blocks: HeaderBlocks) -> None:
        limits = connection.shared.limits
        self._connection = connection
        self._blocks = blocks
        self._max_streams = limits.max_concurrent_streams
        self._most_bytes = min(PREFIX_BYTES + limits.max_message_bytes, LARGEST_BYTES)

    def take_calls(self, data: bytes, position: int) -> int:
        """Begin the calls that ``data`` has from ``position`` on; return the position of the first other frame."""
        connection, known = self._connection, self._blocks.known
        streams, runner = connection.streams, connection.shared.runner
        send_window = connection.control.peer.initial_window
        # Only the general way sends WINDOW_UPDATE, so that this one must not use up the window.
        room = connection.receive_window - connection.least_window
        unpack, unpack_message = frames.FRAME_HEADER.unpack_from, frames.MESSAGE_HEADER.unpack_from
        last_message_header = len(data) - _MESSAGE_AT
        began_s = time.perf_counter()
        head = enter = None
        begun = entered = received = 0
        while position < last_message_header and begun < MOST_AT_ONCE and not connection.is_closed:
            high, low, kind, flags, stream_id = unpack(data, position)
            start = position + frames.HEADER_BYTES
            message_header = start + (high << 8 | low)
            if (
                kind != frames.HEADERS
                or flags != frames.END_HEADERS
                or not connection.last_stream_id < stream_id <= connection.draining.final_stream_id
                or not stream_id & 1
                or message_header > last_message_header
                or len(streams) >= self._max_streams
            ):
                break
            high, low, kind, flags, data_stream_id, compressed, size = unpack_message(data, message_header)
            body_bytes = high << 8 | low
            stop = message_header + frames.HEADER_BYTES + body_bytes
            if (
                kind != frames.DATA
                or flags != frames.END_STREAM
                or data_stream_id != stream_id
                or compressed
                or size != body_bytes - PREFIX_BYTES
                or body_bytes > self._most_bytes
                or body_bytes > room - received
                or stop > len(data)
            ):
                break
            block = data[start:message_header]
            its_head = known.get(block)
            if its_head is not None and its_head.is_plain:
                timeout_s = its_head.timeout_s
            else:
                plain = self._blocks.plain(block)
                if plain is None:
                    break
                its_head, timeout_s = plain
            connection.last_stream_id = stream_id
            begun += 1
            received += body_bytes
            stream = streams[stream_id] = Stream(connection, stream_id, its_head, timeout_s, send_window)
            stream.is_remote_closed = True
            message = data[message_header + _MESSAGE_AT : stop]
            position = stop
            if its_head is not head:
                head, enter = its_head, runner.express(stream)
            if enter is not None:
                stream.asked, stream.began_s = message, began_s
                stream.entered = enter(message, timeout_s, stream)
                if stream.entered is not None:
                    entered += 1
                    continue
                stream.asked = None
            runner.run_generally(stream, message)
        connection.receive_window -= received
        connection.counted.begun += begun
        if entered:
            runner.express_began(entered)
        return position

    def take_streamed(self, data: bytes, position: int, opened: OpenedStream) -> int:
        """Pass on the messages of one stream that ``data`` has from ``position`` on; return the position after them."""
        connection, stream = self._connection, opened.stream
        stream_id, room = stream.id, min(connection.receive_window - connection.least_window, stream.receive_window)
        unpack = frames.MESSAGE_HEADER.unpack_from
        last_message_header = len(data) - _MESSAGE_AT
        received = taken = 0
        while position <= last_message_header and taken < MOST_AT_ONCE and opened.takes_at_once:
            high, low, kind, flags, data_stream_id, compressed, size = unpack(data, position)
            body_bytes = high << 8 | low
            stop = position + frames.HEADER_BYTES + body_bytes
            if (
                kind != frames.DATA
                or flags
                or data_stream_id != stream_id
                or compressed
                or size != body_bytes - PREFIX_BYTES
                or body_bytes > self._most_bytes
                or body_bytes > room - received
                or stop > len(data)
            ):
                break
            received += body_bytes
            taken += 1
            message = data[position + _MESSAGE_AT : stop]
            position = stop
            opened.take(message)
        connection.receive_window -= received
        stream.spend(received)
        return position
