"""RFC 9113, section 6.8: the kind end of a connection; and pings, ages and idleness."""

from __future__ import annotations

import socket
import ssl

import pytest

from service.security.tls import CertificateFiles
from tests.certificates import Root
from tests.service.transport.http2 import wire
from tests.service.transport.http2.host import hosted
from tests.service.transport.http2.peer import Peer
from tests.service.transport.http2.rows import check_goes_on
from tests.service.transport.http2.wire import Error, Flag, Kind

HANG = wire.headers(1, wire.request(b"/wire.Test/Hang")) + wire.data(1, wire.message(), end=True)
ANY_STREAM = 2**31 - 1


def pong(peer: Peer) -> None:
    """Answer the last ping."""
    payload = [frame.payload for frame in peer.frames if (frame.kind, frame.flags) == (Kind.PING, 0)][-1]
    peer.send(wire.frame(Kind.PING, Flag.ACK, 0, payload))


def pinged(peer: Peer) -> bool:
    return any((frame.kind, frame.flags) == (Kind.PING, 0) for frame in peer.frames)


def test_a_drain_has_two_steps_and_loses_no_call(chat) -> None:
    with hosted() as host, Peer(host.port, answers_pings=False) as peer:
        peer.send(wire.headers(1, chat) + wire.data(1, wire.message(b"one")))
        peer.read_until(lambda: peer.stream(1).body)
        stopped = host.start(host.engine.stop(30))
        peer.read_until(lambda: peer.goaways and pinged(peer))
        assert [(last, code) for last, code, _ in peer.goaways] == [(ANY_STREAM, Error.NO_ERROR)]
        # It was on its way when the server said so.
        assert peer.ask(3).messages() == [b"hello"]
        pong(peer)
        peer.read_until(lambda: len(peer.goaways) == 2)
        assert peer.goaways[1][:2] == (3, Error.NO_ERROR)
        assert peer.ask(5).reset is Error.REFUSED_STREAM
        peer.send(wire.data(1, wire.message(b"two"), end=True))
        assert peer.finish(1).messages() == [b"one", b"two"]
        peer.read_to_end()
        stopped.result(30)


def test_a_client_that_does_not_hear_is_told_the_last_stream_anyway(chat) -> None:
    with hosted() as host, Peer(host.port, answers_pings=False) as peer:
        peer.send(wire.headers(1, chat))
        peer.fence()
        host.start(host.engine.drain(0.05)).result(30)
        peer.read_until(lambda: len(peer.goaways) == 2)
        assert peer.goaways[1][0] == 1
        peer.send(wire.data(1, end=True))
        assert peer.finish(1).status == 0
        peer.read_to_end()


def test_an_idle_connection_is_closed_at_once() -> None:
    with hosted() as host, Peer(host.port) as peer:
        peer.ask(1)
        stopped = host.start(host.engine.stop(30))
        peer.read_to_end()
        assert {code for _, code, _ in peer.goaways} == {Error.NO_ERROR}
        stopped.result(30)


def test_a_handshake_that_ends_after_the_stop_has_begun_holds_nothing_up(tmp_path) -> None:
    root = Root(tmp_path)
    pair = root.sign("server")
    trusting = ssl.create_default_context(cafile=root.cert)
    trusting.set_alpn_protocols(["h2"])
    with hosted(certificates=CertificateFiles(pair.cert, pair.key, None)) as host:
        here = ("127.0.0.1", host.port)
        with (
            trusting.wrap_socket(socket.create_connection(here), server_hostname="localhost") as early,
            socket.create_connection(here) as late,
        ):
            early.sendall(wire.PREFACE + wire.settings() + HANG)
            host.becomes(lambda handlers: handlers.running == 1)
            stopped = host.start(host.engine.stop(30))
            said = b""
            while wire.ping(b"drain...") not in said:
                said += early.recv(65536)
            early.sendall(wire.frame(Kind.PING, Flag.ACK, 0, b"drain..."))
            while said.count(b"server stopping") < 2:  # the second GOAWAY: from now on nobody is taken
                said += early.recv(65536)
            with pytest.raises(OSError), trusting.wrap_socket(late, server_hostname="localhost") as secured:  # noqa: PT011 - cut during the handshake or right after it
                if not secured.recv(65536):
                    raise ConnectionResetError
            early.sendall(wire.rst(1))
            stopped.result(10)


def test_what_outlives_the_grace_is_cancelled_and_told_so() -> None:
    with hosted() as host, Peer(host.port) as peer:
        peer.send(HANG)
        host.becomes(lambda handlers: handlers.running == 1)
        stopped = host.start(host.engine.stop(0.05))
        assert peer.finish(1).status == 14
        peer.read_to_end()
        stopped.result(30)
        assert (host.handlers.running, host.handlers.cancelled) == (0, 1)


def test_a_connection_of_age_is_drained(chat) -> None:
    with hosted(max_connection_age_s=0.05, max_connection_age_grace_s=30) as host, Peer(host.port) as peer:
        peer.send(wire.headers(1, chat))
        peer.read_until(lambda: len(peer.goaways) == 2)
        assert [last for last, _, _ in peer.goaways] == [ANY_STREAM, 1]
        peer.send(wire.data(1, wire.message(), end=True))
        assert peer.finish(1).messages() == [b"hello"]
        peer.read_to_end()


def test_a_connection_of_age_is_cut_off_after_its_grace() -> None:
    with hosted(max_connection_age_s=0.05, max_connection_age_grace_s=0.05) as host, Peer(host.port) as peer:
        peer.send(HANG)
        peer.read_to_end()
        host.becomes(lambda handlers: handlers.cancelled == 1)


def test_an_idle_connection_is_drained_and_a_busy_one_is_not() -> None:
    with hosted(max_connection_idle_s=0.1) as host, Peer(host.port) as busy, Peer(host.port) as idle:
        busy.send(HANG)
        idle.ask(1)
        idle.read_to_end()
        assert {code for _, code, _ in idle.goaways} == {Error.NO_ERROR}
        check_goes_on(busy)


def test_who_does_not_answer_pings_is_gone() -> None:
    limits = {"keepalive_time_s": 0.05, "keepalive_timeout_s": 0.05}
    with hosted(**limits) as host:
        with Peer(host.port, answers_pings=False) as silent:
            silent.send(HANG)
            silent.read_to_end()
            host.becomes(lambda handlers: handlers.cancelled == 1)
        with Peer(host.port) as alive:
            alive.read_until(lambda: alive.count(Kind.PING) > 4)
            check_goes_on(alive)
