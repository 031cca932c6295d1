"""OpenTelemetry spans: one for each call, with the caller's span as its parent. Imported only with ``--otel``.

Exporter, sampler, limits and resource are set by OpenTelemetry's environment variables (``OTEL_*``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from typing import TYPE_CHECKING

from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor

import models
from service.errors import Code
from service.observability import trace_context
from service.observability.trace_context import TraceContext

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from service.errors import Status
    from service.observability.trace_control import TraceControl
    from service.rpc.calls import Call

_log = logging.getLogger(__name__)

_NAME = "mnist1d-service"
_FLUSH_S = 3.0
"""Time to export the last spans when the server stops; an unreachable collector must not keep it from stopping."""
_INFERENCE = "/inference.GRPCInferenceService/"
_UNTRACED = frozenset({f"{_INFERENCE}ServerLive", f"{_INFERENCE}ServerReady"})
_UNTRACED_SERVICES = ("/grpc.health.", "/grpc.reflection.")
_FAULTS = frozenset(
    {Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED, Code.INTERNAL, Code.UNAVAILABLE, Code.DATA_LOSS}
)
"""Codes that OpenTelemetry's conventions count as errors of a server; the others are errors of the caller."""


class TracedCall:
    """The span of one call."""

    def __init__(self, span: Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.context = TraceContext(
            trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id), context.trace_flags.sampled
        )

    def end(self, call: Call, status: Status) -> None:
        """End the span with the call's status."""
        if self._span.is_recording():
            self._span.set_attributes(_model_of(call))
            self._span.set_attribute("rpc.grpc.status_code", int(status.code))
            if status.code in _FAULTS:
                self._span.set_status(trace.StatusCode.ERROR, f"{status.code.name}: {status.message}")
        self._span.end()


class Tracing:
    """Starts spans of calls, and exports the last ones at the end."""

    def __init__(self, provider: TracerProvider, control: TraceControl) -> None:
        self._provider = provider
        self._control = control
        self._tracer = provider.get_tracer(_NAME, models.__version__)

    def start(self, call: Call) -> TracedCall | None:
        """Start the span of a call; return None if it is not traced."""
        path = call.method.path
        if path in _UNTRACED or path.startswith(_UNTRACED_SERVICES):
            return None
        metadata = call.context.metadata
        carrier = {key: value for key, value in metadata if isinstance(value, str)}
        if trace_context.from_metadata(metadata) is None:
            carrier.pop(trace_context.TRACEPARENT, None)
        parent = propagate.extract(carrier)
        has_parent = trace.get_current_span(parent).get_span_context().is_valid
        attributes = _model_of(call)
        if not self._control.wants(attributes.get("model.name", ""), has_parent=has_parent):
            return None
        _, service, method = path.split("/")
        span = self._tracer.start_span(
            f"{service}/{method}",
            context=parent,
            kind=trace.SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": method, **attributes},
            start_time=call.began_ns,
        )
        # With OTEL_SDK_DISABLED spans have no valid context.
        return TracedCall(span) if span.get_span_context().is_valid else None

    async def stop(self) -> None:
        """Export the remaining spans, for a few seconds at most."""
        # A daemon thread: Python would wait for another thread when the process ends, however long it takes.
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # The loop is closed: `stop` does not wait any more.
                loop.call_soon_threadsafe(stopped.set)

        threading.Thread(target=shut_down, name="tracing", daemon=True).start()
        try:
            await asyncio.wait_for(stopped.wait(), _FLUSH_S)
        except TimeoutError:
            _log.warning("the last spans could not be exported in time", extra={"timeout_s": _FLUSH_S})


def provider_from_environment() -> TracerProvider:
    """The provider configured by OpenTelemetry's environment variables. Default: OTLP over gRPC to localhost:4317."""
    resource = Resource.create({SERVICE_VERSION: models.__version__})
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: _NAME}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() or "otlp"
    if exporter not in ("otlp", "console", "none"):
        _log.warning("OTEL_TRACES_EXPORTER is unknown, otlp is used", extra={"value": exporter})
    protocol = os.environ.get(
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    )
    if exporter not in ("console", "none") and protocol != "grpc":
        _log.warning("spans are exported with OTLP over gRPC only", extra={"OTEL_EXPORTER_OTLP_PROTOCOL": protocol})
    if exporter == "console":
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
    elif exporter != "none":
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _model_of(call: Call) -> dict[str, str]:
    described = call.described()
    names = {"model": "model.name", "version": "model.version", "id": "request.id"}
    return {name: described[key] for key, name in names.items() if described.get(key)}
