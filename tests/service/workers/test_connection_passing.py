from __future__ import annotations

import asyncio
import socket

import pytest

from service.workers.child import Phase
from service.workers.connection_passing import Dealer


class Worker:
    """As much of a `Child` as a dealer sees."""

    def __init__(self, *, phase=Phase.SERVING, ready=True, takes=True, connections=0, full=False) -> None:
        self.phase, self.is_ready, self.takes_connections = phase, ready, takes
        self.connections = connections
        self.full = full
        self.given: list[bool] = []

    def hand_over(self, connection: socket.socket, *, is_control: bool) -> bool:
        if self.full:
            return False
        self.connections += 1
        self.given.append(is_control)
        return True


@pytest.fixture
async def dealt():
    """``await dealt(workers, count)``: so many connections come to the main address, and one to that of control."""

    async def deal(workers: list[Worker], count: int) -> None:
        listening = []
        for is_control in (False, True):
            sock = socket.create_server(("127.0.0.1", 0))
            sock.setblocking(False)
            listening.append((sock, is_control))
        dealer = Dealer(lambda: workers)
        dealer.start(listening)
        addresses = [listening[0][0].getsockname()] * count + [listening[1][0].getsockname()]
        clients = [socket.create_connection(address) for address in addresses]
        for client in clients:  # each is closed here when it is given away
            client.setblocking(False)
            async with asyncio.timeout(10):
                assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
        dealer.stop()
        for sock in (*clients, *(sock for sock, _ in listening)):
            sock.close()

    return deal


async def test_those_with_the_fewest_connections_get_the_next(dealt) -> None:
    workers = [Worker(), Worker(connections=2), Worker()]
    await dealt(workers, 6)
    assert [worker.connections for worker in workers] == [3, 3, 3]
    assert sum(sum(worker.given) for worker in workers) == 1


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        (Worker(ready=False), Worker(connections=9)),
        (Worker(phase=Phase.STARTING), Worker(ready=False, connections=9)),
        (Worker(phase=Phase.LEAVING), Worker(phase=Phase.STARTING, connections=9)),
        (Worker(takes=False), Worker(phase=Phase.LEAVING, connections=9)),
        (Worker(full=True), Worker(connections=9)),
    ],
    ids=["ready", "serving", "starting", "leaving", "full"],
)
async def test_the_best_worker_gets_them_however_many_it_has(dealt, worse, better) -> None:
    await dealt([worse, better], 3)
    assert (len(worse.given), len(better.given)) == (0, 4)


async def test_where_nobody_has_room_connections_wait_for_it() -> None:
    worker = Worker(full=True)
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    dealer = Dealer(lambda: [worker])
    dealer.start([(sock, False)])
    clients = [socket.create_connection(sock.getsockname()) for _ in range(5)]
    await asyncio.sleep(0.05)
    assert worker.given == []
    worker.full = False
    async with asyncio.timeout(10):
        while len(worker.given) < 5:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)
    worker.full = True
    clients.append(socket.create_connection(sock.getsockname()))
    await asyncio.sleep(0.02)
    dealer.stop()  # the one that waits is closed
    assert clients[-1].recv(1) == b""
    for each in (*clients, sock):
        each.close()


async def test_connections_wait_until_somebody_takes_them() -> None:
    worker = Worker(takes=False)
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    dealer = Dealer(lambda: [worker])
    dealer.start([(sock, False)])
    with socket.create_connection(sock.getsockname()) as client:
        await asyncio.sleep(0.02)
        assert worker.given == []
        worker.takes_connections = True
        dealer.look()
        client.setblocking(False)
        async with asyncio.timeout(10):
            assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
        assert worker.given == [False]
    dealer.stop()
    sock.close()
