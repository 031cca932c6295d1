from __future__ import annotations

import asyncio
from types import SimpleNamespace

import grpc
import pytest

from service.inference.streaming import READ_AHEAD, InferenceStream
from service.pb import open_inference_pb2 as pb
from service.rpc.awaited import answers
from tests.conftest import publish_affine
from tests.service.conftest import affine_request


def numbered(number: int, **fields) -> pb.ModelInferRequest:
    request = affine_request(**fields)
    request.id = str(number)
    return request


async def test_every_request_is_answered_in_its_order(repository, serving, connect) -> None:
    publish_affine(repository)
    async with serving(repository) as server, connect(server) as stubs:
        call = stubs.inference.ModelStreamInfer(numbered(n, batch=n % 5 + 1) for n in range(300))
        responses = [response async for response in call]
    assert [response.infer_response.id for response in responses] == [str(n) for n in range(300)]
    assert not any(response.error_message for response in responses)
    assert [response.infer_response.outputs[0].shape[0] for response in responses] == [n % 5 + 1 for n in range(300)]
    assert responses[0].infer_response.parameters["triton_final_response"].bool_param


async def test_an_error_is_told_in_its_place_and_the_stream_goes_on(repository, serving, connect) -> None:
    publish_affine(repository)
    requests = [numbered(0), numbered(1, model="nope"), numbered(2, version="x"), numbered(3)]
    async with serving(repository) as server, connect(server) as stubs:
        responses = [response async for response in stubs.inference.ModelStreamInfer(iter(requests))]
    assert [response.infer_response.id for response in responses] == ["0", "1", "2", "3"]
    assert responses[1].error_message == "Request for unknown model: 'nope' is not found"
    assert responses[1].infer_response == pb.ModelInferResponse(model_name="nope", id="1")
    assert "version string 'x'" in responses[2].error_message
    assert responses[3].infer_response.outputs[0].name == "y"


async def test_real_errors_end_the_stream_where_the_caller_wants_them(repository, serving, connect) -> None:
    publish_affine(repository)
    seen = []

    async def requests():
        yield numbered(0)
        yield numbered(1, model="nope")
        # grpcio's client is told INTERNAL, whatever the server said, where it still writes when the stream ends.
        await asyncio.Event().wait()

    async with serving(repository) as server, connect(server) as stubs:
        call = stubs.inference.ModelStreamInfer(requests(), metadata=(("triton_grpc_error", "true"),))
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            while (response := await call.read()) is not grpc.aio.EOF:
                seen.append(response.infer_response.id)
    assert seen == ["0"]
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND


class Context:
    """A call from nowhere."""

    peer = "test"
    metadata = ()

    def time_remaining_s(self) -> float | None:
        return None


async def test_requests_of_one_stream_are_under_way_together_and_not_without_bound() -> None:
    under_way, most = {}, 0

    def begin(request, _, done):
        nonlocal most
        under_way[request.id] = done
        most = max(most, len(under_way))
        return lambda: under_way.pop(request.id)

    async def requests():
        for n in range(1000):
            yield str(n).encode()
            if n == 500:
                raise AssertionError("read ahead without a bound")

    def read(data):
        return SimpleNamespace(id=data.decode(), message=numbered(int(data)))

    responses = answers(lambda *given: InferenceStream(*given, read=read, begin=begin), requests(), Context())
    first = asyncio.create_task(anext(responses))
    for _ in range(500):
        await asyncio.sleep(0)
    assert most == READ_AHEAD
    under_way.pop("0")(pb.ModelInferResponse(id="0"))
    assert pb.ModelStreamInferResponse.FromString(await first).infer_response.id == "0"
    await responses.aclose()
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1
    assert under_way == {}


async def test_a_caller_that_leaves_takes_its_requests_along(repository, serving, connect) -> None:
    publish_affine(repository)
    async with serving(repository) as server, connect(server) as stubs:
        call = stubs.inference.ModelStreamInfer()
        for n in range(20):
            await call.write(numbered(n))
        await call.read()
        call.cancel()
        for _ in range(200):
            if server.repository.get("affine").runner.statistics.snapshot().pending == 0:
                break
            await asyncio.sleep(0.01)
        assert server.repository.get("affine").runner.statistics.snapshot().pending == 0
        assert (await stubs.inference.ModelInfer(numbered(1))).id == "1"


async def test_a_stream_without_requests_ends_without_responses(repository, serving, connect) -> None:
    async with serving(repository) as server, connect(server) as stubs:
        assert [r async for r in stubs.inference.ModelStreamInfer(iter(()))] == []


async def test_a_stream_answers_one_request_before_the_next_is_sent(repository, serving, connect) -> None:
    publish_affine(repository)
    async with serving(repository) as server, connect(server) as stubs:
        call = stubs.inference.ModelStreamInfer()
        for n in range(5):
            await call.write(numbered(n))
            assert (await asyncio.wait_for(call.read(), 30)).infer_response.id == str(n)
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
