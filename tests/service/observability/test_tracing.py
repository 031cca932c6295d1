"""Spans as an exporter gets them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from service.client import InferenceClient
from service.observability import tracing
from service.pb import health_pb2
from service.pb import open_inference_pb2 as pb
from tests.conftest import publish_affine
from tests.processes import serve
from tests.service.conftest import affine_request

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = (("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "vendor=1"), ("authorization", "Bearer s3cret"))


@pytest.fixture
def spans(monkeypatch):
    exporter = InMemorySpanExporter()

    def provider():
        made = TracerProvider(shutdown_on_exit=False)
        made.add_span_processor(SimpleSpanProcessor(exporter))
        return made

    monkeypatch.setattr(tracing, "provider_from_environment", provider)
    return exporter.get_finished_spans


async def test_a_span_a_call_with_the_callers_as_its_parent(repository, serving, connect, spans) -> None:
    publish_affine(repository)
    request = affine_request()
    request.id = "call-1"
    before = time.time_ns()
    async with serving(repository, otel=True) as server, connect(server) as stubs:
        await stubs.inference.ModelInfer(request, metadata=CALLER)
    (span,) = spans()
    assert span.name == "inference.GRPCInferenceService/ModelInfer"
    assert span.kind is SpanKind.SERVER
    assert dict(span.attributes) == {
        "rpc.system": "grpc",
        "rpc.service": "inference.GRPCInferenceService",
        "rpc.method": "ModelInfer",
        "rpc.grpc.status_code": 0,
        "model.name": "affine",
        "model.version": "1",
        "request.id": "call-1",
    }
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == SPAN
    assert span.context.trace_state.get("vendor") == "1"
    assert span.status.status_code is StatusCode.UNSET
    assert before <= span.start_time < span.end_time <= time.time_ns()


@pytest.mark.parametrize("metadata", [(), (("traceparent", "00-rubbish-01"),)])
async def test_a_call_without_a_valid_parent_begins_a_trace(repository, serving, connect, spans, metadata) -> None:
    publish_affine(repository)
    async with serving(repository, otel=True) as server, connect(server) as stubs:
        await stubs.inference.ModelInfer(affine_request(), metadata=metadata)
    (span,) = spans()
    assert span.parent is None
    assert f"{span.context.trace_id:032x}" != TRACE


async def test_a_caller_that_does_not_sample_is_heeded(repository, serving, connect, spans) -> None:
    publish_affine(repository)
    async with serving(repository, otel=True) as server, connect(server) as stubs:
        await stubs.inference.ModelInfer(affine_request(), metadata=(("traceparent", f"00-{TRACE}-{SPAN}-00"),))
    assert spans() == ()


@pytest.mark.parametrize(
    ("request_", "code", "status"),
    [
        (affine_request(model="nope"), grpc.StatusCode.NOT_FOUND, StatusCode.UNSET),
        (affine_request(version="x"), grpc.StatusCode.INVALID_ARGUMENT, StatusCode.UNSET),
        (None, grpc.StatusCode.INTERNAL, StatusCode.ERROR),
    ],
)
async def test_faults_of_the_server_are_errors_and_those_of_the_caller_are_not(
    repository, serving, connect, spans, monkeypatch, request_, code, status
) -> None:
    publish_affine(repository)
    async with serving(repository, otel=True) as server, connect(server) as stubs:
        if request_ is None:
            monkeypatch.setattr(server.repository, "get", lambda *_: 1 / 0)
        with pytest.raises(grpc.aio.AioRpcError):
            await stubs.inference.ModelInfer(request_ or affine_request())
    (span,) = spans()
    assert span.attributes["rpc.grpc.status_code"] == code.value[0]
    assert span.status.status_code is status
    assert "division" not in str(span.status.description)


async def test_probes_are_not_traced_and_a_stream_is_one_span(repository, serving, connect, spans) -> None:
    publish_affine(repository)
    async with serving(repository, otel=True) as server, connect(server) as stubs:
        await stubs.inference.ServerLive(pb.ServerLiveRequest())
        await stubs.inference.ServerReady(pb.ServerReadyRequest())
        await stubs.health.Check(health_pb2.HealthCheckRequest())
        stream = stubs.inference.ModelStreamInfer(iter([affine_request(), affine_request()]))
        assert len([answer async for answer in stream]) == 2
        about = await stubs.inference.ServerMetadata(pb.ServerMetadataRequest())
        assert "trace" in about.extensions
    assert [span.attributes["rpc.method"] for span in spans()] == ["ModelStreamInfer", "ServerMetadata"]


async def test_trace_settings_are_obeyed(repository, serving, connect, spans) -> None:
    publish_affine(repository)
    value = pb.TraceSettingRequest.SettingValue
    async with serving(repository, otel=True) as server, connect(server) as stubs:
        for level, count in (("OFF", 0), ("TIMESTAMPS", 1)):
            request = pb.TraceSettingRequest(model_name="affine", settings={"trace_level": value(value=[level])})
            await stubs.inference.TraceSetting(request)
            await stubs.inference.ModelInfer(affine_request())
            traced = [span for span in spans() if span.attributes["rpc.method"] == "ModelInfer"]
            assert len(traced) == count


async def test_lines_of_the_log_name_the_servers_own_span(repository, serving, connect, spans, monkeypatch) -> None:
    from service import logs

    seen = []

    def get(*_):
        seen.append(logs.call_fields.get()())
        return 1 / 0

    publish_affine(repository)
    async with serving(repository, otel=True) as server, connect(server) as stubs:
        monkeypatch.setattr(server.repository, "get", get)
        with pytest.raises(grpc.aio.AioRpcError):
            await stubs.inference.ModelInfer(affine_request(), metadata=CALLER)
    (span,) = spans()
    assert seen == [{"trace_id": TRACE, "span_id": f"{span.context.span_id:016x}"}]


async def test_a_disabled_sdk_leaves_the_callers_trace_in_the_log(repository, serving, connect, monkeypatch) -> None:
    from service import logs

    seen = []
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    publish_affine(repository)
    async with serving(repository, otel=True) as server, connect(server) as stubs:
        real = server.repository.get
        monkeypatch.setattr(
            server.repository, "get", lambda *which: seen.append(logs.call_fields.get()()) or real(*which)
        )
        await stubs.inference.ModelInfer(affine_request())
        # Of another size, since a request like one before does not ask for its model again.
        await stubs.inference.ModelInfer(affine_request(batch=2), metadata=CALLER)
    assert seen == [{}, {"trace_id": TRACE, "span_id": SPAN}]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP collector that keeps what it gets."""

    def __init__(self) -> None:
        self.requests: list = []
        self.came = threading.Event()

    def Export(self, request, context):
        self.requests.append(request)
        self.came.set()
        return trace_service_pb2.ExportTraceServiceResponse()


def test_a_server_process_exports_to_a_collector_before_it_leaves(repository, tmp_path, monkeypatch) -> None:
    publish_affine(repository)
    collector = Collector()
    receiver = grpc.server(futures.ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, receiver)
    port = receiver.add_insecure_port("127.0.0.1:0")
    receiver.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    try:
        with serve(repository, tmp_path / "log", "--otel") as server:
            with InferenceClient(f"127.0.0.1:{server.port}") as client:
                client.infer("affine", {"x": np.ones((1, 3), np.float32)})
            # Long before the export's own schedule: what is left is sent when the server stops.
            assert server.stop() == 0
        assert collector.came.is_set()
    finally:
        receiver.stop(0)
    (resource,) = collector.requests[0].resource_spans
    attributes = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert attributes["service.name"] == "mnist1d-service"
    assert attributes["deployment.environment"] == "test"
    assert [span.name for scope in resource.scope_spans for span in scope.spans] == [
        "inference.GRPCInferenceService/ModelInfer"
    ]


def test_a_collector_that_is_away_keeps_nobody_from_leaving(repository, tmp_path, monkeypatch) -> None:
    publish_affine(repository)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    with serve(repository, tmp_path / "log", "--otel") as server:
        with InferenceClient(f"127.0.0.1:{server.port}") as client:
            client.infer("affine", {"x": np.ones((1, 3), np.float32)})
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 30
    # The exporter's own thread may write that it tries again after that.
    assert "server stopped" in [line["message"] for line in server.lines()]


def test_without_otel_nothing_of_it_is_imported(repository) -> None:
    program = (
        "import sys, service.server.server, service.cli.commands.serve\n"
        "print(sorted(name for name in sys.modules if name.startswith('opentelemetry')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("exporter", "kind", "warns"),
    [
        ("", "BatchSpanProcessor", False),
        ("otlp", "BatchSpanProcessor", False),
        ("console", "SimpleSpanProcessor", False),
        ("none", None, False),
        ("zipkin", "BatchSpanProcessor", True),
    ],
)
def test_the_environment_chooses_the_exporter(monkeypatch, caplog, exporter, kind, warns) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", exporter)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    provider = tracing.provider_from_environment()
    try:
        processors = provider._active_span_processor._span_processors
        assert [type(processor).__name__ for processor in processors] == ([kind] if kind else [])
        assert provider.resource.attributes["service.name"] == "mine"
        assert ("OTEL_TRACES_EXPORTER is unknown" in caplog.text) is warns
    finally:
        provider.shutdown()


async def test_a_stop_waits_for_an_export_no_longer_than_its_time(monkeypatch, caplog) -> None:
    monkeypatch.setattr(tracing, "_FLUSH_S", 0.05)
    released = threading.Event()

    class Stuck(TracerProvider):
        def shutdown(self) -> None:
            released.wait(30)

    control = tracing.Tracing(Stuck(shutdown_on_exit=False), None)
    async with asyncio.timeout(30):
        await control.stop()
    released.set()
    assert "could not be exported in time" in caplog.text
