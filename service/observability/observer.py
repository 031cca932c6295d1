"""Observes each call: records its duration, traces it, and adds its ids to the lines that are logged during it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service import logs
from service.observability import trace_context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from service.errors import Status
    from service.observability.calls import CallDurations
    from service.observability.tracing import TracedCall, Tracing
    from service.rpc.calls import Call, Tally

REQUEST_ID = "x-request-id"
_LONGEST_ID = 128
"""Most characters of an id that are logged."""


class CallObserver:
    """Observes calls: a `service.rpc.calls.Observer` and a `service.rpc.calls.TallyingObserver`."""

    def __init__(self, durations: CallDurations, tracing: Tracing | None = None) -> None:
        self._durations = durations
        self._tracing = tracing

    def __call__(self, call: Call) -> Callable[[Status], None]:
        """Record the begin of a call; return the function that records its end."""
        self._durations.began()
        traced = self._tracing.start(call) if self._tracing is not None else None
        logs.call_fields.set(lambda: ids_of(call, traced))

        def ended(status: Status) -> None:
            self._durations.ended(call.method.path, status.code, (call.took_s,))
            if traced is not None:
                traced.end(call, status)
            logs.call_fields.set(None)

        return ended

    @property
    def tally(self) -> Tally | None:
        """The counter of durations, which is enough without tracing; None with tracing."""
        return self._durations if self._tracing is None else None


def ids_of(call: Call, traced: TracedCall | None) -> Mapping[str, object]:
    """Log fields that identify a call: the caller's ids for it, and its trace and span."""
    fields: dict[str, object] = {}
    metadata = call.context.metadata
    request_id = next((value for key, value in metadata if key == REQUEST_ID), "")
    if request_id and isinstance(request_id, str):
        fields["request_id"] = request_id[:_LONGEST_ID]
    message_id = call.described().get("id")
    if message_id:
        fields["id"] = message_id[:_LONGEST_ID]
    # If this call is not traced, use the caller's span.
    trace = traced.context if traced is not None else trace_context.from_metadata(metadata)
    if trace is not None:
        fields["trace_id"], fields["span_id"] = trace.trace_id, trace.span_id
    return fields
