"""HTTP/2 as bytes: frames to send, right or wrong, written from RFC 9113 and not from what is tested."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING

import hpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_WINDOW = 2**31 - 1
MAX_FRAME = 16_384

Field = tuple[bytes, bytes]


class Kind(IntEnum):
    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag(IntFlag):
    END_STREAM = 1
    ACK = 1
    END_HEADERS = 4
    PADDED = 8
    PRIORITY = 0x20


class Setting(IntEnum):
    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Error(IntEnum):
    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


@dataclass(frozen=True)
class Frame:
    """One frame as it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    def settings(self) -> dict[int, int]:
        """Of a SETTINGS frame."""
        return dict(struct.iter_unpack(">HI", self.payload))


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """A frame; ``length`` lies about its payload."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(values: Mapping[int, int] | Iterable[tuple[int, int]] = ()) -> bytes:
    return frame(Kind.SETTINGS, payload=b"".join(struct.pack(">HI", *entry) for entry in dict(values).items()))


SETTINGS_ACK = frame(Kind.SETTINGS, Flag.ACK)


def data(stream: int, payload: bytes = b"", *, end: bool = False, pad: int | None = None) -> bytes:
    flags = Flag.END_STREAM if end else 0
    if pad is not None:
        return frame(Kind.DATA, flags | Flag.PADDED, stream, bytes([pad]) + payload + bytes(pad))
    return frame(Kind.DATA, flags, stream, payload)


def headers(
    stream: int, fields: Iterable[Field] | bytes, *, end: bool = False, end_headers: bool = True, pad: int | None = None
) -> bytes:
    """A HEADERS frame; from fields, or from a block or a piece of one."""
    payload = fields if isinstance(fields, bytes) else block(fields)
    flags = (Flag.END_STREAM if end else 0) | (Flag.END_HEADERS if end_headers else 0)
    if pad is not None:
        return frame(Kind.HEADERS, flags | Flag.PADDED, stream, bytes([pad]) + payload + bytes(pad))
    return frame(Kind.HEADERS, flags, stream, payload)


def continuation(stream: int, piece: bytes, *, end_headers: bool = True) -> bytes:
    return frame(Kind.CONTINUATION, Flag.END_HEADERS if end_headers else 0, stream, piece)


def rst(stream: int, code: int = Error.CANCEL) -> bytes:
    return frame(Kind.RST_STREAM, stream=stream, payload=struct.pack(">I", code))


def ping(payload: bytes = b"12345678") -> bytes:
    return frame(Kind.PING, payload=payload)


def goaway(last_stream: int = 0, code: int = 0, debug: bytes = b"") -> bytes:
    return frame(Kind.GOAWAY, payload=struct.pack(">II", last_stream, code) + debug)


def window_update(stream: int, increment: int) -> bytes:
    return frame(Kind.WINDOW_UPDATE, stream=stream, payload=struct.pack(">I", increment))


def priority(stream: int, depends_on: int = 0, weight: int = 15) -> bytes:
    return frame(Kind.PRIORITY, stream=stream, payload=struct.pack(">IB", depends_on, weight))


def block(fields: Iterable[Field]) -> bytes:
    """A header block that leaves the reader's table alone, so that it means the same wherever it is sent."""
    return hpack.Encoder().encode([(name, value, True) for name, value in fields])


ECHO = b"/wire.Test/Echo"
"""The methods are those of `tests.service.transport.http2.host`."""


def request(
    path: bytes = ECHO,
    *extra: Field,
    without: Iterable[bytes] = (),
    **changes: bytes,
) -> list[Field]:
    """The header list of a gRPC call; ``changes`` are by name: ``method=b"GET"``, ``content_type=b"text/plain"``."""
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"localhost",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
    }
    for name, value in changes.items():
        field = name.replace("_", "-").encode()
        fields[b":" + field if b":" + field in fields else field] = value
    return [entry for entry in fields.items() if entry[0] not in without] + list(extra)


def message(payload: bytes = b"hello", *, compressed: int = 0) -> bytes:
    """A gRPC message with its prefix."""
    return bytes([compressed]) + struct.pack(">I", len(payload)) + payload


def call(stream: int, fields: Iterable[Field] | bytes = (), payload: bytes = b"hello") -> bytes:
    """A whole unary call: HEADERS and DATA."""
    return headers(stream, fields or request()) + data(stream, message(payload), end=True)
