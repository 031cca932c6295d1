"""The reference engine: runs the method table on ``grpc.aio``.

``grpc.aio`` and not the threaded server, which leaks an HTTP/2 stream for each request it cannot decode and can be
stopped by calls that send headers and no body.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from service import error_details
from service.errors import BindError, Code
from service.transport.methods import (
    BidiStream,
    CallFailed,
    Method,
    Observer,
    ServerStream,
    Unary,
    call_bidi_stream,
    call_server_stream,
    call_unary,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

# grpcio types each kind of behaviour apart; here the kind is the `Method` subclass.
_Behaviour = Callable[..., Any]
_STATUS_CODES = {Code(status.value[0]): status for status in grpc.StatusCode}


class GrpcioContext:
    """`service.transport.methods.CallContext` over grpcio's own."""

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
    """A gRPC server on one address. Use as ``async with``: it listens inside and is stopped on leaving."""

    def __init__(
        self,
        methods: Iterable[Method],
        *,
        address: str,
        max_message_bytes: int,
        max_metadata_bytes: int,
        keepalive_min_ping_s: float,
        observer: Observer | None = None,
    ) -> None:
        self._server = grpc.aio.server(
            options=[
                # Two servers on one port would share its connections by chance; the second must fail to start.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", -1),
                # The plain limit is a soft one, above which grpcio refuses by chance.
                ("grpc.max_metadata_size", max_metadata_bytes),
                ("grpc.absolute_max_metadata_size", max_metadata_bytes),
                # grpcio's default answers a client that pings more than every five minutes with GOAWAY.
                ("grpc.http2.min_recv_ping_interval_without_data_ms", int(keepalive_min_ping_s * 1000)),
                ("grpc.keepalive_permit_without_calls", 1),
            ]
        )
        by_service: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
        for method in methods:
            _, service, name = method.path.split("/")
            by_service.setdefault(service, {})[name] = _handler(method, observer)
        for service, handlers in by_service.items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise BindError(f"cannot listen on {address}: the address is in use or not this machine's") from error

    async def start(self) -> None:
        """Begin to accept connections."""
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, let the running ones finish within ``grace_s`` seconds, cancel what is left."""
        await self._server.stop(grace_s)


def _handler(method: Method, observer: Observer | None) -> grpc.RpcMethodHandler[Any, Any]:
    # No (de)serialisers: grpcio gets bytes and gives bytes, and a request that cannot be parsed fails in one place.
    if isinstance(method, Unary):
        return grpc.unary_unary_rpc_method_handler(_unary(method, observer))
    if isinstance(method, ServerStream):
        return grpc.unary_stream_rpc_method_handler(_server_stream(method, observer))
    if isinstance(method, BidiStream):
        return grpc.stream_stream_rpc_method_handler(_bidi_stream(method, observer))
    raise TypeError(f"{method.path}: unknown kind of method {type(method).__name__}")


def _unary(method: Unary, observer: Observer | None) -> _Behaviour:
    async def run(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        try:
            return await call_unary(method, request, GrpcioContext(context), observer)
        except CallFailed as failure:
            return await _abort(context, failure)

    return run


def _server_stream(method: ServerStream, observer: Observer | None) -> _Behaviour:
    async def run(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[bytes]:
        try:
            async for response in call_server_stream(method, request, GrpcioContext(context), observer):
                yield response
        except CallFailed as failure:
            await _abort(context, failure)

    return run


def _bidi_stream(method: BidiStream, observer: Observer | None) -> _Behaviour:
    async def run(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[bytes]:
        try:
            async for response in call_bidi_stream(method, requests, GrpcioContext(context), observer):
                yield response
        except CallFailed as failure:
            await _abort(context, failure)

    return run


async def _abort(context: grpc.aio.ServicerContext[Any, Any], failure: CallFailed) -> bytes:
    # abort() always raises; the return type lets callers say `return await`.
    details = error_details.serialize(failure.status)
    trailers = ((error_details.METADATA_KEY, details),) if details is not None else ()
    await context.abort(_STATUS_CODES[failure.status.code], failure.status.message, trailing_metadata=trailers)
    raise AssertionError("unreachable: abort() returned")
