"""gRPC over HTTP/2: paths, content types, timeouts, metadata, statuses."""

from __future__ import annotations

import base64
import json
import urllib.parse

import pytest

from tests.service.transport.http2 import wire
from tests.service.transport.http2.peer import Peer
from tests.service.transport.http2.rows import (
    Answered,
    Expectation,
    Refused,
    Row,
    check,
    check_goes_on,
    table,
)
from tests.service.transport.http2.wire import request

HELLO = wire.data(1, wire.message(), end=True)
TOLD = b"/wire.Test/Told"
UNIMPLEMENTED, INTERNAL, DEADLINE_EXCEEDED = 12, 13, 4


def row(rule: str, fields: list, expected: Expectation) -> Row:
    return Row("grpc", rule, wire.headers(1, fields) + HELLO, expected)


def timeout(value: bytes) -> list:
    return request(wire.ECHO, (b"grpc-timeout", value))


ROWS = [
    row("content-type application/grpc+proto", request(content_type=b"application/grpc+proto"), Answered()),
    row("content-type with a parameter", request(content_type=b"application/grpc;charset=utf-8"), Answered()),
    row("content-type of something else", request(content_type=b"text/plain"), Refused(415)),
    row("content-type application/grpc-web", request(content_type=b"application/grpc-web+proto"), Refused(415)),
    row("content-type that only begins like gRPC's", request(content_type=b"application/grpcfoo"), Refused(415)),
    row("no content-type", request(without=[b"content-type"]), Refused(415)),
    row("GET", request(method=b"GET"), Refused(405)),
    row("PUT", request(method=b"PUT"), Refused(405)),
    row("no te, as proxies leave it", request(without=[b"te"]), Answered()),
    row("unknown method", request(b"/wire.Test/Nope"), Answered(UNIMPLEMENTED)),
    row("unknown service", request(b"/no.Such/Echo"), Answered(UNIMPLEMENTED)),
    row("a path that is none", request(b"/"), Answered(UNIMPLEMENTED)),
    row("a path with a query", request(wire.ECHO + b"?x=y"), Answered(UNIMPLEMENTED)),
    row("a path that is not UTF-8", request(b"/\xff\xfe/x"), Answered(UNIMPLEMENTED)),
    row("paths know upper from lower case", request(b"/wire.test/echo"), Answered(UNIMPLEMENTED)),
    *(row(f"grpc-timeout in {unit!r}", timeout(b"1000000" + unit), Answered()) for unit in [b"H", b"M", b"S", b"m"]),
    *(row(f"grpc-timeout in {unit!r}", timeout(b"99999999" + unit), Answered()) for unit in [b"u", b"H"]),
    row("grpc-timeout in b'n'", timeout(b"99999999n"), Answered()),
    row("grpc-timeout with leading zeros", timeout(b"00000009S"), Answered()),
    row("grpc-timeout that has passed", timeout(b"0m"), Answered(DEADLINE_EXCEEDED)),
    *(
        row(f"grpc-timeout {value!r} is malformed", timeout(value), Answered(INTERNAL))
        for value in [b"", b"S", b"1", b"1s", b"-1S", b"+1S", b"1.5S", b"123456789S", b"0x1S", b"1_0S", "١S".encode()]
    ),
]


@table(*ROWS)
def test_a_rule_of_grpc(engines, engine, row) -> None:
    check(row, engines[engine].port)


@pytest.fixture(params=["http2", "grpcio"])
def host(engines, request):
    return engines[request.param]


def test_the_form_of_an_answer(host) -> None:
    with Peer(host.port) as peer:
        response = peer.ask()
        fields = dict(response.headers)
        assert response.headers[0] == (":status", "200")
        assert fields["content-type"].startswith("application/grpc")
        assert "grpc-status" not in fields
        assert dict(response.trailers)["grpc-status"] == "0"
        assert not any(name.startswith(":") for name, _ in response.trailers)
        assert response.ended
        assert response.reset is None


def test_a_failure_before_any_message_is_one_block(host) -> None:
    with Peer(host.port) as peer:
        for number, path in ((1, b"/wire.Test/Fail"), (3, b"/no.such/Method")):
            response = peer.ask(number, request(path))
            assert response.http_status == "200"
            assert dict(response.headers)["content-type"].startswith("application/grpc")
            assert response.status == (3 if number == 1 else UNIMPLEMENTED)
            assert (response.body, response.trailers) == (b"", [])


def test_a_failure_after_messages_is_in_the_trailers(host) -> None:
    with Peer(host.port) as peer:
        response = peer.ask(1, request(b"/wire.Test/Broken"), b"first")
        assert response.messages() == [b"first"]
        assert (response.status, dict(response.trailers)["grpc-message"]) == (3, "enough")


def test_a_defect_is_internal_and_tells_nothing(host) -> None:
    with Peer(host.port) as peer:
        response = peer.ask(1, request(b"/wire.Test/Crash"))
        assert response.status == INTERNAL
        assert "defect" not in str(response.headers)
        check_goes_on(peer)


@pytest.mark.parametrize(
    "text",
    ["plain", "100 %", "%41", "naïve ☃ 𝄞", "line\nbreak\ttab\x7f", "", " spaces ", "a" * 900],
    ids=["plain", "percent", "looks encoded", "UTF-8", "control", "empty", "spaces", "long"],
)
def test_messages_are_percent_encoded(host, text) -> None:
    with Peer(host.port) as peer:
        response = peer.ask(1, request(b"/wire.Test/Fail"), text.encode())
        said = dict(response.headers).get("grpc-message", "")
        assert all(" " <= character <= "~" for character in said)
        # 9113-8.2.1, and grpcio notwithstanding.
        assert said == said.strip() or host.name == "grpcio"
        assert urllib.parse.unquote(said) == text


def test_details_come_as_unpadded_base64(host) -> None:
    with Peer(host.port) as peer:
        response = peer.ask(1, request(b"/wire.Test/Fail"), b"why")
        details = dict(response.headers)["grpc-status-details-bin"]
        assert not details.endswith("=")
        assert b"INVALID_REQUEST" in base64.b64decode(details + "=" * (-len(details) % 4))


def told(peer: Peer, *extra, stream: int = 1) -> dict:
    return json.loads(peer.ask(stream, request(TOLD, *extra)).messages()[0])


def seen(peer: Peer, *extra) -> list[str]:
    return [value for key, value in told(peer, *extra)["metadata"] if key == extra[0][0].decode()]


def test_metadata_reach_the_handler(host) -> None:
    with Peer(host.port) as peer:
        assert seen(peer, (b"x-one", b"a b,c"), (b"x-one", b"")) == ["a b,c", ""]


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        (b"AAEC/w==", ["\x00\x01\x02\xff"]),
        (b"AAEC/w", ["\x00\x01\x02\xff"]),
        (b"", [""]),
        (b"AA", ["\x00"]),
        (b"AA==", ["\x00"]),
    ],
)
def test_binary_metadata_with_padding_and_without(host, sent, arrives) -> None:
    with Peer(host.port) as peer:
        assert seen(peer, (b"x-two-bin", sent)) == arrives


def test_binary_metadata_joined_by_commas(engines) -> None:
    with Peer(engines["http2"].port) as peer:
        assert seen(peer, (b"x-two-bin", b"AAE=,/w,,Ag==")) == ["\x00\x01", "\xff", "", "\x02"]


def test_binary_metadata_that_are_no_base64_fail_their_call_alone(host) -> None:
    with Peer(host.port) as peer:
        response = peer.ask(1, request(TOLD, (b"x-two-bin", b"!?=")))
        assert response.reset is not None or response.status in {3, INTERNAL}
        check_goes_on(peer)


def test_what_the_transport_needs_is_no_metadata(host) -> None:
    with Peer(host.port) as peer:
        keys = {key for key, _ in told(peer, (b"x-mine", b"1"), (b"grpc-timeout", b"9S"))["metadata"]}
        assert "x-mine" in keys
        assert not keys & {":path", ":method", ":scheme", ":authority", "te", "content-type", "grpc-timeout"}


def test_the_peer_is_named_as_grpc_names_it(host) -> None:
    with Peer(host.port) as peer:
        assert told(peer)["peer"].startswith("ipv4:127.0.0.1:")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"2H", 7200), (b"3M", 180), (b"50S", 50), (b"90000m", 90), (b"99999999u", 99.999999)],
)
def test_each_unit_of_timeouts(host, value, seconds) -> None:
    with Peer(host.port) as peer:
        remaining_s = told(peer, (b"grpc-timeout", value))["remaining_s"]
        assert seconds - 20 < remaining_s <= seconds + 0.01


def test_without_a_timeout_there_is_no_deadline(host) -> None:
    with Peer(host.port) as peer:
        assert told(peer)["remaining_s"] is None


def test_a_deadline_ends_the_call_and_its_handler(host) -> None:
    with Peer(host.port) as peer:
        cancelled = host.handlers.cancelled
        response = peer.ask(1, request(b"/wire.Test/Hang", (b"grpc-timeout", b"50m")))
        assert response.status == DEADLINE_EXCEEDED
        host.becomes(lambda handlers: handlers.cancelled == cancelled + 1)
        check_goes_on(peer)


def test_a_deadline_counts_while_the_request_is_on_its_way(host) -> None:
    with Peer(host.port) as peer:
        peer.send(wire.headers(1, request(wire.ECHO, (b"grpc-timeout", b"50m"))))
        assert peer.finish(1).status == DEADLINE_EXCEEDED
        check_goes_on(peer)


def test_cancellation_reaches_the_handler(host) -> None:
    with Peer(host.port) as peer:
        for number, path in ((1, b"/wire.Test/Hang"), (3, b"/wire.Test/Deaf")):
            cancelled = host.handlers.cancelled
            peer.send(wire.headers(number, request(path)) + wire.data(number, wire.message(), end=number == 1))
            host.becomes(lambda handlers: handlers.running == 1)
            peer.send(wire.rst(number))
            host.becomes(lambda handlers, count=cancelled + 1: handlers.cancelled == count)
            assert host.handlers.running == 0
        check_goes_on(peer)
