"""HTTP/2 frames as bytes (RFC 9113, sections 4 and 6): constants, and functions that build and read frames."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from .errors import ConnectionFailure, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The bytes that a client sends first."""

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6
NO_PRIORITIES: Final = 0x9
"""SETTINGS_NO_RFC7540_PRIORITIES, RFC 9218."""

DEFAULT_WINDOW: Final = 65_535
DEFAULT_MAX_FRAME_SIZE: Final = 16_384
LARGEST_MAX_FRAME_SIZE: Final = 2**24 - 1
LARGEST_WINDOW: Final = 2**31 - 1
LARGEST_STREAM_ID: Final = 2**31 - 1

HEADER_BYTES: Final = 9
FRAME_HEADER: Final = struct.Struct(">HBBBI")
"""Length in two parts (16 high bits, 8 low ones), type, flags, stream; the stream's top bit is reserved."""
MESSAGE_HEADER: Final = struct.Struct(">HBBBIBI")
"""Header of a DATA frame, followed by the prefix of a gRPC message: whether it is compressed, and its length."""
COMPACT_HEADER: Final = struct.Struct(">IBI")
"""FRAME_HEADER with length and type in one number (length << 8 | type), which is faster to read."""
SETTING: Final = struct.Struct(">HI")
UINT32: Final = struct.Struct(">I")


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Build a frame of any type."""
    return FRAME_HEADER.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream_id) + payload


def settings(values: Mapping[int, int]) -> bytes:
    """Build a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(key, value) for key, value in values.items()))


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """Identifiers and values of SETTINGS, in order; raises ConnectionFailure if the length is no multiple of 6."""
    if len(payload) % SETTING.size:
        raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, f"a setting has 6 bytes, the frame has {len(payload)}")
    return SETTING.iter_unpack(payload)


SETTINGS_ACK: Final = frame(SETTINGS, ACK, 0)


def ping(payload: bytes, *, is_ack: bool = False) -> bytes:
    """Build a PING frame with 8 bytes of payload."""
    return frame(PING, ACK if is_ack else 0, 0, payload)


def rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    """Build an RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream_id, UINT32.pack(code))


def goaway(last_stream_id: int, code: ErrorCode, reason: str = "") -> bytes:
    """Build a GOAWAY frame; the reason is debug data for people."""
    return frame(GOAWAY, 0, 0, struct.pack(">II", last_stream_id, code) + reason.encode("utf-8", "replace"))


def window_update(stream_id: int, increment: int) -> bytes:
    """Build a WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream_id, UINT32.pack(increment))


def unpadded(payload: bytes) -> bytes:
    """The content of a PADDED frame (section 6.1); raises ConnectionFailure."""
    if not payload:
        raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without the length of its padding")
    if payload[0] >= len(payload):
        raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "more padding than frame")
    return payload[1 : len(payload) - payload[0]]


def preface_end(data: bytes) -> int:
    """The position after the client's preface; 0 if it is not complete. Raises ConnectionFailure if it is wrong."""
    if data.startswith(PREFACE):
        return len(PREFACE)
    if PREFACE.startswith(data):
        return 0
    raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "this is no HTTP/2 preface")


def without_priority(payload: bytes) -> bytes:
    """The payload of a HEADERS frame without its priority fields, which are ignored."""
    if len(payload) < 5:
        raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for their priority")
    return payload[5:]
