"""Talking to a server in this process with grpcio's asyncio client."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc.aio
import numpy as np
import pytest

from service.pb.open_inference_pb2 import ModelInferRequest
from tests.stubs import health_pb2_grpc, open_inference_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from service.server.server import Server


class Stubs:
    """The generated stubs over one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.inference = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)


@pytest.fixture
def connect() -> Callable[..., object]:
    """``async with connect(server) as stubs``."""

    @asynccontextmanager
    async def connected(server: Server, *options: tuple[str, int]) -> AsyncIterator[Stubs]:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
            yield Stubs(channel)

    return connected


def affine_request(*, batch: int = 1, model: str = "affine", version: str = "") -> ModelInferRequest:
    """A raw request for `tests.conftest.affine_model`: ones."""
    return ModelInferRequest(
        model_name=model,
        model_version=version,
        inputs=[ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[batch, 3])],
        raw_input_contents=[np.ones((batch, 3), np.float32).tobytes()],
    )
