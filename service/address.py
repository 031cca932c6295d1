"""Parsing of ``host:port`` addresses."""

from __future__ import annotations

MAIN_PORT, CONTROL_PORT = 8001, 8003
"""Default ports of a server for inference and for control."""
_HIGHEST_PORT = 65535


def split_address(address: str, usual_port: int = MAIN_PORT) -> tuple[str, int]:
    """Split into host, without the brackets of IPv6, and port; raises ValueError with ``usual_port`` in its example."""
    host, _, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_port = port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= _HIGHEST_PORT
    is_host = bool(bare) and not any(c in "/[]@" or c.isspace() for c in bare) and (":" not in bare or bare != host)
    if not is_port or not is_host:
        raise ValueError(f"got {address!r}, expected host:port such as 127.0.0.1:{usual_port} or [::1]:{usual_port}")
    return bare, int(port)
