"""Just enough of HTTP/2 to see what a server does with a connection, frame by frame."""

from __future__ import annotations

import asyncio
import struct
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
ACK = 1
MAX_CONCURRENT_STREAMS = 3
ENHANCE_YOUR_CALM = 11
HANG_S = 30.0


@dataclass(frozen=True)
class Frame:
    """One frame as it came."""

    kind: int
    flags: int
    payload: bytes

    def settings(self) -> dict[int, int]:
        """Of a SETTINGS frame."""
        return dict(struct.iter_unpack(">HI", self.payload))

    def error_code(self) -> int:
        """Of a GOAWAY frame."""
        return int.from_bytes(self.payload[4:8], "big")


class Connection:
    """A connection that sends what it is told to and keeps what comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.frames: list[Frame] = []
        self._writer.write(_PREFACE + _frame(SETTINGS))
        self._reading = asyncio.create_task(self._read())

    def ping(self) -> None:
        self._writer.write(_frame(PING, payload=b"12345678"))

    def of_kind(self, kind: int, flags: int = 0) -> list[Frame]:
        return [frame for frame in self.frames if (frame.kind, frame.flags) == (kind, flags)]

    async def wait_for(self, kind: int, flags: int = 0, count: int = 1) -> Frame:
        """The ``count``-th such frame; ConnectionError where the connection ends without it."""
        async with asyncio.timeout(HANG_S):
            while len(found := self.of_kind(kind, flags)) < count:
                if self._reading.done():
                    raise ConnectionError(f"no frame of kind {kind} among {self.frames}")
                await asyncio.sleep(0.01)
        return found[count - 1]

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                frame = Frame(head[3], head[4], payload)
                self.frames.append(frame)
                if frame.kind == SETTINGS and not frame.flags & ACK:
                    self._writer.write(_frame(SETTINGS, ACK))
                if frame.kind == PING and not frame.flags & ACK:
                    self._writer.write(_frame(PING, ACK, frame.payload))
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.close()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """A raw connection to 127.0.0.1."""
    connection = Connection(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield connection
    finally:
        await connection.close()


def _frame(kind: int, flags: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + bytes(4) + payload
