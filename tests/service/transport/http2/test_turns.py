"""No connection keeps the event loop from the others, however many frames it has sent."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from service.transport.http2 import connection as connections
from service.transport.http2.call_runner import CallRunner
from service.transport.http2.connection import Connection
from service.transport.http2.sending import Sender
from service.transport.http2.shared import Shared
from service.wire import frames
from tests.fuzz.connection import FakeTransport, check_answer
from tests.service.transport.http2 import wire
from tests.service.transport.http2.host import Handlers, limits_with
from tests.service.transport.http2.peer import Peer
from tests.service.transport.http2.wire import Setting

if TYPE_CHECKING:
    from collections.abc import Iterator

GREETING = wire.PREFACE + wire.settings()


@pytest.fixture
def shortest_turns(monkeypatch) -> None:
    """One frame, or what is taken in one go."""
    monkeypatch.setattr(connections, "_TURN_S", -1.0)


@contextmanager
def connected() -> Iterator[tuple[Connection, FakeTransport]]:
    loop = asyncio.get_running_loop()
    shared = Shared(loop, Handlers().methods(), limits_with(), CallRunner(loop, None, None))
    connection = Connection(shared)
    transport = FakeTransport(connection)
    connection.connection_made(transport)
    try:
        yield connection, transport
    finally:
        connection.connection_lost(None)
        shared.deadlines.stop()


async def test_others_have_their_turn_between_the_frames_of_a_flood(shortest_turns) -> None:
    with connected() as (connection, transport):
        connection.data_received(GREETING)
        turns = 0
        connection.data_received(wire.window_update(0, 1) * 200 + wire.ping(b"the last"))
        assert not transport.is_reading()
        while not transport.is_reading():
            assert b"the last" not in transport.written
            turns += 1
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert turns == 200
        assert connection.sender.window == frames.DEFAULT_WINDOW + 200
        assert b"the last" in transport.written


async def test_what_tls_had_already_waits_behind_what_came_before(shortest_turns) -> None:
    with connected() as (connection, transport):
        connection.data_received(GREETING + wire.ping(b"first..."))
        connection.data_received(wire.ping(b"second..")[:5])
        connection.data_received(wire.ping(b"second..")[5:])
        while not transport.is_reading():  # noqa: ASYNC110 - by itself
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert transport.written.index(b"first...") < transport.written.index(b"second..")


async def test_a_connection_that_is_lost_between_two_turns_is_forgotten(shortest_turns) -> None:
    with connected() as (connection, transport):
        connection.data_received(GREETING + wire.ping(b"whatever") * 3)
        connection.close()
        for _ in range(5):
            await asyncio.sleep(0)
        check_answer(bytes(transport.written))
        assert b"whatever" not in transport.written
        assert not transport.is_reading()


@pytest.mark.parametrize("path", [b"/wire.Test/Echo", b"/wire.Test/Quick"])
def test_calls_are_answered_whatever_the_turns(engines, shortest_turns, path) -> None:
    block = wire.block(wire.request(path))
    with Peer(engines["http2"].port) as peer:
        numbers = range(1, 199, 2)  # the server takes a hundred at a time
        peer.send(b"".join(wire.headers(n, block) + wire.data(n, wire.message(b"%d" % n), end=True) for n in numbers))
        assert [peer.finish(n).messages() for n in numbers] == [[b"%d" % n] for n in numbers]


def test_streams_are_answered_in_order_whatever_the_turns(engines, shortest_turns, chat) -> None:
    messages = [b"%d" % number for number in range(500)]
    with Peer(engines["http2"].port) as peer:
        peer.send(wire.headers(1, chat) + b"".join(wire.data(1, wire.message(each)) for each in messages))
        peer.send(wire.data(1, end=True))
        assert peer.finish(1).messages() == messages


def test_a_window_that_helps_nobody_costs_nothing(engines, monkeypatch) -> None:
    """A thousand streams that their own windows hold, and a connection's window that opens byte by byte."""
    block = wire.block(wire.request(b"/wire.Test/Echo"))
    numbers = range(1, 101, 2)
    pumped = []
    pump = Sender.pump
    with Peer(engines["http2"].port, {Setting.INITIAL_WINDOW_SIZE: 0}, opens_windows=False) as peer:
        peer.send(b"".join(wire.headers(n, block) + wire.data(n, wire.message(b"hello"), end=True) for n in numbers))
        peer.read_until(lambda: all(peer.stream(number).headers for number in numbers))
        peer.fence()
        monkeypatch.setattr(Sender, "pump", lambda self, stream: (pumped.append(stream.id), pump(self, stream)))
        peer.send(wire.window_update(0, 1) * 300)
        peer.fence()
        assert pumped == []
        peer.send(wire.window_update(3, 100))
        assert peer.finish(3).messages() == [b"hello"]
        assert pumped == [3]
        peer.send(wire.settings({Setting.INITIAL_WINDOW_SIZE: 10}))
        assert [peer.finish(number).messages() for number in numbers] == [[b"hello"]] * len(numbers)
