"""Decodes header blocks into calls. The ``hpack`` library decodes; a block that has been seen is not decoded again.

Most calls of a client have the same header list, which HPACK encodes to the same bytes until the connection's table
changes. So blocks that left the table unchanged are cached, and the cache is cleared when the table changes.
With clients that set deadlines only ``grpc-timeout`` differs from call to call: if it is a literal outside the table,
the block is cached without it and the literal is parsed here.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hpack.huffman_table import decode_huffman

from service.transport.http2 import request_head
from service.wire import metadata
from service.wire.errors import ConnectionFailure, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.rpc.methods import Method
    from service.transport.http2.request_head import Fields, RequestHead

# At debug level hpack logs every header field, including callers' tokens.
logging.getLogger("hpack").setLevel(logging.INFO)

_TIMEOUT: Final = b"grpc-timeout"
_TIMEOUT_HUFFMAN: Final = bytes.fromhex("9acac8b24d494f6a7f")
_STATIC_ENTRIES: Final = 61
_REMEMBERED: Final = 64
"""Blocks cached for a connection. A full cache is cleared: a client whose blocks all differ gains nothing by it."""
_LARGEST_REMEMBERED: Final = 4096
_LARGEST_TIMEOUT: Final = 16
"""Bytes of a timeout's literal: eight digits and a unit, and a margin for the Huffman code."""


class HeaderBlocks:
    """The decoding side of one connection's HPACK state."""

    def __init__(self, methods: Mapping[bytes, Method], max_metadata_bytes: int) -> None:
        self._methods = methods
        self._max_metadata_bytes = max_metadata_bytes
        # Up to this size a call is refused with a status; a larger list fails the connection before it is decoded
        # completely, since a few bytes of indices can expand to very much.
        self._decoder = Decoder(max_header_list_size=4 * max_metadata_bytes + 65_536)
        self.known: dict[bytes, RequestHead] = {}
        """Cached calls by the blocks that begin them."""
        self._known_but_timeout: dict[tuple[bytes, bytes], RequestHead] = {}

    @property
    def max_block_bytes(self) -> int:
        """Length above which no block can be within the limits."""
        return 4 * self._max_metadata_bytes + 65_536

    def plain(self, block: bytes) -> tuple[RequestHead, float | None] | None:
        """The call that a block begins and its timeout in seconds, if the block is cached and the call is plain."""
        head = self.known.get(block)
        if head is not None:
            return (head, head.timeout_s) if head.is_plain else None
        for (before, after), head in self._known_but_timeout.items():
            if not block.startswith(before):
                continue
            start = len(before) + 1
            end = len(block) - len(after)
            # The length must be one byte without the Huffman bit, and match the octets that follow.
            if 0 < end - start == block[start - 1] and block.endswith(after):
                timeout_s = metadata.timeout_s(block[start:end])
                if timeout_s and head.is_plain:
                    return head, timeout_s
        return None

    def request(self, block: bytes) -> RequestHead:
        """The call that a block begins; raises ConnectionFailure or StreamFailure."""
        head = self.known.get(block)
        return head if head is not None else self._request(block)

    def trailers(self, block: bytes) -> None:
        """Decode and check a block that ends a request."""
        self._forget()  # It may change the table; few clients send trailers.
        request_head.check_trailers(self._decode(block))

    def skip(self, block: bytes) -> None:
        """Decode a block that is not used: every block may change the table."""
        self._forget()
        self._decode(block)

    def _forget(self) -> None:
        self.known.clear()
        self._known_but_timeout.clear()

    def _request(self, block: bytes) -> RequestHead:
        span = self._timeout_span(block) if self._known_but_timeout or len(self.known) > 1 else None
        if span is not None:
            start, end = span
            known = self._known_but_timeout.get((block[:start], block[end:]))
            if known is not None:
                return request_head.with_timeout(known, self._read_string(block, start))
        before = self._table_state()
        fields = self._decode(block)
        after = self._table_state()
        is_unchanged = before[0] is after[0] and before[1:] == after[1:]
        if not is_unchanged:
            self._forget()
        head = request_head.parse(fields, self._methods, self._max_metadata_bytes)
        if is_unchanged and len(block) <= _LARGEST_REMEMBERED:
            self._remember(block, span if span is not None else self._timeout_span(block), head)
        return head

    def _remember(self, block: bytes, span: tuple[int, int] | None, head: RequestHead) -> None:
        if len(self.known) >= _REMEMBERED:
            self.known.clear()
        self.known[block] = head
        if span is not None and head.refusal is None:
            if len(self._known_but_timeout) >= _REMEMBERED:
                self._known_but_timeout.clear()
            self._known_but_timeout[block[: span[0]], block[span[1] :]] = head

    def _decode(self, block: bytes) -> Fields:
        try:
            return [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError as error:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "header list too large") from error
        except (HPACKError, IndexError, UnicodeError) as error:
            raise ConnectionFailure(ErrorCode.COMPRESSION_ERROR, "a header block cannot be decoded") from error

    def _read_string(self, block: bytes, position: int) -> bytes:
        try:
            return _string(block, position)[0]
        except HPACKError as error:
            raise ConnectionFailure(ErrorCode.COMPRESSION_ERROR, "a header block cannot be decoded") from error

    def _table_state(self) -> tuple[object, int, int]:
        """A value that changes with every new entry, which comes first in the table, and every change of size. Compare
        its first item by identity, since an equal entry may have been added.
        """
        table = self._decoder.header_table
        entries = table.dynamic_entries
        return (entries[0] if entries else None, len(entries), table.maxsize)

    def _timeout_span(self, block: bytes) -> tuple[int, int] | None:
        """Start and end of the value of ``grpc-timeout``, including its length; None if it is not a literal outside the
        table, or if the block changes the table.
        """
        position, span = 0, None
        try:
            while position < len(block):
                first = block[position]
                if first & 0x80:
                    _, position = _integer(block, position, 0x7F)
                    continue
                if first & 0x60:  # a literal that goes into the table, or the table's new size
                    return None
                index, position = _integer(block, position, 0x0F)
                if index:
                    is_timeout = index > _STATIC_ENTRIES and self._name_at(index) == _TIMEOUT
                else:
                    name, position = _string(block, position, is_name=True)
                    is_timeout = name in (_TIMEOUT, _TIMEOUT_HUFFMAN)
                start = position
                position = _skip_string(block, position)
                if is_timeout:
                    if span is not None or position - start > _LARGEST_TIMEOUT:
                        return None
                    span = (start, position)
        except IndexError:
            return None  # cut off: the decoder will say so
        return span

    def _name_at(self, index: int) -> bytes:
        entries = self._decoder.header_table.dynamic_entries
        return bytes(entries[index - _STATIC_ENTRIES - 1][0])


def _integer(block: bytes, position: int, mask: int) -> tuple[int, int]:
    """Decode an integer (RFC 7541, section 5.1): the value, and the position after it."""
    value = block[position] & mask
    position += 1
    if value < mask:
        return value, position
    shift = 0
    while True:
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, position
        if shift > 28:
            raise IndexError("integer too large")


def _skip_string(block: bytes, position: int) -> int:
    length, position = _integer(block, position, 0x7F)
    if position + length > len(block):
        raise IndexError("string cut off")
    return position + length


def _string(block: bytes, position: int, *, is_name: bool = False) -> tuple[bytes, int]:
    """Decode a string (RFC 7541, section 5.2): the octets, and the position after it. A name stays Huffman-coded."""
    is_huffman = bool(block[position] & 0x80)
    start = _integer(block, position, 0x7F)[1]
    end = _skip_string(block, position)
    octets = block[start:end]
    return (decode_huffman(octets) if is_huffman and not is_name else octets), end
