"""gRPC messages within DATA frames: one byte for the compressed flag, four for the length, then the message."""

from __future__ import annotations

import zlib
from typing import Final

from ..errors import Code, Status

PREFIX_BYTES: Final = 5
ENCODINGS: Final = (b"identity", b"deflate", b"gzip")
"""Encodings of requests. Responses are not compressed, as is the default of grpcio's server."""
ACCEPT_ENCODING: Final = b", ".join(ENCODINGS)
_ON_LOOP_BYTES: Final = 256 * 1024
"""Bytes of a message that are decompressed on the event loop, which takes less than a millisecond."""
_SLICE_BYTES: Final = 1024 * 1024
_WINDOW_BITS: Final = {b"deflate": zlib.MAX_WBITS, b"gzip": zlib.MAX_WBITS | 16}


class MessageError(Exception):
    """A message is malformed or too large; the call ends with ``status``."""

    def __init__(self, status: Status) -> None:
        self.status = status
        super().__init__(status.message)


def prefixed(message: bytes) -> bytes:
    """An uncompressed message with its prefix."""
    return b"\0" + len(message).to_bytes(4, "big") + message


class MessageReader:
    """Splits the bytes of one call into messages, independent of the DATA frames."""

    __slots__ = ("_buffer", "_encoding", "_max_bytes")

    def __init__(self, encoding: bytes, max_bytes: int) -> None:
        """``max_bytes`` limits a message both compressed and decompressed."""
        self._buffer = bytearray()
        self._encoding = encoding
        self._max_bytes = max_bytes

    @property
    def buffered_bytes(self) -> int:
        """Bytes that have arrived and are not taken."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._buffer += data

    def has_next(self) -> bool:
        """Whether `next` returns a message or raises, rather than returning None."""
        length = self._length()
        return length is not None and (length > self._max_bytes or len(self._buffer) >= PREFIX_BYTES + length)

    def next(self) -> bytes | Packed | None:
        """Take a message; None if there is no whole one. Raises MessageError; for a message that is too large, as soon
        as its length is known.
        """
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
        return self._unpacked(flag, message)

    def _length(self) -> int | None:
        """Length of the next message; None until its prefix has arrived."""
        return int.from_bytes(self._buffer[1:PREFIX_BYTES], "big") if len(self._buffer) >= PREFIX_BYTES else None

    def _unpacked(self, flag: int, message: bytes) -> bytes | Packed:
        """Decompress a message according to ``flag``, the first byte of its prefix."""
        if flag == 0:
            return message
        if flag != 1:
            raise MessageError(Status(Code.INTERNAL, f"a message begins with {flag}, expected 0 or 1 (compressed)"))
        window_bits = _WINDOW_BITS.get(self._encoding)
        if window_bits is None:
            raise MessageError(Status(Code.INTERNAL, "a message is marked as compressed, and grpc-encoding names none"))
        packed = Packed(message, window_bits, self._max_bytes)
        return packed if packed.is_long else packed.unpack()


class Packed:
    """A compressed message whose beginning is decompressed. The rest of a long one is decompressed in a thread."""

    def __init__(self, message: bytes, window_bits: int, max_bytes: int) -> None:
        """``max_bytes`` limits the decompressed message. Raises MessageError."""
        self._reader = zlib.decompressobj(window_bits)
        self._max_bytes = max_bytes
        self._packed = message
        self._parts: list[bytes] = []
        self._bytes = 0
        self.is_long = len(self._slice(_ON_LOOP_BYTES)) == _ON_LOOP_BYTES
        """Whether there may be more to decompress."""

    def __len__(self) -> int:
        """Bytes held in memory, compressed and decompressed."""
        return len(self._packed) + self._bytes

    def unpack(self) -> bytes:
        """Return the whole message; call it once. Raises MessageError. zlib releases the GIL meanwhile."""
        while self.is_long and not self._reader.eof:
            self.is_long = bool(self._slice(_SLICE_BYTES))
        if not self._reader.eof or self._reader.unused_data:
            raise MessageError(
                Status(Code.INTERNAL, "a message cannot be decompressed: its compressed data are cut off")
            )
        parts, self._parts = self._parts, []
        return b"".join(parts)

    def _slice(self, most_bytes: int) -> bytes:
        # One byte above the limit is enough to detect a message that is too large, such as a zip bomb.
        most_bytes = min(most_bytes, self._max_bytes + 1 - self._bytes)
        try:
            part = self._reader.decompress(self._packed, most_bytes)
        except zlib.error as error:
            raise MessageError(Status(Code.INTERNAL, f"a message cannot be decompressed: {error}")) from error
        self._packed = self._reader.unconsumed_tail
        self._parts.append(part)
        self._bytes += len(part)
        if self._bytes > self._max_bytes:
            raise MessageError(_too_large(None, self._max_bytes))
        return part


def _too_large(length: int | None, max_bytes: int) -> Status:
    got = f"{length}" if length is not None else "after decompression more than the limit"
    return Status(Code.RESOURCE_EXHAUSTED, f"Received message larger than max ({got} vs. {max_bytes})")
