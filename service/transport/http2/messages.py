"""gRPC messages within DATA frames: a byte that says whether it is compressed, four of length, the message."""

from __future__ import annotations

import zlib
from typing import Final

from service.errors import Code, Status

PREFIX_BYTES: Final = 5
ENCODINGS: Final = (b"identity", b"deflate", b"gzip")
"""Of requests; responses are sent as they are, as grpcio's server does unless it is told otherwise."""
ACCEPT_ENCODING: Final = b", ".join(ENCODINGS)
_WINDOW_BITS: Final = {b"deflate": zlib.MAX_WBITS, b"gzip": zlib.MAX_WBITS | 16}


class MessageError(Exception):
    """The bytes are no message that can be taken; the call ends with ``status``."""

    def __init__(self, status: Status) -> None:
        self.status = status
        super().__init__(status.message)


def prefixed(message: bytes) -> bytes:
    """An uncompressed message as it travels."""
    return b"\0" + len(message).to_bytes(4, "big") + message


class MessageReader:
    """Cuts messages out of the bytes of one call, however they were framed."""

    __slots__ = ("_buffer", "_encoding", "_max_bytes")

    def __init__(self, encoding: bytes, max_bytes: int) -> None:
        """``max_bytes`` holds for a message as it travels and as it is."""
        self._buffer = bytearray()
        self._encoding = encoding
        self._max_bytes = max_bytes

    @property
    def buffered_bytes(self) -> int:
        """What has come and is not taken."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """More bytes."""
        self._buffer += data

    def has_next(self) -> bool:
        """Whether `next` has something to say: a message, or that there will be none."""
        length = self._length()
        return length is not None and (length > self._max_bytes or len(self._buffer) >= PREFIX_BYTES + length)

    def next(self) -> bytes | None:
        """Take a message; None if there is no whole one. Raises MessageError, also before a large one is all here."""
        buffer, length = self._buffer, self._length()
        if length is None:
            return None
        if length > self._max_bytes:
            raise MessageError(_too_large(length, self._max_bytes))
        end = PREFIX_BYTES + length
        if len(buffer) < end:
            return None
        flag, message = buffer[0], bytes(memoryview(buffer)[PREFIX_BYTES:end])
        del buffer[:end]
        return self.unpacked(flag, message)

    def _length(self) -> int | None:
        """Of the first message; None if not even its prefix is here."""
        return int.from_bytes(self._buffer[1:PREFIX_BYTES], "big") if len(self._buffer) >= PREFIX_BYTES else None

    def unpacked(self, flag: int, message: bytes) -> bytes:
        """A message whose prefix began with ``flag``."""
        if flag == 0:
            return message
        if flag != 1:
            raise MessageError(Status(Code.INTERNAL, f"a message begins with {flag}, expected 0 or 1 (compressed)"))
        window_bits = _WINDOW_BITS.get(self._encoding)
        if window_bits is None:
            raise MessageError(Status(Code.INTERNAL, "a message is marked as compressed, and grpc-encoding names none"))
        return _decompressed(message, window_bits, self._max_bytes)


def _decompressed(message: bytes, window_bits: int, max_bytes: int) -> bytes:
    reader = zlib.decompressobj(window_bits)
    try:
        # One byte more than allowed is enough to know, and all that a bomb gets.
        unpacked = reader.decompress(message, max_bytes + 1)
    except zlib.error as error:
        raise MessageError(Status(Code.INTERNAL, f"a message cannot be decompressed: {error}")) from error
    if len(unpacked) > max_bytes:
        raise MessageError(_too_large(None, max_bytes))
    if not reader.eof or reader.unused_data:
        raise MessageError(Status(Code.INTERNAL, "a message cannot be decompressed: its compressed data are cut off"))
    return unpacked


def _too_large(length: int | None, max_bytes: int) -> Status:
    got = f"{length}" if length is not None else "after decompression more than the limit"
    return Status(Code.RESOURCE_EXHAUSTED, f"Received message larger than max ({got} vs. {max_bytes})")
