"""What the log says of calls, from a server that is really called."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest

from models.artifact.onnx_session import Model
from service import logs
from tests.conftest import affine_model, publish_affine, put_plain
from tests.service.conftest import affine_request

if TYPE_CHECKING:
    from service.pb.open_inference_pb2 import ModelInferRequest

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
METADATA = (
    ("x-request-id", "from-the-proxy"),
    ("traceparent", f"00-{TRACE}-{SPAN}-01"),
    ("authorization", "Bearer s3cret"),
)
IDS = {"request_id": "from-the-proxy", "id": "call-1", "trace_id": TRACE, "span_id": SPAN}


@pytest.fixture
def log():
    """The lines so far, at debug level."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.set_up("debug", as_json=True, stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def failing(monkeypatch):
    """Models whose runs fail on inputs that hold a 13."""
    real = Model.run

    def run(self, outputs, feeds, options=None):
        if any(13 in array for array in feeds.values()):
            raise RuntimeError("onnxruntime is unhappy")
        return real(self, outputs, feeds, options)

    monkeypatch.setattr(Model, "run", run)


def request(request_id: str, value: float = 1.0) -> ModelInferRequest:
    made = affine_request()
    made.id = request_id
    made.raw_input_contents[0] = np.full((1, 3), value, np.float32).tobytes()
    return made


def ids(line: dict) -> dict:
    return {key: line[key] for key in IDS if key in line}


def of(lines: list[dict], message: str, method: str = "ModelInfer") -> list[dict]:
    return [line for line in lines if line["message"] == message and line.get("method", method).endswith(method)]


async def test_the_line_of_a_request_has_its_ids_and_the_version_that_answered(
    repository, serving, connect, log
) -> None:
    publish_affine(repository)
    async with serving(repository) as server, connect(server) as stubs:
        await stubs.inference.ModelInfer(request("call-1"), metadata=METADATA)
        await stubs.inference.ModelInfer(request(""))
    first, second = of(log(), "request")
    assert ids(first) == IDS
    assert (first["model"], first["version"]) == ("affine", "1")
    assert ids(second) == {}


async def test_a_warning_has_the_ids_of_the_call_that_caused_it(repository, serving, connect, log, failing) -> None:
    publish_affine(repository)
    async with serving(repository) as server, connect(server) as stubs:
        # The first run goes to a thread, later ones stay on the event loop.
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError):
                await stubs.inference.ModelInfer(request("call-1", 13), metadata=METADATA)
            await stubs.inference.ModelInfer(request("call-2"))
    warnings = of(log(), "model failed")
    assert [ids(line) for line in warnings] == [IDS] * 3


async def test_a_failure_in_a_batch_is_told_of_the_one_that_failed(repository, serving, connect, log, failing) -> None:
    publish_affine(repository)
    async with serving(repository, max_queue_delay_us=100_000, max_batch_size=4) as server, connect(server) as stubs:
        answers = await asyncio.gather(
            *(stubs.inference.ModelInfer(request(f"call-{n}", 13 if n == 2 else 1)) for n in range(4)),
            return_exceptions=True,
        )
    assert [isinstance(answer, grpc.aio.AioRpcError) for answer in answers] == [False, False, True, False]
    warnings = of(log(), "model failed")
    # Once for the batch, which is nobody's, and once for the request alone.
    assert [ids(line) for line in warnings] == [{}, {"id": "call-2"}]


async def test_each_request_of_a_stream_is_told_apart(repository, serving, connect, log, failing) -> None:
    publish_affine(repository)
    async with serving(repository) as server, connect(server) as stubs:
        stream = stubs.inference.ModelStreamInfer(
            iter([request("call-1", 13), request("call-2"), request("call-1", 13)]), metadata=METADATA
        )
        answers = [answer async for answer in stream]
    assert [bool(answer.error_message) for answer in answers] == [True, False, True]
    warnings = [line for line in of(log(), "model failed") if "id" in line]
    assert [ids(line) for line in warnings] == [IDS] * len(warnings)
    assert warnings
    (line,) = of(log(), "request", "ModelStreamInfer")
    assert ids(line) == {key: value for key, value in IDS.items() if key != "id"}


async def test_a_defect_has_the_ids_too(repository, serving, connect, log, monkeypatch) -> None:
    publish_affine(repository)
    async with serving(repository) as server, connect(server) as stubs:
        monkeypatch.setattr(server.repository, "get", lambda *_: 1 / 0)
        with pytest.raises(grpc.aio.AioRpcError):
            await stubs.inference.ModelInfer(request("call-1"), metadata=METADATA)
    (line,) = of(log(), "unexpected error")
    assert ids(line) == IDS


async def test_ids_that_are_no_ids_are_left_out_or_cut(repository, serving, connect, log) -> None:
    put_plain(repository, "affine", affine_model())
    async with serving(repository) as server, connect(server) as stubs:
        await stubs.inference.ModelInfer(
            request(""), metadata=(("x-request-id", "y" * 1000), ("traceparent", "00-0-0-00"))
        )
    (line,) = of(log(), "request")
    assert line["request_id"] == "y" * 128
    assert "trace_id" not in line


async def test_nothing_at_info_and_never_a_token_or_a_value(repository, serving, connect, log) -> None:
    publish_affine(repository)
    async with serving(repository) as server, connect(server) as stubs:
        await stubs.inference.ModelInfer(request("call-1", 0.123456), metadata=METADATA)
        with pytest.raises(grpc.aio.AioRpcError):
            await stubs.inference.ModelInfer(affine_request(model="nope"), metadata=METADATA)
    told = [line for line in log() if line.get("method", "").endswith("ModelInfer")]
    assert {line["level"] for line in told} == {"debug"}
    text = json.dumps(log())
    assert "s3cret" not in text
    assert "0.12345" not in text
