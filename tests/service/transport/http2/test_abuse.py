"""What costs a client little and a server much: it ends soon, with the right code, and others are served meanwhile.

Rapid reset (CVE-2023-44487), MadeYouReset (CVE-2025-8671), floods of frames that carry nothing (CVE-2019-9512 to 9518),
endless header blocks (CVE-2024-27316).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from service.transport.http2 import abuse
from tests.service.transport.http2 import wire
from tests.service.transport.http2.host import hosted
from tests.service.transport.http2.peer import Peer
from tests.service.transport.http2.rows import check_closed, check_goes_on
from tests.service.transport.http2.wire import Error, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

ECHO = wire.block(wire.request())
HANG = wire.block(wire.request(b"/wire.Test/Hang"))
UNKNOWN = wire.block(wire.request(b"/no.such/Method"))
MOST = 5_000
"""Frames, or streams, that a flood sends; it must have been ended by then."""


def hanging(stream: int) -> bytes:
    return wire.headers(stream, HANG) + wire.data(stream, wire.message(), end=True)


@dataclass(frozen=True)
class Flood:
    what: str
    each: Callable[[int], bytes]
    """What is sent again and again; called with a stream that has not been used yet."""
    before: bytes = b""

    def __str__(self) -> str:
        return self.what


BEGUN = wire.headers(1, b"", end_headers=False)
FIELD = b"\x00\x01x\x01y"
OVER = hanging(1) + wire.rst(1)

FLOODS = [
    Flood("rapid reset", lambda stream: hanging(stream) + wire.rst(stream)),
    Flood("rapid reset before there is a request", lambda stream: wire.headers(stream, ECHO) + wire.rst(stream)),
    Flood("made to reset by a window update of 0", lambda stream: hanging(stream) + wire.window_update(stream, 0)),
    Flood(
        "made to reset by a window that overflows",
        lambda stream: hanging(stream) + wire.window_update(stream, wire.MAX_WINDOW),
    ),
    Flood("made to reset by DATA after the end", lambda stream: hanging(stream) + wire.data(stream, b"x")),
    Flood("made to reset by HEADERS after the end", lambda stream: hanging(stream) + wire.headers(stream, ECHO)),
    Flood(
        "made to reset by PRIORITY of a wrong length",
        lambda stream: hanging(stream) + wire.frame(Kind.PRIORITY, 0, stream, b"1234"),
    ),
    Flood("malformed requests", lambda stream: wire.headers(stream, ECHO + ECHO, end=True)),
    Flood("more streams than may run", hanging),
    Flood("SETTINGS", lambda _: wire.settings({4: 65_535})),
    Flood("PING", lambda _: wire.ping()),
    Flood("empty DATA", lambda _: wire.data(1), before=wire.headers(1, ECHO)),
    Flood("DATA of padding", lambda _: wire.data(1, pad=9), before=wire.headers(1, ECHO)),
    Flood(
        "empty CONTINUATION",
        lambda _: wire.continuation(1, b"", end_headers=False),
        before=wire.headers(1, b"", end_headers=False),
    ),
    Flood(
        "endless CONTINUATION",
        lambda _: wire.continuation(1, b"\x00\x01x\x01y" * 2000, end_headers=False),
        before=wire.headers(1, b"", end_headers=False),
    ),
    Flood("PRIORITY", lambda stream: wire.priority(stream)),
    Flood("unknown frames", lambda _: wire.frame(0x42, 0, 0, b"x")),
    Flood("window updates of a stream that is over", lambda _: wire.window_update(1, 1), before=OVER),
    Flood("resets of a stream that is over", lambda _: wire.rst(1), before=hanging(1)),
    Flood("DATA of a stream that is over", lambda _: wire.data(1, b"x"), before=OVER),
]


@pytest.mark.parametrize("flood", FLOODS, ids=str)
def test_a_flood_is_ended_and_nobody_else_notices(engines, flood) -> None:
    host = engines["http2"]
    started = host.handlers.started
    with Peer(host.port) as other, Peer(host.port) as peer:
        other.ask(1)
        peer.send(flood.before)
        for number in range(0, MOST, 50):
            peer.send(b"".join(flood.each(2 * place + 3) for place in range(number, number + 50)))
            peer.read_for(0)
            if peer.goaways or peer.closed:
                break
        peer.read_to_end()
        assert [code for _, code, _ in peer.goaways] == [Error.ENHANCE_YOUR_CALM]
        check_goes_on(other)
    host.becomes(lambda handlers: handlers.running == 0)
    assert host.handlers.started - started <= abuse.RESETS.burst + 100


def test_pings_are_fine_as_often_as_messages_come(engines) -> None:
    """As grpc-go does: it measures the network with a ping for each answer."""
    with Peer(engines["http2"].port) as peer:
        for number in range(1, 2 * abuse.PINGS.burst + 601, 2):
            assert peer.ask(number).status == 0
            peer.send(wire.ping(b"bandwdth"))
        check_goes_on(peer, number + 2)


def test_a_client_may_cancel_less_than_half_of_its_calls(engines) -> None:
    host = engines["http2"]
    with Peer(host.port) as peer:
        for number in range(1, 6 * abuse.RESETS.burst + 601, 6):
            peer.send(wire.call(number) + hanging(number + 2) + wire.rst(number + 2))
            assert peer.ask(number + 4).status == 0
        check_goes_on(peer, number + 6)
    host.becomes(lambda handlers: handlers.running == 0)


def test_streams_that_were_left_out_do_not_count_as_begun(engines) -> None:
    with Peer(engines["http2"].port) as peer:
        peer.ask(2**31 - 1)
        peer.send(wire.window_update(2**31 - 1, 1) * (abuse.LATE_FRAMES + abuse.LATE_FRAMES_A_STREAM + 1))
        check_closed(peer, Error.ENHANCE_YOUR_CALM)


def test_a_call_over_the_limit_is_refused_and_may_be_tried_again() -> None:
    with hosted(max_concurrent_streams=3) as host, Peer(host.port) as peer:
        peer.send(b"".join(hanging(number) for number in (1, 3, 5)))
        host.becomes(lambda handlers: handlers.running == 3)
        for number in (7, 9):
            assert peer.ask(number).reset is Error.REFUSED_STREAM
        assert host.handlers.started == 3
        peer.send(wire.rst(3))
        check_goes_on(peer)


def test_a_request_that_does_not_go_on_is_given_up(monkeypatch) -> None:
    monkeypatch.setattr(abuse, "BODY_TIMEOUT_S", 0.1)
    with hosted() as host, Peer(host.port) as peer:
        peer.send(wire.headers(1, ECHO))
        peer.send(wire.headers(3, ECHO) + wire.data(3, wire.message()[:7]))
        peer.send(wire.headers(5, wire.request(b"/wire.Test/Chat")))
        for number in (1, 3):
            assert peer.finish(number).status == 4
        check_goes_on(peer)
        assert not peer.stream(5).over  # a stream of requests may take its time
        assert host.handlers.started == 2


@pytest.mark.parametrize("sent", [b"", wire.PREFACE[:7], wire.PREFACE, wire.PREFACE + wire.settings()[:4]])
def test_who_does_not_begin_is_sent_away(monkeypatch, sent) -> None:
    monkeypatch.setattr(abuse, "PREFACE_TIMEOUT_S", 0.1)
    with hosted() as host, Peer(host.port, greet=False, answers_settings=False) as peer:
        peer.send(sent)
        peer.read_to_end()
        assert [code for _, code, _ in peer.goaways] == [Error.SETTINGS_TIMEOUT]


def test_what_incomplete_requests_may_hold_together_is_bounded() -> None:
    with hosted() as host, Peer(host.port) as peer:
        host.engine._shared.max_buffered_bytes = 100_000
        for number in range(1, 40, 2):
            peer.send(wire.headers(number, ECHO) + wire.data(number, b"\0\0\x01\0\0" + bytes(10_000)))
        peer.fence()
        refused = [stream for stream in peer.streams.values() if stream.over]
        assert {stream.status for stream in refused} == {8}
        assert 8 <= len(refused) <= 12
        for number in range(1, 40, 2):
            peer.send(wire.rst(number))
        check_goes_on(peer)
        assert host.engine._shared.buffered_bytes == 0


def test_distant_deadlines_are_forgotten_with_their_calls(engines) -> None:
    host = engines["http2"]
    with Peer(host.port) as peer:
        for number in range(1500):
            peer.ask(2 * number + 1, wire.request(wire.ECHO, (b"grpc-timeout", b"%dM" % (100 + number))))
        deadlines = host.engine._shared.deadlines
        assert len(deadlines._order) < 500


def test_the_unknown_costs_no_more_than_the_known(engines) -> None:
    """Many different blocks, each seen once: what is remembered of them is bounded."""
    with Peer(engines["http2"].port) as peer:
        for number in range(300):
            fields = wire.request(wire.ECHO, (b"x-id", b"%d" % number))
            assert peer.ask(2 * number + 1, fields).status == 0
        check_goes_on(peer)


def test_a_priority_with_each_call_is_no_flood() -> None:
    """As clients of RFC 7540 send them."""
    numbers = range(1, 2 * abuse.IDLE_FRAMES.burst + 401, 2)
    with hosted("http2") as host, Peer(host.port) as peer:
        for number in numbers:
            peer.send(wire.headers(number, ECHO) + wire.priority(number) + wire.data(number, wire.message(), end=True))
            assert peer.finish(number).status == 0
