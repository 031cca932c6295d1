"""Runs one call from request bytes to response bytes: access check, observers, errors to statuses; for every engine."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from google.protobuf.message import DecodeError

from service.errors import Code, InvalidRequest, ServiceError, Status, release, status_of
from service.logs import call_fields
from service.rpc.methods import CallContext, Method
from service.security.access import Access

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.rpc.methods import Begun, Bidi, ServerStream, Unary

request_log = logging.getLogger("service.requests")
"""Logs one line for each call, at debug level."""
_OK = Status(Code.OK)


class CallFailed(Exception):
    """A handler failed; the engine sends ``status``. Only the ``call_`` functions raise it."""

    def __init__(self, status: Status) -> None:
        self.status = status
        super().__init__(status.message)


class Call:
    """One running call, as observers and the debug log line see it."""

    def __init__(
        self, method: Method, context: CallContext, observer: Observer | None, check_access: CheckAccess | None
    ) -> None:
        self.method = method
        self.context = context
        self.began_ns = time.time_ns()
        self.request: Any = None
        """The parsed request message; stays None for a stream of requests."""
        self.response: Any = None
        """The response message; stays None for a stream of responses."""
        self._observer = observer
        self._check_access = check_access
        self._tell_end: Callable[[Status], None] | None = None
        self._clock_began_s = time.perf_counter()

    @property
    def took_s(self) -> float:
        """Seconds since the call began."""
        return time.perf_counter() - self._clock_began_s

    def described(self) -> dict[str, str]:
        """Log fields of the request and the response, from the method's describe functions."""
        fields = self.method.describe(self.request) if self.request is not None else {}
        return {**fields, **self.method.describe_answer(self.response)} if self.response is not None else fields

    def check_access(self, access: Access | None = None) -> None:
        """Raise unless the caller has the right ``access``, by default that of the method."""
        if self._check_access is not None:
            self._check_access(self.method, self.method.access if access is None else access, self.context)

    def parse(self, data: bytes) -> Any:  # noqa: ANN401 - the row's message type
        """Check access and parse the only request; then tell the observer of the call, also if either failed."""
        try:
            self.check_access()
            self.request = _parse(self.method, data)
        finally:
            self.observe()
        if self.method.changes(self.request):
            self.check_access(Access.CONTROL)
        return self.request

    def observe(self) -> None:
        """Tell the observer that the call began, unless that was done before."""
        if self._observer is not None:
            self._tell_end = self._observer(self)
            self._observer = None

    def ended(self, refusal: Status | None = None) -> None:
        """Record that the handler is done and the caller gets its response, or the status ``refusal`` instead."""
        self._ended(_OK if refusal is None else refusal)

    def failed(self, error: Exception) -> CallFailed:
        """Record that the call failed; return the exception to raise for the engine."""
        self.observe()  # The error may have come before the call was observed.
        status = status_of(error)
        if not isinstance(error, ServiceError):
            request_log.error(
                "unexpected error", extra={"method": self.method.path, "peer": self.context.peer}, exc_info=error
            )
        self._ended(status)
        release(error)
        return CallFailed(status)

    def cancelled(self) -> None:
        """Record that the caller went away or its deadline passed: grpcio cancels the handler in both cases."""
        self.observe()
        remaining_s = self.context.time_remaining_s()
        is_late = remaining_s is not None and remaining_s <= 0
        self._ended(Status(Code.DEADLINE_EXCEEDED if is_late else Code.CANCELLED))

    def _ended(self, status: Status) -> None:
        if request_log.isEnabledFor(logging.DEBUG):
            fields = {
                "method": self.method.path,
                **self.described(),
                "code": status.code.name,
                "peer": self.context.peer,
                "took_us": round(1e6 * self.took_s),
            }
            if status.message:
                fields["detail"] = status.message
            request_log.debug("request", extra=fields)
        tell_end, self._tell_end = self._tell_end, None  # break the reference cycle
        if tell_end is not None:
            tell_end(status)


Observer = Callable[[Call], Callable[[Status], None]]
"""Called when a call begins; the function that it returns is called once, with the call's final status. Neither may
raise or block.
"""


class Tally(Protocol):
    """Counts calls that need not be observed one by one."""

    def began(self, count: int) -> None:
        """Count ``count`` calls that began."""
        ...

    def ended(self, path: str, code: Code, took_s: Sequence[float]) -> None:
        """Count calls of one method that ended with ``code``; ``took_s`` has the seconds that each took."""
        ...

    def forget(self) -> None:
        """Uncount one call that began: it will be observed in the general way."""
        ...


@runtime_checkable
class TallyingObserver(Protocol):
    """An observer for which it may be enough to count calls."""

    @property
    def tally(self) -> Tally | None:
        """The tally that is enough for it; None if it must observe each call."""
        ...


CheckAccess = Callable[[Method, Access, CallContext], None]
"""Called before each call to check its caller's right; raises a `service.errors.ServiceError` if it is missing."""


async def call_unary(
    method: Unary,
    data: bytes,
    context: CallContext,
    observer: Observer | None = None,
    check_access: CheckAccess | None = None,
) -> bytes:
    """Run a unary handler from bytes to bytes; raises CallFailed with the status to send."""
    call = Call(method, context, observer, check_access)
    try:
        request = call.parse(data)
        call.response = await method.handler(request, context)
        answer = method.serialize(call.response)
    except Exception as error:
        raise call.failed(error) from error
    except BaseException:
        call.cancelled()
        raise
    call.ended()
    return answer


def begin_unary(
    method: Begun,
    data: bytes,
    context: CallContext,
    reply: Callable[[bytes | Status], Status | None],
    observer: Observer | None = None,
    check_access: CheckAccess | None = None,
) -> Callable[[], None] | None:
    """Start a unary call. ``reply`` is called once, now or later, with the response or the error status; it returns the
    status that the caller gets instead of the response, if any.

    Returns a function that cancels the call, after which ``reply`` is not called; None if the call has failed already.
    """
    call = Call(method, context, observer, check_access)
    fields = None

    def done(response: Any) -> bool:  # noqa: ANN401 - the row's message type, or an exception
        # There is no task with its own context: set the log fields of this call here.
        call_fields.set(fields)
        if isinstance(response, Exception):
            reply(call.failed(response).status)
            return False
        try:
            call.response = response
            refusal = reply(method.serialize(response))
        except Exception as error:  # noqa: BLE001 - a defect, which must not reach the caller of `done`
            reply(call.failed(error).status)
            return False
        call.ended(refusal)
        return refusal is None

    try:
        request = call.parse(data)
        fields = call_fields.get()
        cancel = method.begin(request, context, done)
    except Exception as error:  # noqa: BLE001 - the one place where an exception becomes a status
        reply(call.failed(error).status)
        return None
    finally:
        call_fields.set(None)

    def cancelled() -> None:
        cancel()
        call_fields.set(fields)
        call.cancelled()

    return cancelled


async def call_server_stream(
    method: ServerStream,
    data: bytes,
    context: CallContext,
    observer: Observer | None = None,
    check_access: CheckAccess | None = None,
) -> AsyncIterator[bytes]:
    """Run a handler with one request and many responses; raises CallFailed with the status to send."""
    call = Call(method, context, observer, check_access)
    try:
        async for response in method.handler(call.parse(data), context):
            yield method.serialize(response)
    except Exception as error:
        raise call.failed(error) from error
    except BaseException:
        call.cancelled()
        raise
    call.ended()


async def call_bidi(
    method: Bidi,
    requests: AsyncIterator[bytes],
    context: CallContext,
    observer: Observer | None = None,
    check_access: CheckAccess | None = None,
) -> AsyncIterator[bytes]:
    """Run a handler with many requests and many responses; raises CallFailed with the status to send."""

    async def parsed() -> AsyncIterator[Any]:
        async for request in requests:
            yield _parse(method, request)

    call = Call(method, context, observer, check_access)
    call.observe()
    try:
        call.check_access()
        async for response in method.handler(parsed(), context):
            yield method.serialize(response)
    except Exception as error:
        raise call.failed(error) from error
    except BaseException:
        call.cancelled()
        raise
    call.ended()


def _parse(method: Method, data: bytes) -> Any:  # noqa: ANN401 - the row's message type
    try:
        return method.parse(data)
    except DecodeError as error:
        raise InvalidRequest(
            f"the request for {method.path} cannot be parsed: {len(data)} bytes of another message"
        ) from error
