"""Rate limits for what costs a peer little and the server much; beyond them a connection gets ENHANCE_YOUR_CALM.

The limits are of the order that nghttp2, Envoy and nginx took after CVE-2023-44487 (rapid reset), CVE-2019-9512 to 9518
(floods of PING, SETTINGS, empty frames), CVE-2024-27316 (CONTINUATION) and CVE-2025-8671 (MadeYouReset).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from service.wire.errors import ConnectionFailure, ErrorCode


@dataclass(frozen=True)
class Allowance:
    """A rate limit: ``burst`` events at once, and ``per_s`` a second in the long run."""

    what: str
    burst: int
    per_s: float


RESETS: Final = Allowance("streams reset", 1000, 100.0)
"""Resets by the client, and by the server for what the client did: both waste a call that was begun. They count only
while more streams end by a reset than by a response, so that a client may miss deadlines now and then.
"""
SETTINGS: Final = Allowance("SETTINGS frames", 100, 1.0)
PINGS: Final = Allowance("PING frames", 1000, 100.0)
"""PINGs between which the server has sent nothing: to measure the network, grpc-go pings after every response that it
reads. `keepalive_min_ping_s` is stricter.
"""
IDLE_FRAMES: Final = Allowance("frames that carry nothing", 1000, 100.0)
"""Empty DATA frames, PRIORITY frames and frames of unknown types."""
LATE_FRAMES: Final = 1000
LATE_FRAMES_A_STREAM: Final = 100
"""Frames for streams that are over, which a client may send in good faith before it knows: LATE_FRAMES of them, plus
LATE_FRAMES_A_STREAM for each stream that it has begun. A refused upload of a megabyte is 64 frames."""

MAX_CONTINUATIONS: Final = 32
"""Most CONTINUATION frames of one header block."""
MAX_UNREAD_REPLIES: Final = 1000
"""Most acknowledgements and resets that wait for a peer that does not read them."""
BODY_TIMEOUT_S: Final = 60.0
"""Longest pause between two parts of a request, in calls that take one request."""
PREFACE_TIMEOUT_S: Final = 20.0
"""Limit of a TLS handshake; and of the time from there, or from the connection without TLS, to the client's preface and
settings."""
WRITE_TIMEOUT_S: Final = 60.0
"""How long a peer may read nothing at all while data wait for it, or nothing of a complete response."""
DRAIN_TIMEOUT_S: Final = 1.0
"""How long a draining peer may take to acknowledge the GOAWAY; then further streams are refused anyway."""
UNREAD_BYTES: Final = 64 * 1024 * 1024
"""Bytes of responses that one peer has not read; above it, further calls are refused with RESOURCE_EXHAUSTED."""
MAX_UNREAD_BYTES: Final = 512 * 1024 * 1024
"""Bytes of unread responses of all peers together."""
MAX_BUFFERED_BYTES: Final = 512 * 1024 * 1024
"""Bytes of requests of all connections that are not complete, or not yet read by their handlers; a call that exceeds it
is refused with RESOURCE_EXHAUSTED."""


class Meter:
    """Counts one kind of event on one connection with a leaky bucket."""

    __slots__ = ("_allowance", "_level", "_since_s")

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._level = 0.0
        self._since_s = 0.0

    def count(self, now_s: float) -> None:
        """Count one event; raises ConnectionFailure if it exceeds the allowance."""
        leaked = (now_s - self._since_s) * self._allowance.per_s
        self._since_s = now_s
        self._level = max(0.0, self._level - leaked) + 1.0
        if self._level > self._allowance.burst:
            raise ConnectionFailure(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"too many {self._allowance.what}: at most {self._allowance.burst} at once and "
                f"{self._allowance.per_s:g} a second",
            )


class Streams:
    """Counts how one connection's streams ended, to tell a clumsy client from a hostile one."""

    __slots__ = ("_late_frames", "_meter", "_resets", "begun")

    def __init__(self) -> None:
        self.begun = 0
        self._resets = 0
        self._late_frames = 0
        self._meter = Meter(RESETS)

    def count_reset(self, now_s: float, under_way: int) -> None:
        """Count a reset while ``under_way`` streams are open; raises ConnectionFailure if there are too many resets."""
        self._resets += 1
        if self._resets > self.begun - under_way - self._resets:
            self._meter.count(now_s)

    def count_late_frame(self) -> None:
        """Count a frame for a stream that is over; raises ConnectionFailure if there are too many."""
        self._late_frames += 1
        if self._late_frames > LATE_FRAMES + LATE_FRAMES_A_STREAM * self.begun:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "too many frames for streams that are over")
