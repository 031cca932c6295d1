"""What was accepted before the end of listening is somebody's, and can be closed."""

from __future__ import annotations

import asyncio
import socket

from service.transport.sockets import close_server


async def test_a_connection_that_was_just_accepted_is_made() -> None:
    made = []
    server = await asyncio.start_server(lambda _, writer: made.append(writer), "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()):
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # in the tick between, it was accepted; its transport comes in the next one
        assert not made
        await close_server(server)
        await asyncio.sleep(0.01)
        assert len(made) == 1
        made[0].close()
        await made[0].wait_closed()


async def test_nobody_is_accepted_any_more() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    here = server.sockets[0].getsockname()
    await close_server(server)
    assert not server.is_serving()
    with socket.socket() as late:
        late.settimeout(5)
        assert late.connect_ex(here) != 0
    await close_server(server)  # once more changes nothing
