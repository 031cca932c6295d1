"""Express calls and opened streams: answered, cancelled and late like all others, and told once."""

from __future__ import annotations

import pytest

from tests.service.transport.http2 import wire
from tests.service.transport.http2.peer import Peer
from tests.service.transport.http2.rows import check_goes_on
from tests.service.transport.http2.wire import Error, Setting, request

QUICK = b"/wire.Test/Quick"
OPENED = b"/wire.Test/Opened"
INVALID_ARGUMENT, DEADLINE_EXCEEDED, INTERNAL = 3, 4, 13


@pytest.fixture
def host(engines):
    return engines["http2"]


def test_calls_of_several_connections_are_answered_together(host) -> None:
    with Peer(host.port) as one, Peer(host.port) as other:
        for peer in (one, other):
            peer.send(b"".join(wire.call(stream, request(QUICK), b"%d" % stream) for stream in range(1, 401, 2)))
        for peer in (one, other):
            for stream in range(1, 401, 2):
                response = peer.finish(stream)
                assert (response.messages(), response.status) == ([b"%d" % stream], 0)


@pytest.mark.parametrize("payload", [b"later", b"again"])
def test_what_is_not_taken_or_given_back_is_run_like_others(host, payload) -> None:
    started = host.handlers.started
    with Peer(host.port) as peer:
        peer.send(b"".join(wire.call(stream, request(QUICK), each) for stream, each in ((1, b"a"), (3, payload))))
        assert [peer.finish(stream).messages() for stream in (1, 3)] == [[b"a"], [payload]]
    assert host.handlers.started == started + 1


def test_calls_with_a_deadline_of_their_own_are_recognised(host) -> None:
    with Peer(host.port) as peer:
        for stream in range(1, 41, 2):
            timeout = (b"grpc-timeout", b"%dS" % (stream + 60))
            assert peer.ask(stream, request(QUICK, timeout), b"x").messages() == [b"x"]


def test_a_call_in_pieces_is_answered(host) -> None:
    call = wire.call(1, request(QUICK), b"x") + wire.call(3, request(QUICK), b"x")
    for at in range(len(call)):
        with Peer(host.port) as peer:
            peer.send(call[:at])
            peer.read_for(0)
            peer.send(call[at:])
            assert [peer.finish(stream).messages() for stream in (1, 3)] == [[b"x"], [b"x"]]


def test_answers_wait_for_their_windows(host) -> None:
    with Peer(host.port, {Setting.INITIAL_WINDOW_SIZE: 3}) as peer:
        peer.send(b"".join(wire.call(stream, request(QUICK), b"hello") for stream in (1, 3, 5)))
        peer.fence()
        assert not peer.stream(1).over
        peer.send(wire.window_update(3, 100))
        assert peer.finish(3).messages() == [b"hello"]
        peer.send(wire.settings({Setting.INITIAL_WINDOW_SIZE: 65_535}))
        assert [peer.finish(stream).messages() for stream in (1, 5)] == [[b"hello"]] * 2


def test_a_call_that_is_cancelled_at_once_is_not_answered(host) -> None:
    cancelled = host.handlers.cancelled
    with Peer(host.port) as peer:
        peer.send(wire.call(1, request(QUICK), b"x") + wire.rst(1) + wire.call(3, request(QUICK), b"x"))
        assert peer.finish(3).messages() == [b"x"]
        assert not any(frame.stream == 1 for frame in peer.frames)
        check_goes_on(peer)
    assert (host.handlers.cancelled, host.handlers.running) == (cancelled + 1, 0)


def test_a_connection_error_cancels_what_was_taken_before_it(host) -> None:
    cancelled = host.handlers.cancelled
    with Peer(host.port) as peer:
        peer.send(wire.call(1, request(QUICK), b"x") + wire.ping(b"short"))
        peer.read_to_end()
    host.becomes(lambda handlers: handlers.cancelled == cancelled + 1)
    assert host.handlers.running == 0


@pytest.mark.parametrize("how", ["reset", "deadline", "gone", "connection error"])
def test_an_opened_stream_is_cancelled_once(host, how) -> None:
    cancelled = host.handlers.cancelled
    timeout = [(b"grpc-timeout", b"50m")] if how == "deadline" else []
    with Peer(host.port) as peer:
        peer.send(wire.headers(1, request(OPENED, *timeout)) + wire.data(1, wire.message(b"one")))
        if how == "deadline":
            assert peer.finish(1).status == DEADLINE_EXCEEDED
        else:
            peer.read_until(lambda: peer.stream(1).body)
        if how == "reset":
            peer.send(wire.rst(1))
        if how == "connection error":
            peer.send(wire.ping(b"short"))
            peer.read_to_end()
        elif how != "gone":
            check_goes_on(peer)
    host.becomes(lambda handlers: handlers.cancelled == cancelled + 1)
    assert host.handlers.running == 0


def test_an_opened_stream_may_fail(host) -> None:
    with Peer(host.port) as peer:
        peer.send(wire.headers(1, request(OPENED)) + wire.data(1, wire.message(b"one")))
        peer.read_until(lambda: peer.stream(1).body)
        peer.send(wire.data(1, wire.message(b"fail")) + wire.data(1, wire.message(b"two")))
        response = peer.finish(1)
        assert (response.messages(), response.status) == ([b"one"], INVALID_ARGUMENT)
        check_goes_on(peer)


def test_a_defect_is_that_streams_alone(host) -> None:
    with Peer(host.port) as peer:
        peer.send(wire.headers(1, request(b"/wire.Test/CrashOpened")) + wire.data(1, wire.message(b"one")))
        assert peer.finish(1).status == INTERNAL
        check_goes_on(peer)


def test_nothing_is_taken_after_the_end_of_the_requests(host) -> None:
    with Peer(host.port) as peer:
        peer.send(wire.headers(1, request(OPENED)) + wire.data(1, wire.message(b"one"), end=True))
        peer.send(wire.data(1, wire.message(b"two")))
        assert peer.finish(1).reset in (Error.STREAM_CLOSED, None)
        check_goes_on(peer)
    host.becomes(lambda handlers: handlers.running == 0)
