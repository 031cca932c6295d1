"""gRPC over HTTP/2: messages across frames, their number and size, compression, streams in both directions."""

from __future__ import annotations

import gzip
import zlib

import pytest

from tests.service.transport.http2 import wire
from tests.service.transport.http2.host import hosted
from tests.service.transport.http2.peer import Peer
from tests.service.transport.http2.rows import Answered, Row, check, check_goes_on, table
from tests.service.transport.http2.wire import Setting, request

RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 8, 12, 13
FOUND = b"found " * 100
DEFLATED = zlib.compress(FOUND)


def sent(*pieces: bytes, fields: list | None = None, end: bool = True) -> bytes:
    frames = [wire.data(1, piece) for piece in pieces] + ([wire.data(1, end=True)] if end else [])
    return wire.headers(1, fields or request()) + b"".join(frames)


def encoded(encoding: bytes, payload: bytes, compressed: int = 1) -> bytes:
    return sent(wire.message(payload, compressed=compressed), fields=request(wire.ECHO, (b"grpc-encoding", encoding)))


HELLO = wire.message()

ROWS = [
    Row("grpc", "a message byte by byte", sent(*[bytes([byte]) for byte in HELLO]), Answered()),
    Row("grpc", "a message in two frames", sent(HELLO[:7], HELLO[7:]), Answered()),
    Row("grpc", "an empty message", sent(wire.message(b"")), Answered()),
    Row("grpc", "no message", sent(), Answered(UNIMPLEMENTED)),
    Row("grpc", "no message and no DATA", wire.headers(1, request(), end=True), Answered(UNIMPLEMENTED)),
    Row("grpc", "two messages", sent(HELLO, HELLO), Answered(UNIMPLEMENTED)),
    Row("grpc", "two messages in one frame", sent(HELLO + HELLO), Answered(UNIMPLEMENTED)),
    Row(
        "grpc", "no message of a stream of answers", sent(fields=request(b"/wire.Test/Count")), Answered(UNIMPLEMENTED)
    ),
    Row("grpc", "a message that was cut off", sent(HELLO[:-1]), Answered(INTERNAL)),
    Row("grpc", "a prefix that was cut off", sent(HELLO[:3]), Answered(INTERNAL)),
    Row("grpc", "a message and half a prefix", sent(HELLO + b"\0\0"), Answered(INTERNAL)),
    Row("grpc", "a flag that is none", sent(wire.message(compressed=2)), Answered(INTERNAL)),
    Row("grpc", "compressed without an encoding", sent(wire.message(DEFLATED, compressed=1)), Answered(INTERNAL)),
    Row("grpc", "compressed with identity", encoded(b"identity", FOUND), Answered(INTERNAL)),
    Row("grpc", "identity", encoded(b"identity", FOUND, 0), Answered()),
    Row("grpc", "gzip", encoded(b"gzip", gzip.compress(FOUND)), Answered()),
    Row("grpc", "deflate", encoded(b"deflate", DEFLATED), Answered()),
    Row("grpc", "an encoding, and a message without it", encoded(b"gzip", FOUND, 0), Answered()),
    Row("grpc", "not gzip", encoded(b"gzip", b"whatever"), Answered(INTERNAL)),
    Row("grpc", "gzip that was cut off", encoded(b"gzip", gzip.compress(FOUND)[:-9]), Answered(INTERNAL)),
    Row(
        "grpc", "gzip with a wrong checksum", encoded(b"gzip", gzip.compress(FOUND)[:-8] + bytes(8)), Answered(INTERNAL)
    ),
    Row("grpc", "not deflate", encoded(b"deflate", b"whatever"), Answered(INTERNAL)),
    Row("grpc", "an unknown encoding", encoded(b"snappy", FOUND), Answered(UNIMPLEMENTED)),
    Row(
        "grpc",
        "the length alone is over the limit",
        sent(b"\0" + (64 * 1024 * 1024 + 1).to_bytes(4, "big"), end=False),
        Answered(RESOURCE_EXHAUSTED),
    ),
    Row("grpc", "the largest length there is", sent(b"\0\xff\xff\xff\xff", end=False), Answered(RESOURCE_EXHAUSTED)),
]


@table(*ROWS)
def test_a_rule_of_messages(engines, engine, row) -> None:
    check(row, engines[engine].port)


@pytest.fixture(params=["http2", "grpcio"])
def host(engines, request):
    return engines[request.param]


@pytest.mark.parametrize(("encoding", "compress"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_what_was_compressed_arrives_as_it_was(host, encoding, compress) -> None:
    with Peer(host.port) as peer:
        peer.send(encoded(encoding, compress(FOUND)))
        assert peer.finish(1).messages() == [FOUND]


def test_who_does_not_know_an_encoding_says_which_it_knows(engines) -> None:
    with Peer(engines["http2"].port) as peer:
        peer.send(encoded(b"snappy", FOUND))
        fields = dict(peer.finish(1).headers)
        assert {"identity", "gzip", "deflate"} <= {name.strip() for name in fields["grpc-accept-encoding"].split(",")}


@pytest.mark.parametrize("engine", ["http2", "grpcio"])
def test_a_small_message_that_unpacks_to_a_large_one_is_refused(engine) -> None:
    bomb = gzip.compress(bytes(15_000_000))
    assert len(bomb) < wire.MAX_FRAME
    with hosted(engine, max_message_bytes=100_000) as host, Peer(host.port) as peer:
        peer.send(encoded(b"gzip", bomb))
        assert peer.finish(1).status == RESOURCE_EXHAUSTED
        check_goes_on(peer)


@pytest.mark.parametrize("engine", ["http2", "grpcio"])
def test_the_limit_of_messages_is_kept_to_the_byte(engine) -> None:
    with hosted(engine, max_message_bytes=1024) as host, Peer(host.port) as peer:
        assert peer.ask(1, payload=bytes(1024)).status == 0
        assert peer.ask(3, payload=bytes(1025)).status == RESOURCE_EXHAUSTED
        check_goes_on(peer)


def test_many_messages_in_one_frame_and_one_in_many(host, chat) -> None:
    with Peer(host.port) as peer:
        peer.send(wire.headers(1, chat) + wire.data(1, HELLO * 500 + HELLO[:3]))
        peer.send(wire.data(1, HELLO[3:] + wire.message(b"") * 2, end=True))
        assert peer.finish(1).messages() == [b"hello"] * 501 + [b"", b""]


def test_answers_come_while_requests_go_on(host, chat) -> None:
    with Peer(host.port) as peer:
        peer.send(wire.headers(1, chat))
        for number in range(20):
            message = wire.message(b"%d" % number)
            peer.send(wire.data(1, message))
            peer.read_until(lambda message=message: peer.stream(1).body.endswith(message))
        assert not peer.stream(1).ended
        peer.send(wire.data(1, end=True))
        response = peer.finish(1)
        assert (len(response.messages()), response.status) == (20, 0)


def test_a_stream_without_messages_is_answered(host, chat) -> None:
    with Peer(host.port) as peer:
        peer.send(wire.headers(1, chat, end=True))
        response = peer.finish(1)
        assert (response.messages(), response.status) == ([], 0)


def test_a_stream_fails_with_the_message_that_is_wrong(engines, chat) -> None:
    with Peer(engines["http2"].port) as peer:
        peer.send(wire.headers(1, chat) + wire.data(1, HELLO))
        peer.read_until(lambda: peer.stream(1).body)
        peer.send(wire.data(1, wire.message(compressed=1)))
        response = peer.finish(1)
        assert (response.messages(), response.status) == ([b"hello"], INTERNAL)
        check_goes_on(peer)


def test_a_message_that_is_too_large_ends_a_stream_when_it_is_reached(engines, chat) -> None:
    with Peer(engines["http2"].port) as peer:
        peer.send(wire.headers(1, chat) + wire.data(1, HELLO * 2 + b"\0\xff\xff\xff\xff" + HELLO))
        response = peer.finish(1)
        assert (response.messages(), response.status) == ([b"hello"] * 2, RESOURCE_EXHAUSTED)
        check_goes_on(peer)


def test_large_messages_go_both_ways(host) -> None:
    payload = bytes(range(256)) * 4_000
    with Peer(host.port) as peer:
        window = peer.settings().get(Setting.INITIAL_WINDOW_SIZE, 65_535)
        peer.send(wire.headers(1, request()))
        framed = wire.message(payload)
        sent = 0
        for piece in (framed[at : at + 16_000] for at in range(0, len(framed), 16_000)):
            sent += len(piece)
            peer.read_until(lambda sent=sent: min(65_535 + peer.given[0], window + peer.given[1]) >= sent)
            peer.send(wire.data(1, piece, end=sent == len(framed)))
        assert peer.finish(1).messages() == [payload]


def test_a_refusal_does_not_wait_for_the_end_of_the_request(host) -> None:
    with Peer(host.port) as peer:
        peer.send(wire.headers(1, request(b"/no.such/Method")))
        assert peer.finish(1).status == UNIMPLEMENTED
        check_goes_on(peer)
