"""Base classes of all clients, blocking and for asyncio: open a channel, send calls, close it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import grpc
import grpc.aio

from ..address import MAIN_PORT
from .connection import NONE, Metadata, connection, server_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self, Unpack

    from .connection import ConnectionOptions, RetryPolicy
    from .operations import Operation

T = TypeVar("T")


class _Client:
    _usual_port = MAIN_PORT
    _library: ClassVar[Any]
    """``grpc`` or ``grpc.aio``, whose functions have the same names."""
    _channel: Any

    def __init__(
        self, target: str | Sequence[str], *, retry: RetryPolicy | None = None, **options: Unpack[ConnectionOptions]
    ) -> None:
        """Open a channel; raises ValueError as `service.client.connection.connection` does."""
        self._connection = connection(target, self._usual_port, retry=retry, **options)
        where, settings = self._connection.target, self._connection.options
        if self._connection.credentials is None:
            self._channel = self._library.insecure_channel(where, options=settings)
        else:
            self._channel = self._library.secure_channel(where, self._connection.credentials, options=settings)
        self._callables: dict[str, Any] = {}

    def _callable(self, operation: Operation[Any]) -> Any:  # noqa: ANN401 - blocking or awaitable
        """The callable for the operation's method; cached, since making one costs more than a call's bookkeeping."""
        found = self._callables.get(operation.method)
        if found is None:
            found = self._callables[operation.method] = self._channel.unary_unary(
                operation.method,
                request_serializer=type(operation.request).SerializeToString,
                response_deserializer=operation.response.FromString,
            )
        return found

    def _metadata(self, more: Mapping[str, str | bytes] = NONE) -> Metadata:
        mine = self._connection.metadata
        return (*mine, *more.items()) if more else mine


class BlockingClient(_Client):
    """Base class of blocking clients. Thread-safe."""

    _library: ClassVar[Any] = grpc
    _channel: grpc.Channel

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls that are under way fail."""
        self._channel.close()

    def _call(
        self,
        operation: Operation[T],
        timeout_s: float | None = None,
        metadata: Mapping[str, str | bytes] = NONE,
    ) -> T:
        try:
            response = self._callable(operation)(
                operation.request,
                timeout=self._connection.timeout_s if timeout_s is None else timeout_s,
                metadata=self._metadata(metadata),
            )
        except grpc.RpcError as error:
            raise server_error(error) from error
        return operation.read(response)


class AwaitedClient(_Client):
    """Base class of asyncio clients. Belongs to one event loop; cancelling a task cancels its call on the server."""

    _library: ClassVar[Any] = grpc.aio
    _channel: grpc.aio.Channel

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls that are under way fail."""
        await self._channel.close()

    async def _call(
        self,
        operation: Operation[T],
        timeout_s: float | None = None,
        metadata: Mapping[str, str | bytes] = NONE,
    ) -> T:
        try:
            response = await self._callable(operation)(
                operation.request,
                timeout=self._connection.timeout_s if timeout_s is None else timeout_s,
                metadata=self._metadata(metadata),
            )
        except grpc.RpcError as error:
            raise server_error(error) from error
        return operation.read(response)
