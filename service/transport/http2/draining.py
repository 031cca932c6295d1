"""Graceful shutdown of a connection (RFC 9113, section 6.8): one GOAWAY warns the peer, a second refuses streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from service.wire import frames
from service.wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.transport.http2.connection import Connection

PING: Final = b"drain..."
"""Payload of the PING whose answer shows that the peer has read the GOAWAY before it."""


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
        self._connection.write(frames.goaway(frames.LARGEST_STREAM_ID, ErrorCode.NO_ERROR, reason) + frames.ping(PING))

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
