"""The fast engine: runs the method table on an HTTP/2 implementation written for it.

It is made for small messages at a high rate, where grpcio's overhead dominates: frames are parsed by hand, a call needs
neither a task nor a future, and all responses of one iteration of the event loop go out in one write.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from service.errors import BindError, Code, Status
from service.transport.http2 import abuse
from service.transport.http2.call_runner import CallRunner
from service.transport.http2.connection import Connection
from service.transport.http2.shared import Shared
from service.transport.http2.timers import Caretaker
from service.transport.http2.tls import server_context
from service.transport.sockets import EVERY, close_server, listening

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterable

    from service.rpc.calls import CheckAccess, Observer
    from service.rpc.methods import Method
    from service.security.tls import CertificateFiles
    from service.transport.limits import ConnectionLimits

_BACKLOG: Final = 1024
_FLUSH_S: Final = 0.05
"""Time for the last responses to be sent before their connections are aborted."""
_STOPPING: Final = Status(Code.UNAVAILABLE, "Server exiting")


class Http2Engine:
    """A gRPC server on one address: listens from `start` to `stop`. Belongs to one event loop."""

    def __init__(
        self,
        methods: Iterable[Method],
        *,
        address: str,
        limits: ConnectionLimits,
        bind_hint: str = "",
        certificates: CertificateFiles | None = None,
        observer: Observer | None = None,
        check_access: CheckAccess | None = None,
        is_shared: bool = False,
    ) -> None:
        """``bind_hint`` is added to the message of a BindError and says how to choose another address.

        ``is_shared``: another process listens on the address for several engines, and connections come by `adopt`.
        """
        self._is_shared = is_shared
        self._methods = tuple(methods)
        self._address = address
        self._limits = limits
        self._bind_hint = bind_hint
        self._certificates = certificates
        self._observer = observer
        self._check_access = check_access
        self._server: asyncio.Server | None = None
        self._shared: Shared | None = None
        self._caretaker: Caretaker | None = None
        self._tls: ssl.SSLContext | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The port that is listened on; 0 before `start`."""
        return self._port

    @property
    def adopts(self) -> bool:
        """Always True: the engine can serve connections that another process has accepted."""
        return True

    @property
    def _encryption(self) -> dict[str, Any]:
        if self._tls is None:
            return {}
        return {"ssl": self._tls, "ssl_handshake_timeout": abuse.PREFACE_TIMEOUT_S}

    async def start(self) -> None:
        """Listen and accept connections; raises BindError where that is impossible."""
        shared = self._open()
        host, port = _split(self._address)
        if self._is_shared:
            self._port = port
            return
        try:
            # Without reuse_port: two servers on one port would share its connections by chance.
            if host == EVERY:
                self._server = await shared.loop.create_server(
                    lambda: Connection(shared), sock=listening(port, _BACKLOG), backlog=_BACKLOG, **self._encryption
                )
            else:
                self._server = await shared.loop.create_server(
                    lambda: Connection(shared), host, port, backlog=_BACKLOG, **self._encryption
                )
        except OSError as error:
            self._close()
            raise BindError(
                f"cannot listen on {self._address}: the address is in use or not this machine's"
                + (f"; {self._bind_hint}" if self._bind_hint else "")
            ) from error
        self._port = self._server.sockets[0].getsockname()[1]

    async def adopt(self, connection: socket.socket, on_gone: Callable[[], None] = lambda: None) -> None:
        """Serve a connection that was accepted elsewhere, and call ``on_gone`` when it is closed.

        It works without `start`. Raises OSError if the connection cannot be established, for example for TLS.
        """
        shared = self._open()
        await shared.loop.connect_accepted_socket(lambda: Connection(shared, on_gone), connection, **self._encryption)

    async def drain(self, timeout_s: float) -> bool:
        """Tell every client to use other connections from now on, and wait until all have acknowledged it or
        ``timeout_s`` seconds have passed. Calls that they begin before that are served, and so are new connections.
        Returns whether all acknowledged.
        """
        shared = self._shared
        unheard = dict(shared.connections) if shared is not None else {}
        heard = asyncio.Event()

        def acknowledged(connection: Connection) -> None:
            unheard.pop(connection, None)
            if not unheard:
                heard.set()

        for connection in list(unheard):
            connection.draining.begin("server stopping", partial(acknowledged, connection))
        if unheard:
            await _wait(heard, timeout_s)
        return not unheard

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, let the running ones finish within ``grace_s`` seconds, cancel what is left."""
        shared = self._shared
        if self._server is not None:
            server, self._server = self._server, None
            await close_server(server)
        if shared is None:
            return
        deadline_s = shared.loop.time() + grace_s
        await self.drain(grace_s)
        gone = asyncio.Event()
        shared.is_stopping = True
        shared.on_connection_gone = lambda: None if shared.connections else gone.set()
        for connection in list(shared.connections):
            connection.draining.refuse_streams()
        if shared.connections:
            await _wait(gone, max(0.0, deadline_s - shared.loop.time()))
        left = list(shared.connections)
        for connection in left:
            for stream in list(connection.streams.values()):
                stream.fail(_STOPPING)
            connection.close()
        if left and shared.connections:
            await _wait(gone, _FLUSH_S)
        for connection in list(shared.connections):
            connection.abort()
        self._close()

    def _open(self) -> Shared:
        if self._shared is None:
            loop = asyncio.get_running_loop()
            runner = CallRunner(loop, self._observer, self._check_access)
            self._shared = Shared(
                loop,
                self._methods,
                self._limits,
                runner,
                checks_callers=self._certificates is not None and self._certificates.asks_for_client_certificates,
            )
            self._caretaker = Caretaker(self._shared)
            self._caretaker.start()
            if self._certificates is not None:
                self._tls = server_context(self._certificates)
        return self._shared

    def _close(self) -> None:
        if self._caretaker is not None:
            self._caretaker.stop()
            self._caretaker = None
        if self._shared is not None:
            self._shared.deadlines.stop()
            self._shared = None


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return


def _split(address: str) -> tuple[str, int]:
    """Split ``host:port``; an IPv6 host is in brackets."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)
