"""Messages between a worker and its supervisor, both ways: calls, which are answered, and notices, which are not.

A frame is two lengths, a JSON object and opaque bytes: these carry the protocol's requests and answers, which the
supervisor forwards without parsing them. Every length has a bound and every call a timeout; pickle is not used.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

_log = logging.getLogger(__name__)

_LENGTHS = struct.Struct("!II")
"""Header of a frame: the length of the JSON object and that of the body, in bytes."""
MAX_HEADER_BYTES = 1024 * 1024
_MOST_CALLS = 256
"""Calls that may wait for an answer at a time; further calls are queued, within their timeouts."""


class BackplaneClosed(ConnectionError):
    """The process at the other end is gone or about to end."""


class BackplaneFailed(Exception):
    """The other end answered a call with an error, whose message this has; or a message was too large."""


class _BadFrame(Exception):
    """The received bytes are no frame, so that the connection cannot be used any more."""


@dataclass(frozen=True)
class Message:
    """The content of a call, a notice or an answer."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    """Values that JSON can represent, at most `MAX_HEADER_BYTES` long."""
    body: bytes = b""


Handler = Callable[[Message], Awaitable[Message | None]]
"""Answers a call; the result is ignored for a notice."""


class Backplane:
    """One end of a pair of connected sockets. Belongs to one event loop."""

    def __init__(self, *, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._handlers: dict[str, Handler] = {}
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._turns = asyncio.Semaphore(_MOST_CALLS)
        self._running: set[asyncio.Task[None]] = set()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self.closed = asyncio.Event()
        """Set when the other end is gone."""

    def on(self, name: str, handler: Handler) -> None:
        """Run ``handler`` for each call and notice of this name, each in a new task."""
        self._handlers[name] = handler

    async def open(self, connection: socket.socket) -> None:
        """Take over a connected socket and begin to read. Register the handlers before."""
        reader, self._writer = await asyncio.open_connection(sock=connection)
        self._reading = asyncio.create_task(self._read(reader), name="backplane")

    async def close(self) -> None:
        """Close the connection, fail all waiting calls and cancel the running handlers."""
        tasks = [*self._running, *([self._reading] if self._reading is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._end()
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    async def call(
        self, name: str, fields: Mapping[str, Any] | None = None, body: bytes = b"", *, timeout_s: float
    ) -> Message:
        """Ask the other end and wait for its answer.

        Raises:
            BackplaneClosed: the other end is gone.
            BackplaneFailed: the other end answered with an error, or the message is too large.
            TimeoutError: no answer came within ``timeout_s`` seconds.
        """
        async with asyncio.timeout(timeout_s), self._turns:
            if self.closed.is_set():
                raise BackplaneClosed(f"{name}: the process at the other end is gone")
            number = next(self._numbers)
            answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
            self._waiting[number] = answer
            try:
                await self._send({"call": number, "name": name, "fields": fields or {}}, body)
                return await answer
            finally:
                del self._waiting[number]
                if answer.done() and not answer.cancelled():
                    answer.exception()  # retrieve it, or asyncio logs that it never was

    def notify(self, name: str, fields: Mapping[str, Any] | None = None) -> None:
        """Send the other end a notice; it is lost if the other end is gone."""
        with contextlib.suppress(BackplaneClosed):
            self._write({"name": name, "fields": fields or {}}, b"")

    # ---- frames -------------------------------------------------------------------------------------------------

    async def _send(self, header: Mapping[str, Any], body: bytes) -> None:
        self._write(header, body)
        if self._writer is not None:
            with contextlib.suppress(OSError):  # The reader notices too, and ends the call.
                await self._writer.drain()

    def _write(self, header: Mapping[str, Any], body: bytes) -> None:
        if self._writer is None or self.closed.is_set():
            raise BackplaneClosed(f"{header.get('name', 'answer')}: the process at the other end is gone")
        text = json.dumps(header).encode()
        for what, length, most in (("fields", len(text), MAX_HEADER_BYTES), ("body", len(body), self._max_body_bytes)):
            if length > most:
                raise BackplaneFailed(f"{header.get('name', 'answer')}: {what} of {length} bytes, at most {most} pass")
        self._writer.write(b"".join((_LENGTHS.pack(len(text), len(body)), text, body)))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                header, body = await self._frame(reader)
                if "answer" in header:
                    self._answered(header, body)
                else:
                    task = asyncio.create_task(self._handle(header, body))
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)
        except (asyncio.IncompleteReadError, OSError):
            pass  # The other end is gone: `closed` is set below.
        except _BadFrame as error:
            _log.error("backplane: what came is no frame", extra={"reason": str(error)})
        finally:
            self._end()

    async def _frame(self, reader: asyncio.StreamReader) -> tuple[dict[str, Any], bytes]:
        text_bytes, body_bytes = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
        if text_bytes > MAX_HEADER_BYTES or body_bytes > self._max_body_bytes:
            raise _BadFrame(
                f"lengths {text_bytes} and {body_bytes}, expected at most {MAX_HEADER_BYTES} and {self._max_body_bytes}"
            )
        try:
            header = json.loads(await reader.readexactly(text_bytes))
        except ValueError as error:
            raise _BadFrame(f"no JSON: {error}") from error
        if not isinstance(header, dict):
            raise _BadFrame(f"a {type(header).__name__}, expected an object")
        return header, await reader.readexactly(body_bytes)

    # ---- calls --------------------------------------------------------------------------------------------------

    def _answered(self, header: Mapping[str, Any], body: bytes) -> None:
        waiting = self._waiting.get(header["answer"])
        if waiting is None or waiting.done():
            return  # The caller has stopped waiting.
        if "failed" in header:
            waiting.set_exception(BackplaneFailed(str(header["failed"])))
        else:
            waiting.set_result(Message(header.get("fields", {}), body))

    async def _handle(self, header: Mapping[str, Any], body: bytes) -> None:
        name = str(header.get("name"))
        answer: dict[str, Any] = {"answer": header.get("call")}
        returned: Message | None = None
        try:
            returned = await self._handler(name)(Message(header.get("fields", {}), body))
        except (BackplaneFailed, BackplaneClosed, TimeoutError) as error:
            answer["failed"] = str(error) or type(error).__name__
        except Exception as error:  # noqa: BLE001 - the caller must not wait for an answer that never comes
            _log.exception("backplane: unexpected error", extra={"call": name})
            answer["failed"] = f"{name}: {type(error).__name__}; the log has the details"
        if "call" not in header:
            return
        with contextlib.suppress(BackplaneClosed):
            if "failed" not in answer:
                answer["fields"] = returned.fields if returned is not None else {}
            try:
                await self._send(answer, returned.body if returned is not None else b"")
            except BackplaneFailed as error:
                await self._send({"answer": header["call"], "failed": str(error)}, b"")

    def _handler(self, name: str) -> Handler:
        try:
            return self._handlers[name]
        except KeyError:
            raise BackplaneFailed(f"{name}: nobody here knows what that is") from None

    def _end(self) -> None:
        self.closed.set()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(BackplaneClosed("the process at the other end is gone"))
