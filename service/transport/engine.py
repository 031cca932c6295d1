"""What runs the method table: two engines with one interface, chosen by name."""

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
        """``bind_hint`` says, for the message of a BindError, how to choose another address.

        ``is_shared``: other processes serve the same address, which must name a port. An engine that `adopts` then does
        not listen itself; another one lets the kernel spread connections over all that do.
        """
        ...

    @property
    def adopts(self) -> bool:
        """Whether it can serve connections that another process has accepted."""
        ...

    @property
    def port(self) -> int:
        """The port that is listened on; 0 before `start`."""
        ...

    async def start(self) -> None:
        """Listen and accept connections; raises BindError where that is impossible."""
        ...

    async def adopt(self, connection: socket.socket, on_gone: Callable[[], None] = lambda: None) -> None:
        """Serve a connection that somebody else has accepted; returns when it is established, TLS and all.

        ``on_gone`` is called when it is closed. Raises OSError where it cannot be established, and RuntimeError where
        the engine does not adopt.
        """
        ...

    async def drain(self, timeout_s: float) -> bool:
        """Tell every client to use other connections from now on, and wait until they have heard, or until
        ``timeout_s`` seconds have passed. What they have begun by then is served. Returns whether all have heard;
        always False where the engine can only tell them when it stops.
        """
        ...

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, let the running ones finish within ``grace_s`` seconds, cancel what is left."""
        ...


def engine_class(name: str) -> type[Engine]:
    """The class of engine ``http2`` or ``grpcio``; the other one is not imported."""
    if name == "http2":
        from service.transport.http2.engine import Http2Engine

        return Http2Engine
    from service.transport.grpcio_engine import GrpcioEngine

    return GrpcioEngine
