"""Parses and checks the header fields of a call (RFC 9113, section 8; gRPC over HTTP/2), once per header block."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from service.errors import Code, Status
from service.rpc.methods import Bidi, Method, Opened
from service.wire import metadata
from service.wire.errors import ErrorCode, StreamFailure
from service.wire.messages import ENCODINGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


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
