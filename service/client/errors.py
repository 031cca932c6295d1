"""Errors of calls, with the server's machine-readable details.

google.rpc.Status and its details travel as bytes in the trailing metadata. Three of them matter to a caller and are
parsed here, field by field, so that the client needs no further package of generated messages; all are kept as bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..errors import Code

DETAILS_KEY = "grpc-status-details-bin"

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_TYPE_PREFIX = "google.rpc."


@dataclass(frozen=True)
class FieldViolation:
    """An invalid field of the request."""

    field: str
    description: str


@dataclass(frozen=True)
class ErrorDetails:
    """The google.rpc details of an error that the server sent."""

    reason: str = ""
    """Reason in ErrorInfo, upper-case and stable for programs; for example ``MODEL_NOT_FOUND``."""
    domain: str = ""
    """Domain in ErrorInfo, which defines the reasons."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Metadata in ErrorInfo, for example the model's name."""
    violations: tuple[FieldViolation, ...] = ()
    """The invalid fields of the request, from BadRequest."""
    retry_after_s: float | None = None
    """Seconds to wait before a retry, from RetryInfo; None without one."""
    raw: Mapping[str, bytes] = field(default_factory=dict)
    """The bytes of every detail, by the name of its message."""


class ServerError(Exception):
    """The server answered with an error, or did not answer (UNAVAILABLE, DEADLINE_EXCEEDED).

    ``details`` holds the machine-readable part: the reason, the invalid fields, when to retry. ``request_id`` is the id
    of the failed request for an error within a stream; otherwise empty.
    """

    def __init__(self, code: Code, message: str, details: ErrorDetails | None = None, *, request_id: str = "") -> None:
        self.code = code
        self.message = message
        self.details = details or ErrorDetails()
        self.request_id = request_id
        super().__init__(f"{code.name}: {message}")


def read_details(status: bytes) -> ErrorDetails:
    """Read the details in a serialised google.rpc.Status; unreadable ones are left out, to report the error anyway."""
    raw: dict[str, bytes] = {}
    try:
        for number, value in _fields(status):
            if number == 3 and isinstance(value, bytes):
                detail = _strings_and_bytes(value)
                raw[detail.get(1, b"").decode().rpartition("/")[2]] = detail.get(2, b"")
        return _details(raw)
    except (ValueError, IndexError):
        return ErrorDetails(raw=raw)


def _details(raw: Mapping[str, bytes]) -> ErrorDetails:
    info = raw.get(f"{_TYPE_PREFIX}ErrorInfo", b"")
    reason, domain, metadata = "", "", {}
    for number, value in _fields(info):
        if isinstance(value, bytes):
            if number == 1:
                reason = value.decode()
            elif number == 2:
                domain = value.decode()
            elif number == 3:
                entry = _strings_and_bytes(value)
                metadata[entry.get(1, b"").decode()] = entry.get(2, b"").decode()
    violations = [
        _strings_and_bytes(value)
        for number, value in _fields(raw.get(f"{_TYPE_PREFIX}BadRequest", b""))
        if number == 1 and isinstance(value, bytes)
    ]
    return ErrorDetails(
        reason,
        domain,
        metadata,
        tuple(FieldViolation(v.get(1, b"").decode(), v.get(2, b"").decode()) for v in violations),
        _retry_after_s(raw.get(f"{_TYPE_PREFIX}RetryInfo")),
        raw,
    )


def _retry_after_s(info: bytes | None) -> float | None:
    if info is None:
        return None
    delay = _strings_and_bytes(info).get(1, b"")
    duration = {number: value for number, value in _fields(delay) if isinstance(value, int)}
    return duration.get(1, 0) + duration.get(2, 0) / 1e9


def _strings_and_bytes(message: bytes) -> dict[int, bytes]:
    return {number: value for number, value in _fields(message) if isinstance(value, bytes)}


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a serialised message as (number, value); ValueError or IndexError if it is invalid."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _LENGTH:
            length, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + length > len(message):
            raise ValueError(f"{length} bytes at {at}, {len(message) - at} are left")
        yield number, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a varint of more than ten bytes")
