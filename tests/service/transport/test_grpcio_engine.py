from __future__ import annotations

import asyncio

import grpc
import pytest

from service.errors import BindError
from service.pb import open_inference_pb2 as pb
from tests.conftest import publish_affine
from tests.service.conftest import affine_request

INFER = "/inference.GRPCInferenceService/ModelInfer"


async def failure(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details()


async def test_bytes_that_are_no_request_are_refused_and_leak_nothing(repository, serving, connect) -> None:
    publish_affine(repository)
    async with serving(repository) as server, connect(server) as stubs:
        raw = stubs.channel.unary_unary(INFER)
        for _ in range(150):  # more than a connection's usual limit of 100 streams
            code, details = await failure(raw(b"\xff\xff\xff"))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert INFER in details
        assert (await stubs.inference.ModelInfer(affine_request())).model_name == "affine"


async def test_an_unknown_method_is_unimplemented(repository, serving, connect) -> None:
    async with serving(repository) as server, connect(server) as stubs:
        for path in ("/inference.GRPCInferenceService/Nope", "/no.such.Service/Method"):
            assert (await failure(stubs.channel.unary_unary(path)(b"")))[0] is grpc.StatusCode.UNIMPLEMENTED


async def test_a_request_over_the_limit_is_refused_and_the_connection_lives(repository, serving, connect) -> None:
    publish_affine(repository)
    async with serving(repository, max_message_bytes=4096) as server, connect(server) as stubs:
        code, _ = await failure(stubs.inference.ModelInfer(affine_request(batch=1000)))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await stubs.inference.ModelInfer(affine_request(batch=10))).outputs[0].shape == [10, 3]


async def test_metadata_over_the_limit_is_refused(repository, serving, connect) -> None:
    async with serving(repository, max_metadata_bytes=2048) as server, connect(server) as stubs:
        metadata = (("x-large", "a" * 8192),)
        code, _ = await failure(stubs.inference.ServerLive(pb.ServerLiveRequest(), metadata=metadata))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await stubs.inference.ServerLive(pb.ServerLiveRequest())).live


async def test_a_client_that_cancels_disturbs_nobody(repository, serving, connect) -> None:
    publish_affine(repository)
    async with serving(repository) as server, connect(server) as stubs:
        calls = [stubs.inference.ModelInfer(affine_request(batch=2000)) for _ in range(40)]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(answer, pb.ModelInferResponse) for answer in answers[1::2])
        assert (await stubs.inference.ModelInfer(affine_request())).model_version == "1"


async def test_a_second_server_on_the_same_port_is_refused(repository, serving) -> None:
    async with serving(repository) as server:
        says = f"cannot listen on 127.0.0.1:{server.port}: .* choose another --host or --port"
        with pytest.raises(BindError, match=says):
            async with serving(repository, port=server.port):
                pass
