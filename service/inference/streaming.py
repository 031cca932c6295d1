"""Many inferences on one stream: read ahead, run at the same time, answer in order.

An error is told in its place in the stream and the stream goes on; with ``triton_grpc_error: true`` in the caller's
metadata the first error ends the stream with its status instead, as Triton does.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from service.errors import ServerStopping, ServiceError, release, status_of
from service.logs import context_with
from service.pb import open_inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from service.transport.methods import CallContext

    Infer = Callable[[pb.ModelInferRequest, CallContext], Coroutine[Any, Any, pb.ModelInferResponse]]

_log = logging.getLogger(__name__)

READ_AHEAD = 64
"""Requests of one stream that may be under way; the next is read when the oldest is answered."""
GRPC_ERRORS = "triton_grpc_error"
FINAL_RESPONSE = "triton_final_response"


async def stream(
    requests: AsyncIterator[pb.ModelInferRequest], context: CallContext, infer: Infer
) -> AsyncIterator[pb.ModelStreamInferResponse]:
    """One response for each request, in the order of the requests.

    Raises what ends the stream: the server stops, or an error where the caller asked for real ones.
    """
    wants_grpc_errors = any(key == GRPC_ERRORS and value in ("true", b"true") for key, value in context.metadata)
    under_way: asyncio.Queue[tuple[pb.ModelInferRequest, asyncio.Task[pb.ModelInferResponse]] | None] = asyncio.Queue(
        READ_AHEAD
    )

    async def read() -> None:
        try:
            async for request in requests:
                about = context_with(id=request.id)
                await under_way.put((request, asyncio.create_task(infer(request, context), context=about)))
        finally:
            # Without a place for the end the answers would never come to one: the queue is drained as they are given.
            await under_way.put(None)

    reader = asyncio.create_task(read())
    try:
        while (item := await under_way.get()) is not None:
            request, task = item
            try:
                response = await task
            except ServerStopping:
                raise
            except Exception as error:
                if wants_grpc_errors:
                    raise
                yield _in_band(request, error)
            else:
                response.parameters[FINAL_RESPONSE].bool_param = True
                yield pb.ModelStreamInferResponse(infer_response=response)
        await reader
    finally:
        reader.cancel()
        _cancel_all(under_way)


def _in_band(request: pb.ModelInferRequest, error: Exception) -> pb.ModelStreamInferResponse:
    status = status_of(error)
    if not isinstance(error, ServiceError):
        _log.error("unexpected error", extra={"model": request.model_name, "id": request.id}, exc_info=error)
    release(error)
    return pb.ModelStreamInferResponse(
        error_message=status.message,
        infer_response=pb.ModelInferResponse(model_name=request.model_name, id=request.id),
    )


def _cancel_all(
    under_way: asyncio.Queue[tuple[pb.ModelInferRequest, asyncio.Task[pb.ModelInferResponse]] | None],
) -> None:
    while not under_way.empty():
        item = under_way.get_nowait()
        if item is not None:
            item[1].cancel()
            # Nobody will ask for its exception any more.
            item[1].add_done_callback(lambda task: task.cancelled() or task.exception())
