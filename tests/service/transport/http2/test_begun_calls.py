"""Methods that answer without a task of their own: answered, cancelled and late like all others, and told once."""

from __future__ import annotations

import pytest

from tests.service.transport.http2 import wire
from tests.service.transport.http2.peer import Peer
from tests.service.transport.http2.rows import check_goes_on
from tests.service.transport.http2.wire import Setting, request


@pytest.fixture
def host(engines):
    return engines["http2"]


@pytest.mark.parametrize("path", [b"/wire.Test/Begun", b"/wire.Test/Later"])
def test_they_are_answered(host, path) -> None:
    with Peer(host.port) as peer:
        peer.send(b"".join(wire.call(stream, request(path), b"%d" % stream) for stream in range(1, 41, 2)))
        for stream in range(1, 41, 2):
            assert peer.finish(stream).messages() == [b"%d" % stream]


@pytest.mark.parametrize("path", [b"/wire.Test/Begun", b"/wire.Test/Later"])
def test_what_is_answered_is_not_cancelled_when_nobody_reads_it(host, path) -> None:
    cancelled, started = host.handlers.cancelled, host.handlers.started
    with Peer(host.port, {Setting.INITIAL_WINDOW_SIZE: 0}) as peer:
        peer.send(wire.call(1, request(path)))
        host.becomes(lambda handlers: handlers.started == started + 1)
        peer.fence()
        peer.send(wire.rst(1))
        peer.fence()
    assert (host.handlers.cancelled, host.handlers.running) == (cancelled, 0)


@pytest.mark.parametrize("how", ["reset", "deadline", "gone", "connection error"])
def test_they_are_cancelled_once(host, how) -> None:
    cancelled = host.handlers.cancelled
    timeout = [(b"grpc-timeout", b"50m")] if how == "deadline" else []
    with Peer(host.port) as peer:
        peer.send(wire.call(1, request(b"/wire.Test/Never", *timeout)))
        if how == "deadline":
            assert peer.finish(1).status == 4
        else:
            host.becomes(lambda handlers: handlers.running == 1)
        if how == "reset":
            peer.send(wire.rst(1))
        if how == "connection error":
            peer.send(wire.ping(b"short"))
            peer.read_to_end()
        elif how != "gone":
            check_goes_on(peer)
    host.becomes(lambda handlers: handlers.cancelled == cancelled + 1)
    assert host.handlers.running == 0
