from __future__ import annotations

import asyncio
import inspect

import numpy as np
import pytest

from service.client import Answer, AsyncInferenceClient, InferenceClient, ServerError, request
from service.errors import Code
from tests.conftest import publish_affine


@pytest.fixture
async def client(repository, serving):
    publish_affine(repository)
    async with serving(repository) as server, AsyncInferenceClient(f"127.0.0.1:{server.port}") as connected:
        yield connected


ONES = {"x": np.ones((1, 3), np.float32)}


def test_both_clients_take_the_same_arguments() -> None:
    def public(client):
        return {name: value for name, value in vars(client).items() if not name.startswith("_") or name == "__init__"}

    sync, asynchronous = public(InferenceClient), public(AsyncInferenceClient)
    assert sync.keys() == asynchronous.keys()
    for name in sync.keys() - {"stream"}:
        assert inspect.signature(sync[name]) == inspect.signature(asynchronous[name]), name
    names = [list(inspect.signature(client["stream"]).parameters) for client in (sync, asynchronous)]
    assert names[0] == names[1]


async def test_every_call_is_answered(client) -> None:
    assert await client.is_live()
    assert await client.is_ready()
    assert await client.is_model_ready("affine")
    assert await client.health("model/affine") == "SERVING"
    assert (await client.server()).extensions
    assert [t.shape for t in (await client.model("affine")).inputs] == [(-1, 3)]
    answers = await asyncio.gather(*(client.infer("affine", ONES, request_id=str(n)) for n in range(20)))
    assert [answer.id for answer in answers] == [str(n) for n in range(20)]
    assert all(answer.outputs["y"].tolist() == [[3, 3, 3]] for answer in answers)
    (done,) = await client.statistics("affine")
    assert done.inferences == 20


async def test_an_error_keeps_its_code_and_message(client) -> None:
    with pytest.raises(ServerError, match=r"NOT_FOUND: .*'nope'") as failure:
        await client.infer("nope", {})
    assert failure.value.code is Code.NOT_FOUND


@pytest.mark.parametrize("waiting", [False, True])
async def test_a_stream_takes_both_kinds_of_iterables(client, waiting) -> None:
    made = [request("affine", ONES, request_id="1"), request("nope", {}), request("affine", ONES, request_id="3")]

    async def slowly():
        for each in made:
            await asyncio.sleep(0)
            yield each

    answers = [answer async for answer in client.stream(slowly() if waiting else made)]
    assert [answer.id if isinstance(answer, Answer) else "error" for answer in answers] == ["1", "error", "3"]


async def test_a_stream_that_the_server_ends_with_an_error_raises_it(client) -> None:
    with pytest.raises(ServerError, match="NOT_FOUND"):
        async for _ in client.stream([request("nope", {})], metadata={"triton_grpc_error": "true"}):
            pass


async def test_nobody_there_is_not_live_and_not_ready() -> None:
    async with AsyncInferenceClient("127.0.0.1:1", timeout_s=2) as client:
        assert not await client.is_live()
        assert not await client.is_ready()
        with pytest.raises(ServerError) as failure:
            await client.model("affine")
    assert failure.value.code is Code.UNAVAILABLE
