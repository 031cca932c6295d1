"""The reference engine: runs the method table on ``grpc.aio``.

It uses ``grpc.aio`` and not the threaded server, which leaks an HTTP/2 stream for each request it cannot decode and can
be blocked by calls that send headers and no body.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from service.errors import BindError, Code
from service.rpc.awaited import awaitable
from service.rpc.calls import CallFailed, CheckAccess, Observer, call_bidi, call_server_stream, call_unary
from service.rpc.methods import Bidi, Method, ServerStream, Unary
from service.wire import error_details

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Iterable, Sequence

    from service.security.tls import CertificateFiles, Certificates
    from service.transport.limits import ConnectionLimits

# grpcio has a type for each kind of behaviour; here the `Method` subclass is the kind.
_Behaviour = Callable[..., Any]
_STATUS_CODES = {Code(status.value[0]): status for status in grpc.StatusCode}


class GrpcioContext:
    """A `service.rpc.methods.CallContext` that wraps grpcio's context."""

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._context = context

    @property
    def peer(self) -> str:
        """Address of the caller."""
        return str(self._context.peer())

    @property
    def metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """The caller's metadata."""
        return tuple((key, value) for key, value in self._context.invocation_metadata() or ())

    def time_remaining_s(self) -> float | None:
        """Seconds until the caller's deadline."""
        remaining: float | None = self._context.time_remaining()
        return remaining


class GrpcioEngine:
    """A gRPC server on one address: listens from `start` to `stop`."""

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
        """``bind_hint`` is added to the message of a BindError and says how to choose another address. ``is_shared``:
        other processes listen on the same address, and the kernel spreads connections over them.
        """
        self._is_shared = is_shared
        self._address = address
        self._limits = limits
        self._bind_hint = bind_hint
        self._certificates = certificates
        self._services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
        for method in map(awaitable, methods):
            _, service, name = method.path.split("/")
            self._services.setdefault(service, {})[name] = _handler(method, observer, check_access)
        self._server: grpc.aio.Server | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The port that is listened on; 0 before `start`."""
        return self._port

    async def start(self) -> None:
        """Listen and accept connections; raises BindError where that is impossible."""
        server = grpc.aio.server(options=channel_options(self._limits, is_shared=self._is_shared))
        for service, handlers in self._services.items():
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        try:
            if self._certificates is None:
                self._port = server.add_insecure_port(self._address)
            else:
                self._port = server.add_secure_port(self._address, _credentials(self._certificates))
        except RuntimeError as error:
            raise BindError(
                f"cannot listen on {self._address}: the address is in use or not this machine's"
                + (f"; {self._bind_hint}" if self._bind_hint else "")
            ) from error
        # Start at once: grpcio releases a port that it has bound only when a server that was started is stopped.
        await server.start()
        self._server = server

    @property
    def adopts(self) -> bool:
        """Always False: grpcio accepts its connections itself."""
        return False

    async def adopt(self, connection: socket.socket, on_gone: Callable[[], None] = lambda: None) -> None:  # noqa: ARG002 - the `Engine` interface
        """Raise RuntimeError: grpcio accepts its connections itself."""
        raise RuntimeError("grpcio serves no connections that others have accepted")

    async def drain(self, timeout_s: float) -> bool:
        """Do nothing and return False: grpcio sends its clients a GOAWAY only when it stops."""
        del timeout_s
        return False

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, let the running ones finish within ``grace_s`` seconds, cancel what is left."""
        if self._server is not None:
            await self._server.stop(grace_s)


def channel_options(limits: ConnectionLimits, *, is_shared: bool = False) -> list[tuple[str, int]]:
    """The limits as grpcio channel options."""
    options = [
        # Two servers on one port would share its connections by chance; unless they are meant to, the second must fail.
        ("grpc.so_reuseport", int(is_shared)),
        ("grpc.max_receive_message_length", limits.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # The plain limit is a soft one, above which grpcio refuses by chance.
        ("grpc.max_metadata_size", limits.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", limits.max_metadata_bytes),
        ("grpc.max_concurrent_streams", limits.max_concurrent_streams),
        # Otherwise grpcio counts a call until its handler is cleaned up, which no client can see, and resets calls
        # that were within the limit: of 5,000 at once over a limit of 1,024 it failed 3,800.
        ("grpc.http.overload_protection", 0),
        # grpcio's default answers a client that pings more than every five minutes with GOAWAY.
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(limits.keepalive_min_ping_s)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", _ms(limits.keepalive_time_s)),
        ("grpc.keepalive_timeout_ms", _ms(limits.keepalive_timeout_s)),
    ]
    unlimited_at_zero = {
        "grpc.max_connection_age_ms": limits.max_connection_age_s,
        "grpc.max_connection_age_grace_ms": limits.max_connection_age_grace_s,
        "grpc.max_connection_idle_ms": limits.max_connection_idle_s,
    }
    return options + [(name, _ms(limit_s)) for name, limit_s in unlimited_at_zero.items() if limit_s]


def _ms(duration_s: float) -> int:
    return max(1, round(duration_s * 1000))


def _credentials(files: CertificateFiles) -> grpc.ServerCredentials:
    """Credentials that look for newer certificates at each new connection, so that renewed files need no restart."""

    shown = files.current

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        files.renewed()
        if files.current is shown:
            return None
        shown = files.current  # Another listener may have been the one to notice.
        return _certificate_configuration(shown)

    return grpc.dynamic_ssl_server_credentials(
        _certificate_configuration(files.current),
        fetch,  # type: ignore[arg-type] # documented: None means no change; the type stubs omit it
        files.asks_for_client_certificates,
    )


def _certificate_configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificates.key, certificates.chain)], root_certificates=certificates.client_ca
    )


def _handler(
    method: Method, observer: Observer | None, check_access: CheckAccess | None
) -> grpc.RpcMethodHandler[Any, Any]:
    # No (de)serialisers: grpcio passes bytes both ways, so that a request that cannot be parsed fails in one place.
    if isinstance(method, Unary):
        return grpc.unary_unary_rpc_method_handler(_unary(method, observer, check_access))
    if isinstance(method, ServerStream):
        return grpc.unary_stream_rpc_method_handler(_server_stream(method, observer, check_access))
    if isinstance(method, Bidi):
        return grpc.stream_stream_rpc_method_handler(_bidi(method, observer, check_access))
    raise TypeError(f"{method.path}: unknown kind of method {type(method).__name__}")


def _unary(method: Unary, observer: Observer | None, check_access: CheckAccess | None) -> _Behaviour:
    async def run(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        try:
            return await call_unary(method, request, GrpcioContext(context), observer, check_access)
        except CallFailed as failure:
            return await _abort(context, failure)

    return run


def _server_stream(method: ServerStream, observer: Observer | None, check_access: CheckAccess | None) -> _Behaviour:
    async def run(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[bytes]:
        try:
            async for response in call_server_stream(method, request, GrpcioContext(context), observer, check_access):
                yield response
        except CallFailed as failure:
            await _abort(context, failure)

    return run


def _bidi(method: Bidi, observer: Observer | None, check_access: CheckAccess | None) -> _Behaviour:
    async def run(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[bytes]:
        try:
            async for response in call_bidi(method, requests, GrpcioContext(context), observer, check_access):
                yield response
        except CallFailed as failure:
            await _abort(context, failure)

    return run


async def _abort(context: grpc.aio.ServicerContext[Any, Any], failure: CallFailed) -> bytes:
    # abort() always raises; the return type lets callers say `return await`.
    details = error_details.serialize(failure.status)
    await context.abort(
        _STATUS_CODES[failure.status.code],
        failure.status.message,
        ((error_details.METADATA_KEY, details),) if details else (),
    )
    raise AssertionError("unreachable: abort() returned")
