"""Many inferences on one stream: read ahead, run at the same time, answer in order.

An error is told in its place in the stream and the stream goes on; with ``triton_grpc_error: true`` in the caller's
metadata the first error ends the stream with its status instead, as Triton does.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from service.errors import ServerStopping, ServiceError, release, status_of
from service.logs import context_with
from service.pb import open_inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from service.inference.inference import Done
    from service.inference.reading import ReadRequest
    from service.transport.methods import CallContext, Express

    Begin = Callable[[ReadRequest, CallContext, Done], Callable[[], None]]

_log = logging.getLogger(__name__)

READ_AHEAD = 64
"""Requests of one stream that may be under way; the next is read when the oldest is answered."""
GRPC_ERRORS = "triton_grpc_error"
FINAL_RESPONSE = "triton_final_response"


class _Place:
    """One request's place in the order of the answers; a `service.transport.methods.Responder`."""

    __slots__ = ("_begin", "_context", "_line", "cancel", "outcome", "request")

    def __init__(self, line: _Line, request: ReadRequest, context: CallContext, begin: Begin) -> None:
        self._line = line
        self._context = context
        self._begin = begin
        self.request = request
        self.outcome: pb.ModelInferResponse | bytes | Exception | None = None
        self.cancel: Callable[[], None] | None = None

    def settle(self, outcome: pb.ModelInferResponse | bytes | Exception) -> None:
        """The answer, or what failed it."""
        self.outcome = outcome
        self.cancel = None
        self._line.changed()

    def answer(self, message: bytes) -> None:
        """The answer as it travels."""
        self.settle(message)

    def flush(self) -> None:
        """The answers go when their turn has come."""

    def retry(self) -> None:
        """Run it the general way."""
        request = self.request
        try:
            if request.id:
                about = context_with(id=request.id)
                self.cancel = about.run(self._begin, request, self._context, self.settle)
            else:
                self.cancel = self._begin(request, self._context, self.settle)
        except Exception as error:  # noqa: BLE001 - it is told in its place, whatever it is
            self.settle(error)


class _Line:
    """The requests under way, oldest first, between the task that reads and the generator that answers."""

    def __init__(self) -> None:
        self.places: deque[_Place] = deque()
        self.has_ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    def changed(self) -> None:
        """Wake whoever answers, if there is something for it."""
        if self._waiter is not None and not self._waiter.done() and self.has_news:
            self._waiter.set_result(None)

    @property
    def has_news(self) -> bool:
        """Whether the oldest is answered, or none will come any more."""
        return (bool(self.places) and self.places[0].outcome is not None) or (self.has_ended and not self.places)

    async def wait(self) -> None:
        """Until there is news."""
        while not self.has_news:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    async def room(self) -> None:
        """Until another request may be under way."""
        while len(self.places) >= READ_AHEAD:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def take(self) -> _Place:
        """The oldest."""
        place = self.places.popleft()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        return place

    def cancel(self) -> None:
        """Nobody wants the answers any more."""
        for place in self.places:
            if place.cancel is not None:
                place.cancel()
        self.places.clear()


async def stream(
    requests: AsyncIterator[ReadRequest], context: CallContext, begin: Begin, express: Express | None = None
) -> AsyncIterator[pb.ModelStreamInferResponse | bytes]:
    """One response for each request, in the order of the requests; bytes are responses as they travel.

    ``begin`` starts an inference, see `service.inference.servicer`; ``express`` is asked first. Raises what ends the
    stream: the server stops, or an error where the caller asked for real ones.
    """
    wants_grpc_errors = any(key == GRPC_ERRORS and value in ("true", b"true") for key, value in context.metadata)
    line = _Line()

    async def read() -> None:
        try:
            async for request in requests:
                await line.room()
                place = _Place(line, request, context, begin)
                if express is not None:
                    place.cancel = express(request.data, context.time_remaining_s(), place)
                if place.cancel is None:
                    _ = request.message  # what cannot be parsed ends the stream
                    place.retry()
                line.places.append(place)
                line.changed()
        finally:
            line.has_ended = True
            line.changed()

    reader = asyncio.create_task(read())
    try:
        while True:
            await line.wait()
            if not line.places:
                break
            place = line.take()
            outcome = place.outcome
            if isinstance(outcome, Exception):
                if wants_grpc_errors or isinstance(outcome, ServerStopping):
                    raise outcome
                yield _in_band(place.request.message, outcome)
            elif isinstance(outcome, bytes):
                yield outcome
            elif outcome is not None:
                outcome.parameters[FINAL_RESPONSE].bool_param = True
                yield pb.ModelStreamInferResponse(infer_response=outcome)
        await reader
    finally:
        reader.cancel()
        line.cancel()


def _in_band(request: pb.ModelInferRequest, error: Exception) -> pb.ModelStreamInferResponse:
    status = status_of(error)
    if not isinstance(error, ServiceError):
        _log.error("unexpected error", extra={"model": request.model_name, "id": request.id}, exc_info=error)
    release(error)
    return pb.ModelStreamInferResponse(
        error_message=status.message,
        infer_response=pb.ModelInferResponse(model_name=request.model_name, id=request.id),
    )
