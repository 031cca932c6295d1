"""The interface of the two engines that run the method table, and the choice of one by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from service.rpc.calls import CheckAccess, Observer
    from service.rpc.methods import Method
    from service.security.tls import CertificateFiles
    from service.transport.limits import ConnectionLimits


class Engine(Protocol):
    """A gRPC server on one address."""

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

        ``is_shared``: other processes serve the same address, which must name a port. An engine that `adopts` then does
        not listen itself; any other engine lets the kernel spread connections over all processes that listen.
        """
        ...

    @property
    def adopts(self) -> bool:
        """Whether the engine can serve connections that another process has accepted."""
        ...

    @property
    def port(self) -> int:
        """The port that is listened on; 0 before `start`."""
        ...

    async def start(self) -> None:
        """Listen and accept connections; raises BindError where that is impossible."""
        ...

    async def adopt(self, connection: socket.socket, on_gone: Callable[[], None] = lambda: None) -> None:
        """Serve a connection that was accepted elsewhere; return once it is established, including the TLS handshake.

        ``on_gone`` is called when the connection is closed. Raises OSError if it cannot be established, and
        RuntimeError if the engine does not adopt connections.
        """
        ...

    async def drain(self, timeout_s: float) -> bool:
        """Tell every client to use other connections from now on, and wait until all have acknowledged it or
        ``timeout_s`` seconds have passed. Calls that they begin before that are served. Returns whether all
        acknowledged; always False if the engine can tell its clients only when it stops.
        """
        ...

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, let the running ones finish within ``grace_s`` seconds, cancel what is left."""
        ...


def engine_class(name: str) -> type[Engine]:
    """The class of the engine named ``http2`` or ``grpcio``; the other one is not imported."""
    if name == "http2":
        from service.transport.http2.engine import Http2Engine

        return Http2Engine
    from service.transport.grpcio_engine import GrpcioEngine

    return GrpcioEngine
