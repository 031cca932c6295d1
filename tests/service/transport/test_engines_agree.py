"""Both engines give the same bytes: the answers, and what they say when they refuse."""

from __future__ import annotations

from contextlib import AsyncExitStack

import grpc
import numpy as np
import pytest

from service.pb import health_pb2
from service.pb import open_inference_pb2 as pb
from tests.conftest import publish_affine
from tests.service.conftest import affine_request
from tests.transports import TRANSPORTS

SERVICE = "/inference.GRPCInferenceService/"
Tensor = pb.ModelInferRequest.InferInputTensor
Wanted = pb.ModelInferRequest.InferRequestedOutputTensor


def raw(*rows: tuple[float, float, float], **fields) -> pb.ModelInferRequest:
    array = np.array(rows, np.float32)
    return pb.ModelInferRequest(
        model_name="affine",
        inputs=[Tensor(name="x", datatype="FP32", shape=array.shape)],
        raw_input_contents=[array.tobytes()],
        **fields,
    )


def typed(*values: float) -> pb.ModelInferRequest:
    contents = pb.InferTensorContents(fp32_contents=values)
    shape = [len(values) // 3, 3]
    return pb.ModelInferRequest(
        model_name="affine", inputs=[Tensor(name="x", datatype="FP32", shape=shape, contents=contents)]
    )


# Each is asked several times: from the second time on, the fast engine knows the raw ones by their bytes.
INFERENCES = {
    "raw": raw((1, 2, 3)),
    "raw, other values": raw((-1, 0.5, 1e30)),
    "raw, zeros": raw((0, 0, 0)),
    "raw, several rows": raw((1, 2, 3), (4, 5, 6), (7, 8, 9)),
    "raw, with an id": raw((1, 2, 3), id="a-1"),
    "raw, with a version": raw((1, 2, 3), model_version="1"),
    "raw, one output": raw((1, 2, 3), outputs=[Wanted(name="y")]),
    "raw, as classes": raw(
        (1, 2, 3), outputs=[Wanted(name="y", parameters={"classification": pb.InferParameter(int64_param=2)})]
    ),
    "raw, with a timeout": raw((1, 2, 3), parameters={"timeout": pb.InferParameter(int64_param=10_000_000)}),
    "typed": typed(1, 2, 3),
    "typed, several rows": typed(1, 2, 3, 4, 5, 6),
    "NaN": raw((1, float("nan"), 3)),
    "infinite, in several rows": raw((1, 2, 3), (4, float("inf"), 6)),
    "unknown model": affine_request(model="nope"),
    "unknown version": affine_request(version="7"),
    "unknown output": raw((1, 2, 3), outputs=[Wanted(name="z")]),
    "too few bytes": pb.ModelInferRequest(
        model_name="affine",
        inputs=[Tensor(name="x", datatype="FP32", shape=[1, 3])],
        raw_input_contents=[b"\0" * 8],
    ),
    "nothing": pb.ModelInferRequest(),
}
OTHERS = {
    "live": ("ServerLive", b""),
    "ready": ("ServerReady", b""),
    "server": ("ServerMetadata", b""),
    "model": ("ModelMetadata", pb.ModelMetadataRequest(name="affine").SerializeToString()),
    "config": ("ModelConfig", pb.ModelConfigRequest(name="affine").SerializeToString()),
    "index": ("RepositoryIndex", b""),
    "no such model": ("ModelMetadata", pb.ModelMetadataRequest(name="\u00fcber % \n").SerializeToString()),
    "shared memory": ("SystemSharedMemoryStatus", b""),
    "no request at all": ("ModelInfer", b"\xff\xff\xff"),
    "no such method": ("Nope", b""),
}


class Pair:
    """One channel to each engine."""

    def __init__(self, channels: list[grpc.aio.Channel]) -> None:
        self._channels = channels

    async def ask(self, path: str, data: bytes) -> list[object]:
        """What a client gets to see, by engine: bytes, or code, words and details."""
        return [await outcome(channel.unary_unary(path)(data)) for channel in self._channels]

    async def stream(self, path: str, messages: list[bytes]) -> list[list[bytes]]:
        """All answers of a stream, by engine."""
        return [[each async for each in channel.stream_stream(path)(iter(messages))] for channel in self._channels]


async def outcome(call: grpc.aio.UnaryUnaryCall) -> object:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        words = error.details() if error.code() is not grpc.StatusCode.UNIMPLEMENTED else ""
        return error.code(), words, dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")


@pytest.fixture
async def pair(repository, serving):
    publish_affine(repository)
    async with AsyncExitStack() as stack:
        channels = []
        for transport in TRANSPORTS:
            server = await stack.enter_async_context(serving(repository, transport=transport))
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
            channels.append(await stack.enter_async_context(channel))
        yield Pair(channels)


@pytest.mark.parametrize("request_", INFERENCES.values(), ids=INFERENCES)
async def test_inferences(pair, request_) -> None:
    data = request_.SerializeToString()
    for _ in range(3):
        ours, reference = await pair.ask(f"{SERVICE}ModelInfer", data)
        assert ours == reference


async def test_a_stream_of_all_of_them(pair) -> None:
    messages = [request.SerializeToString() for request in INFERENCES.values()] * 3
    ours, reference = await pair.stream(f"{SERVICE}ModelStreamInfer", messages)
    assert ours == reference
    assert len(ours) == len(messages)


@pytest.mark.parametrize(("method", "data"), OTHERS.values(), ids=OTHERS)
async def test_other_methods(pair, method, data) -> None:
    ours, reference = await pair.ask(SERVICE + method, data)
    assert ours == reference


async def test_health(pair) -> None:
    for service in ("", "inference.GRPCInferenceService", "model/affine", "nobody"):
        data = health_pb2.HealthCheckRequest(service=service).SerializeToString()
        ours, reference = await pair.ask("/grpc.health.v1.Health/Check", data)
        assert ours == reference
