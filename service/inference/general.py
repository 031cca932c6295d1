"""The general path of one inference, from a parsed request to its response, with its statistics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from service.errors import DeadlineExceeded, InferenceFailed, QueueFull, QueueTimeout
from service.inference import parameters, tensors
from service.runtime.batch import ARRAYS
from service.runtime.batcher import DEFAULT_PRIORITY, Patience
from service.runtime.statistics import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from service.inference.admission import Admission
    from service.inference.tensors import DecodedRequest
    from service.pb.open_inference_pb2 import ModelInferRequest, ModelInferResponse
    from service.rpc.methods import CallContext
    from service.runtime.batch import Answer, Question
    from service.runtime.runner import Runner
    from service.runtime.statistics import Timing

    Done = Callable[["ModelInferResponse | Exception"], bool]


class Inference:
    """One inference on the general path; it counts as running from `begin` until it is answered or cancelled."""

    __slots__ = (
        "_admission",
        "_asked",
        "_began_ns",
        "_decoded_ns",
        "_done",
        "_labels",
        "_request",
        "_rows",
        "_waiting",
        "model",
    )

    def __init__(self, admission: Admission, model: Runner, done: Done) -> None:
        """``done`` is called with the response or the exception, unless the inference is cancelled."""
        self._admission = admission
        self.model = model
        self._done: Done | None = done
        self._began_ns = time.perf_counter_ns()
        self._decoded_ns = 0
        self._rows = 0
        self._waiting: Question | None = None
        self._asked: DecodedRequest | None = None
        self._request: ModelInferRequest | None = None
        self._labels: Mapping[str, Sequence[str]] = {}

    def begin(
        self,
        request: ModelInferRequest,
        labels: Mapping[str, Sequence[str]],
        context: CallContext,
        *,
        allow_non_finite: bool,
    ) -> DecodedRequest:
        """Check, decode and queue a request; returns it decoded. Raises the exception if one of these steps fails.

        ``labels`` are the class labels of each output that has some.
        """
        model = self.model
        self._admission.begin()
        try:
            self._request, self._labels = request, labels
            asked = tensors.decode(request, model.inputs, model.outputs, allow_non_finite=allow_non_finite)
            self._asked = asked
            self._decoded_ns = time.perf_counter_ns()
            self._rows = model.rows_of(asked.feeds)
            patience = _patience(request, context, self._began_ns)
            outputs = tuple(spec.name for spec in asked.outputs)
            self._waiting = model.enqueue(ARRAYS, asked.feeds, outputs, self._rows, patience, self._answer)
        except BaseException as error:
            self._failed(error)
            raise
        return asked

    def cancel(self) -> None:
        """Withdraw the request: its place in the queue is free at once, and `done` is not called."""
        if self._done is None:
            return
        if self._waiting is not None:
            self._waiting.done = None
            self.model.batcher.withdraw(self._waiting)
        self._end()
        self.model.statistics.failed(Failure.CANCELED, time.perf_counter_ns() - self._began_ns)

    def _answer(self, outcome: Answer | Exception, timing: Timing) -> None:
        answered_ns = time.perf_counter_ns()
        response: ModelInferResponse | Exception
        if isinstance(outcome, Exception):
            response = outcome
        elif isinstance(outcome, bytes) or self._request is None or self._asked is None:
            response = TypeError("an answer of another form, or to no request")
        else:
            try:
                response = tensors.encode(self._request, self.model.version, self._asked, outcome, self._labels)
            except Exception as error:  # noqa: BLE001 - a defect, which is this caller's alone
                response = error
        self._tell(response, timing, answered_ns)

    def _tell(self, response: ModelInferResponse | Exception, timing: Timing, answered_ns: int) -> None:
        done = self._done
        if done is None:
            return
        if isinstance(response, Exception):
            self._failed(response)
            done(response)
            return
        self._end()
        is_answered = done(response)
        ended_ns = time.perf_counter_ns()
        if is_answered:
            timing.input_ns += self._decoded_ns - self._began_ns
            timing.output_ns += ended_ns - answered_ns
            self.model.statistics.succeeded(ended_ns - self._began_ns, timing, self._rows)
        else:
            self.model.statistics.failed(Failure.OTHER, ended_ns - self._began_ns)

    def _failed(self, error: BaseException) -> None:
        self._end()
        self.model.statistics.failed(_why(error), time.perf_counter_ns() - self._began_ns)

    def _end(self) -> None:
        self._done = None
        # Break the reference cycle with the queue's entry.
        self._waiting = None
        self._admission.end()


def _patience(request: ModelInferRequest, context: CallContext, began_ns: int) -> Patience:
    timeout_us, priority = 0, DEFAULT_PRIORITY
    if request.parameters:
        timeout_us = parameters.integer(request.parameters, "timeout", 0, low=0, high=2**63 - 1)
        priority = parameters.integer(request.parameters, "priority", 0, low=0, high=2**64 - 1)
    remaining_s = context.time_remaining_s()
    deadline_ns = None if remaining_s is None else began_ns + int(remaining_s * 1e9)
    return Patience(deadline_ns, timeout_us, priority)


def _why(error: BaseException) -> Failure:
    if isinstance(error, QueueFull | QueueTimeout | DeadlineExceeded):
        return Failure.REJECTED
    return Failure.BACKEND if isinstance(error, InferenceFailed) else Failure.OTHER
