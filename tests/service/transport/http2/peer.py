"""A client that sends whatever bytes it is told to and keeps what comes, frame by frame."""

from __future__ import annotations

import socket
import struct
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import hpack

from tests.service.transport.http2 import wire
from tests.service.transport.http2.wire import Error, Flag, Frame, Kind, Setting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HANG_S = 3.0
"""No test waits as long where all is well; it ends one in which an answer never comes."""


class Silence(Exception):
    """What was waited for did not come."""


@dataclass
class Response:
    """What came on one stream."""

    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: list[tuple[str, str]] = field(default_factory=list)
    data_frames: int = 0
    ended: bool = False
    reset: Error | None = None

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None

    @property
    def http_status(self) -> str:
        return dict(self.headers).get(":status", "")

    @property
    def status(self) -> int | None:
        """The grpc-status, from the trailers or from a response that is nothing else."""
        text = dict(self.trailers or self.headers).get("grpc-status")
        return None if text is None else int(text)

    def messages(self) -> list[bytes]:
        """The messages, none of which may be compressed."""
        found, at = [], 0
        while at < len(self.body):
            compressed, size = struct.unpack_from(">BI", self.body, at)
            assert compressed == 0
            assert at + 5 + size <= len(self.body), "a message that was cut off"
            found.append(bytes(self.body[at + 5 : at + 5 + size]))
            at += 5 + size
        return found


class Peer:
    """One connection; frames are read only while something is waited for."""

    def __init__(
        self,
        port: int,
        settings: Mapping[int, int] | None = None,
        *,
        greet: bool = True,
        opens_windows: bool = True,
        answers_pings: bool = True,
        answers_settings: bool = True,
        receive_buffer_bytes: int | None = None,
    ) -> None:
        """``greet`` sends preface and settings; ``opens_windows`` gives back at once what data have used."""
        self._socket = socket.socket()
        self._socket.settimeout(HANG_S)
        if receive_buffer_bytes is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.connect(("127.0.0.1", port))
        self._buffer = bytearray()
        self._decoder = hpack.Decoder()
        self._block = bytearray()
        self._opens_windows = opens_windows
        self._answers_pings, self._answers_settings = answers_pings, answers_settings
        self._pings = 0
        self.pongs: list[bytes] = []
        self.given: Counter[int] = Counter()
        """Bytes of windows that the server has given, by stream, beyond what each begins with."""
        self.frames: list[Frame] = []
        self.streams: dict[int, Response] = {}
        self.goaways: list[tuple[int, Error, bytes]] = []
        self.closed = False
        if greet:
            self.send(wire.PREFACE + wire.settings(settings or {}))

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send; a connection that the server has closed takes it in silence."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self._buffer_rest()

    def half_close(self) -> None:
        """Send no more."""
        self._socket.shutdown(socket.SHUT_WR)

    def stream(self, number: int) -> Response:
        return self.streams.setdefault(number, Response())

    def settings(self) -> dict[int, int]:
        """What the server began with."""
        self.read_until(lambda: self.frames)
        assert self.frames[0].kind == Kind.SETTINGS
        return self.frames[0].settings()

    def largest_frame(self) -> int:
        """Of what the server takes, in bytes of payload."""
        return self.settings().get(Setting.MAX_FRAME_SIZE, wire.MAX_FRAME)

    def set_table_limit(self, size: int) -> None:
        """Header blocks that need a larger table than that are errors from now on."""
        self._decoder.max_allowed_table_size = size
        self._decoder.header_table_size = size

    def count(self, kind: int, stream: int | None = None) -> int:
        return Counter(f.kind for f in self.frames if stream in (None, f.stream))[kind]

    def read_until(self, arrived: Callable[[], object], within_s: float | None = None) -> None:
        """Take frames until something is true; Silence where the connection ends or time passes without it."""
        until = time.monotonic() + (HANG_S if within_s is None else within_s)
        while not arrived():
            if not self._step(until) and not arrived():
                raise Silence(f"{'closed' if self.closed else 'silent'} after {self.frames[-20:]}, {self.goaways}")

    def read_for(self, duration_s: float) -> None:
        """Take what comes for so long."""
        until = time.monotonic() + duration_s
        while self._step(until):
            pass

    def read_to_end(self) -> None:
        """Take frames until the server closes the connection."""
        self.read_until(lambda: self.closed)

    def fence(self) -> None:
        """Wait until the server has seen all that was sent: frames are handled in order."""
        self._pings += 1
        mark = struct.pack(">Q", self._pings | 1 << 63)
        self.send(wire.ping(mark))
        self.read_until(lambda: mark in self.pongs)

    def finish(self, stream: int = 1, within_s: float | None = None) -> Response:
        """Wait for the end of a stream."""
        response = self.stream(stream)
        self.read_until(lambda: response.over, within_s)
        return response

    def ask(self, stream: int = 1, *arguments, **named) -> Response:
        """A whole unary call with its answer; arguments as of `wire.call`."""
        self.send(wire.call(stream, *arguments, **named))
        return self.finish(stream)

    def _step(self, until: float) -> bool:
        """Take one frame; False where none came before ``until``, or the connection is closed."""
        while (found := self._cut()) is None:
            if self.closed or (left_s := until - time.monotonic()) <= 0:
                return False
            self._socket.settimeout(left_s)
            try:
                chunk = self._socket.recv(1 << 18)
            except TimeoutError:
                return False
            except ConnectionError:
                chunk = b""
            finally:
                self._socket.settimeout(HANG_S)
            if not chunk:
                self.closed = True
                assert not self._buffer, f"the connection ended inside a frame: {bytes(self._buffer[:64])!r}"
            self._buffer += chunk
        self.frames.append(found)
        self._take(found)
        return True

    def _buffer_rest(self) -> None:
        """What came before the connection was closed can be read for all that."""
        try:
            while chunk := self._socket.recv(1 << 18):
                self._buffer += chunk
        except OSError:
            pass

    def _cut(self) -> Frame | None:
        if len(self._buffer) < 9:
            return None
        length = int.from_bytes(self._buffer[:3], "big")
        if len(self._buffer) < 9 + length:
            return None
        stream = int.from_bytes(self._buffer[5:9], "big")
        found = Frame(self._buffer[3], self._buffer[4], stream, bytes(self._buffer[9 : 9 + length]))
        del self._buffer[: 9 + length]
        return found

    def _take(self, found: Frame) -> None:
        assert len(found.payload) <= wire.MAX_FRAME or found.kind != Kind.DATA
        assert found.stream < 1 << 31, "the reserved bit must be sent as 0"
        response = self.stream(found.stream) if found.stream else Response()
        match found.kind:
            case Kind.SETTINGS if self._answers_settings and not found.flags & Flag.ACK:
                self.send(wire.SETTINGS_ACK)
            case Kind.PING if found.flags & Flag.ACK:
                self.pongs.append(found.payload)
            case Kind.PING if self._answers_pings:
                self.send(wire.frame(Kind.PING, Flag.ACK, 0, found.payload))
            case Kind.GOAWAY:
                last, code = struct.unpack_from(">II", found.payload)
                self.goaways.append((last, Error(code), found.payload[8:]))
            case Kind.WINDOW_UPDATE:
                self.given[found.stream] += int.from_bytes(found.payload, "big")
            case Kind.RST_STREAM:
                response.reset = Error(int.from_bytes(found.payload, "big"))
            case Kind.DATA:
                response.body += found.payload
                response.data_frames += 1
                response.ended |= bool(found.flags & Flag.END_STREAM)
                if self._opens_windows and found.payload:
                    size = len(found.payload)
                    self.send(wire.window_update(0, size) + wire.window_update(found.stream, size))
            case Kind.HEADERS | Kind.CONTINUATION:
                self._block += found.payload
                if found.kind == Kind.HEADERS:
                    response.ended |= bool(found.flags & Flag.END_STREAM)
                if found.flags & Flag.END_HEADERS:
                    fields = [(str(name), str(value)) for name, value in self._decoder.decode(bytes(self._block))]
                    self._block.clear()
                    (response.trailers if response.headers else response.headers).extend(fields)
