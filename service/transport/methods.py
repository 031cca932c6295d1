"""The method table: what the server can be called for, without a word of how bytes arrive.

A servicer contributes `Method` rows; a transport engine runs them. A handler gets a message and a `CallContext`,
answers with a message (or yields messages) and raises `service.errors.ServiceError` for what it expects to go wrong.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from service.errors import Code, InvalidRequest, ServiceError, Status, status_of

_log = logging.getLogger("service.requests")


class CallContext(Protocol):
    """What a handler may know of the call around its message."""

    @property
    def peer(self) -> str:
        """Address of the caller, for logs."""
        ...

    @property
    def metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """The caller's metadata."""
        ...

    def time_remaining_s(self) -> float | None:
        """Seconds until the caller's deadline; None without one."""
        ...


# One alias for each shape of handler. A method table is heterogeneous: the message types differ from row to row and
# only the row's own parse and serialise functions know them.
UnaryHandler = Callable[[Any, CallContext], Awaitable[Any]]
ServerStreamHandler = Callable[[Any, CallContext], AsyncIterator[Any]]
BidiStreamHandler = Callable[[AsyncIterator[Any], CallContext], AsyncIterator[Any]]


@dataclass(frozen=True)
class Method:
    """One row: where it is reached and how its messages are read and written."""

    path: str
    """``/package.Service/Method``."""
    parse: Callable[[bytes], Any]
    serialize: Callable[[Any], bytes]
    describe: Callable[[Any], dict[str, str]] = field(default=lambda _: {}, kw_only=True)
    """What a request says of itself in the log, at debug level only."""


@dataclass(frozen=True)
class Unary(Method):
    """One request, one response."""

    handler: UnaryHandler


@dataclass(frozen=True)
class ServerStream(Method):
    """One request, many responses."""

    handler: ServerStreamHandler


@dataclass(frozen=True)
class BidiStream(Method):
    """Many requests, many responses, independently."""

    handler: BidiStreamHandler


class CallFailed(Exception):
    """A handler failed; the engine sends ``status``. Raised by the ``call_`` functions and nothing else."""

    def __init__(self, status: Status) -> None:
        self.status = status
        super().__init__(status.message)


async def call_unary(method: Unary, data: bytes, context: CallContext) -> bytes:
    """Run a unary handler from bytes to bytes; raises CallFailed with the status to send."""
    began = time.perf_counter()
    request = None
    try:
        request = _parse(method, data)
        response = method.serialize(await method.handler(request, context))
    except Exception as error:
        raise _failed(method, error, context, began, request) from error
    _log_call(method, Status(Code.OK), context, began, request)
    return response


async def call_server_stream(method: ServerStream, request: bytes, context: CallContext) -> AsyncIterator[bytes]:
    """Run a handler with one request and many responses; raises CallFailed with the status to send."""
    began = time.perf_counter()
    try:
        async for response in method.handler(_parse(method, request), context):
            yield method.serialize(response)
    except Exception as error:
        raise _failed(method, error, context, began) from error
    _log_call(method, Status(Code.OK), context, began)


async def call_bidi_stream(
    method: BidiStream, requests: AsyncIterator[bytes], context: CallContext
) -> AsyncIterator[bytes]:
    """Run a handler with many requests and many responses; raises CallFailed with the status to send."""

    async def parsed() -> AsyncIterator[Any]:
        async for request in requests:
            yield _parse(method, request)

    began = time.perf_counter()
    try:
        async for response in method.handler(parsed(), context):
            yield method.serialize(response)
    except Exception as error:
        raise _failed(method, error, context, began) from error
    _log_call(method, Status(Code.OK), context, began)


def _parse(method: Method, data: bytes) -> Any:  # noqa: ANN401 - the row's message type
    try:
        return method.parse(data)
    except DecodeError as error:
        raise InvalidRequest(
            f"the request for {method.path} cannot be parsed: {len(data)} bytes of another message"
        ) from error


def _failed(method: Method, error: Exception, context: CallContext, began: float, request: object = None) -> CallFailed:
    status = status_of(error)
    if not isinstance(error, ServiceError):
        _log.error("unexpected error", extra={"method": method.path, "peer": context.peer}, exc_info=error)
    _log_call(method, status, context, began, request)
    return CallFailed(status)


def _log_call(method: Method, status: Status, context: CallContext, began: float, request: object = None) -> None:
    if not _log.isEnabledFor(logging.DEBUG):
        return
    fields = {
        "method": method.path,
        **(method.describe(request) if request is not None else {}),
        "code": status.code.name,
        "peer": context.peer,
        "took_us": round(1e6 * (time.perf_counter() - began)),
    }
    if status.message:
        fields["detail"] = status.message
    _log.debug("request", extra=fields)
