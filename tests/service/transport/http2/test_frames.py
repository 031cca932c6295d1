"""RFC 9113, sections 4, 5.5 and 6: frame format, sizes, header blocks, and most types of frames."""

from __future__ import annotations

import pytest

from tests.service.transport.http2 import wire
from tests.service.transport.http2.peer import Peer
from tests.service.transport.http2.rows import (
    Answered,
    Ignored,
    Row,
    check,
    check_closed,
    connection_error,
    stream_error,
    table,
)
from tests.service.transport.http2.wire import Error, Flag, Kind

BLOCK = wire.block(wire.request())
HELLO = wire.data(1, wire.message(), end=True)
LONG = wire.block(wire.request(wire.ECHO, (b"x-long", b"v" * 3000)))

ROWS = [
    Row("9113-4.1", "reserved bit of the stream id", wire.headers(1 << 31 | 1, BLOCK) + HELLO, Answered()),
    Row(
        "9113-4.1",
        "unknown flags",
        wire.headers(1, BLOCK) + wire.frame(0, 0xF0 & ~8 | 1, 1, wire.message()),
        Answered(),
    ),
    Row("9113-4.1", "unknown frame type", wire.frame(0x16, 0xFF, 0, b"whatever"), Ignored()),
    Row("9113-4.1", "unknown frame type on an idle stream", wire.frame(0xFF, 0, 77, b"x"), Ignored()),
    Row(
        "9113-5.5",
        "unknown frame type on an open stream",
        wire.headers(1, BLOCK) + wire.frame(0x20, 0, 1, b"x") + HELLO,
        Answered(),
    ),
    Row(
        "9113-5.5",
        "unknown frame type inside a header block",
        wire.headers(1, BLOCK[:5], end_headers=False) + wire.frame(0x16, 0, 1, b"") + wire.continuation(1, BLOCK[5:]),
        connection_error(Error.PROTOCOL_ERROR),
    ),
    Row(
        "9113-4.2",
        "the length alone says too much",
        wire.frame(Kind.DATA, 0, 1, b"", length=2**24 - 1),
        connection_error(Error.FRAME_SIZE_ERROR, Error.PROTOCOL_ERROR),
    ),
    Row(
        "9113-4.3",
        "a block in many pieces",
        wire.headers(1, LONG[:1], end_headers=False)
        + b"".join(wire.continuation(1, LONG[at : at + 500], end_headers=False) for at in range(1, 3001, 500))
        + wire.continuation(1, LONG[3001:])
        + HELLO,
        Answered(),
    ),
    Row(
        "9113-4.3",
        "a block that begins with nothing",
        wire.headers(1, b"", end_headers=False) + wire.continuation(1, BLOCK) + HELLO,
        Answered(),
    ),
    Row(
        "9113-4.3",
        "a block that cannot be decoded",
        wire.headers(1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        connection_error(Error.COMPRESSION_ERROR),
    ),
    Row(
        "9113-4.3",
        "a block that was cut off",
        wire.headers(1, BLOCK[:-1]),
        connection_error(Error.COMPRESSION_ERROR),
    ),
    Row("9113-6.2", "HEADERS on stream 0", wire.headers(0, BLOCK), connection_error(Error.PROTOCOL_ERROR)),
    Row(
        "9113-6.2",
        "padding as long as the rest",
        wire.frame(Kind.HEADERS, Flag.END_HEADERS | Flag.PADDED, 1, bytes([len(BLOCK) + 1]) + BLOCK),
        connection_error(Error.PROTOCOL_ERROR),
    ),
    Row(
        "9113-6.2",
        "padded and nothing else",
        wire.frame(Kind.HEADERS, Flag.END_HEADERS | Flag.PADDED, 1),
        connection_error(Error.PROTOCOL_ERROR, Error.FRAME_SIZE_ERROR),
    ),
    Row("9113-6.2", "padding of a good length", wire.headers(1, BLOCK, pad=200) + HELLO, Answered()),
    Row("9113-6.2", "padding of no length", wire.headers(1, BLOCK, pad=0) + HELLO, Answered()),
    Row(
        "9113-6.2",
        "priority in HEADERS",
        wire.frame(Kind.HEADERS, Flag.END_HEADERS | Flag.PRIORITY, 1, b"\x80\x00\x00\x03\xff" + BLOCK) + HELLO,
        Answered(),
    ),
    Row(
        "9113-6.2",
        "padding and priority in HEADERS",
        wire.frame(
            Kind.HEADERS, Flag.END_HEADERS | Flag.PADDED | Flag.PRIORITY, 1, b"\x03\0\0\0\0\x10" + BLOCK + bytes(3)
        )
        + HELLO,
        Answered(),
    ),
    Row(
        "9113-6.2",
        "priority cut off",
        wire.frame(Kind.HEADERS, Flag.END_HEADERS | Flag.PRIORITY, 1, b"\0\0\0"),
        connection_error(Error.PROTOCOL_ERROR, Error.FRAME_SIZE_ERROR),
    ),
    Row(
        "9113-6.2",
        "another frame inside a block",
        wire.headers(1, BLOCK[:5], end_headers=False) + wire.ping(),
        connection_error(Error.PROTOCOL_ERROR),
    ),
    Row(
        "9113-6.2",
        "another stream's HEADERS inside a block",
        wire.headers(1, BLOCK[:5], end_headers=False) + wire.headers(3, BLOCK),
        connection_error(Error.PROTOCOL_ERROR),
    ),
    Row(
        "9113-6.10",
        "CONTINUATION of another stream",
        wire.headers(1, BLOCK[:5], end_headers=False) + wire.continuation(3, BLOCK[5:]),
        connection_error(Error.PROTOCOL_ERROR),
    ),
    Row("9113-6.10", "CONTINUATION on stream 0", wire.continuation(0, BLOCK), connection_error(Error.PROTOCOL_ERROR)),
    Row(
        "9113-6.10",
        "CONTINUATION on stream 0 inside a block",
        wire.headers(1, BLOCK[:5], end_headers=False) + wire.continuation(0, BLOCK[5:]),
        connection_error(Error.PROTOCOL_ERROR),
    ),
    Row("9113-6.10", "CONTINUATION of nothing", wire.continuation(1, BLOCK), connection_error(Error.PROTOCOL_ERROR)),
    Row(
        "9113-6.10",
        "CONTINUATION after END_HEADERS",
        wire.headers(1, BLOCK) + wire.continuation(1, BLOCK),
        connection_error(Error.PROTOCOL_ERROR),
    ),
    Row(
        "9113-6.10",
        "CONTINUATION after DATA",
        wire.headers(1, BLOCK) + wire.data(1, b"\0") + wire.continuation(1, b""),
        connection_error(Error.PROTOCOL_ERROR),
    ),
    Row("9113-6.3", "PRIORITY on stream 0", wire.priority(0), connection_error(Error.PROTOCOL_ERROR)),
    Row("9113-6.3", "PRIORITY on an idle stream", wire.priority(7, 3), Ignored()),
    Row("9113-6.3", "PRIORITY on an even stream", wire.priority(2, 0), Ignored()),
    Row(
        "9113-6.3",
        "PRIORITY on an open stream",
        wire.headers(1, BLOCK) + wire.priority(1, 3) + HELLO,
        Answered(),
    ),
    Row(
        "9113-6.3",
        "PRIORITY of its own, as RFC 7540 forbade and RFC 9113 ignores",
        wire.headers(1, BLOCK) + wire.priority(1, 1) + HELLO,
        Answered(),
    ),
    Row(
        "9113-6.3",
        "PRIORITY of a wrong length",
        wire.headers(1, BLOCK) + wire.frame(Kind.PRIORITY, 0, 1, b"\0\0\0\0"),
        stream_error(Error.FRAME_SIZE_ERROR),
    ),
    Row(
        "9113-6.3",
        "PRIORITY of a wrong length on an idle stream, which cannot be reset",
        wire.frame(Kind.PRIORITY, 0, 1, b"\0\0\0\0"),
        connection_error(Error.FRAME_SIZE_ERROR),
    ),
    Row(
        "9113-6.6",
        "PUSH_PROMISE",
        wire.frame(Kind.PUSH_PROMISE, 4, 1, b"\0\0\0\2" + BLOCK),
        connection_error(Error.PROTOCOL_ERROR),
    ),
    Row(
        "9113-6.6",
        "PUSH_PROMISE on an open stream",
        wire.headers(1, BLOCK) + wire.frame(Kind.PUSH_PROMISE, 4, 1, b"\0\0\0\2" + BLOCK),
        connection_error(Error.PROTOCOL_ERROR),
    ),
    Row("9113-6.7", "PING on a stream", wire.frame(Kind.PING, 0, 1, bytes(8)), connection_error(Error.PROTOCOL_ERROR)),
    Row("9113-6.7", "short PING", wire.frame(Kind.PING, 0, 0, bytes(7)), connection_error(Error.FRAME_SIZE_ERROR)),
    Row("9113-6.7", "long PING", wire.frame(Kind.PING, 0, 0, bytes(9)), connection_error(Error.FRAME_SIZE_ERROR)),
    Row("9113-6.7", "PING ACK that nobody waits for", wire.frame(Kind.PING, Flag.ACK, 0, bytes(8)), Ignored()),
    Row(
        "9113-6.7", "short PING ACK", wire.frame(Kind.PING, Flag.ACK, 0, b""), connection_error(Error.FRAME_SIZE_ERROR)
    ),
    Row("9113-6.7", "unknown flags of PING", wire.frame(Kind.PING, 0xFE, 0, bytes(8)), Ignored()),
    Row(
        "9113-6.8",
        "GOAWAY on a stream",
        wire.frame(Kind.GOAWAY, 0, 1, bytes(8)),
        connection_error(Error.PROTOCOL_ERROR),
    ),
    Row("9113-6.8", "short GOAWAY", wire.frame(Kind.GOAWAY, 0, 0, bytes(7)), connection_error(Error.FRAME_SIZE_ERROR)),
    Row(
        "9113-6.8",
        "GOAWAY of the client does not end its calls",
        wire.headers(1, BLOCK) + wire.goaway(0, 0, b"that is all") + HELLO,
        Answered(),
    ),
]


@table(*ROWS)
def test_a_rule_of_frames(engines, engine, row) -> None:
    check(row, engines[engine].port)


def test_a_ping_comes_back_as_it_was(engines) -> None:
    for host in engines.values():
        with Peer(host.port) as peer:
            for payload in (b"12345678", bytes(8), b"\xff" * 8):
                peer.send(wire.ping(payload))
                peer.read_until(lambda: len(peer.pongs))
                assert peer.pongs.pop() == payload


def test_frames_may_come_byte_by_byte(engines) -> None:
    for host in engines.values():
        with Peer(host.port, greet=False) as peer:
            for byte in wire.PREFACE + wire.settings() + wire.call(1):
                peer.send(bytes([byte]))
            assert peer.finish(1).messages() == [b"hello"]


@pytest.fixture(params=["http2", "grpcio"])
def server_port(engines, request) -> int:
    return engines[request.param].port


def test_a_frame_may_be_as_large_as_the_server_says(server_port) -> None:
    with Peer(server_port) as peer:
        most = peer.largest_frame()
        payload = bytes(min(most, 65_535) - 5)
        peer.send(wire.headers(1, BLOCK) + wire.data(1, wire.message(payload), end=True))
        assert peer.finish(1).messages() == [payload]


@pytest.mark.parametrize("kind", [Kind.DATA, Kind.HEADERS, Kind.PING, 0x20])
def test_a_frame_may_be_no_larger(engines, kind) -> None:
    with Peer(engines["http2"].port) as peer:
        most = peer.largest_frame()
        peer.send(wire.headers(1, BLOCK) + wire.frame(kind, Flag.END_HEADERS, 1, bytes(most + 1)))
        check_closed(peer, Error.FRAME_SIZE_ERROR)


def test_many_calls_may_come_in_one_piece(engines) -> None:
    for host in engines.values():
        with Peer(host.port) as peer:
            peer.send(b"".join(wire.call(number, payload=b"%d" % number) for number in range(1, 61, 2)))
            for number in range(1, 61, 2):
                assert peer.finish(number).messages() == [b"%d" % number]
