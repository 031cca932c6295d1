"""RFC 9113, sections 5.1, 5.4, 6.1 and 6.4: stream ids, stream states, DATA, RST_STREAM."""

from __future__ import annotations

from tests.service.transport.http2 import wire
from tests.service.transport.http2.host import hosted
from tests.service.transport.http2.peer import Peer
from tests.service.transport.http2.rows import (
    Answered,
    Ignored,
    Row,
    check,
    check_goes_on,
    connection_error,
    stream_error,
    table,
)
from tests.service.transport.http2.wire import Error, Flag, Kind

BLOCK = wire.block(wire.request())
HANG = wire.block(wire.request(b"/wire.Test/Hang"))
UNKNOWN = wire.block(wire.request(b"/no.such/Method"))
HELLO = wire.data(1, wire.message(), end=True)
OPEN = wire.headers(1, BLOCK)

ROWS = [
    # 5.1.1
    Row("9113-5.1.1", "an even stream", wire.headers(2, BLOCK), connection_error(Error.PROTOCOL_ERROR)),
    Row(
        "9113-5.1.1",
        "a stream below one that was opened",
        (wire.headers(5, BLOCK) + wire.data(5, wire.message(), end=True) + wire.call(1),),
        connection_error(Error.PROTOCOL_ERROR, Error.STREAM_CLOSED),
    ),
    Row("9113-5.1.1", "streams may be left out", wire.call(1) + wire.call(77, payload=b"x"), Answered(stream=77)),
    # idle
    Row("9113-5.1", "DATA on an idle stream", wire.data(1, b"x"), connection_error(Error.PROTOCOL_ERROR)),
    Row("9113-5.1", "RST_STREAM on an idle stream", wire.rst(1), connection_error(Error.PROTOCOL_ERROR)),
    Row(
        "9113-5.1", "WINDOW_UPDATE on an idle stream", wire.window_update(1, 9), connection_error(Error.PROTOCOL_ERROR)
    ),
    Row("9113-5.1", "DATA on an even idle stream", wire.data(2, b"x"), connection_error(Error.PROTOCOL_ERROR)),
    Row("9113-5.1", "RST_STREAM on an even idle stream", wire.rst(2), connection_error(Error.PROTOCOL_ERROR)),
    # half-closed (remote): the call hangs, so that it is surely not closed
    Row(
        "9113-5.1",
        "DATA on a stream that the client has ended",
        wire.headers(1, HANG) + HELLO + wire.data(1, b"x"),
        stream_error(Error.STREAM_CLOSED),
    ),
    Row(
        "9113-5.1",
        "HEADERS on a stream that the client has ended",
        wire.headers(1, HANG) + HELLO + wire.headers(1, BLOCK, end=True),
        stream_error(Error.STREAM_CLOSED),
    ),
    Row(
        "9113-5.1",
        "WINDOW_UPDATE and PRIORITY on a stream that the client has ended",
        OPEN + HELLO + wire.window_update(1, 100) + wire.priority(1),
        Answered(),
    ),
    # closed
    Row("9113-5.1", "WINDOW_UPDATE on a closed stream", (wire.call(1), wire.window_update(1, 100)), Ignored()),
    Row("9113-5.1", "RST_STREAM on a closed stream", (wire.call(1), wire.rst(1)), Ignored()),
    Row("9113-5.1", "PRIORITY on a closed stream", (wire.call(1), wire.priority(1)), Ignored()),
    Row(
        "9113-5.1",
        "HEADERS on a closed stream",
        (wire.call(1), wire.headers(1, BLOCK)),
        connection_error(Error.PROTOCOL_ERROR, Error.STREAM_CLOSED),
    ),
    Row(
        "9113-5.1",
        "frames that were under way when the server ended the stream",
        (wire.headers(1, UNKNOWN), wire.data(1, wire.message()) + wire.window_update(1, 1) + wire.rst(1)),
        Ignored(),
    ),
    Row(
        "9113-5.1",
        "trailers that were under way when the server ended the stream",
        (wire.headers(1, UNKNOWN), wire.headers(1, [(b"x", b"y")], end=True)),
        Ignored(),
    ),
    Row(
        "9113-5.1",
        "frames that were under way when the server reset the stream",
        OPEN
        + wire.window_update(1, 0)
        + wire.data(1, wire.message(), end=True)
        + wire.window_update(1, 5)
        + wire.rst(1),
        stream_error(Error.PROTOCOL_ERROR),
    ),
    # 6.1
    Row("9113-6.1", "DATA on stream 0", wire.data(0, b"x"), connection_error(Error.PROTOCOL_ERROR)),
    Row("9113-6.1", "empty DATA", OPEN + wire.data(1) * 3 + HELLO, Answered()),
    Row(
        "9113-6.1",
        "the end in an empty frame",
        OPEN + wire.data(1, wire.message()) + wire.data(1, end=True),
        Answered(),
    ),
    Row("9113-6.1", "padded DATA", OPEN + wire.data(1, wire.message(), end=True, pad=255), Answered()),
    Row("9113-6.1", "padding of no length", OPEN + wire.data(1, wire.message(), end=True, pad=0), Answered()),
    Row("9113-6.1", "padding alone", OPEN + wire.data(1, pad=9) + HELLO, Answered()),
    Row(
        "9113-6.1",
        "padding as long as the frame",
        OPEN + wire.frame(Kind.DATA, Flag.PADDED, 1, b"\x05abcd"),
        connection_error(Error.PROTOCOL_ERROR),
    ),
    Row(
        "9113-6.1",
        "padded and nothing else",
        OPEN + wire.frame(Kind.DATA, Flag.PADDED, 1),
        connection_error(Error.PROTOCOL_ERROR, Error.FRAME_SIZE_ERROR),
    ),
    # 6.4
    Row("9113-6.4", "RST_STREAM on stream 0", wire.rst(0), connection_error(Error.PROTOCOL_ERROR)),
    Row(
        "9113-6.4",
        "RST_STREAM of a wrong length",
        OPEN + wire.frame(Kind.RST_STREAM, 0, 1, bytes(3)),
        connection_error(Error.FRAME_SIZE_ERROR),
    ),
    Row("9113-6.4", "RST_STREAM of an open stream", OPEN + wire.rst(1), Ignored()),
    Row("9113-6.4", "RST_STREAM with an unknown code", OPEN + wire.rst(1, 0xFFFFFFFF), Ignored()),
    Row(
        "9113-6.4",
        "DATA after the client's own RST_STREAM",
        OPEN + wire.rst(1) + wire.data(1, b"x"),
        stream_error(Error.STREAM_CLOSED),
    ),
    # 8.1: trailers of the client
    Row(
        "9113-8.1",
        "trailers end a request",
        OPEN + wire.data(1, wire.message()) + wire.headers(1, [(b"x-checksum", b"1")], end=True),
        Answered(),
    ),
    Row(
        "9113-8.1",
        "trailers that do not end the request",
        OPEN + wire.data(1, wire.message()) + wire.headers(1, [(b"x-checksum", b"1")]),
        stream_error(Error.PROTOCOL_ERROR),
    ),
    Row(
        "9113-8.1",
        "trailers with a pseudo-header",
        OPEN + wire.data(1, wire.message()) + wire.headers(1, [(b":path", b"/")], end=True),
        stream_error(Error.PROTOCOL_ERROR),
    ),
    Row(
        "9113-8.1",
        "trailers with an uppercase name",
        OPEN + wire.data(1, wire.message()) + wire.headers(1, b"\x00\x01X\x01y", end=True),
        stream_error(Error.PROTOCOL_ERROR),
    ),
    Row(
        "9113-8.1",
        "trailers in two frames",
        OPEN
        + wire.data(1, wire.message())
        + wire.headers(1, b"\x00\x01x", end=True, end_headers=False)
        + wire.continuation(1, b"\x01y"),
        Answered(),
    ),
]


@table(*ROWS)
def test_a_rule_of_streams(engines, engine, row) -> None:
    check(row, engines[engine].port)


def test_a_stream_error_harms_only_its_stream(engines, chat) -> None:
    host = engines["http2"]
    with Peer(host.port) as peer:
        peer.send(wire.headers(1, HANG) + wire.data(1, wire.message(), end=True))
        peer.send(wire.headers(3, chat) + wire.data(3, wire.message(b"one")))
        peer.read_until(lambda: peer.stream(3).body)
        peer.send(wire.headers(5, BLOCK) + wire.window_update(5, 0))
        assert peer.finish(5).reset is Error.PROTOCOL_ERROR
        peer.send(wire.data(3, wire.message(b"two"), end=True))
        assert peer.finish(3).messages() == [b"one", b"two"]
        check_goes_on(peer)
        assert not peer.stream(1).over
        assert host.handlers.running == 1
        peer.send(wire.rst(1))
        host.becomes(lambda handlers: handlers.running == 0)


def test_a_connection_error_cancels_every_call(engines) -> None:
    for host in engines.values():
        with Peer(host.port) as peer:
            before = host.handlers.cancelled
            for number in (1, 3, 5):
                peer.send(wire.headers(number, HANG) + wire.data(number, wire.message(), end=True))
            host.becomes(lambda handlers: handlers.running == 3)
            peer.send(wire.ping(b"short"))
            peer.read_to_end()
            host.becomes(lambda handlers: handlers.running == 0)
            assert host.handlers.cancelled == before + 3


def test_goaway_names_the_last_stream_that_was_taken(engines) -> None:
    with Peer(engines["http2"].port) as peer:
        peer.ask(1)
        peer.ask(3)
        peer.send(wire.ping(b"short"))
        peer.read_to_end()
        assert [(last, code) for last, code, _ in peer.goaways] == [(3, Error.FRAME_SIZE_ERROR)]


def test_the_highest_stream_is_the_last_of_its_connection(engines) -> None:
    for host in engines.values():
        with Peer(host.port) as peer:
            assert peer.ask(2**31 - 1).messages() == [b"hello"]
        with Peer(host.port) as peer:
            assert peer.ask(1).messages() == [b"hello"]


def test_a_client_that_goes_away_cancels_its_calls() -> None:
    for engine in ("http2", "grpcio"):
        with hosted(engine) as host:
            with Peer(host.port) as peer:
                for number in (1, 3):
                    peer.send(wire.headers(number, HANG) + wire.data(number, wire.message(), end=True))
                host.becomes(lambda handlers: handlers.running == 2)
            host.becomes(lambda handlers: handlers.cancelled == 2)
