"""An engine on a loop of its own in a thread, with methods that show what it does to its handlers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from service.config import ServerConfig
from service.errors import InvalidRequest
from service.rpc.methods import Begun, Bidi, Method, Opened, ServerStream, Unary
from service.transport.grpcio_engine import GrpcioEngine
from service.transport.http2.engine import Http2Engine
from service.transport.limits import ConnectionLimits
from tests.service.transport.http2.short_ways import Lane, OpenedChat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from service.rpc.methods import CallContext
    from service.security.tls import CertificateFiles

try:
    import uvloop
except ImportError:  # as in the serving install
    new_loop = asyncio.new_event_loop
else:
    new_loop = uvloop.new_event_loop

ENGINES = {"http2": Http2Engine, "grpcio": GrpcioEngine}
HANG_S = 30.0


class Handlers:
    """The methods of /wire.Test, and what became of their calls."""

    def __init__(self) -> None:
        self.running = 0
        self.started = 0
        self.cancelled = 0
        self.yielded = 0
        """Messages that /Count has given to the engine."""

    def methods(self) -> list[Method]:
        unary = {"Echo": self.echo, "Fail": self.fail, "Crash": self.crash, "Hang": self.hang, "Told": self.told}
        begun = {"Begun": self.begin, "Later": self.begin_later, "Never": self.begin_never}
        streams = {"Count": self.count, "Broken": self.broken}
        return [
            *(Unary(f"/wire.Test/{name}", bytes, bytes, handler) for name, handler in unary.items()),
            *(Begun(f"/wire.Test/{name}", bytes, bytes, begin) for name, begin in begun.items()),
            *(ServerStream(f"/wire.Test/{name}", bytes, bytes, handler) for name, handler in streams.items()),
            Begun("/wire.Test/Quick", bytes, bytes, self.begin, express=Lane(self).enter),
            Bidi("/wire.Test/Chat", bytes, bytes, self.chat),
            Opened("/wire.Test/Opened", bytes, bytes, partial(OpenedChat, self)),
            Opened("/wire.Test/CrashOpened", bytes, bytes, partial(OpenedChat, self, is_defect=True)),
            Bidi("/wire.Test/Deaf", bytes, bytes, self.deaf),
        ]

    @contextmanager
    def _call(self) -> Iterator[None]:
        self.running += 1
        self.started += 1
        try:
            yield
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def echo(self, request: bytes, context: CallContext) -> bytes:
        with self._call():
            return request

    def begin(self, request: bytes, context: CallContext, done: Callable[[Any], None]) -> Callable[[], None]:
        """Echo without a task, at once."""
        self.started += 1
        done(request)
        return self._cancel

    def begin_later(self, request: bytes, context: CallContext, done: Callable[[Any], None]) -> Callable[[], None]:
        """The same, in the next tick."""

        def answer() -> None:
            self.running -= 1
            done(request)

        cancel = self.begin_never(request, context, done)
        handle = asyncio.get_running_loop().call_soon(answer)

        def cancelled() -> None:
            handle.cancel()
            cancel()

        return cancelled

    def begin_never(self, request: bytes, context: CallContext, done: Callable[[Any], None]) -> Callable[[], None]:
        """Waits until it is cancelled."""
        self.started += 1
        self.running += 1

        def cancel() -> None:
            self.running -= 1
            self._cancel()

        return cancel

    def _cancel(self) -> None:
        self.cancelled += 1

    async def fail(self, request: bytes, context: CallContext) -> bytes:
        """Fails with what it is sent as its message."""
        with self._call():
            raise InvalidRequest(request.decode(errors="replace"), field="request")

    async def crash(self, request: bytes, context: CallContext) -> bytes:
        with self._call():
            raise ValueError("a defect")

    async def hang(self, request: bytes, context: CallContext) -> bytes:
        with self._call():
            await asyncio.Event().wait()
        return b""

    async def told(self, request: bytes, context: CallContext) -> bytes:
        """What the context says of the call, as JSON; bytes as latin-1."""
        with self._call():
            metadata = [
                (key, value.decode("latin-1") if isinstance(value, bytes) else value) for key, value in context.metadata
            ]
            said = {"metadata": metadata, "remaining_s": context.time_remaining_s(), "peer": context.peer}
            return json.dumps(said).encode()

    async def count(self, request: bytes, context: CallContext) -> AsyncIterator[bytes]:
        """``b"n size"``: n messages of so many bytes."""
        with self._call():
            if not re.fullmatch(rb"[0-9]{1,6} [0-9]{1,7}", request):
                raise InvalidRequest("expected a number and a size")
            number, size = map(int, request.split())
            for index in range(number):
                self.yielded += 1
                yield index.to_bytes(4, "big").ljust(size, b".")[:size]

    async def broken(self, request: bytes, context: CallContext) -> AsyncIterator[bytes]:
        """One message, then a failure."""
        with self._call():
            yield request
            raise InvalidRequest("enough")

    async def chat(self, requests: AsyncIterator[bytes], context: CallContext) -> AsyncIterator[bytes]:
        with self._call():
            async for request in requests:
                yield request

    async def deaf(self, requests: AsyncIterator[bytes], context: CallContext) -> AsyncIterator[bytes]:
        """Never reads what it is sent."""
        with self._call():
            await asyncio.Event().wait()
            yield b""


class Host:
    """An engine that listens on a port of this machine."""

    def __init__(self, engine: str, loop: asyncio.AbstractEventLoop, certificates: CertificateFiles | None, **limits):
        self.name = engine
        self.handlers = Handlers()
        self.engine = ENGINES[engine](
            self.handlers.methods(), address="127.0.0.1:0", limits=limits_with(**limits), certificates=certificates
        )
        self._loop = loop

    @property
    def port(self) -> int:
        return self.engine.port

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run on the engine's loop, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(HANG_S)

    def start(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Begin on the engine's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def becomes(self, is_so: Callable[[Handlers], bool]) -> None:
        """Wait until the handlers are as they should be; TimeoutError."""
        until = time.monotonic() + HANG_S
        while not is_so(self.handlers):
            if time.monotonic() > until:
                raise TimeoutError(f"still {vars(self.handlers)}")
            time.sleep(0.001)


def limits_with(**changed: float) -> ConnectionLimits:
    """The server's defaults, but for some."""
    defaults = {field.name: field.default for field in dataclasses.fields(ServerConfig)}
    names = [field.name for field in dataclasses.fields(ConnectionLimits)]
    return ConnectionLimits(**{**{name: defaults[name] for name in names}, **changed})


@contextmanager
def hosted(engine: str = "http2", certificates: CertificateFiles | None = None, **limits) -> Iterator[Host]:
    """An engine with the default limits but for those named; no handler may be left of it in the end."""
    loop = new_loop()
    thread = threading.Thread(target=loop.run_forever, name=f"{engine} under test")
    thread.start()
    try:
        host = Host(engine, loop, certificates, **limits)
        host.run(host.engine.start())
        try:
            yield host
            host.becomes(lambda handlers: handlers.running == 0)
        finally:
            host.run(host.engine.stop(0))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
