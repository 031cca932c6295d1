"""One HTTP/2 connection without sockets: bytes in, bytes out, and what must hold whatever the bytes are."""

from __future__ import annotations

import asyncio
import logging
import struct

import hpack

from service.transport.http2.call_runner import CallRunner
from service.transport.http2.connection import Connection
from service.transport.http2.shared import Shared
from tests.service.transport.http2 import wire
from tests.service.transport.http2.host import Handlers, limits_with
from tests.service.transport.http2.wire import Flag, Kind

_TICKS = 12
_LIMITS = limits_with(max_message_bytes=4096, max_metadata_bytes=2048, max_concurrent_streams=8)
_PAUSE_BYTES = 64 * 1024


class Broken(Exception):
    """Something that must hold does not."""


class FakeTransport(asyncio.Transport):
    """Keeps what is written; full after so many bytes until `read`."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.written = bytearray()
        self._protocol = protocol
        self._read = 0
        self._is_closing = self._is_paused = False
        self._is_reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_closing:
            raise Broken("a write to a transport that is closed")
        self.written += data
        if not self._is_paused and len(self.written) - self._read > _PAUSE_BYTES:
            self._is_paused = True
            self._protocol.pause_writing()

    def read(self) -> None:
        """The client reads what there is."""
        self._read = len(self.written)
        if self._is_paused:
            self._is_paused = False
            self._protocol.resume_writing()

    def is_reading(self) -> bool:
        return self._is_reading

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True

    def close(self) -> None:
        self._is_closing = True

    abort = close

    def is_closing(self) -> bool:
        return self._is_closing

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("127.0.0.1", 4711) if name == "peername" else default


_SERVICE = logging.getLogger("service")


class _Complaints(logging.Handler):
    """Whatever the service logs as an error. Not what others do: a task that another test has left pending complains
    when it is collected, whoever runs then.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "/wire.Test/Crash" not in str(record.__dict__):
            self.said.append(self.format(record))


class Drive:
    """Runs inputs one after the other, each on a connection of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._complaints = _Complaints()
        _SERVICE.addHandler(self._complaints)

    def close(self) -> None:
        _SERVICE.removeHandler(self._complaints)
        self._loop.close()

    def __call__(self, chunks: list[bytes], *, reads: bool = True) -> bytes:
        """Feed the chunks, one a tick, to a new connection; returns what it answered. Raises Broken."""
        return self._loop.run_until_complete(self._run(chunks, reads=reads))

    async def _run(self, chunks: list[bytes], *, reads: bool) -> bytes:
        loop = asyncio.get_running_loop()
        unhandled: list[dict] = []
        loop.set_exception_handler(lambda _, context: unhandled.append(context))
        handlers = Handlers()
        runner = CallRunner(loop, None, None)
        shared = Shared(loop, handlers.methods(), _LIMITS, runner)
        connection = Connection(shared)
        transport = FakeTransport(connection)
        connection.connection_made(transport)
        for chunk in chunks:
            connection.data_received(chunk)
            await asyncio.sleep(0)
            while not (transport.is_reading() or transport.is_closing()):  # noqa: ASYNC110 - its turn comes again by itself
                await asyncio.sleep(0)
            if reads:
                transport.read()
            if transport.is_closing():
                break
        for _ in range(_TICKS):
            await asyncio.sleep(0)
            transport.read()
        connection.connection_lost(None)
        for _ in range(_TICKS):
            await asyncio.sleep(0)
        shared.deadlines.stop()
        self._check(unhandled, handlers, runner, shared, connection)
        check_answer(bytes(transport.written))
        return bytes(transport.written)

    def _check(
        self, unhandled: list[dict], handlers: Handlers, runner: CallRunner, shared: Shared, connection: Connection
    ) -> None:
        said, self._complaints.said = self._complaints.said, []
        left = {
            "exceptions": unhandled,
            "errors in the log": said,
            "handlers": handlers.running,
            "tasks": len(runner._tasks),
            "streams": len(connection.streams),
            "connections": len(shared.connections),
            "bytes of requests": shared.buffered_bytes,
            "bytes of responses": connection.sender.pending_bytes,
        }
        if any(left.values()):
            raise Broken(str({name: value for name, value in left.items() if value}))


def check_answer(written: bytes) -> None:
    """Whole frames, header blocks that can be decoded, nothing after the end of a stream but resets and windows."""
    decoder, at, ended, gone = hpack.Decoder(), 0, set(), 0
    while at < len(written):
        if at + 9 > len(written):
            raise Broken("half a frame's header")
        length, kind, flags = int.from_bytes(written[at : at + 3], "big"), written[at + 3], written[at + 4]
        (stream,) = struct.unpack_from(">I", written, at + 5)
        payload = written[at + 9 : at + 9 + length]
        at += 9 + length
        if len(payload) != length:
            raise Broken("half a frame")
        if kind in (Kind.DATA, Kind.HEADERS):
            if stream in ended:
                raise Broken(f"{Kind(kind).name} after the end of stream {stream}")
            if kind == Kind.HEADERS:
                decoder.decode(payload)
            if flags & Flag.END_STREAM:
                ended.add(stream)
        elif kind == Kind.RST_STREAM:
            ended.add(stream)
        elif kind == Kind.GOAWAY:
            gone += 1
    if gone > 1:
        raise Broken(f"{gone} times GOAWAY")


BLOCKS = [
    wire.block(fields)
    for fields in (
        *(
            wire.request(b"/wire.Test/" + name.encode())
            for name in ["Echo", "Chat", "Count", "Hang", "Fail", "Told", "Deaf", "Later", "Quick", "Opened"]
        ),
        wire.request(b"/no.such/Method"),
        wire.request(method=b"GET"),
        wire.request(wire.ECHO, (b"grpc-timeout", b"1m")),
        wire.request(wire.ECHO, (b"grpc-timeout", b"30S"), (b"x-bin", b"AAEC")),
        wire.request(b"/wire.Test/Chat", (b"grpc-encoding", b"gzip")),
        [(b"x-trailer", b"1")],
    )
] + [b"\x40\x01x\x01y", b"\xbe", b"\x20", b"\x3f\xe1\x1f"]
"""What header blocks are put together from: random bytes make none."""


def frames_of(program: bytes) -> list[bytes]:
    """Read a program of frames: four bytes each for type, flags, stream and what follows; so that chance makes frames
    that are whole, and mostly on streams that there are.
    """
    chunks, at = [], 0
    while at + 4 <= len(program):
        kind, flags, stream, size = program[at : at + 4]
        at += 4
        if kind >= 0xF0:
            chunks.append(program[at : at + size])  # as they are
            at += size
            continue
        if kind % 11 == Kind.HEADERS:
            payload = BLOCKS[size % len(BLOCKS)] + (BLOCKS[size >> 4] if size >> 4 < len(BLOCKS) else b"")
        elif kind % 11 == Kind.DATA and size & 1:
            payload = wire.message(program[at : at + size], compressed=size >> 7)
            at += size
        else:
            payload = program[at : at + size]
            at += size
        chunks.append(wire.frame(kind % 11, flags, stream % 16, payload))
    return chunks


def chunks_of(data: bytes) -> tuple[list[bytes], bool]:
    """An input of a fuzzer: how it is cut, whether the client reads, and the bytes or a program of frames."""
    if not data:
        return [], True
    how, rest = data[0], data[1:]
    greeting = wire.PREFACE + wire.settings() if how & 1 else b""
    if how & 2:
        chunks = frames_of(rest)
        return ([greeting, *chunks] if how & 4 else [greeting + b"".join(chunks)]), bool(how & 8)
    size = (how >> 4) * 7 + 1 if how & 4 else len(rest) + 1
    return [greeting, *(rest[at : at + size] for at in range(0, len(rest), size))], bool(how & 8)
