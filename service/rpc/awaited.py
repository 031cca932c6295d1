"""An opened stream as an async generator, for engines that wait: a task feeds it, the generator has its answers."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from service.rpc.methods import CallContext, Open, OpenStream


class _Held:
    """A `service.rpc.methods.Replies`: holds responses until they are asked for."""

    def __init__(self) -> None:
        self.messages: deque[bytes] = deque()
        self.has_ended = False
        self.error: Exception | None = None
        self.news = asyncio.Event()
        self.room = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether there is something that nobody has asked for yet."""
        return bool(self.messages)

    def send(self, messages: Sequence[bytes]) -> None:
        """Responses."""
        self.messages += messages
        self.news.set()

    def flush(self) -> None:
        """They go when they are asked for."""

    def more(self) -> None:
        """Requests are taken again."""
        self.room.set()

    def end(self, error: Exception | None = None) -> None:
        """The last response was sent."""
        self.has_ended, self.error = True, error
        self.news.set()


async def awaited(open_: Open, requests: AsyncIterator[bytes], context: CallContext) -> AsyncIterator[bytes]:
    """The responses of a stream; raises what ends it."""
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
            del error  # which holds this frame


async def _feed(stream: OpenStream, requests: AsyncIterator[bytes], room: asyncio.Event) -> None:
    try:
        async for request in requests:
            while not stream.has_room:
                room.clear()
                await room.wait()
            stream.take(request)
    except Exception as error:  # noqa: BLE001 - it is raised after the answers before it
        stream.end(error)
    else:
        stream.end()
