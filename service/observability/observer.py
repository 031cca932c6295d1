"""What happens around each call: its duration is counted, it is traced, and what is logged meanwhile gets its ids."""

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
"""Characters of an id that are logged."""


class CallObserver:
    """A `service.rpc.calls.Observer` and a `service.rpc.calls.TallyingObserver`."""

    def __init__(self, durations: CallDurations, tracing: Tracing | None = None) -> None:
        self._durations = durations
        self._tracing = tracing

    def __call__(self, call: Call) -> Callable[[Status], None]:
        """The call begins."""
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
        """Enough as long as nobody asks for spans."""
        return self._durations if self._tracing is None else None


def ids_of(call: Call, traced: TracedCall | None) -> Mapping[str, object]:
    """By what a call can be found again: the caller's ids for it, and its place in a trace."""
    fields: dict[str, object] = {}
    metadata = call.context.metadata
    request_id = next((value for key, value in metadata if key == REQUEST_ID), "")
    if request_id and isinstance(request_id, str):
        fields["request_id"] = request_id[:_LONGEST_ID]
    message_id = call.described().get("id")
    if message_id:
        fields["id"] = message_id[:_LONGEST_ID]
    # Where nothing is traced here, the caller's span is the nearest one there is.
    trace = traced.context if traced is not None else trace_context.from_metadata(metadata)
    if trace is not None:
        fields["trace_id"], fields["span_id"] = trace.trace_id, trace.span_id
    return fields
