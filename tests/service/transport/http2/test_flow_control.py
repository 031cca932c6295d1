"""RFC 9113, sections 5.2, 6.9 and 6.9.2: windows in both directions."""

from __future__ import annotations

import pytest

from tests.service.transport.http2 import wire
from tests.service.transport.http2.peer import Peer
from tests.service.transport.http2.rows import (
    NEXT,
    Answered,
    Ignored,
    Row,
    check,
    check_goes_on,
    connection_error,
    stream_error,
    table,
)
from tests.service.transport.http2.wire import Error, Kind, Setting

BLOCK = wire.block(wire.request())
OPEN = wire.headers(1, BLOCK)
HELLO = wire.data(1, wire.message(), end=True)
MOST = wire.MAX_WINDOW

ROWS = [
    Row("9113-6.9", "zero increment of a stream", OPEN + wire.window_update(1, 0), stream_error(Error.PROTOCOL_ERROR)),
    Row(
        "9113-6.9", "zero increment of the connection", wire.window_update(0, 0), connection_error(Error.PROTOCOL_ERROR)
    ),
    Row("9113-6.9", "the reserved bit is ignored", OPEN + wire.window_update(1, 1 << 31 | 5) + HELLO, Answered()),
    Row(
        "9113-6.9",
        "a wrong length",
        wire.frame(Kind.WINDOW_UPDATE, 0, 0, bytes(3)),
        connection_error(Error.FRAME_SIZE_ERROR),
    ),
    Row(
        "9113-6.9",
        "a wrong length on a stream",
        OPEN + wire.frame(Kind.WINDOW_UPDATE, 0, 1, bytes(5)),
        connection_error(Error.FRAME_SIZE_ERROR),
    ),
    Row("9113-6.9.1", "the largest window of the connection", wire.window_update(0, MOST - 65_535), Ignored()),
    Row(
        "9113-6.9.1",
        "a connection's window over 2^31-1",
        wire.window_update(0, MOST - 65_534),
        connection_error(Error.FLOW_CONTROL_ERROR),
    ),
    Row(
        "9113-6.9.1", "the largest window of a stream", OPEN + wire.window_update(1, MOST - 65_535) + HELLO, Answered()
    ),
    Row(
        "9113-6.9.1",
        "a stream's window over 2^31-1",
        OPEN + wire.window_update(1, MOST),
        stream_error(Error.FLOW_CONTROL_ERROR),
    ),
    Row(
        "9113-6.9.2",
        "a setting that takes a stream's window over 2^31-1",
        OPEN + wire.window_update(1, 1000) + wire.settings({Setting.INITIAL_WINDOW_SIZE: MOST}),
        connection_error(Error.FLOW_CONTROL_ERROR),
    ),
]


@table(*ROWS)
def test_a_rule_of_windows(engines, engine, row) -> None:
    check(row, engines[engine].port)


@pytest.fixture(params=["http2", "grpcio"])
def host(engines, request):
    return engines[request.param]


def count(number: int, size: int) -> dict:
    return {"fields": wire.request(b"/wire.Test/Count"), "payload": b"%d %d" % (number, size)}


def test_nothing_is_sent_beyond_a_streams_window(host) -> None:
    with Peer(host.port, {Setting.INITIAL_WINDOW_SIZE: 10}, opens_windows=False) as peer:
        peer.send(wire.call(1, **count(1, 100)))
        for allowed in (10, 11, 30, 104):
            peer.read_until(lambda allowed=allowed: len(peer.stream(1).body) == allowed)
            peer.fence()
            assert len(peer.stream(1).body) == allowed
            assert not peer.stream(1).ended
            peer.send(wire.window_update(1, {10: 1, 11: 19, 30: 74, 104: 1}[allowed]))
        assert peer.finish(1).status == 0
        assert len(peer.stream(1).messages()[0]) == 100


def test_nothing_is_sent_beyond_the_connections_window(host) -> None:
    with Peer(host.port, {Setting.INITIAL_WINDOW_SIZE: MOST}, opens_windows=False) as peer:
        peer.send(b"".join(wire.call(number, **count(1, 40_000)) for number in (1, 3, 5)))
        streams = [peer.stream(number) for number in (1, 3, 5)]
        peer.read_until(lambda: sum(len(stream.body) for stream in streams) == 65_535)
        peer.fence()
        assert sum(len(stream.body) for stream in streams) == 65_535
        peer.send(wire.window_update(0, 3 * 40_005 - 65_535))
        for number in (1, 3, 5):
            assert len(peer.finish(number).messages()[0]) == 40_000


def test_a_window_of_nothing_lets_headers_and_empty_answers_through(host) -> None:
    with Peer(host.port, {Setting.INITIAL_WINDOW_SIZE: 0}) as peer:
        assert peer.ask(1, wire.request(b"/wire.Test/Count"), b"0 0").status == 0
        assert peer.ask(3, wire.request(b"/no.such/Method")).status == 12
        peer.send(wire.call(5))
        peer.fence()
        assert peer.stream(5).body == b""
        peer.send(wire.window_update(5, 10))
        assert peer.finish(5).messages() == [b"hello"]


def test_a_setting_changes_the_windows_of_open_streams(host) -> None:
    with Peer(host.port, {Setting.INITIAL_WINDOW_SIZE: 0}, opens_windows=False) as peer:
        peer.send(wire.call(1, **count(1, 100)) + wire.call(3, **count(1, 100)))
        peer.fence()
        peer.send(wire.settings({Setting.INITIAL_WINDOW_SIZE: 50}))
        peer.read_until(lambda: len(peer.stream(1).body) == len(peer.stream(3).body) == 50)
        # Down again: now both windows are below zero, and as much must be given as is owed before anything comes.
        peer.send(wire.settings({Setting.INITIAL_WINDOW_SIZE: 20}) + wire.window_update(1, 30))
        peer.fence()
        assert len(peer.stream(1).body) == 50
        peer.send(wire.window_update(1, 1))
        peer.read_until(lambda: len(peer.stream(1).body) == 51)
        peer.send(wire.settings({Setting.INITIAL_WINDOW_SIZE: 1000}))
        for number in (1, 3):
            assert len(peer.finish(number).messages()[0]) == 100


def test_a_stream_that_waits_for_its_window_holds_up_nobody(host) -> None:
    with Peer(host.port, {Setting.INITIAL_WINDOW_SIZE: 100}, opens_windows=False) as peer:
        peer.send(wire.call(1, **count(10, 1000)))
        peer.read_until(lambda: len(peer.stream(1).body) == 100)
        for number in range(3, 23, 2):
            assert peer.ask(number).messages() == [b"hello"]
        peer.send(wire.rst(1))
        check_goes_on(peer)


def test_both_directions_go_on_through_a_tiny_window(host, chat) -> None:
    payloads = [b"%d" % number * (number % 30) for number in range(100)]
    with Peer(host.port, {Setting.INITIAL_WINDOW_SIZE: 7}) as peer:
        peer.send(wire.headers(1, chat))
        for payload in payloads:
            peer.send(wire.data(1, wire.message(payload)))
            peer.read_for(0)
        peer.send(wire.data(1, end=True))
        assert peer.finish(1).messages() == payloads
        assert max(len(frame.payload) for frame in peer.frames if frame.kind == Kind.DATA) <= 7


def test_windows_are_given_back_for_what_was_read(host, chat) -> None:
    """Many times the window goes through one stream, and then through one connection."""
    chunk = wire.message(bytes(16_000))
    with Peer(host.port) as peer:
        window = peer.settings().get(Setting.INITIAL_WINDOW_SIZE, 65_535)
        rounds = max(20, 3 * window // len(chunk))
        peer.send(wire.headers(1, chat))
        sent = Windows(peer, window)
        for _ in range(rounds):
            sent.data(1, chunk)
        peer.send(wire.data(1, end=True))
        assert len(peer.finish(1).messages()) == rounds
        sent.check_both_given()


class Windows:
    """Sends no more than the server allows."""

    def __init__(self, peer: Peer, initial: int) -> None:
        self._peer, self._initial = peer, initial
        self._sent = {0: 0}

    def left(self, stream: int) -> int:
        return (self._initial if stream else 65_535) + self._peer.given[stream] - self._sent.get(stream, 0)

    def data(self, stream: int, payload: bytes, **how) -> None:
        frame = wire.data(stream, payload, **how)
        size = len(frame) - 9
        self._peer.read_until(lambda: min(self.left(0), self.left(stream)) >= size)
        self._peer.send(frame)
        for counted in (0, stream):
            self._sent[counted] = self._sent.get(counted, 0) + size

    def check_both_given(self) -> None:
        assert self._sent[0] > 65_535
        assert self._peer.given[0] > 0


def test_data_that_nobody_reads_are_given_back_to_the_connection(engines) -> None:
    """Of refused calls, of streams that were reset, and padding: otherwise the connection comes to a stop."""
    unknown = wire.request(b"/no.such/Method")
    with Peer(engines["http2"].port) as peer:
        windows = Windows(peer, peer.settings().get(Setting.INITIAL_WINDOW_SIZE, 65_535))
        number = 1
        for _ in range(12):
            peer.send(wire.headers(number, unknown))
            peer.finish(number)
            windows.data(number, bytes(16_000))
            peer.send(wire.headers(number + 2, wire.request()))
            windows.data(number + 2, wire.message(bytes(9_000)))
            peer.send(wire.rst(number + 2))
            peer.send(wire.headers(number + 4, wire.request()))
            for _ in range(30):
                windows.data(number + 4, b"", pad=255)
            windows.data(number + 4, wire.message(), end=True)
            assert peer.finish(number + 4).status == 0
            number += 6
        assert number < NEXT
        check_goes_on(peer)


def test_more_than_a_window_is_refused(host) -> None:
    """Of a handler that does not read: what it holds is bounded, and a client that sends on is told so."""
    with Peer(host.port) as peer:
        peer.send(wire.headers(1, wire.request(b"/wire.Test/Deaf")))
        full = wire.data(1, wire.message(bytes(wire.MAX_FRAME - 5)))
        for _ in range(1024):
            peer.send(full)
            if peer.closed:
                break
        peer.read_until(lambda: peer.stream(1).over or peer.closed)
        codes = {peer.stream(1).reset, *(code for _, code, _ in peer.goaways)} - {None}
        assert codes in ({Error.FLOW_CONTROL_ERROR}, {Error.PROTOCOL_ERROR})  # the latter is grpcio's
    host.becomes(lambda handlers: handlers.running == 0)
