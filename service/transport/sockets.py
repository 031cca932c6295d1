"""Listening sockets: opened on every interface, and closed without leaking accepted connections."""

from __future__ import annotations

import asyncio
import socket

EVERY = "::"
"""The host that stands for every interface. asyncio listens on it with IPv6 only, grpcio with IPv4 and IPv6."""


def listening(port: int, backlog: int) -> socket.socket:
    """A socket that listens on `EVERY`, with IPv4 and IPv6 where the system allows both; raises OSError on failure."""
    return socket.create_server(
        (EVERY, port), family=socket.AF_INET6, dualstack_ipv6=socket.has_dualstack_ipv6(), backlog=backlog
    )


async def close_server(server: asyncio.Server) -> None:
    """Stop accepting connections, and close ``server``.

    asyncio makes the transport of a connection one iteration after accepting it. Before Python 3.12 that fails if the
    server was closed meanwhile, and the socket stays open: so accepted connections are handled before it is closed.
    """
    loop = asyncio.get_running_loop()
    if isinstance(loop, asyncio.BaseEventLoop):  # uvloop's loop is none, and has no such gap
        for listening in server.sockets:
            loop.remove_reader(listening)
        await asyncio.sleep(0)
    server.close()
