"""Sockets for every interface of a machine, of IPv6 and IPv4 alike."""

from __future__ import annotations

import socket

EVERY = "::"
"""The host that means it. asyncio, of itself, takes it for IPv6 alone; grpcio takes it for both."""


def listening(port: int, backlog: int) -> socket.socket:
    """A socket that listens on `EVERY`, in both families where the system can; OSError where it cannot listen."""
    return socket.create_server(
        (EVERY, port), family=socket.AF_INET6, dualstack_ipv6=socket.has_dualstack_ipv6(), backlog=backlog
    )
