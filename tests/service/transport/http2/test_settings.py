"""RFC 9113, sections 3.4 and 6.5: the preface, and SETTINGS both ways."""

from __future__ import annotations

import pytest

from tests.service.transport.http2 import wire
from tests.service.transport.http2.host import hosted, limits_with
from tests.service.transport.http2.peer import Peer
from tests.service.transport.http2.rows import (
    Answered,
    Ignored,
    Row,
    check,
    check_closed,
    check_goes_on,
    check_serves,
    connection_error,
    table,
)
from tests.service.transport.http2.wire import Error, Flag, Kind, Setting


def setting(number: int, value: int) -> bytes:
    return wire.settings({number: value})


ROWS = [
    Row("9113-6.5", "SETTINGS on a stream", wire.frame(Kind.SETTINGS, 0, 1), connection_error(Error.PROTOCOL_ERROR)),
    Row(
        "9113-6.5",
        "SETTINGS cut off",
        wire.frame(Kind.SETTINGS, 0, 0, bytes(5)),
        connection_error(Error.FRAME_SIZE_ERROR),
    ),
    Row(
        "9113-6.5",
        "an acknowledgement with values",
        wire.frame(Kind.SETTINGS, Flag.ACK, 0, bytes(6)),
        connection_error(Error.FRAME_SIZE_ERROR),
    ),
    Row("9113-6.5", "unknown flags", wire.frame(Kind.SETTINGS, 0xFE, 0), Ignored()),
    Row("9113-6.5.2", "unknown setting", setting(0xAAAA, 2**32 - 1), Ignored()),
    Row("9113-6.5.2", "ENABLE_PUSH 0", setting(Setting.ENABLE_PUSH, 0), Ignored()),
    Row("9113-6.5.2", "ENABLE_PUSH 1", setting(Setting.ENABLE_PUSH, 1), Ignored()),
    Row("9113-6.5.2", "ENABLE_PUSH 2", setting(Setting.ENABLE_PUSH, 2), connection_error(Error.PROTOCOL_ERROR)),
    Row("9113-6.5.2", "the largest window", setting(Setting.INITIAL_WINDOW_SIZE, wire.MAX_WINDOW), Ignored()),
    Row(
        "9113-6.5.2",
        "a window over 2^31-1",
        setting(Setting.INITIAL_WINDOW_SIZE, 2**31),
        connection_error(Error.FLOW_CONTROL_ERROR),
    ),
    Row("9113-6.5.2", "the smallest frames", setting(Setting.MAX_FRAME_SIZE, 16_384), Ignored()),
    Row("9113-6.5.2", "the largest frames", setting(Setting.MAX_FRAME_SIZE, 2**24 - 1), Ignored()),
    Row(
        "9113-6.5.2",
        "frames too small",
        setting(Setting.MAX_FRAME_SIZE, 16_383),
        connection_error(Error.PROTOCOL_ERROR),
    ),
    Row(
        "9113-6.5.2", "frames too large", setting(Setting.MAX_FRAME_SIZE, 2**24), connection_error(Error.PROTOCOL_ERROR)
    ),
    Row("9113-6.5.2", "no header table", setting(Setting.HEADER_TABLE_SIZE, 0), Ignored()),
    Row("9113-6.5.2", "a large header table", setting(Setting.HEADER_TABLE_SIZE, 2**32 - 1), Ignored()),
    Row("9113-6.5.2", "no streams from the server", setting(Setting.MAX_CONCURRENT_STREAMS, 0), Ignored()),
    Row("9113-6.5.2", "the largest header list", setting(Setting.MAX_HEADER_LIST_SIZE, 2**32 - 1), Ignored()),
    Row("8441-3", "ENABLE_CONNECT_PROTOCOL", setting(8, 1), Ignored()),
    Row(
        "9113-6.5.3",
        "SETTINGS in the middle of a call",
        (wire.headers(1, wire.request()) + wire.settings({4: 70_000}) + wire.data(1, wire.message(), end=True)),
        Answered(),
    ),
    Row(
        "9113-6.5.3",
        "the last of equal settings counts",
        wire.frame(Kind.SETTINGS, 0, 0, b"\0\4\0\0\0\0\0\4\0\1\0\0") + wire.call(1),
        Answered(),
    ),
]


@table(*ROWS)
def test_a_rule_of_settings(engines, engine, row) -> None:
    check(row, engines[engine].port)


@pytest.fixture(params=["http2", "grpcio"])
def port(engines, request) -> int:
    return engines[request.param].port


def test_the_first_frame_of_the_server_is_its_settings(port) -> None:
    with Peer(port) as peer:
        peer.read_until(lambda: peer.frames)
        first = peer.frames[0]
        assert (first.kind, first.stream, first.flags) == (Kind.SETTINGS, 0, 0)


def test_settings_say_what_the_limits_are(port) -> None:
    with Peer(port) as peer:
        said = peer.settings()
    limits = limits_with()
    assert said[Setting.MAX_CONCURRENT_STREAMS] == limits.max_concurrent_streams
    assert said[Setting.MAX_HEADER_LIST_SIZE] == limits.max_metadata_bytes
    assert wire.MAX_FRAME <= said.get(Setting.MAX_FRAME_SIZE, wire.MAX_FRAME) < 2**24


def test_each_settings_frame_is_acknowledged_in_turn(port) -> None:
    with Peer(port) as peer:
        for count in range(2, 6):
            peer.send(wire.settings({Setting.INITIAL_WINDOW_SIZE: 70_000 + count}))
            peer.read_until(lambda count=count: acknowledged(peer) == count)
        peer.fence()
        assert acknowledged(peer) == 5


def acknowledged(peer: Peer) -> int:
    return sum(frame.kind == Kind.SETTINGS and frame.flags & Flag.ACK for frame in peer.frames)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + wire.settings(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        bytes(64),
    ],
    ids=["HTTP/1.1", "almost a preface", "TLS", "zeros"],
)
def test_what_is_no_preface_ends_the_connection(port, sent) -> None:
    # 9113-3.4: a GOAWAY may be left out, since there may be nobody who speaks HTTP/2.
    with Peer(port, greet=False) as peer:
        peer.send(sent)
        peer.half_close()
        peer.read_to_end()
        assert not any(frame.kind == Kind.HEADERS for frame in peer.frames)
        assert {code for _, code, _ in peer.goaways} <= {Error.PROTOCOL_ERROR}
    check_serves(port)


@pytest.mark.parametrize("first", [wire.ping(), wire.call(1), wire.window_update(0, 1)], ids=["PING", "call", "window"])
def test_the_first_frame_of_the_client_must_be_settings(engines, first) -> None:
    # grpcio does without.
    with Peer(engines["http2"].port, greet=False) as peer:
        peer.send(wire.PREFACE + first)
        check_closed(peer, Error.PROTOCOL_ERROR)


def test_an_acknowledgement_is_not_the_settings_of_the_client(engines) -> None:
    with Peer(engines["http2"].port, greet=False) as peer:
        peer.send(wire.PREFACE + wire.SETTINGS_ACK)
        check_closed(peer, Error.PROTOCOL_ERROR)


def test_half_a_preface_and_the_end(port) -> None:
    for sent in (b"", wire.PREFACE[:10], wire.PREFACE, wire.PREFACE + wire.settings()[:5]):
        with Peer(port, greet=False) as peer:
            peer.send(sent)
            peer.half_close()
            peer.read_to_end()
    check_serves(port)


def test_a_header_table_of_no_size_is_respected(port) -> None:
    # 7541-4.2: an encoder must not put anything into a table whose size the peer has set to 0.
    with Peer(port, {Setting.HEADER_TABLE_SIZE: 0}) as peer:
        peer.fence()
        peer.set_table_limit(0)
        for number in (1, 3, 5):
            assert peer.ask(number).messages() == [b"hello"]


def test_the_largest_frame_of_the_client_is_respected(port) -> None:
    with Peer(port) as peer:
        assert check_goes_on(peer, 1)
        answer = peer.ask(3, wire.request(b"/wire.Test/Count"), b"1 60000")
        assert len(answer.messages()[0]) == 60_000
        assert max(len(frame.payload) for frame in peer.frames) <= wire.MAX_FRAME


def test_limits_are_told_as_they_are_set() -> None:
    for engine in ("http2", "grpcio"):
        with hosted(engine, max_concurrent_streams=7, max_metadata_bytes=4096) as host, Peer(host.port) as peer:
            said = peer.settings()
            assert said[Setting.MAX_CONCURRENT_STREAMS] == 7
            assert said[Setting.MAX_HEADER_LIST_SIZE] == 4096
