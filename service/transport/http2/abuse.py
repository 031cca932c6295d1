"""What a peer may do that costs it little and us much, and how often: then the connection is told to calm down.

The limits are of the order that nghttp2, Envoy and nginx took after CVE-2023-44487 (rapid reset), CVE-2019-9512 to 9518
(floods of PING, SETTINGS, empty frames), CVE-2024-27316 (CONTINUATION) and CVE-2025-8671 (MadeYouReset).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from service.wire.errors import ConnectionFailure, ErrorCode


@dataclass(frozen=True)
class Allowance:
    """So many at once, and so many a second in the long run."""

    what: str
    burst: int
    per_s: float


RESETS: Final = Allowance("streams reset", 1000, 100.0)
"""By the client, or by us for what the client did: both waste a call that was begun. They count where more streams end
so than by an answer; a client whose deadlines pass now and then may go on.
"""
SETTINGS: Final = Allowance("SETTINGS frames", 100, 1.0)
PINGS: Final = Allowance("PING frames", 1000, 100.0)
"""PINGs without anything sent between them: to measure the network, grpc-go pings after every answer that it reads.
`keepalive_min_ping_s` is stricter.
"""
IDLE_FRAMES: Final = Allowance("frames that carry nothing", 1000, 100.0)
"""Empty DATA, PRIORITY, unknown types."""
LATE_FRAMES: Final = 1000
LATE_FRAMES_A_STREAM: Final = 100
"""Frames for streams that are over, which a client may send in good faith before it knows: so many, and as many more
for each stream that it has begun. A refused upload of a megabyte is 64 frames."""

MAX_CONTINUATIONS: Final = 32
"""Frames of one header block."""
MAX_UNREAD_REPLIES: Final = 1000
"""Acknowledgements and resets for a peer that does not read them."""
BODY_TIMEOUT_S: Final = 60.0
"""From a call's last byte to its next one, until the request of a call that takes one request is complete."""
PREFACE_TIMEOUT_S: Final = 20.0
"""For a TLS handshake; and from the connection (and its TLS handshake) to the client's preface and settings."""
WRITE_TIMEOUT_S: Final = 60.0
"""How long a peer may read nothing at all while there is something for it, or nothing of a complete response."""
DRAIN_TIMEOUT_S: Final = 1.0
"""How long a peer that drains may take to say that it has heard; then further streams are refused anyway."""
UNREAD_BYTES: Final = 64 * 1024 * 1024
"""Bytes of responses that one peer does not read; above it, further calls are refused with RESOURCE_EXHAUSTED."""
MAX_UNREAD_BYTES: Final = 512 * 1024 * 1024
"""Bytes of unread responses of all peers together."""
MAX_BUFFERED_BYTES: Final = 512 * 1024 * 1024
"""Requests of all connections that are not complete, or not yet read by their handlers; one more byte and its call is
refused with RESOURCE_EXHAUSTED."""


class Meter:
    """Counts one kind of thing on one connection, as a bucket that leaks."""

    __slots__ = ("_allowance", "_level", "_since_s")

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._level = 0.0
        self._since_s = 0.0

    def count(self, now_s: float) -> None:
        """One more; raises ConnectionFailure when it is one too many."""
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
    """What became of one connection's streams, as far as it tells a clumsy client from a hostile one."""

    __slots__ = ("_late_frames", "_meter", "_resets", "begun")

    def __init__(self) -> None:
        self.begun = 0
        self._resets = 0
        self._late_frames = 0
        self._meter = Meter(RESETS)

    def count_reset(self, now_s: float, under_way: int) -> None:
        """One was reset, and so many are under way; raises ConnectionFailure when it is one too many."""
        self._resets += 1
        if self._resets > self.begun - under_way - self._resets:
            self._meter.count(now_s)

    def count_late_frame(self) -> None:
        """A frame came for one that is over; raises ConnectionFailure when it is one too many."""
        self._late_frames += 1
        if self._late_frames > LATE_FRAMES + LATE_FRAMES_A_STREAM * self.begun:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "too many frames for streams that are over")
