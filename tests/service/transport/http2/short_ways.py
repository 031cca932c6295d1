"""Methods that are run on the shorter ways of the table: echoes without a task, in the next tick of the loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from service.errors import InvalidRequest

if TYPE_CHECKING:
    from service.rpc.methods import CallContext, Replies, Responder
    from tests.service.transport.http2.host import Handlers

ROOM = 2
"""Messages of an opened chat that may be under way."""


class OpenedChat:
    """A `service.rpc.methods.OpenStream` that says what it hears; "fail" fails it."""

    def __init__(self, handlers: Handlers, context: CallContext, replies: Replies, *, is_defect: bool = False) -> None:
        self._handlers = handlers
        self._replies = replies
        self._waiting: list[bytes] = []
        self._is_defect = is_defect
        self._has_ended = False
        self._is_over = False
        self._due: asyncio.Handle | None = None
        self.has_room = True
        handlers.started += 1
        handlers.running += 1

    def take(self, message: bytes) -> None:
        if not self.has_room:
            raise AssertionError("a message for which there is no room")
        if self._is_defect:
            self._leave()
            raise ValueError("a defect")
        self._waiting.append(message)
        self.has_room = len(self._waiting) < ROOM
        self._hurry()

    def end(self, error: Exception | None = None) -> None:
        self._has_ended = True
        self.has_room = False
        self._hurry()

    def resume(self) -> None:
        self._hurry()

    def cancel(self) -> None:
        self._leave()
        self._handlers.cancelled += 1

    def _hurry(self) -> None:
        if self._due is None and not self._is_over:
            self._due = asyncio.get_running_loop().call_soon(self._answer)

    def _answer(self) -> None:
        self._due = None
        if self._replies.is_full:
            return
        messages, self._waiting = self._waiting, []
        if b"fail" in messages:
            self._leave()
            self._replies.end(InvalidRequest("enough"))
            return
        self._handlers.yielded += len(messages)
        self._replies.send(messages)
        self._replies.flush()
        if self._has_ended:
            self._leave()
            self._replies.end()
        elif not self.has_room:
            self.has_room = True
            self._replies.more()

    def _leave(self) -> None:
        self._is_over = True
        self.has_room = False
        self._handlers.running -= 1
        if self._due is not None:
            self._due.cancel()


class Lane:
    """An express lane that answers in the next tick, all at once; "later" it does not take, "again" it retries."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers
        self._waiting: dict[_Entered, None] = {}

    def enter(self, message: bytes, remaining_s: float | None, responder: Responder) -> _Entered | None:
        if message == b"later":
            return None
        entered = _Entered(self, message, responder)
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._run)
        self._waiting[entered] = None
        self._handlers.running += 1
        return entered

    def cancel(self, entered: _Entered) -> None:
        if entered in self._waiting:
            del self._waiting[entered]
            self._handlers.running -= 1
            self._handlers.cancelled += 1

    def _run(self) -> None:
        waiting, self._waiting = list(self._waiting), {}
        self._handlers.running -= len(waiting)
        answers = [(each.responder, each.message) for each in waiting if each.message != b"again"]
        if answers:
            answers[0][0].answer_all(answers)
        for each in waiting:
            if each.message == b"again":
                each.responder.retry()


class _Entered:
    def __init__(self, lane: Lane, message: bytes, responder: Responder) -> None:
        self._lane = lane
        self.message = message
        self.responder = responder

    def cancel(self) -> None:
        self._lane.cancel(self)
