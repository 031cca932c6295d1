from __future__ import annotations

import asyncio
import json
import socket

from service.workers import child as module
from service.workers.backplane import Backplane
from service.workers.child import CONTROL, MAIN, Child, Phase, WorkerConfig

MOST = 1_000_000


async def connected(monkeypatch) -> tuple[Child, Backplane, asyncio.Event]:
    """A child without a process, the worker's end of its line, and what is set when it would be killed."""
    monkeypatch.setattr(module, "_PING_EVERY_S", 0.005)
    monkeypatch.setattr(module, "_HUNG_AFTER_S", 0.05)
    child, worker = Child(3, max_body_bytes=MOST), Backplane(max_body_bytes=MOST)
    killed = asyncio.Event()
    monkeypatch.setattr(child, "kill", killed.set)
    for end, connection in zip((child.backplane, worker), socket.socketpair(), strict=True):
        await end.open(connection)
    return child, worker, killed


async def test_a_worker_that_answers_nothing_is_killed(monkeypatch, caplog) -> None:
    child, worker, killed = await connected(monkeypatch)

    async def never(_) -> None:
        await asyncio.sleep(3600)

    worker.on("ping", never)
    child.began()
    await asyncio.wait_for(killed.wait(), 10)
    await asyncio.sleep(0)
    assert "worker does not answer, it is killed" in caplog.text
    await worker.close()
    await child.backplane.close()


async def test_one_that_answers_is_left_alone_and_one_that_is_gone_is_not_killed(monkeypatch) -> None:
    child, worker, killed = await connected(monkeypatch)
    pings = 0

    async def pong(_) -> None:
        nonlocal pings
        pings += 1

    worker.on("ping", pong)
    child.began()
    while pings < 3:  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.005)
    await worker.close()
    await child.backplane.closed.wait()
    await asyncio.sleep(0.02)
    assert not killed.is_set()
    await child.backplane.close()


def test_it_serves_once_and_not_when_it_leaves_already() -> None:
    child = Child(0, max_body_bytes=MOST)
    assert (child.phase, child.listens) == (Phase.STARTING, False)
    child.serves()
    assert (child.phase, child.listens) == (Phase.SERVING, True)
    leaving = Child(1, max_body_bytes=MOST)
    leaving.phase = Phase.LEAVING
    leaving.serves()
    assert leaving.phase is Phase.LEAVING


def test_connections_are_handed_over_with_their_kind_until_the_line_is_full() -> None:
    child = Child(0, max_body_bytes=MOST)
    with socket.socket() as connection:
        assert not child.hand_over(connection, is_control=False)
    child._handing, taking = socket.socketpair()
    child._handing.setblocking(False)
    with socket.socket() as connection, taking:
        assert child.hand_over(connection, is_control=False)
        assert child.hand_over(connection, is_control=True)
        assert child.connections == 2
        for kind in (MAIN, CONTROL):
            found, descriptors, _, _ = socket.recv_fds(taking, 1, 1)
            assert found == kind
            socket.socket(fileno=descriptors[0]).close()
        given = 0
        while given < 100_000 and child.hand_over(connection, is_control=False):
            given += 1
        assert child.connections == 2 + given < 100_000
    child._handing.close()


def test_a_birth_goes_there_and_back() -> None:
    worker_config = WorkerConfig(1, {"port": 5}, True, 3, 4, 5, MOST)
    assert WorkerConfig.from_json(json.dumps(vars(worker_config))) == worker_config
