"""The peer of a connection: its address, TCP_NODELAY, and whether it negotiated HTTP/2."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


def name(transport: asyncio.BaseTransport) -> str:
    """The peer's address as gRPC writes it, for example ``ipv4:127.0.0.1:5000``."""
    address = transport.get_extra_info("peername")
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = str(address[0]), address[1]
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
    return "unix:" if isinstance(address, str | bytes) else "unknown"


def set_no_delay(transport: asyncio.BaseTransport) -> None:
    """Set TCP_NODELAY, so that small responses are sent at once. asyncio sets it only if the socket object's ``proto``
    is TCP, which sockets from another process may lack.
    """
    plain = transport.get_extra_info("socket")
    if plain is not None and plain.family in (socket.AF_INET, socket.AF_INET6):
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def has_agreed(transport: asyncio.BaseTransport) -> bool:
    """Whether the peer negotiated ``h2`` by ALPN; always True without TLS (RFC 9113, section 3.2). OpenSSL does not
    fail the handshake if client and server have no protocol in common.
    """
    secured = transport.get_extra_info("ssl_object")
    return secured is None or secured.selected_alpn_protocol() == "h2"
