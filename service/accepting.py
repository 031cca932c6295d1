"""The end of listening, without a connection that is left open."""

from __future__ import annotations

import asyncio


async def close(server: asyncio.Server) -> None:
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
