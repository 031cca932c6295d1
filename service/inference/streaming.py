"""Many inferences on one stream: read ahead, run at the same time, answer in order.

An error is answered in its place in the stream and the stream goes on; with ``triton_grpc_error: true`` in the caller's
metadata the first error ends the stream with its status instead, as Triton does.
"""

from __future__ import annotations

import contextvars
import logging
from collections import deque
from typing import TYPE_CHECKING

from service.errors import ServerStopping, ServiceError, release, status_of
from service.logs import context_with
from service.pb import open_inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.inference.general import Done
    from service.inference.request import ReadRequest
    from service.rpc.methods import CallContext, Entered, Express, Replies

    Begin = Callable[[ReadRequest, CallContext, Done], Callable[[], None]]

_log = logging.getLogger(__name__)

READ_AHEAD = 64
"""Requests of one stream that may be under way; the next is taken when the oldest is answered."""
_AT_ONCE_BYTES = 16 * 1024
"""Bytes of answers that are sent without checking whether the client reads them."""
GRPC_ERRORS = "triton_grpc_error"
FINAL_RESPONSE = "triton_final_response"


class _Place:
    """One request's place in the order of the answers; a `service.rpc.methods.Responder`."""

    __slots__ = ("_data", "_line", "_message", "cancel", "entered", "outcome")

    def __init__(self, line: InferenceStream, data: bytes) -> None:
        self._line = line
        self._data = data
        self._message: pb.ModelInferRequest | None = None
        self.outcome: pb.ModelInferResponse | bytes | Exception | None = None
        """The answer or the exception; None until there is one."""
        self.entered: Entered | None = None
        """The call on the express lane, if the request took it."""
        self.cancel: Callable[[], None] | None = None
        """Cancels the inference, if the request took the general path."""

    @staticmethod
    def answer_all(answers: Sequence[tuple[_Place, bytes]]) -> list[_Place]:
        """Send each answer when its turn has come. Never raises; returns the places whose stream failed."""
        lines: dict[InferenceStream, None] = {}
        for place, message in answers:
            place.outcome = message
            place.entered = None
            lines[place._line] = None
        failed = {line for line in lines if not line.proceed()}
        for line in lines:
            line.flush()
        return [place for place, _ in answers if place._line in failed] if failed else []

    def retry(self) -> None:
        """Run the request on the general path."""
        self.entered = None
        try:
            request = self._line.read(self._data)
            self._message = request.message
        except Exception as error:  # noqa: BLE001 - a request that cannot be parsed ends the stream
            self._line.break_off(self, error)
            return
        try:
            if request.id:
                self.cancel = context_with(id=request.id).run(self._line.begin, request, self._settle)
            else:
                self.cancel = self._line.begin(request, self._settle)
        except Exception as error:  # noqa: BLE001 - every error is answered in its place
            self._settle(error)

    def _settle(self, outcome: pb.ModelInferResponse | Exception) -> bool:
        self.outcome = outcome
        self.cancel = None
        return self._line.proceed()

    def stop(self) -> None:
        """Cancel the request: the caller does not want the answer any more."""
        entered, cancel, self.entered, self.cancel = self.entered, self.cancel, None, None
        if entered is not None:
            entered.cancel()
        if cancel is not None:
            cancel()

    def response(self) -> bytes:
        """The serialized response or error message of this place."""
        outcome = self.outcome
        if isinstance(outcome, bytes):
            return outcome
        if isinstance(outcome, Exception):
            return _in_band(self._message or pb.ModelInferRequest(), outcome).SerializeToString()
        response = outcome if outcome is not None else pb.ModelInferResponse()
        response.parameters[FINAL_RESPONSE].bool_param = True
        return pb.ModelStreamInferResponse(infer_response=response).SerializeToString()


class InferenceStream:
    """One open stream and its running requests, oldest first; a `service.rpc.methods.OpenStream`."""

    def __init__(
        self,
        context: CallContext,
        replies: Replies,
        *,
        read: Callable[[bytes], ReadRequest],
        begin: Begin,
        express: Express | None = None,
    ) -> None:
        """``begin`` starts an inference on the general path; ``express`` is tried first."""
        self._context = context
        self._replies = replies
        self._begin = begin
        self._express = express
        self.read = read
        """Wraps the bytes of a request."""
        # Later calls come from other contexts, whose log fields do not describe this call.
        self._about = contextvars.copy_context()
        self._has_deadline = context.time_remaining_s() is not None
        self._wants_grpc_errors = any(
            key == GRPC_ERRORS and value in ("true", b"true") for key, value in context.metadata
        )
        self._places: deque[_Place] = deque()
        self._has_ended = False
        self._error: Exception | None = None
        self._is_over = False
        self.has_room = True
        """Whether the stream takes another request now."""

    def take(self, message: bytes) -> None:
        """Start the next request."""
        place = _Place(self, message)
        self._places.append(place)
        if len(self._places) >= READ_AHEAD:
            self.has_room = False
        if self._express is not None:
            remaining_s = self._context.time_remaining_s() if self._has_deadline else None
            place.entered = self._express(message, remaining_s, place)
            if place.entered is not None:
                return
        self._about.copy().run(place.retry)

    def end(self, error: Exception | None = None) -> None:
        """End the requests, because of ``error`` if given; those that were taken are still answered."""
        self._has_ended, self._error = True, error
        self.has_room = False
        self.proceed()

    def resume(self) -> None:
        """Go on sending answers: the client reads again."""
        self.proceed()
        self.flush()

    def cancel(self) -> None:
        """Cancel all requests: the caller does not want the answers any more."""
        self._is_over, self.has_room = True, False
        places, self._places = self._places, deque()
        for place in places:
            place.stop()

    # ---- for its places ------------------------------------------------------------------------------------------

    def begin(self, request: ReadRequest, done: Done) -> Callable[[], None]:
        """Start an inference on the general path; returns the function that cancels it."""
        return self._begin(request, self._context, done)

    def break_off(self, place: _Place, error: Exception) -> None:
        """End the stream with ``error``, for a request that cannot be read, once the earlier ones are answered."""
        self._places.remove(place)
        self.end(error)

    def proceed(self) -> bool:
        """Send the answers whose turn it is; then end the stream or ask for more requests where that follows. Never
        raises; returns False if the stream failed.
        """
        try:
            self._proceed()
        except Exception as error:  # noqa: BLE001 - a defect, which fails this stream alone
            self._end(error)
            return False
        return True

    def _proceed(self) -> None:
        if self._is_over:
            return
        places, messages, size = self._places, list[bytes](), 0
        while places and places[0].outcome is not None and not self._replies.is_full:
            place = places.popleft()
            outcome = place.outcome
            if isinstance(outcome, Exception) and (self._wants_grpc_errors or isinstance(outcome, ServerStopping)):
                self._replies.send(messages)
                self._end(outcome)
                return
            message = outcome if isinstance(outcome, bytes) else place.response()
            messages.append(message)
            size += len(message)
            if size > _AT_ONCE_BYTES:
                self._replies.send(messages)
                messages, size = [], 0
        if messages:
            self._replies.send(messages)
        if self._has_ended:
            if not places:
                self._end(self._error)
        elif not self.has_room and len(places) < READ_AHEAD:
            self.has_room = True
            self._replies.more()

    def flush(self) -> None:
        """Flush the replies that were sent."""
        self._replies.flush()

    def _end(self, error: Exception | None) -> None:
        self.cancel()
        self._replies.end(error)


def _in_band(request: pb.ModelInferRequest, error: Exception) -> pb.ModelStreamInferResponse:
    status = status_of(error)
    if not isinstance(error, ServiceError):
        _log.error("unexpected error", extra={"model": request.model_name, "id": request.id}, exc_info=error)
    release(error)
    return pb.ModelStreamInferResponse(
        error_message=status.message,
        infer_response=pb.ModelInferResponse(model_name=request.model_name, id=request.id),
    )
