from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.wire.hpack import STATIC, Decoder, HpackError, encode


def decoder(table_bytes: int = 4096) -> Decoder[list[tuple[bytes, bytes]]]:
    return Decoder(lambda fields: fields, table_bytes)


REQUESTS = [
    [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")],
    [
        (b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com"),
        (b"cache-control", b"no-cache"),
    ],
    [
        (b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/index.html"),
        (b":authority", b"www.example.com"), (b"custom-key", b"custom-value"),
    ],
]  # fmt: skip


@pytest.mark.parametrize(
    "blocks",
    [
        # RFC 7541, C.3 and C.4.
        [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ],
        [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ],
    ],
    ids=["plain", "huffman"],
)
def test_the_requests_of_rfc_7541_are_read(blocks) -> None:
    reader = decoder()
    assert [reader.decode(bytes.fromhex(block)) for block in blocks] == REQUESTS


def test_the_responses_of_rfc_7541_evict_what_does_not_fit() -> None:
    # C.6: a table of 256 bytes.
    reader = decoder(256)
    first = reader.decode(
        bytes.fromhex(
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3"
        )
    )
    assert first == [
        (b":status", b"302"), (b"cache-control", b"private"), (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT"),
        (b"location", b"https://www.example.com"),
    ]  # fmt: skip
    assert reader.decode(bytes.fromhex("4883640effc1c0bf")) == [(b":status", b"307"), *first[1:]]
    third = reader.decode(
        bytes.fromhex(
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af270"
            "87f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"
        )
    )
    assert third[0] == (b":status", b"200")
    assert third[-1] == (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1")


def test_a_block_that_changes_the_table_makes_remembered_blocks_be_read_again() -> None:
    reader = decoder()
    literal = b"\x40\x01a\x01"
    assert reader.decode(literal + b"1") == [(b"a", b"1")]
    assert reader.decode(b"\xbe") == [(b"a", b"1")]
    known = reader.decode(b"\xbe")
    assert reader.decode(b"\xbe") is known
    assert reader.decode(literal + b"2") == [(b"a", b"2")]
    assert reader.decode(b"\xbe") == [(b"a", b"2")]
    assert reader.decode(b"\xbf") == [(b"a", b"1")]
    # The table is emptied, and may be used again.
    assert reader.decode(b"\x20\x3f\xe1\x1f") == []
    with pytest.raises(HpackError, match="header index 62, the table has 61"):
        reader.decode(b"\xbe")


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ("80", "header index 0"),
        ("ff", "ends within a field"),
        ("4001", "ends within a field|are left"),
        ("400a61", "a string of 10 bytes"),
        ("ffffffffffff00", "more than 32 bits"),
        ("3fe2ff03", "are allowed"),
        ("00816000", "padding"),
        ("0084ffffffff00", "end-of-string|padding"),
    ],
)
def test_a_block_that_is_none_is_refused(block, says) -> None:
    with pytest.raises(HpackError, match=says):
        decoder().decode(bytes.fromhex(block))


NAMES = st.sampled_from([name for name, _ in STATIC] + [b"x-a", b"x" * 200])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(NAMES, st.binary(max_size=300))))
def test_what_is_written_is_read_and_leaves_no_trace(fields) -> None:
    reader = decoder(0)
    assert reader.decode(encode(fields)) == fields


def test_secrets_are_marked_as_never_to_be_indexed() -> None:
    block = encode([(b"authorization", b"Bearer t")])
    assert block[0] & 0xF0 == 0x10
    assert decoder().decode(block) == [(b"authorization", b"Bearer t")]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_do_more_than_raise_hpack_error(block) -> None:
    with contextlib.suppress(HpackError):
        decoder().decode(block)
