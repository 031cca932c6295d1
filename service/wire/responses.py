"""The server's responses as frames. Their header blocks do not use the HPACK dynamic table, so that they are constants.

Every field is a literal that is not indexed. That costs some forty bytes a call, but saves the state of an encoder, and
a response is joined from ready pieces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import error_details, frames
from .messages import PREFIX_BYTES
from .metadata import encode_binary, percent_encode

if TYPE_CHECKING:
    from ..errors import Status


def _field(name: bytes, value: bytes) -> bytes:
    """Encode a field as a literal without indexing, with a new name (RFC 7541, section 6.2.2)."""
    return b"\x00" + _string(name) + _string(value)


def _string(octets: bytes) -> bytes:
    length = len(octets)
    if length < 0x7F:
        return bytes((length,)) + octets
    prefix, length = bytearray((0x7F,)), length - 0x7F
    while length >= 0x80:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + octets


_STATUS_200: Final = b"\x88"
_HEAD: Final = _STATUS_200 + _field(b"content-type", b"application/grpc")
_TRAILERS_OK: Final = _field(b"grpc-status", b"0")


def _header_frame_start(block: bytes, flags: int) -> bytes:
    """The part of a HEADERS frame before the stream number."""
    return frames.frame(frames.HEADERS, flags, 0, block)[:5]


HEAD_START: Final = _header_frame_start(_HEAD, frames.END_HEADERS)
HEAD_END: Final = _HEAD
OK_START: Final = _header_frame_start(_TRAILERS_OK, frames.END_HEADERS | frames.END_STREAM)
OK_END: Final = _TRAILERS_OK
"""A HEADERS frame is START + four bytes of stream number + END: HEAD begins a response, OK ends it with status 0."""


def head(stream_id: int) -> bytes:
    """HEADERS that begin a response with messages."""
    return HEAD_START + stream_id.to_bytes(4, "big") + HEAD_END


def ok(stream_id: int) -> bytes:
    """HEADERS that end a response with status OK."""
    return OK_START + stream_id.to_bytes(4, "big") + OK_END


def failed(stream_id: int, status: Status, *, is_first: bool, accept_encoding: bytes = b"") -> bytes:
    """HEADERS that end a response with an error status; ``is_first`` if nothing was sent before ("trailers-only")."""
    block = _HEAD if is_first else b""
    block += _field(b"grpc-status", b"%d" % status.code)
    if status.message:
        block += _field(b"grpc-message", percent_encode(status.message))
    details = error_details.serialize(status)
    if details is not None:
        block += _field(error_details.METADATA_KEY.encode("ascii"), encode_binary(details))
    if accept_encoding:
        block += _field(b"grpc-accept-encoding", accept_encoding)
    return frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream_id, block)


def plain_http(stream_id: int, http_status: int) -> bytes:
    """HEADERS with an HTTP error status, for a request that is no gRPC call."""
    block = _field(b":status", b"%d" % http_status)
    if http_status == 405:
        block += _field(b"allow", b"POST")
    return frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream_id, block)


class Whole:
    """Builds complete responses with one message. Those of one size differ only in stream number and message, so that
    the pieces between them are cached by size.
    """

    _MOST: Final = 256

    def __init__(self) -> None:
        self._pieces: dict[int, tuple[bytes, bytes]] = {}

    def response(self, stream_id: int, message: bytes) -> bytes:
        """Build the HEADERS, DATA and trailing HEADERS frames of a response."""
        number = stream_id.to_bytes(4, "big")
        before, prefix = self.pieces(len(message))
        return b"".join((HEAD_START, number, before, number, prefix, message, OK_START, number, OK_END))

    def pieces(self, size: int) -> tuple[bytes, bytes]:
        """The bytes between the first two occurrences of the stream number, and those between the second one and a
        message of that size.
        """
        pieces = self._pieces.get(size)
        if pieces is None:
            if len(self._pieces) >= self._MOST:
                self._pieces.clear()
            before = HEAD_END + (size + PREFIX_BYTES).to_bytes(3, "big") + bytes((frames.DATA, 0))
            pieces = self._pieces[size] = (before, b"\0" + size.to_bytes(4, "big"))
        return pieces


WHOLE: Final = Whole()
