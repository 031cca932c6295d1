"""Clients that do not read, and handlers that do not: what is held for them is bounded, and others do not wait."""

from __future__ import annotations

import gzip
import tracemalloc

from service.transport.http2 import abuse, connection
from tests.service.transport.http2 import wire
from tests.service.transport.http2.host import hosted
from tests.service.transport.http2.peer import Peer
from tests.service.transport.http2.rows import check_goes_on, check_serves
from tests.service.transport.http2.wire import Error, Kind, Setting

MEGABYTE = 1_000_000
HELD_AT_MOST = 8 * MEGABYTE
COUNT = wire.block(wire.request(b"/wire.Test/Count"))


def count(stream: int, number: int, size: int) -> bytes:
    return wire.headers(stream, COUNT) + wire.data(stream, wire.message(b"%d %d" % (number, size)), end=True)


def settled(host) -> int:
    """How many messages handlers have given, when they give no more."""
    before = -1
    with Peer(host.port) as other:
        stream = 1
        while before != host.handlers.yielded:
            before = host.handlers.yielded
            for _ in range(30):
                other.ask(stream)
                stream += 2
    return before


def test_a_stream_whose_window_is_closed_is_not_produced_in_advance() -> None:
    with hosted() as host, Peer(host.port, {Setting.INITIAL_WINDOW_SIZE: 0}) as peer:
        peer.send(b"".join(count(stream, 2_000, 10_000) for stream in range(1, 21, 2)))
        peer.fence()
        assert settled(host) * 10_000 < 10 * HELD_AT_MOST / 8
        check_goes_on_without_a_window(peer)
        for stream in range(1, 21, 2):
            peer.send(wire.rst(stream))


def check_goes_on_without_a_window(peer: Peer) -> None:
    peer.send(wire.call(101) + wire.window_update(101, 100))
    assert peer.finish(101).messages() == [b"hello"]


def test_a_client_that_does_not_read_its_socket_stops_the_handler() -> None:
    open_wide = {Setting.INITIAL_WINDOW_SIZE: wire.MAX_WINDOW}
    with hosted() as host, Peer(host.port, open_wide, receive_buffer_bytes=4096) as peer:
        peer.send(wire.window_update(0, wire.MAX_WINDOW - 65_535) + count(1, 4_000, 10_000))
        host.becomes(lambda handlers: handlers.running == 1)
        assert settled(host) * 10_000 < HELD_AT_MOST
        # And goes on where it stopped.
        assert len(peer.finish(1, within_s=60).messages()) == 4_000


def test_a_client_that_does_not_read_stops_an_opened_stream() -> None:
    with hosted() as host, Peer(host.port, {Setting.INITIAL_WINDOW_SIZE: 0}) as peer:
        peer.send(wire.headers(1, wire.request(b"/wire.Test/Opened")))
        messages = [b"%d" % number * 4_000 for number in range(1, 41)]
        peer.send(b"".join(wire.data(1, wire.message(message)) for message in messages) + wire.data(1, end=True))
        peer.fence()
        settled(host)
        assert 64 * 1024 <= sum(map(len, messages[: host.handlers.yielded])) < 64 * 1024 + 4 * 8_000
        peer.send(wire.window_update(1, 10_000_000))
        for _ in range(10):
            peer.send(wire.window_update(0, 65_535))
        assert peer.finish(1).messages() == messages


def test_a_client_that_reads_nothing_for_long_is_cut_off(monkeypatch) -> None:
    monkeypatch.setattr(abuse, "WRITE_TIMEOUT_S", 0.1)
    open_wide = {Setting.INITIAL_WINDOW_SIZE: wire.MAX_WINDOW}
    with hosted() as host, Peer(host.port, open_wide, receive_buffer_bytes=4096) as peer:
        peer.send(wire.window_update(0, wire.MAX_WINDOW - 65_535) + count(1, 4_000, 10_000))
        host.becomes(lambda handlers: (handlers.started, handlers.running) == (1, 0))
        check_serves(host.port)


def test_a_deadline_ends_a_call_that_waits_for_its_window(engines) -> None:
    host = engines["http2"]
    with Peer(host.port, {Setting.INITIAL_WINDOW_SIZE: 0}) as peer:
        in_time = (b"grpc-timeout", b"100m")
        peer.send(wire.call(1, wire.request(b"/wire.Test/Count", in_time), b"1000 10000"))
        peer.send(wire.call(3, wire.request(wire.ECHO, in_time)))
        peer.send(wire.call(5, wire.request(b"/wire.Test/Broken", in_time)))
        for stream in (1, 3, 5):
            assert peer.finish(stream).over
        host.becomes(lambda handlers: handlers.running == 0)


def test_answers_that_need_no_window_are_bounded_too(monkeypatch) -> None:
    """Refusals and empty answers, which are not read: the client is refused, and then cut off."""
    monkeypatch.setattr(connection, "_CLOSE_S", 0.1)
    for path, payload in ((b"/no.such/Method", b""), (b"/wire.Test/Fail", b"why" * 100), (b"/wire.Test/Count", b"0 0")):
        block = wire.block(wire.request(path))
        with hosted() as host, Peer(host.port, receive_buffer_bytes=4096) as peer:
            for number in range(1, 600_000, 200):
                streams = range(number, number + 200, 2)
                peer.send(
                    b"".join(wire.headers(n, block) + wire.data(n, wire.message(payload), end=True) for n in streams)
                )
                if peer.closed or not host.engine._shared.connections:
                    break
            else:
                raise AssertionError(f"{path!r}: still answered")
            check_serves(host.port)


def test_empty_messages_that_nobody_takes_use_up_the_window(engines) -> None:
    with Peer(engines["http2"].port) as peer:
        peer.send(wire.headers(1, wire.request(b"/wire.Test/Deaf")))
        window = peer.settings().get(Setting.INITIAL_WINDOW_SIZE, 65_535)
        chunk = wire.message(b"") * 2_000
        for _ in range(window // len(chunk)):
            peer.send(wire.data(1, chunk))
        peer.fence()
        assert peer.count(Kind.WINDOW_UPDATE, stream=1) == 0
        peer.send(wire.rst(1))
        check_goes_on(peer)


def test_messages_are_unpacked_when_they_are_taken(engines) -> None:
    """A hundred compressed messages of a megabyte each, on a stream that nobody reads."""
    packed = gzip.compress(bytes(MEGABYTE))
    with Peer(engines["http2"].port) as peer:
        peer.send(wire.headers(1, wire.request(b"/wire.Test/Deaf", (b"grpc-encoding", b"gzip"))))
        peer.fence()
        tracemalloc.start()
        try:
            for _ in range(100):
                peer.send(wire.data(1, wire.message(packed, compressed=1)))
            peer.fence()
            held_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held_bytes < HELD_AT_MOST
        peer.send(wire.rst(1))
        check_goes_on(peer)


def test_many_small_messages_cost_little_more_than_their_bytes(engines) -> None:
    with Peer(engines["http2"].port) as peer:
        peer.send(wire.headers(1, wire.request(b"/wire.Test/Deaf")))
        peer.fence()
        window = peer.settings().get(Setting.INITIAL_WINDOW_SIZE, 65_535)
        chunk = wire.message(b"x") * 2_000
        tracemalloc.start()
        try:
            for _ in range(window // len(chunk)):
                peer.send(wire.data(1, chunk))
            peer.fence()
            held_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held_bytes < HELD_AT_MOST
        peer.send(wire.rst(1))
        check_goes_on(peer)


def test_answers_that_no_window_takes_are_bounded(monkeypatch) -> None:
    """However early the calls began: the rest is refused in words, which need no window."""
    monkeypatch.setattr(abuse, "UNREAD_BYTES", 100_000)
    block = wire.block(wire.request(wire.ECHO))
    streams = range(1, 101, 2)
    with hosted() as host:
        with Peer(host.port, {Setting.INITIAL_WINDOW_SIZE: 0}) as peer:
            peer.send(b"".join(wire.headers(stream, block) for stream in streams))
            peer.send(b"".join(wire.data(stream, wire.message(b"x" * 10_000), end=True) for stream in streams))
            assert peer.finish(streams[-1]).status == 8
            assert host.engine._shared.unread.bytes <= 100_000 + 10_005
            check_serves(host.port)
        host.becomes(lambda _: host.engine._shared.unread.bytes == 0)


def test_an_answer_that_is_not_let_go_is_given_up(monkeypatch) -> None:
    monkeypatch.setattr(abuse, "WRITE_TIMEOUT_S", 0.1)
    with hosted() as host, Peer(host.port, {Setting.INITIAL_WINDOW_SIZE: 0}) as peer:
        peer.send(wire.call(1, wire.request(wire.ECHO)))
        assert peer.finish(1).reset == Error.CANCEL
        peer.send(wire.window_update(0, 1000))
        check_serves(host.port)
