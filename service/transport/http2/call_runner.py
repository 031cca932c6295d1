"""Runs the method table's handlers for streams: the engine's side of `service.rpc.calls`."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from service.errors import Code, ServiceError, Status
from service.rpc.calls import (
    CallFailed,
    TallyingObserver,
    begin_unary,
    call_bidi,
    call_server_stream,
    call_unary,
    request_log,
)
from service.rpc.methods import Begun, Bidi, Opened, ServerStream, Unary
from service.transport.http2.request_streams import OpenedStream, RequestQueue
from service.wire.messages import MessageError
from service.wire.statuses import DEFECT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence

    from service.rpc.calls import CheckAccess, Observer, Tally
    from service.rpc.methods import Express
    from service.transport.http2.stream import Stream
    from service.wire.messages import Packed

_log = logging.getLogger(__name__)
_UNPACKINGS = 2
"""Long messages that are decompressed at a time; each may grow to the message limit."""


class CallRunner:
    """Runs the calls of one engine. Belongs to one event loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, observer: Observer | None, check_access: CheckAccess | None
    ) -> None:
        self._loop = loop
        self._observer = observer
        self._tally = _tally(observer)
        self._may_express = observer is None or self._tally is not None
        self._check_access = check_access
        # The loop itself holds only weak references to tasks.
        self._tasks: set[asyncio.Task[None]] = set()
        self._unpackings = asyncio.Semaphore(_UNPACKINGS)

    def begin(self, stream: Stream) -> None:
        """Take a call whose header fields have arrived; start it if its method takes a stream of requests."""
        method = stream.head.method
        if isinstance(method, Opened):
            opened = OpenedStream(stream, method, self._observer, self._check_access)
            stream.requests = stream.opened = opened
            opened.begin()
        elif isinstance(method, Bidi):
            stream.requests = requests = RequestQueue(stream)
            answers = call_bidi(method, requests, stream, self._observer, self._check_access)
            self._start(stream, self._stream(stream, answers))

    def run(self, stream: Stream, message: bytes) -> None:
        """Run a call whose only request has arrived."""
        enter = self.express(stream)
        if enter is None or not self._enter(enter, stream, message):
            self.run_generally(stream, message)

    def run_packed(self, stream: Stream, packed: Packed) -> None:
        """Run a call whose only request is a long compressed message."""
        self._start(stream, self._run_packed(stream, packed))

    async def _run_packed(self, stream: Stream, packed: Packed) -> None:
        try:
            message = await self.unpacked(packed)
        except MessageError as error:
            # The task is about to end: `fail` must not cancel it.
            stream.cancel_run = None
            stream.fail(error.status)
            return
        stream.cancel_run = None
        self.run(stream, message)

    async def unpacked(self, packed: Packed) -> bytes:
        """Decompress a long message in a thread, so that other calls do not wait. Raises MessageError."""
        async with self._unpackings:
            return await asyncio.to_thread(packed.unpack)

    def spawn(self, run: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Start a task for a call; it is kept alive here, and its unexpected errors are logged."""
        task = self._loop.create_task(run)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def run_generally(self, stream: Stream, message: bytes) -> None:
        """Run a call that is not on the express lane."""
        method = stream.head.method
        if isinstance(method, Begun):
            self._begin(stream, method, message)
        elif isinstance(method, Unary):
            self._start(stream, self._unary(stream, method, message))
        elif isinstance(method, ServerStream):
            answers = call_server_stream(method, message, stream, self._observer, self._check_access)
            self._start(stream, self._stream(stream, answers))
        else:
            raise TypeError(f"{method}: unknown kind of method")

    def express(self, stream: Stream) -> Express | None:
        """The method's express function, or None if the call may not use it. The answer also holds for calls with the
        same head that its connection begins in the same go.
        """
        method = stream.head.method
        if (
            not isinstance(method, Begun)
            or method.express is None
            or not self._may_express
            or request_log.isEnabledFor(logging.DEBUG)
        ):
            return None
        try:
            if self._check_access is not None:
                self._check_access(method, method.access, stream)
        except ServiceError:
            return None  # the general way reports it
        return method.express

    def _enter(self, enter: Express, stream: Stream, message: bytes) -> bool:
        stream.asked, stream.began_s = message, time.perf_counter()
        stream.entered = enter(message, stream.time_remaining_s(), stream)
        if stream.entered is None:
            stream.asked = None
            return False
        self.express_began(1)
        return True

    def express_began(self, count: int) -> None:
        """Tell the tally that ``count`` calls began on the express lane."""
        if self._tally is not None:
            self._tally.began(count)

    def express_ended(self, path: str, code: Code, took_s: Sequence[float]) -> None:
        """Tell the tally that express calls of one method ended; ``took_s`` has the seconds that each took."""
        if self._tally is not None and took_s:
            self._tally.ended(path, code, took_s)

    def leave_express(self, stream: Stream) -> None:
        """Run a call of the express lane in the general way instead."""
        message = stream.asked
        stream.entered = stream.asked = None
        if self._tally is not None:
            self._tally.forget()
        if message is not None:
            self.run_generally(stream, message)

    def cancel_express(self, stream: Stream) -> None:
        """Cancel a call of the express lane: its caller has gone or its deadline has passed."""
        entered, stream.entered, stream.asked = stream.entered, None, None
        if entered is not None:
            entered.cancel()
        remaining_s = stream.time_remaining_s()
        is_late = remaining_s is not None and remaining_s <= 0
        code = Code.DEADLINE_EXCEEDED if is_late else Code.CANCELLED
        self.express_ended(stream.path, code, (time.perf_counter() - stream.began_s,))

    def _begin(self, stream: Stream, method: Begun, message: bytes) -> None:
        """Run a call by callbacks, without a task or a future."""

        is_done = False

        def done(answer: bytes | Status) -> Status | None:
            nonlocal is_done
            is_done = True
            stream.cancel_run = None
            if not isinstance(answer, Status):
                return stream.respond(answer)
            stream.fail(answer)
            return answer

        cancel = begin_unary(method, message, stream, done, self._observer, self._check_access)
        # `done` may have been called already while the response waits for the peer's windows: nothing to cancel then.
        if cancel is not None and not is_done:
            stream.cancel_run = cancel

    def _start(self, stream: Stream, run: Coroutine[None, None, None]) -> None:
        stream.cancel_run = self.spawn(run).cancel

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
            stream.fail(DEFECT)
            raise
        else:
            stream.cancel_run = None
            stream.respond(answer)
            return
        # The task is about to end: `fail` must not cancel it.
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
            stream.fail(DEFECT)
            raise
        stream.cancel_run = None
        if status is None:
            stream.finish()
        else:
            stream.fail(status)


def _tally(observer: object) -> Tally | None:
    return observer.tally if isinstance(observer, TallyingObserver) else None
