"""The limits of one connection, for both engines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits of one connection: the settings of the same names in `service.config`, where their bounds are."""

    max_message_bytes: int
    max_metadata_bytes: int
    max_concurrent_streams: int
    keepalive_min_ping_s: float
    """Least seconds between a client's pings; after a few faster ones it gets a GOAWAY."""
    keepalive_time_s: float
    keepalive_timeout_s: float
    max_connection_age_s: float = 0.0
    """0 means no limit, here and in the two below."""
    max_connection_age_grace_s: float = 0.0
    max_connection_idle_s: float = 0.0
