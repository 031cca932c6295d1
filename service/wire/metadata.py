"""Metadata as it travels in HTTP/2 header fields: binary values, status messages, timeouts."""

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
    """Seconds in a ``grpc-timeout``: at most eight digits and a unit. None for anything else."""
    found = _TIMEOUT.fullmatch(value)
    return int(found[1]) * _UNIT_S[found[2]] if found is not None else None


def percent_encode(message: str) -> bytes:
    """A ``grpc-message``: UTF-8, with everything but printable ASCII as %XX, and spaces too where no field value of
    HTTP/2 may have one: at its ends (RFC 9113, section 8.2.1).
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
    """The value of a ``-bin`` field; without padding, as gRPC asks senders to."""
    return base64.b64encode(value).rstrip(b"=")


def decode_binary(value: bytes) -> list[bytes]:
    """What a ``-bin`` field holds: one value, or several with commas between them, each with padding or without."""
    try:
        return [
            base64.b64decode(part + b"=" * (-len(part) % 4), validate=True)
            for part in (piece.strip(b" \t") for piece in value.split(b","))
        ]
    except binascii.Error as error:
        raise StreamFailure(ErrorCode.PROTOCOL_ERROR, f"a binary header field is not base64: {error}") from error
