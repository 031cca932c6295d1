"""Adapts methods that work by callbacks to coroutines and async generators, for engines that need those."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

from service.rpc.methods import Begun, Bidi, Method, Opened, Unary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from service.rpc.methods import Begin, CallContext, Open, OpenStream


def awaitable(method: Method) -> Method:
    """Convert a method that works by callbacks into one with a ``handler``; return other methods unchanged."""
    common = {field.name: getattr(method, field.name) for field in fields(Method)}
    if isinstance(method, Begun):
        return Unary(**common, handler=partial(answer, method.begin))
    if isinstance(method, Opened):
        return Bidi(**common, handler=partial(answers, method.open))
    return method


async def answer(begin: Begin, request: Any, context: CallContext) -> Any:  # noqa: ANN401 - the row's messages
    """Run a `Begin` function and return its response; raises the exception that failed the call."""
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    cancel = begin(request, context, partial(_settle, done))
    try:
        return await done
    finally:
        cancel()
        del done  # an exception holds this frame, and the future holds the exception


def _settle(done: asyncio.Future[Any], response: Any) -> bool:  # noqa: ANN401 - the row's message, or an exception
    if done.done():
        return False
    if isinstance(response, Exception):
        done.set_exception(response)
        return False
    done.set_result(response)
    return True


class _Held:
    """A `service.rpc.methods.Replies` that holds responses until the generator yields them."""

    def __init__(self) -> None:
        self.messages: deque[bytes] = deque()
        self.has_ended = False
        self.error: Exception | None = None
        self.news = asyncio.Event()
        self.room = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether a response waits to be yielded."""
        return bool(self.messages)

    def send(self, messages: Sequence[bytes]) -> None:
        """Queue responses."""
        self.messages += messages
        self.news.set()

    def flush(self) -> None:
        """Do nothing: responses go out when they are yielded."""

    def more(self) -> None:
        """Let `_feed` pass on requests again."""
        self.room.set()

    def end(self, error: Exception | None = None) -> None:
        """Note the end of the responses, or the error that ended them."""
        self.has_ended, self.error = True, error
        self.news.set()


async def answers(open_: Open, requests: AsyncIterator[bytes], context: CallContext) -> AsyncIterator[bytes]:
    """Run an `Open` function and yield its responses; raises its error. A task passes it the requests."""
    replies = _Held()
    stream = open_(context, replies)
    feeding = asyncio.create_task(_feed(stream, requests, replies.room))
    try:
        while True:
            while replies.messages:
                yield replies.messages.popleft()
                if not replies.messages:
                    stream.resume()
            if replies.has_ended:
                break
            await replies.news.wait()
            replies.news.clear()
    finally:
        feeding.cancel()
        if not replies.has_ended:
            stream.cancel()
    error, replies.error = replies.error, None
    if error is not None:
        try:
            raise error
        finally:
            del error  # break the reference cycle: the error holds this frame


async def _feed(stream: OpenStream, requests: AsyncIterator[bytes], room: asyncio.Event) -> None:
    try:
        async for request in requests:
            while not stream.has_room:
                room.clear()
                await room.wait()
            stream.take(request)
    except Exception as error:  # noqa: BLE001 - `answers` raises it after the responses before it
        stream.end(error)
    else:
        stream.end()
