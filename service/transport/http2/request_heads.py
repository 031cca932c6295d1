"""Header blocks to request heads: what the header fields of a call say, checked once for each block."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hpack.huffman_table import decode_huffman

from service.errors import Code, Status
from service.rpc.methods import Bidi, Method, Opened
from service.wire import metadata
from service.wire.errors import ConnectionFailure, ErrorCode, StreamFailure
from service.wire.messages import ENCODINGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from service.rpc.methods import Method


_PSEUDO: Final = frozenset((b":method", b":scheme", b":path", b":authority"))
_REQUIRED: Final = (b":method", b":scheme", b":path")
_OF_A_CONNECTION: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
_NOT_METADATA: Final = frozenset(
    (b"content-type", b"content-length", b"te", b"host", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding")
)
"""Fields that the transport handles itself and that handlers therefore do not see as metadata; as in grpcio."""
_CONTENT_TYPE: Final = b"application/grpc"
_NAME_BYTES: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_FORBIDDEN_IN_VALUES: Final = (b"\0", b"\r", b"\n")

Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The parsed header fields of a call."""

    method: Method | None
    """The method that is called; None if ``refusal`` or ``http_status`` say why it is not."""
    metadata: tuple[tuple[str, str | bytes], ...]
    timeout_s: float | None = None
    encoding: bytes = b"identity"
    content_length: int | None = None
    refusal: Status | None = None
    """The status of a well-formed call that cannot be served."""
    http_status: int = 200
    """The HTTP status to answer; not 200 if this is no gRPC call."""
    is_plain: bool = False
    """Whether the call takes one request, has no content-length and is not refused, so that shortcuts may serve it."""


def parse(fields: Fields, methods: Mapping[bytes, Method], max_metadata_bytes: int) -> RequestHead:
    """Read a request's fields; raises StreamFailure for a malformed one (RFC 9113, section 8.1.1)."""
    pseudo, regular = _split(fields)
    missing = [name.decode() for name in _REQUIRED if not pseudo.get(name)]
    if missing:
        raise _malformed(f"{missing[0]} is missing or empty")
    found = dict(regular)
    if any(name == b"te" and value != b"trailers" for name, value in regular):
        raise _malformed("te: expected trailers")
    content_length = _content_length([value for name, value in regular if name == b"content-length"])
    if pseudo[b":method"] == b"CONNECT":
        raise _malformed("CONNECT has neither :scheme nor :path")
    if pseudo[b":method"] != b"POST":
        return RequestHead(None, (), http_status=405)
    content_type = found.get(b"content-type", b"")
    if not (content_type == _CONTENT_TYPE or content_type.startswith((_CONTENT_TYPE + b"+", _CONTENT_TYPE + b";"))):
        return RequestHead(None, (), http_status=415)
    encoding = found.get(b"grpc-encoding", b"identity")
    method = methods.get(pseudo[b":path"])
    refusal = None
    size = sum(len(name) + len(value) + 32 for name, value in fields)
    if size > max_metadata_bytes:
        refusal = Status(
            Code.RESOURCE_EXHAUSTED, f"received metadata size exceeds hard limit ({size} vs. {max_metadata_bytes})"
        )
    elif method is None:
        refusal = Status(Code.UNIMPLEMENTED, f"Method not found: {pseudo[b':path'].decode('ascii', 'replace')[:256]}")
    elif encoding not in ENCODINGS:
        named = encoding.decode("ascii", "replace")[:64]
        refusal = Status(Code.UNIMPLEMENTED, f"grpc-encoding {named!r} is not supported")
    head = RequestHead(
        method if refusal is None else None,
        _metadata(regular),
        encoding=encoding,
        content_length=content_length,
        refusal=refusal,
        is_plain=refusal is None and content_length is None and not isinstance(method, Bidi | Opened),
    )
    timeout = found.get(b"grpc-timeout")
    return head if timeout is None or refusal is not None else with_timeout(head, timeout)


def with_timeout(head: RequestHead, value: bytes) -> RequestHead:
    """A copy of the head with this ``grpc-timeout``; a malformed value fails the call, as in gRPC's servers."""
    timeout_s = metadata.timeout_s(value)
    if timeout_s is not None:
        return replace(head, timeout_s=timeout_s, is_plain=head.is_plain and timeout_s > 0)
    expected = "up to eight digits and one of H, M, S, m, u, n"
    refusal = Status(Code.INTERNAL, f"grpc-timeout: expected {expected}, got {_shown(value)}")
    return replace(head, method=None, timeout_s=None, refusal=refusal, is_plain=False)


def check_trailers(fields: Fields) -> None:
    """Check the fields after a request's body, which are not used; raises StreamFailure if they are malformed."""
    pseudo, _ = _split(fields)
    if pseudo:
        raise _malformed("a pseudo-header field among the trailers")


def _split(fields: Fields) -> tuple[dict[bytes, bytes], Fields]:
    pseudo: dict[bytes, bytes] = {}
    regular: Fields = []
    for name, value in fields:
        if name.startswith(b":"):
            if regular:
                raise _malformed(f"{_shown(name)} after regular fields")
            if name not in _PSEUDO:
                raise _malformed(f"unknown pseudo-header field {_shown(name)}")
            if name in pseudo:
                raise _malformed(f"{_shown(name)} twice")
            pseudo[name] = value
        else:
            if not name or not _NAME_BYTES.issuperset(name):
                raise _malformed(f"field name {_shown(name)}")
            if name in _OF_A_CONNECTION:
                raise _malformed(f"{_shown(name)} has no place in HTTP/2")
            regular.append((name, value))
        if any(byte in value for byte in _FORBIDDEN_IN_VALUES) or value != value.strip(b" \t"):
            raise _malformed(f"value of {_shown(name)}")
    return pseudo, regular


def _content_length(values: list[bytes]) -> int | None:
    if not values:
        return None
    if len(set(values)) > 1 or not values[0].isdigit() or len(values[0]) > 18:
        raise _malformed("content-length")
    return int(values[0])


def _metadata(regular: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[str, str | bytes], ...]:
    found: list[tuple[str, str | bytes]] = []
    for name, value in regular:
        if name in _NOT_METADATA:
            continue
        key = name.decode("ascii")
        if key.endswith("-bin"):
            found += [(key, part) for part in metadata.decode_binary(value)]
        else:
            found.append((key, value.decode("latin-1")))
    return tuple(found)


def _shown(name: bytes) -> str:
    return repr(name[:64])[1:]


def _malformed(what: str) -> StreamFailure:
    return StreamFailure(ErrorCode.PROTOCOL_ERROR, f"malformed request: {what}")


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
        check_trailers(self._decode(block))

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
                return with_timeout(known, self._read_string(block, start))
        before = self._table_state()
        fields = self._decode(block)
        after = self._table_state()
        is_unchanged = before[0] is after[0] and before[1:] == after[1:]
        if not is_unchanged:
            self._forget()
        head = parse(fields, self._methods, self._max_metadata_bytes)
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
