"""``host:port``, as people write it."""

from __future__ import annotations

MAIN_PORT, CONTROL_PORT = 8001, 8003
"""Where a server with default settings answers, and where it is controlled."""
_HIGHEST_PORT = 65535


def split_address(address: str, usual_port: int = MAIN_PORT) -> tuple[str, int]:
    """Host, without the brackets of IPv6, and port; ValueError, with ``usual_port`` in its example, for no address."""
    host, _, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_port = port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= _HIGHEST_PORT
    is_host = bool(bare) and not any(c in "/[]@" or c.isspace() for c in bare) and (":" not in bare or bare != host)
    if not is_port or not is_host:
        raise ValueError(f"got {address!r}, expected host:port such as 127.0.0.1:{usual_port} or [::1]:{usual_port}")
    return bare, int(port)
