"""The status of a gRPC call over HTTP/2, from its headers or its reset."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_to_bytes

from service.errors import Code
from service.wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.wire.hpack import Field

_RESET_CODES: Mapping[int, Code] = {
    ErrorCode.REFUSED_STREAM: Code.UNAVAILABLE,
    ErrorCode.CANCEL: Code.CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: Code.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: Code.PERMISSION_DENIED,
}
"""Code for an HTTP/2 error, as the gRPC specification maps them; every other error is INTERNAL."""

_HTTP_CODES = {
    400: Code.INTERNAL,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.UNIMPLEMENTED,
    429: Code.UNAVAILABLE,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.UNAVAILABLE,
}
"""Code for the HTTP status of an answer without a gRPC status, as from a proxy."""


class Headers(NamedTuple):
    """The relevant fields of a header block."""

    http_status: int
    grpc_status: int
    """The gRPC status; -1 if there is none."""
    message: str


def outcome(headers: Headers | None, first: Headers | None) -> tuple[int, str]:
    """Code and message of a call, from its last headers and, if those are trailers, its first."""
    if headers is None:
        return Code.INTERNAL, "an answer without headers"
    if headers.grpc_status >= 0:
        return headers.grpc_status, headers.message
    status = (first or headers).http_status
    return _HTTP_CODES.get(status, Code.UNKNOWN), f"an answer without a gRPC status, HTTP {status}"


def summary(fields: list[Field]) -> Headers:
    """Read the relevant fields of a header block; raises ValueError for a status that is not a number."""
    http_status, grpc_status, message = 0, -1, ""
    for name, value in fields:
        if name == b":status":
            http_status = int(value)
        elif name == b"grpc-status":
            grpc_status = int(value)
        elif name == b"grpc-message":
            message = unquote_to_bytes(value).decode(errors="replace")
    return Headers(http_status, grpc_status, message)


def of_reset(error: int) -> Code:
    """The code of a call that was reset with an HTTP/2 error."""
    return _RESET_CODES.get(error, Code.INTERNAL)
