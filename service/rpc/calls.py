"""One call, from bytes to bytes: who may make it, who is told of it, what its failure means; for every engine."""

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
"""A line for each call, at debug level."""
_OK = Status(Code.OK)


class CallFailed(Exception):
    """A handler failed; the engine sends ``status``. Raised by the ``call_`` functions and nothing else."""

    def __init__(self, status: Status) -> None:
        self.status = status
        super().__init__(status.message)


class Call:
    """One call under way, as observers see it and as its debug line tells it."""

    def __init__(
        self, method: Method, context: CallContext, observer: Observer | None, check_access: CheckAccess | None
    ) -> None:
        self.method = method
        self.context = context
        self.began_ns = time.time_ns()
        self.request: Any = None
        """The message, once it is parsed; stays None for a stream of requests."""
        self.response: Any = None
        """The message that answers it; stays None for a stream of responses."""
        self._observer = observer
        self._check_access = check_access
        self._tell_end: Callable[[Status], None] | None = None
        self._clock_began_s = time.perf_counter()

    @property
    def took_s(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self._clock_began_s

    def described(self) -> dict[str, str]:
        """What the method's row tells of request and response."""
        fields = self.method.describe(self.request) if self.request is not None else {}
        return {**fields, **self.method.describe_answer(self.response)} if self.response is not None else fields

    def check_access(self, access: Access | None = None) -> None:
        """Raise unless the caller has the right: this one, or by default that of the method."""
        if self._check_access is not None:
            self._check_access(self.method, self.method.access if access is None else access, self.context)

    def parse(self, data: bytes) -> Any:  # noqa: ANN401 - the row's message type
        """Read the only request; observers learn of the call when it is there, or when it is seen to be none."""
        try:
            self.check_access()
            self.request = _parse(self.method, data)
        finally:
            self.observe()
        if self.method.changes(self.request):
            self.check_access(Access.CONTROL)
        return self.request

    def observe(self) -> None:
        """Tell the observer that the call began, unless it knows."""
        if self._observer is not None:
            self._tell_end = self._observer(self)
            self._observer = None

    def succeeded(self) -> None:
        """The handler is done and the answer is on its way."""
        self._ended(_OK)

    def ended(self, refusal: Status | None) -> None:
        """The handler is done, and the caller is told its answer, or ``refusal`` instead."""
        self._ended(_OK if refusal is None else refusal)

    def failed(self, error: Exception) -> CallFailed:
        """What to raise for the engine."""
        self.observe()  # What kept it from being parsed failed it too.
        status = status_of(error)
        if not isinstance(error, ServiceError):
            request_log.error(
                "unexpected error", extra={"method": self.method.path, "peer": self.context.peer}, exc_info=error
            )
        self._ended(status)
        release(error)
        return CallFailed(status)

    def cancelled(self) -> None:
        """The caller went away, or its deadline passed: grpcio cancels the handler either way."""
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
        tell_end, self._tell_end = self._tell_end, None  # it knows this call: a ring, unless it is opened here
        if tell_end is not None:
            tell_end(status)


Observer = Callable[[Call], Callable[[Status], None]]
"""Told of each call when it begins; what it returns is told, once, how the call ended. Neither may raise or block."""


class Tally(Protocol):
    """Counts calls of which nobody needs to see more."""

    def began(self, count: int) -> None:
        """So many calls are under way."""
        ...

    def ended(self, path: str, code: Code, took_s: Sequence[float]) -> None:
        """Some of one method are over, each after so many seconds."""
        ...

    def forget(self) -> None:
        """It will be seen as a whole after all."""
        ...


@runtime_checkable
class TallyingObserver(Protocol):
    """An observer that may do with less than whole calls."""

    @property
    def tally(self) -> Tally | None:
        """What it does with; None if it must see calls as a whole."""
        ...


CheckAccess = Callable[[Method, Access, CallContext], None]
"""Asked before each call whether its caller has the right; raises a `service.errors.ServiceError` if not."""


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
    call.succeeded()
    return answer


def begin_unary(
    method: Begun,
    data: bytes,
    context: CallContext,
    reply: Callable[[bytes | Status], Status | None],
    observer: Observer | None = None,
    check_access: CheckAccess | None = None,
) -> Callable[[], None] | None:
    """Start a unary call; ``reply`` gets the answer or the status, now or later, and returns the status that the caller
    is told instead of the answer, if any.

    Returns what cancels it, after which ``reply`` is not called; None if it is over already.
    """
    call = Call(method, context, observer, check_access)
    fields = None

    def done(response: Any) -> bool:  # noqa: ANN401 - the row's message type, or an exception
        # No task, no context of its own: what is logged from here on is about this call.
        call_fields.set(fields)
        if isinstance(response, Exception):
            reply(call.failed(response).status)
            return False
        try:
            call.response = response
            refusal = reply(method.serialize(response))
        except Exception as error:  # noqa: BLE001 - a defect; whoever called back must go on
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
    call.succeeded()


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
    call.succeeded()


def _parse(method: Method, data: bytes) -> Any:  # noqa: ANN401 - the row's message type
    try:
        return method.parse(data)
    except DecodeError as error:
        raise InvalidRequest(
            f"the request for {method.path} cannot be parsed: {len(data)} bytes of another message"
        ) from error
