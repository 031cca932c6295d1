"""RFC 9113, section 8: what makes a request malformed, which is an error of its stream alone."""

from __future__ import annotations

from tests.service.transport.http2 import wire
from tests.service.transport.http2.peer import Peer
from tests.service.transport.http2.rows import (
    NEXT,
    Answered,
    Expectation,
    Row,
    StreamError,
    check,
    check_goes_on,
    check_serves,
    table,
)
from tests.service.transport.http2.wire import Error, request

HELLO = wire.data(1, wire.message(), end=True)
MALFORMED = StreamError((Error.PROTOCOL_ERROR,))


def row(section: str, rule: str, fields: list | bytes, expected: Expectation = MALFORMED) -> Row:
    return Row(section, rule, wire.headers(1, fields) + HELLO, expected)


def literal(name: bytes, value: bytes) -> bytes:
    """A field as no encoder would write it."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


GOOD = wire.block(request())

ROWS = [
    row("9113-8.2", "an ordinary request", request(), Answered()),
    row("9113-8.2.1", "an uppercase name", GOOD + literal(b"X-Upper", b"1")),
    row("9113-8.2.1", "a name of no length", GOOD + literal(b"", b"1")),
    row("9113-8.2.1", "a space in a name", GOOD + literal(b"x y", b"1")),
    row("9113-8.2.1", "a control character in a name", GOOD + literal(b"x\x01", b"1")),
    row("9113-8.2.1", "a name that is not ASCII", GOOD + literal(b"x\xe9", b"1")),
    row("9113-8.2.1", "DEL in a name", GOOD + literal(b"x\x7f", b"1")),
    row("9113-8.2.1", "a colon in a name", GOOD + literal(b"x:y", b"1")),
    row("9113-8.2.1", "NUL in a value", GOOD + literal(b"x", b"a\0b")),
    row("9113-8.2.1", "CR in a value", GOOD + literal(b"x", b"a\rb")),
    row("9113-8.2.1", "LF in a value", GOOD + literal(b"x", b"a\nb")),
    row("9113-8.2.1", "a space before a value", GOOD + literal(b"x", b" a")),
    row("9113-8.2.1", "a tab after a value", GOOD + literal(b"x", b"a\t")),
    row("9113-8.2.1", "a value of no length", request(wire.ECHO, (b"x-empty", b"")), Answered()),
    row("9113-8.2.2", "connection", request(wire.ECHO, (b"connection", b"close"))),
    row("9113-8.2.2", "keep-alive", request(wire.ECHO, (b"keep-alive", b"5"))),
    row("9113-8.2.2", "proxy-connection", request(wire.ECHO, (b"proxy-connection", b"close"))),
    row("9113-8.2.2", "transfer-encoding", request(wire.ECHO, (b"transfer-encoding", b"chunked"))),
    row("9113-8.2.2", "upgrade", request(wire.ECHO, (b"upgrade", b"h2c"))),
    row("9113-8.2.2", "te with anything but trailers", request(te=b"gzip")),
    row("9113-8.2.2", "te with more than trailers", request(te=b"trailers, deflate")),
    row("9113-8.2.2", "te twice", request(wire.ECHO, (b"te", b"gzip"), (b"te", b"trailers"))),
    row("9113-8.2.3", "cookies in pieces", request(wire.ECHO, (b"cookie", b"a=b"), (b"cookie", b"c=d")), Answered()),
    row("9113-8.3", "an unknown pseudo-header", [(b":unknown", b"x"), *request()]),
    row("9113-8.3", "a pseudo-header of responses", [(b":status", b"200"), *request()]),
    row("9113-8.3", "a pseudo-header after a regular one", [*request(without=[b":path"]), (b":path", wire.ECHO)]),
    row("9113-8.3.1", "no :method", request(without=[b":method"])),
    row("9113-8.3.1", "no :scheme", request(without=[b":scheme"])),
    row("9113-8.3.1", "no :path", request(without=[b":path"])),
    row("9113-8.3.1", "an empty :path", request(b"")),
    row("9113-8.3.1", "a :path without a slash", request(b"wire.Test/Echo"), Answered(12)),
    row("9113-8.3.1", "two :method", [(b":method", b"POST"), *request()]),
    row("9113-8.3.1", "two :scheme", [(b":scheme", b"http"), *request()]),
    row("9113-8.3.1", "two :path", [(b":path", wire.ECHO), *request()]),
    row("9113-8.3.1", "two :authority", [(b":authority", b"other"), *request()]),
    row(
        "9113-8.3.1",
        "no :authority, but a host",
        request(wire.ECHO, (b"host", b"h"), without=[b":authority"]),
        Answered(),
    ),
    row("9113-8.3.1", "neither :authority nor host", request(without=[b":authority"]), Answered()),
    row("9113-8.3.1", "scheme https", request(scheme=b"https"), Answered()),
    row("9113-8.5", "CONNECT with :scheme and :path", request(method=b"CONNECT")),
    row("9113-8.1.1", "content-length that is right", request(wire.ECHO, (b"content-length", b"10")), Answered()),
    row("9113-8.1.1", "content-length that says less", request(wire.ECHO, (b"content-length", b"9"))),
    row("9113-8.1.1", "content-length that says more", request(wire.ECHO, (b"content-length", b"11"))),
    row("9113-8.1.1", "content-length that is no number", request(wire.ECHO, (b"content-length", b"ten"))),
    row("9113-8.1.1", "content-length below zero", request(wire.ECHO, (b"content-length", b"-10"))),
    row(
        "9113-8.1.1",
        "content-length twice, and not the same",
        request(wire.ECHO, (b"content-length", b"10"), (b"content-length", b"11")),
    ),
    Row(
        "9113-8.1.1",
        "content-length without content",
        wire.headers(1, request(wire.ECHO, (b"content-length", b"10")), end=True),
        MALFORMED,
    ),
    Row(
        "9113-8.1.1",
        "content-length counts no padding",
        wire.headers(1, request(wire.ECHO, (b"content-length", b"10"))) + wire.data(1, wire.message(), end=True, pad=7),
        Answered(),
    ),
    Row(
        "9113-8.1.1",
        "content-length and trailers",
        wire.headers(1, request(wire.ECHO, (b"content-length", b"11")))
        + wire.data(1, wire.message())
        + wire.headers(1, [(b"x", b"y")], end=True),
        MALFORMED,
    ),
]


@table(*ROWS)
def test_a_rule_of_requests(engines, engine, row) -> None:
    check(row, engines[engine].port)


def test_a_malformed_request_reaches_no_handler(engines) -> None:
    host = engines["http2"]
    before = host.handlers.started
    with Peer(host.port) as peer:
        for number, fields in enumerate([request(te=b"gzip"), request(without=[b":path"])]):
            peer.send(wire.call(2 * number + 1, fields))
            assert peer.finish(2 * number + 1).reset is Error.PROTOCOL_ERROR
        peer.fence()
    assert host.handlers.started == before


def test_a_header_list_over_the_limit_is_refused(engines) -> None:
    host = engines["http2"]
    before = host.handlers.started
    with Peer(host.port) as peer:
        pieces = wire.block(request(wire.ECHO, *[(b"x-%d" % n, b"v" * 1000) for n in range(30)]))
        peer.send(wire.headers(1, pieces[:16_000], end_headers=False) + wire.continuation(1, pieces[16_000:]) + HELLO)
        response = peer.finish(1)
        assert response.status == 8
        check_goes_on(peer, NEXT)
    assert host.handlers.started == before + 1
    check_serves(host.port)
