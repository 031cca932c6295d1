"""How a gRPC call over HTTP/2 ended, from its headers or its reset."""

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
"""The gRPC specification's mapping; every other error is INTERNAL."""

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
"""For an answer without a gRPC status: something on the way gave it."""


class Headers(NamedTuple):
    """What counts of a header block."""

    http_status: int
    grpc_status: int
    """-1 where it has none."""
    message: str


def outcome(headers: Headers | None, first: Headers | None) -> tuple[int, str]:
    """Code and message, from a call's last headers and, where those are trailers, its first."""
    if headers is None:
        return Code.INTERNAL, "an answer without headers"
    if headers.grpc_status >= 0:
        return headers.grpc_status, headers.message
    status = (first or headers).http_status
    return _HTTP_CODES.get(status, Code.UNKNOWN), f"an answer without a gRPC status, HTTP {status}"


def summary(fields: list[Field]) -> Headers:
    """What counts of a block's fields; ValueError for a status that is no number."""
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
