"""Runs the method table's handlers for streams: the engine's side of `service.transport.calls`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from service.errors import Code, ServiceError, Status
from service.transport.calls import (
    CallFailed,
    TallyingObserver,
    begin_unary,
    call_bidi_stream,
    call_server_stream,
    call_unary,
    request_log,
)
from service.transport.http2.express_run import ExpressRun
from service.transport.http2.request_queue import RequestQueue
from service.transport.methods import BidiStream, ServerStream, Unary

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Coroutine

    from service.transport.calls import CheckAccess, Observer, Tally
    from service.transport.http2.stream import Stream
    from service.transport.methods import Express

_log = logging.getLogger(__name__)
_DEFECT = Status(Code.INTERNAL, "internal error")


class CallRunner:
    """See above. Belongs to one event loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, observer: Observer | None, check_access: CheckAccess | None
    ) -> None:
        self._loop = loop
        self._observer = observer
        self._tally = _tally(observer)
        self._may_express = observer is None or self._tally is not None
        self._check_access = check_access
        # The loop itself holds tasks weakly.
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, stream: Stream) -> None:
        """A call's header fields are here. One with a stream of requests starts now."""
        method = stream.head.method
        if isinstance(method, BidiStream):
            stream.requests = requests = RequestQueue(stream)
            answers = call_bidi_stream(method, requests, stream, self._observer, self._check_access)
            self._start(stream, self._stream(stream, answers))

    def run(self, stream: Stream, message: bytes) -> None:
        """Its only request is here."""
        method = stream.head.method
        if isinstance(method, Unary):
            if method.express is None or not self._express(stream, method, method.express, message):
                self._run_unary(stream, method, message)
        elif isinstance(method, ServerStream):
            answers = call_server_stream(method, message, stream, self._observer, self._check_access)
            self._start(stream, self._stream(stream, answers))
        else:
            raise TypeError(f"{method}: unknown kind of method")

    def _express(self, stream: Stream, method: Unary, enter: Express, message: bytes) -> bool:
        """The shortest way, if the call can go it."""
        if not self._may_express or request_log.isEnabledFor(logging.DEBUG):
            return False
        try:
            if self._check_access is not None:
                self._check_access(method, method.access, stream)
        except ServiceError:
            return False  # which is told the general way
        run = ExpressRun(stream, method, message, self._tally, self._run_unary)
        run.cancel_run = enter(message, stream.time_remaining_s(), run)
        if run.cancel_run is None:
            return False
        if self._tally is not None:
            self._tally.began()
        stream.cancel_run = run.cancel
        return True

    def _run_unary(self, stream: Stream, method: Unary, message: bytes) -> None:
        if method.begin is not None:
            self._begin(stream, method, message)
        else:
            self._start(stream, self._unary(stream, method, message))

    def _begin(self, stream: Stream, method: Unary, message: bytes) -> None:
        """The short way: no task, no future."""

        is_done = False

        def done(answer: bytes | Status) -> None:
            nonlocal is_done
            is_done = True
            stream.cancel_run = None
            if isinstance(answer, Status):
                stream.fail(answer)
            else:
                stream.respond(answer)

        cancel = begin_unary(method, message, stream, done, self._observer, self._check_access)
        # Done at once it may be, and yet wait for the peer's windows: then there is nothing to cancel any more.
        if cancel is not None and not is_done:
            stream.cancel_run = cancel

    def _start(self, stream: Stream, run: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(run)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        stream.cancel_run = task.cancel

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("unexpected error while a call was run", exc_info=task.exception())

    async def _unary(self, stream: Stream, method: Unary, message: bytes) -> None:
        try:
            answer = await call_unary(method, message, stream, self._observer, self._check_access)
        except CallFailed as failure:
            status = failure.status
        except Exception:
            stream.fail(_DEFECT)
            raise
        else:
            stream.cancel_run = None
            stream.respond(answer)
            return
        # The task is at its end: it must not be cancelled for having failed.
        stream.cancel_run = None
        stream.fail(status)

    async def _stream(self, stream: Stream, answers: AsyncIterator[bytes]) -> None:
        status = None
        try:
            async for answer in answers:
                await stream.send(answer)
        except CallFailed as failure:
            status = failure.status
        except Exception:
            stream.fail(_DEFECT)
            raise
        stream.cancel_run = None
        if status is None:
            stream.finish()
        else:
            stream.fail(status)


def _tally(observer: object) -> Tally | None:
    return observer.tally if isinstance(observer, TallyingObserver) else None
