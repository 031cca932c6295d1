"""Frames about the connection itself: SETTINGS, PING, GOAWAY, PRIORITY, PUSH_PROMISE (RFC 9113, section 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from service.transport.http2 import abuse, draining
from service.transport.http2.settings import PeerSettings
from service.wire import frames
from service.wire.errors import ConnectionFailure, ErrorCode, StreamFailure

if TYPE_CHECKING:
    from service.transport.http2.connection import Connection

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
            if payload == draining.PING:
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
