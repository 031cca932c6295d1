"""RFC 7541: the examples of its appendix C, what a decoder must refuse, bombs, and blocks that are remembered whole."""

from __future__ import annotations

import json

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.rpc.methods import Unary
from service.transport.http2 import request_heads
from service.transport.http2.request_heads import HeaderBlocks
from service.wire.errors import StreamFailure
from tests.service.transport.http2 import wire
from tests.service.transport.http2.peer import Peer
from tests.service.transport.http2.rows import (
    Answered,
    Row,
    check,
    check_closed,
    check_goes_on,
    check_serves,
    connection_error,
    table,
)
from tests.service.transport.http2.wire import Error

TOLD = wire.block(wire.request(b"/wire.Test/Told"))
GOOD = wire.block(wire.request())
SIZE_256 = b"\x3f\xe1\x01"

VECTORS = {
    "C.3": (
        b"",
        [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ],
        [["custom-key", "custom-value"], ["cache-control", "no-cache"]],
    ),
    "C.4": (
        b"",
        [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ],
        [["custom-key", "custom-value"], ["cache-control", "no-cache"]],
    ),
    "C.5": (
        SIZE_256,
        [
            (
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 "
                "2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 "
                "6c65 2e63 6f6d "
            ),
            "4803 3330 37c1 c0bf",
            (
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d "
                "54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 "
                "5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e "
                "3d31 "
            ),
        ],
        [
            ["set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"],
            ["content-encoding", "gzip"],
            ["date", "Mon, 21 Oct 2013 20:13:22 GMT"],
        ],
    ),
    "C.6": (
        SIZE_256,
        [
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 "
                "2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3 "
            ),
            "4883 640e ffc1 c0bf",
            (
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab "
                "77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f "
                "9587 3160 65c0 03ed 4ee5 b106 3d50 07 "
            ),
        ],
        [
            ["set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"],
            ["content-encoding", "gzip"],
            ["date", "Mon, 21 Oct 2013 20:13:22 GMT"],
        ],
    ),
}
"""What precedes the first block, the blocks of three messages, and what the table then begins with, newest first."""


@pytest.mark.parametrize("example", VECTORS)
def test_the_examples_of_appendix_c(engines, example) -> None:
    """No example is a call of ours, and each changes the table, from which the next call then takes its metadata."""
    before, blocks, table_begins = VECTORS[example]
    with Peer(engines["http2"].port) as peer:
        for number, line in enumerate(blocks):
            stream = 2 * number + 1
            peer.send(wire.headers(stream, (b"" if number else before) + bytes.fromhex(line), end=True))
            peer.finish(stream)
        indices = bytes(0x80 | 62 + place for place in range(len(table_begins)))
        peer.send(wire.headers(7, TOLD + indices) + wire.data(7, wire.message(), end=True))
        assert json.loads(peer.finish(7).messages()[0])["metadata"] == table_begins


def refused(section: str, rule: str, block: bytes) -> Row:
    return Row(section, rule, wire.headers(1, block), connection_error(Error.COMPRESSION_ERROR))


ROWS = [
    refused("7541-2.3.3", "an index beyond both tables", GOOD + b"\xbe"),
    refused("7541-2.3.3", "a name beyond both tables", GOOD + b"\x7e\x01x"),
    refused("7541-6.1", "index 0", GOOD + b"\x80"),
    refused("7541-5.1", "an integer without end", GOOD + b"\xff" + b"\x80" * 20),
    refused("7541-5.1", "an integer that is cut off", GOOD + b"\xff\x80"),
    refused("7541-5.2", "a string longer than its block", GOOD + b"\x00\x01x\x7f\xff\x01"),
    refused("7541-5.2", "a string whose length is cut off", GOOD + b"\x00"),
    refused("7541-5.2", "Huffman code that holds the end of strings", GOOD + b"\x00\x01x\x84\xff\xff\xff\xff"),
    refused("7541-5.2", "Huffman padding of more than seven bits", GOOD + b"\x00\x01x\x82\x1f\xff"),
    refused("7541-5.2", "Huffman padding that is not of ones", GOOD + b"\x00\x01x\x81\x18"),
    refused("7541-4.2", "a table larger than was allowed", b"\x3f\xe2\x1f" + GOOD),
    refused("7541-4.2", "a table size after a field", GOOD + b"\x20"),
    Row("7541-4.2", "a table of size 0", wire.call(1, b"\x20" + GOOD), Answered()),
    Row("7541-4.2", "two sizes in one block", wire.call(1, b"\x20\x3f\xe1\x1f" + GOOD), Answered()),
    Row(
        "7541-4.4",
        "an entry larger than the table",
        wire.call(1, GOOD + b"\x40\x01x\x7f\xa1\x1f" + b"v" * 4128),
        Answered(),
    ),
    Row("7541-6.2.2", "a literal with a name of the static table", wire.call(1, GOOD + b"\x0f\x04\x01a"), Answered()),
    Row("7541-6.2.3", "a literal that is never indexed", wire.call(1, GOOD + b"\x10\x01x\x01a"), Answered()),
    Row(
        "7541-2.2",
        "one table for the whole connection",
        wire.call(1, GOOD + b"\x40\x01x\x01a") + wire.call(3, GOOD + b"\xbe"),
        Answered(stream=3),
    ),
    Row(
        "7541-2.2",
        "blocks of refused calls count",
        wire.headers(1, wire.block(wire.request(b"/no.such/Method")) + b"\x40\x01x\x01a", end=True)
        + wire.call(3, GOOD + b"\xbe"),
        Answered(stream=3),
    ),
    Row(
        "7541-2.2",
        "blocks of malformed requests count",
        wire.headers(1, GOOD + GOOD + b"\x40\x01x\x01a", end=True) + wire.call(3, GOOD + b"\xbe"),
        Answered(stream=3),
    ),
    Row(
        "7541-2.2",
        "trailers count",
        wire.headers(1, GOOD)
        + wire.data(1, wire.message())
        + wire.headers(1, b"\x40\x01x\x01a", end=True)
        + wire.call(3, GOOD + b"\xbe"),
        Answered(stream=3),
    ),
    Row(
        "7541-2.2",
        "trailers of a stream that is over count",
        (
            wire.headers(1, wire.block(wire.request(b"/no.such/Method"))),
            wire.headers(1, b"\x40\x01x\x01a", end=True) + wire.call(3, GOOD + b"\xbe"),
        ),
        Answered(stream=3),
    ),
]


@table(*ROWS)
def test_a_rule_of_header_blocks(engines, engine, row) -> None:
    check(row, engines[engine].port)


@pytest.mark.parametrize("references", [100, 15_000, 120_000])
def test_a_few_indices_cannot_unfold_to_megabytes(engines, references) -> None:
    """4,000 bytes in the table, and then a byte for each time that they are wanted."""
    port = engines["http2"].port
    with Peer(port) as peer:
        assert peer.ask(1, GOOD + b"\x40\x01x\x7f\xa1\x1e" + b"v" * 4000).status == 0
        bomb = GOOD + b"\xbe" * references
        pieces = [bomb[at : at + 16_000] for at in range(0, len(bomb), 16_000)]
        peer.send(wire.headers(3, pieces[0], end=True, end_headers=len(pieces) == 1))
        for number, piece in enumerate(pieces[1:], 2):
            peer.send(wire.continuation(3, piece, end_headers=number == len(pieces)))
        peer.read_until(lambda: peer.stream(3).over or peer.closed)
        if peer.closed:
            check_closed(peer, Error.ENHANCE_YOUR_CALM)
        else:
            assert peer.stream(3).status == 8
            check_goes_on(peer)
    check_serves(port)


def test_a_block_that_was_seen_means_something_else_after_the_table_has_changed(engines) -> None:
    told = TOLD + b"\xbe"
    with Peer(engines["http2"].port) as peer:
        for number, value in enumerate([b"a", b"a", b"b", b"c"]):
            stream = 10 * number + 1
            peer.ask(stream, GOOD + b"\x40\x01x\x01" + value)
            for again in (2, 4, 6):
                answer = peer.ask(stream + again, told).messages()[0]
                assert json.loads(answer)["metadata"] == [["x", value.decode()]]


def test_a_timeout_in_broken_huffman_code_is_noticed_in_a_block_that_was_seen(engines) -> None:
    def block(timeout: bytes) -> bytes:
        return GOOD + b"\x00\x0cgrpc-timeout" + timeout

    with Peer(engines["http2"].port) as peer:
        for stream in (1, 3, 5, 7):
            assert peer.ask(stream, block(b"\x03%dS" % (20 + stream))).status == 0
        peer.send(wire.call(9, block(b"\x84\xff\xff\xff\xff")))
        check_closed(peer, Error.COMPRESSION_ERROR)


@pytest.mark.parametrize("rest", [b"", b"\x03", b"\x05", b"\x7f"])
def test_a_block_that_was_seen_is_noticed_to_be_cut_off_at_its_timeout(engines, rest) -> None:
    with Peer(engines["http2"].port) as peer:
        for stream in (1, 3, 5):
            assert peer.ask(stream, GOOD + b"\x00\x0cgrpc-timeout\x03%dS" % (20 + stream)).status == 0
        peer.send(wire.call(7, GOOD + b"\x00\x0cgrpc-timeout" + rest))
        check_closed(peer, Error.COMPRESSION_ERROR)


METHODS = {wire.ECHO: Unary(wire.ECHO.decode(), bytes, bytes, lambda request, context: request)}
NAMES = st.sampled_from([b"x-a", b"x-b", b"user-agent", b"authorization", b"x-bin", b"traceparent"])
VALUES = st.sampled_from([b"", b"v", b"AAAA", b"w" * 50, b"z" * 1500]) | st.binary(max_size=8).map(bytes.hex).map(
    str.encode
)
TIMEOUTS = st.none() | st.integers(1, 99_999_999).map(lambda n: b"%dm" % n) | st.sampled_from([b"1S", b"20S", b"never"])


@st.composite
def calls(draw) -> tuple[list[tuple[bytes, bytes, bool]], bool, int | None]:
    """A call's fields, each with whether it stays out of the table; whether to use Huffman code; a new table size."""
    extra = draw(st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=3))
    fields = [(name, value, draw(st.booleans())) for name, value in wire.request()]
    timeout = draw(TIMEOUTS)
    if timeout is not None:
        extra.insert(draw(st.integers(0, len(extra))), (b"grpc-timeout", timeout, draw(st.booleans())))
    return fields + extra, draw(st.booleans()), draw(st.none() | st.sampled_from([0, 40, 300, 4096]))


@settings(max_examples=60, deadline=None)
@given(st.lists(calls(), min_size=1, max_size=4), st.lists(st.integers(0, 3), min_size=1, max_size=20))
def test_remembered_blocks_say_what_a_plain_decoder_reads(chosen, order) -> None:
    """However calls repeat, whatever of them is indexed, and however the table's size changes in between."""
    encoder, plain = hpack.Encoder(), hpack.Decoder()
    blocks = HeaderBlocks(METHODS, 16_384)
    for place in order:
        fields, huffman, size = chosen[place % len(chosen)]
        if size is not None:
            encoder.header_table_size = size
        block = encoder.encode(fields, huffman=huffman)
        expected = outcome(lambda block=block: request_heads.parse(decoded(plain, block), METHODS, 16_384))
        assert outcome(lambda block=block: blocks.request(block)) == expected


def decoded(decoder: hpack.Decoder, block: bytes) -> list[tuple[bytes, bytes]]:
    return [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]


def outcome(work) -> object:
    """What it returns, or in words what it raises."""
    try:
        return work()
    except StreamFailure as failure:
        return str(failure)
