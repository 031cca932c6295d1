"""Requests that are sent many times, with all frames prepared but for the stream number."""

from __future__ import annotations

from service.wire import frames
from service.wire.frames import UINT32

_END_HEADERS = bytes([frames.END_HEADERS])
_END_STREAM = bytes([frames.END_STREAM])


class Prepared:
    """A request that can be sent on any connection."""

    __slots__ = ("block", "data", "head", "message", "middle", "size")

    def __init__(self, block: bytes, message: bytes) -> None:
        """``block`` is a header block, ``message`` the serialised request message."""
        self.message = b"\0" + UINT32.pack(len(message)) + message
        self.size = len(self.message)
        self.data = ((self.size & 0xFFFFFF) << 8 | frames.DATA).to_bytes(4, "big")
        """Length and type of the DATA frame, which flags and stream number follow."""
        self._set_block(block)

    def with_field(self, field: bytes) -> Prepared:
        """A copy with one more encoded header field."""
        made = Prepared.__new__(Prepared)
        made.message, made.size, made.data = self.message, self.size, self.data
        made._set_block(self.block + field)
        return made

    def _set_block(self, block: bytes) -> None:
        self.block = block
        self.head = (len(block) << 8 | frames.HEADERS).to_bytes(4, "big") + _END_HEADERS
        self.middle = block + self.data + _END_STREAM
