"""Header compression (RFC 7541) for a client: decoding what servers send, encoding what the client sends.

The encoder adds nothing to the table, so that a block can be made once and sent with every request. The decoder
supports all of HPACK; a block that changed no state is cached, so that equal blocks are looked up and not decoded.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")
Field = tuple[bytes, bytes]

_STATIC_TEXT = """
:authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|:status 200|:status 204|
:status 206|:status 304|:status 400|:status 404|:status 500|accept-charset|accept-encoding gzip, deflate|
accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|authorization|cache-control|
content-disposition|content-encoding|content-language|content-length|content-location|content-range|content-type|
cookie|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|
last-modified|link|location|max-forwards|proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|
server|set-cookie|strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate
"""
STATIC: tuple[Field, ...] = tuple(
    (name.encode(), value.encode())
    for name, _, value in (entry.partition(" ") for entry in _STATIC_TEXT.replace("\n", "").split("|"))
)
"""The static table (RFC 7541, appendix A); the first entry has index 1."""
_STATIC_NAMES = tuple(name for name, _ in STATIC)

# RFC 7541, appendix B: the length of each symbol's code, end of string last. The Huffman code is canonical, so that the
# codes follow from their lengths.
_CODE_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b08060606"
    "0505050606060606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e06"
    "0f05060506050606060507070606060506070605050607070707070f0b0e0d1c14161414161616171617171717171817"
    "181816171817171717151617161717181615141616171715171616181516171715151615171617171416161617161617"
    "1a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a17"
    "1a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a1e"
)
_END_OF_STRING = 256
_ENTRY_OVERHEAD = 32
_DEFAULT_TABLE_BYTES = 4096
_CACHED_BLOCKS = 256


class HpackError(ValueError):
    """A header block that violates RFC 7541, which is a connection error."""


def encode(fields: Iterable[Field]) -> bytes:
    """Encode ``fields`` without using or changing the dynamic table, so that the block fits every connection."""
    block = bytearray()
    for field in fields:
        name, value = field
        if field in STATIC:
            block.append(0x80 | STATIC.index(field) + 1)
            continue
        # 0x10: never indexed, also by proxies, since it is a secret (section 6.2.3).
        kind = 0x10 if name == b"authorization" else 0x00
        if name in _STATIC_NAMES:
            index = bytearray(_integer(_STATIC_NAMES.index(name) + 1, 4))
            index[0] |= kind
            block += index
        else:
            block.append(kind)
            block += _integer(len(name), 7) + name
        block += _integer(len(value), 7) + value
    return bytes(block)


class Decoder(Generic[T]):
    """Decodes the header blocks of one direction of one connection.

    ``summarise`` converts a block's fields into the caller's form; its result is cached with the block until the table
    changes, and shared: treat it as read-only.
    """

    def __init__(self, summarise: Callable[[list[Field]], T], table_bytes: int = _DEFAULT_TABLE_BYTES) -> None:
        self._summarise = summarise
        self._table: deque[Field] = deque()
        self._bytes = 0
        self._limit = self._allowed = table_bytes
        self._known: dict[bytes, T] = {}

    def decode(self, block: bytes) -> T:
        """The summary of a complete block; raises HpackError."""
        known = self._known.get(block)
        if known is not None:
            return known
        try:
            fields, changed = self._decode(block)
        except IndexError as error:
            raise HpackError("a header block ends within a field") from error
        summary = self._summarise(fields)
        if changed:
            # The indices of every remembered block now mean something else.
            self._known.clear()
        elif len(self._known) < _CACHED_BLOCKS:
            self._known[block] = summary
        return summary

    def _decode(self, block: bytes) -> tuple[list[Field], bool]:
        fields: list[Field] = []
        changed = False
        at = 0
        while at < len(block):
            first = block[at]
            if first & 0x80:
                index, at = _read_integer(block, at, 7)
                fields.append(self._entry(index))
                continue
            if first & 0xE0 == 0x20:
                limit, at = _read_integer(block, at, 5)
                if limit > self._allowed:
                    raise HpackError(f"a table of {limit} bytes, {self._allowed} are allowed")
                changed |= limit != self._limit
                self._limit = limit
                self._evict(0)
                continue
            indexed = bool(first & 0x40)
            index, at = _read_integer(block, at, 6 if indexed else 4)
            if index:
                name = self._entry(index)[0]
            else:
                name, at = _read_string(block, at)
            value, at = _read_string(block, at)
            fields.append((name, value))
            if indexed:
                changed = True
                self._add((name, value))
        return fields, changed

    def _entry(self, index: int) -> Field:
        if 1 <= index <= len(STATIC):
            return STATIC[index - 1]
        if index == 0 or index > len(STATIC) + len(self._table):
            raise HpackError(f"header index {index}, the table has {len(STATIC) + len(self._table)}")
        return self._table[index - len(STATIC) - 1]

    def _add(self, field: Field) -> None:
        size = _size(field)
        self._evict(size)
        if size <= self._limit:
            self._table.appendleft(field)
            self._bytes += size

    def _evict(self, room: int) -> None:
        while self._table and self._bytes + room > self._limit:
            self._bytes -= _size(self._table.pop())


def _size(field: Field) -> int:
    return len(field[0]) + len(field[1]) + _ENTRY_OVERHEAD


def _integer(value: int, bits: int) -> bytes:
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([value])
    encoded = bytearray([limit])
    value -= limit
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    limit = (1 << bits) - 1
    value = block[at] & limit
    at += 1
    if value < limit:
        return value, at
    shift = 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 28:
            raise HpackError("an integer of more than 32 bits")


def _read_string(block: bytes, at: int) -> tuple[bytes, int]:
    huffman = block[at] & 0x80
    length, at = _read_integer(block, at, 7)
    if at + length > len(block):
        raise HpackError(f"a string of {length} bytes, {len(block) - at} are left")
    text = block[at : at + length]
    return (_from_huffman(text) if huffman else text), at + length


def _codes() -> dict[tuple[int, int], int]:
    """The Huffman code as a mapping from (length, code) to symbol."""
    codes: dict[tuple[int, int], int] = {}
    code = length = 0
    for bits, symbol in sorted((bits, symbol) for symbol, bits in enumerate(_CODE_LENGTHS)):
        code <<= bits - length
        length = bits
        codes[length, code] = symbol
        code += 1
    return codes


_CODES = _codes()


def _from_huffman(text: bytes) -> bytes:
    decoded = bytearray()
    code = length = 0
    for byte in text:
        for position in range(7, -1, -1):
            code = code << 1 | byte >> position & 1
            length += 1
            symbol = _CODES.get((length, code))
            if symbol is None:
                continue
            if symbol == _END_OF_STRING:
                raise HpackError("the end-of-string symbol within a string")
            decoded.append(symbol)
            code = length = 0
    if length > 7 or code != (1 << length) - 1:
        raise HpackError("a string's padding is not the start of the end-of-string symbol")
    return bytes(decoded)
