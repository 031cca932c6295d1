"""A header block that comes in several frames: HEADERS and its CONTINUATIONs (RFC 9113, section 4.3)."""

from __future__ import annotations

from service.transport.http2 import abuse
from service.wire.errors import ConnectionFailure, ErrorCode


class BlockAssembly:
    """The unfinished header block of a connection, if any: no other frame may come in between."""

    def __init__(self, max_bytes: int) -> None:
        self.stream_id: int | None = None
        """The stream of the unfinished block; None if there is none."""
        self.ends_stream = False
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._bytes = 0

    def begin(self, stream_id: int, part: bytes, *, ends_stream: bool) -> None:
        """Start a block with the payload of a HEADERS frame without END_HEADERS."""
        self.stream_id, self.ends_stream = stream_id, ends_stream
        self._parts, self._bytes = [], 0
        self.add(part)

    def add(self, part: bytes) -> None:
        """Add a part; raises ConnectionFailure for too many parts or too many bytes (CVE-2024-27316)."""
        self._parts.append(part)
        self._bytes += len(part)
        if self._bytes > self._max_bytes or len(self._parts) > abuse.MAX_CONTINUATIONS + 1:
            raise ConnectionFailure(
                ErrorCode.ENHANCE_YOUR_CALM, f"a header block of {self._bytes} bytes in {len(self._parts)} frames"
            )

    def finish(self) -> bytes:
        """Return the whole block and forget it."""
        block = b"".join(self._parts)
        self.stream_id, self._parts = None, []
        return block
