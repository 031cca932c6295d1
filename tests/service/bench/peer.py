"""An HTTP/2 server that does exactly what a test says, and remembers every frame it got."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.transport.sockets import close_server
from service.wire import frames, hpack

if TYPE_CHECKING:
    from collections.abc import Callable

OK = [(b":status", b"200"), (b"content-type", b"application/grpc")]
FINE = [(b"grpc-status", b"0")]


def message(body: bytes) -> bytes:
    return b"\0" + len(body).to_bytes(4, "big") + body


def headers(stream: int, fields, *, end: bool = False) -> bytes:
    flags = frames.END_HEADERS | (frames.END_STREAM if end else 0)
    return frames.frame(frames.HEADERS, flags, stream, hpack.encode(fields))


def answer(stream: int, body: bytes = b"") -> bytes:
    """A whole successful answer."""
    data = message(body)
    pieces = [
        data[at : at + frames.DEFAULT_MAX_FRAME_SIZE] for at in range(0, len(data), frames.DEFAULT_MAX_FRAME_SIZE)
    ]
    sent = b"".join(frames.frame(frames.DATA, 0, stream, piece) for piece in pieces)
    return headers(stream, OK) + sent + headers(stream, FINE, end=True)


async def until(so) -> None:
    async with asyncio.timeout(20):
        while not so():  # noqa: ASYNC110 - what is waited for knows of no event
            await asyncio.sleep(0.001)


@dataclass
class Talk:
    """One connection as the server sees it."""

    writer: asyncio.StreamWriter
    got: list[tuple[int, int, int, bytes]] = field(default_factory=list)
    bodies: dict[int, bytes] = field(default_factory=dict)

    def kinds(self, kind: int) -> list[tuple[int, int, bytes]]:
        return [(flags, stream, payload) for each, flags, stream, payload in self.got if each == kind]


class Peer:
    """``respond(talk, stream, body)`` gives the bytes to send when a request is complete.

    With ``streaming`` each message of a request is one, complete when it is here.
    """

    def __init__(
        self,
        respond: Callable[[Talk, int, bytes], bytes | None],
        *,
        settings: dict[int, int] | None = None,
        streaming: bool = False,
        **options,
    ) -> None:
        self._respond = respond
        self._streaming = streaming
        self._settings = settings or {}
        self._options = options
        self.talks: list[Talk] = []
        self._serving: list[asyncio.Future[None]] = []
        self.port = 0
        self._closed = False

    async def __aenter__(self) -> Peer:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, **self._options)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        await close_server(self._server)
        for talk in self.talks:
            talk.writer.close()
        for talk in self.talks:
            with contextlib.suppress(ConnectionError):
                await talk.writer.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:
            # It was on its way when the server closed.
            writer.transport.abort()
            return
        talk = Talk(writer)
        self.talks.append(talk)
        self._serving.append(asyncio.ensure_future(self._serve(talk, reader, writer)))

    async def _serve(self, talk: Talk, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if await reader.readexactly(len(frames.PREFACE)) != frames.PREFACE:
                return
            writer.write(frames.settings(self._settings))
            while True:
                word, flags, stream = frames.COMPACT_HEADER.unpack(await reader.readexactly(9))
                payload = await reader.readexactly(word >> 8)
                kind = word & 0xFF
                talk.got.append((kind, flags, stream, payload))
                if kind == frames.DATA:
                    talk.bodies[stream] = talk.bodies.get(stream, b"") + payload
                    if self._streaming:
                        self._answer_messages(talk, stream)
                    elif flags & frames.END_STREAM:
                        writer.write(self._respond(talk, stream, talk.bodies[stream][5:]) or b"")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _answer_messages(self, talk: Talk, stream: int) -> None:
        body = talk.bodies[stream]
        while len(body) >= 5 and len(body) >= (end := 5 + int.from_bytes(body[1:5], "big")):
            talk.writer.write(self._respond(talk, stream, body[5:end]) or b"")
            body = body[end:]
        talk.bodies[stream] = body
