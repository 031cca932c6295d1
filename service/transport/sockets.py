"""Sockets that listen: on every interface, and until they are closed without a connection that is left open."""

from __future__ import annotations

import asyncio
import socket

EVERY = "::"
"""The host that means it. asyncio, of itself, takes it for IPv6 alone; grpcio takes it for both."""


def listening(port: int, backlog: int) -> socket.socket:
    """A socket that listens on `EVERY`, in both families where the system can; OSError where it cannot listen."""
    return socket.create_server(
        (EVERY, port), family=socket.AF_INET6, dualstack_ipv6=socket.has_dualstack_ipv6(), backlog=backlog
    )


async def close_server(server: asyncio.Server) -> None:
    """Accept nothing more, and close ``server``.

    asyncio makes the transport of a connection one tick after accepting it. Before Python 3.12 that fails if the server
    was closed meanwhile, and the socket stays open: so what was accepted has its turn first.
    """
    loop = asyncio.get_running_loop()
    if isinstance(loop, asyncio.BaseEventLoop):  # uvloop is none, and has no such gap
        for listening in server.sockets:
            loop.remove_reader(listening)
        await asyncio.sleep(0)
    server.close()
