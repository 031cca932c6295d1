"""Encoding of gRPC metadata in HTTP/2 header fields: binary values, status messages, timeouts."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from .errors import ErrorCode, StreamFailure

_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {ord("%")}


def timeout_s(value: bytes) -> float | None:
    """Parse a ``grpc-timeout`` (at most eight digits and a unit) into seconds; None if it is malformed."""
    found = _TIMEOUT.fullmatch(value)
    return int(found[1]) * _UNIT_S[found[2]] if found is not None else None


def percent_encode(message: str) -> bytes:
    """Encode a ``grpc-message``: UTF-8, with all but printable ASCII as %XX, and also spaces at either end, where
    HTTP/2 field values must not have any (RFC 9113, section 8.2.1).
    """
    data = message.encode("utf-8", "replace")
    if not (data.isascii() and message.isprintable() and "%" not in message):
        data = b"".join(bytes((byte,)) if byte in _PLAIN else b"%%%02X" % byte for byte in data)
    inner = data.strip(b" ")
    if len(inner) == len(data):
        return data
    leading = len(data) - len(data.lstrip(b" "))
    return b"%20" * leading + inner + b"%20" * (len(data) - leading - len(inner))


def encode_binary(value: bytes) -> bytes:
    """Encode the value of a ``-bin`` field in base64; without padding, as the gRPC specification recommends."""
    return base64.b64encode(value).rstrip(b"=")


def decode_binary(value: bytes) -> list[bytes]:
    """Decode a ``-bin`` field: one value or several separated by commas, each in base64 with or without padding."""
    try:
        return [
            base64.b64decode(part + b"=" * (-len(part) % 4), validate=True)
            for part in (piece.strip(b" \t") for piece in value.split(b","))
        ]
    except binascii.Error as error:
        raise StreamFailure(ErrorCode.PROTOCOL_ERROR, f"a binary header field is not base64: {error}") from error
