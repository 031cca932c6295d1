"""One rule of an RFC, one row: what is sent, and what a server must make of it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.service.transport.http2 import wire
from tests.service.transport.http2.grpcio_differs import DIFFERS
from tests.service.transport.http2.peer import Peer, Response
from tests.service.transport.http2.wire import Error

NEXT = 1001
"""The stream of a call that shows that the connection is as good as before."""


@dataclass(frozen=True)
class Answered:
    """The stream is answered with this grpc-status; the connection goes on."""

    status: int = 0
    stream: int = 1


@dataclass(frozen=True)
class Refused:
    """The stream is answered with this HTTP status; the connection goes on."""

    http_status: int
    stream: int = 1


@dataclass(frozen=True)
class StreamError:
    """The stream is reset with one of the codes; the connection goes on."""

    codes: tuple[Error, ...]
    stream: int = 1


@dataclass(frozen=True)
class ConnectionError_:
    """GOAWAY with one of the codes, and the connection is closed."""

    codes: tuple[Error, ...]


@dataclass(frozen=True)
class Ignored:
    """Nothing comes of it; the connection goes on."""


Expectation = Answered | Refused | StreamError | ConnectionError_ | Ignored


def stream_error(*codes: Error, stream: int = 1) -> StreamError:
    return StreamError(codes, stream)


def connection_error(*codes: Error) -> ConnectionError_:
    return ConnectionError_(codes)


@dataclass(frozen=True)
class Row:
    section: str
    """RFC and section: ``9113-6.1``; ``grpc`` is for "gRPC over HTTP2"."""
    rule: str
    sent: bytes | tuple[bytes, ...]
    """After preface and settings. Of several pieces, each is sent when stream 1 has come to its end."""
    expected: Expectation

    def __str__(self) -> str:
        return f"{self.section} {self.rule}"


def table(*rows: Row) -> pytest.MarkDecorator:
    """Each row on each engine that keeps its rule."""
    return pytest.mark.parametrize(
        ("engine", "row"),
        [
            pytest.param(engine, row, id=f"{engine} {row}")
            for row in rows
            for engine in ("http2", "grpcio")
            if engine == "http2" or str(row) not in DIFFERS
        ],
    )


def check(row: Row, port: int) -> None:
    """Send what the row says and see that its expectation comes true."""
    with Peer(port) as peer:
        pieces = (row.sent,) if isinstance(row.sent, bytes) else row.sent
        for number, piece in enumerate(pieces):
            if number:
                peer.finish(1)
            peer.send(piece)
        if isinstance(row.expected, ConnectionError_):
            check_closed(peer, *row.expected.codes)
            return
        check_stream(peer, row.expected)
        check_goes_on(peer)


def check_stream(peer: Peer, expected: Expectation) -> None:
    match expected:
        case Answered(status, stream):
            response = peer.finish(stream)
            assert response.reset in (None, Error.NO_ERROR), response
            assert response.ended
            assert response.status == status, response
            assert response.http_status == "200"
            if status == 0:
                assert len(response.messages()) >= 1
        case Refused(http_status, stream):
            response = peer.finish(stream)
            assert response.http_status == str(http_status), response
        case StreamError(codes, stream):
            response = peer.stream(stream)
            peer.read_until(lambda: response.reset is not None)
            assert response.reset in codes


def check_goes_on(peer: Peer, stream: int = NEXT) -> Response:
    """A call on the same connection is answered, and only what was asked for has come."""
    peer.fence()
    response = peer.ask(stream, payload=b"as before")
    assert (response.status, response.messages()) == (0, [b"as before"]), response
    assert peer.goaways == []
    assert not peer.closed
    return response


def check_closed(peer: Peer, *codes: Error) -> None:
    """GOAWAY with one of the codes came, and the connection is closed."""
    peer.read_to_end()
    assert peer.goaways, f"closed without GOAWAY after {peer.frames}"
    last_stream, code, _ = peer.goaways[-1]
    assert code in codes
    assert last_stream < NEXT or last_stream in peer.streams


def check_serves(port: int) -> None:
    """A connection of its own is served."""
    with Peer(port) as peer:
        assert peer.ask(payload=wire.ECHO).messages() == [wire.ECHO]
