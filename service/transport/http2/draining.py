"""The kind end of a connection (RFC 9113, section 6.8): first the peer hears, then it is held to it."""

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
        """When it began, on the loop's clock."""
        self.final_stream_id = frames.LARGEST_STREAM_ID
        """Streams above it are refused."""
        self._connection = connection
        self._reason = "server stopping"
        self._on_acknowledged: Callable[[], None] | None = None

    @property
    def refuses_streams(self) -> bool:
        """Whether the peer has been told a final number."""
        return self.final_stream_id != frames.LARGEST_STREAM_ID

    def begin(self, reason: str, on_acknowledged: Callable[[], None] | None = None) -> None:
        """Tell the peer to use other connections for what it begins from now on. What is on its way is still served:
        from which number on streams are refused is told when the peer is known to have heard.

        ``on_acknowledged`` is called then, or when the connection is gone; at once if it drains already.
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
        """The peer has heard, or is gone."""
        if self.is_under_way:
            self.refuse_streams()
        on_acknowledged, self._on_acknowledged = self._on_acknowledged, None
        if on_acknowledged is not None:
            on_acknowledged()

    def refuse_streams(self) -> None:
        """Take no stream beyond those that there are; the connection closes once they are done."""
        connection = self._connection
        if connection.is_closed or self.refuses_streams:
            return
        self.is_under_way = True
        self.final_stream_id = connection.last_stream_id
        connection.write(frames.goaway(self.final_stream_id, ErrorCode.NO_ERROR, self._reason))
        if not connection.streams:
            connection.close()
