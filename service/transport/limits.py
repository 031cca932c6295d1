"""What one connection may take, whichever engine runs it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ConnectionLimits:
    """The settings of the same names in `service.config`, where their bounds are."""

    max_message_bytes: int
    max_metadata_bytes: int
    max_concurrent_streams: int
    keepalive_min_ping_s: float
    """A client that pings more often is told to go away after a few pings."""
    keepalive_time_s: float
    keepalive_timeout_s: float
    max_connection_age_s: float = 0.0
    """0: no limit; likewise below."""
    max_connection_age_grace_s: float = 0.0
    max_connection_idle_s: float = 0.0
