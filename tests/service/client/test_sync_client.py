from __future__ import annotations

import asyncio
import subprocess
import sys

import numpy as np
import pytest

from service.client import Answer, InferenceClient, ServerError, request
from service.errors import Code
from tests.conftest import mixed_model, publish_affine, put_plain


@pytest.fixture
async def client(repository, serving):
    publish_affine(repository)
    put_plain(repository, "mixed", mixed_model())
    async with serving(repository) as server:
        with InferenceClient(f"127.0.0.1:{server.port}") as connected:
            yield connected


MIXED = {
    "a": np.array([[1, 2]], np.float32),
    "b": np.array([[3, 4]], np.int64),
    "flag": np.array([True]),
    "text": np.array(["é"]),
}


@pytest.mark.parametrize("typed", [False, True])
async def test_infer_returns_arrays_by_name(client, typed) -> None:
    answer = await asyncio.to_thread(client.infer, "mixed", MIXED, typed=typed, request_id="7")
    assert (answer.model, answer.version, answer.id) == ("mixed", "1", "7")
    assert list(answer.outputs) == ["total", "flipped", "same", "size"]
    assert answer.outputs["total"].tolist() == [[4, 6]]
    assert answer.outputs["same"].tolist() == ["é"]
    assert answer.outputs["flipped"].tolist() == [False]
    assert answer.outputs["size"] == 2


async def test_only_the_wanted_outputs_come(client) -> None:
    answer = await asyncio.to_thread(client.infer, "mixed", MIXED, outputs=["size", "total"])
    assert list(answer.outputs) == ["size", "total"]


async def test_what_the_server_says_of_itself_and_its_models(client) -> None:
    assert await asyncio.to_thread(client.is_live)
    assert await asyncio.to_thread(client.is_ready)
    assert await asyncio.to_thread(client.is_model_ready, "affine")
    info = await asyncio.to_thread(client.model, "affine")
    assert [(t.name, t.datatype, t.shape) for t in info.inputs] == [("x", "FP32", (-1, 3))]
    assert info.properties["proof"] == "proven"


async def test_an_error_of_the_server_keeps_its_code_and_message(client) -> None:
    with pytest.raises(ServerError, match=r"NOT_FOUND: .*'nope'") as failure:
        await asyncio.to_thread(client.infer, "nope", {})
    assert failure.value.code is Code.NOT_FOUND


async def test_a_request_may_carry_parameters(client) -> None:
    answer = await asyncio.to_thread(
        client.infer,
        "affine",
        {"x": np.ones((1, 3), np.float32)},
        parameters={"note": "n", "n": 1, "b": True},
    )
    assert answer.outputs["y"].tolist() == [[3, 3, 3]]


async def test_a_stream_answers_in_order_and_goes_on_after_an_error(client) -> None:
    requests = [
        request("affine", {"x": np.full((1, 3), n, np.float32)}, request_id=str(n)) if n != 1 else request("nope", {})
        for n in range(3)
    ]
    answers = await asyncio.to_thread(lambda: list(client.stream(requests)))
    first, error, last = answers
    assert isinstance(first, Answer)
    assert isinstance(error, ServerError)
    assert isinstance(last, Answer)
    assert (first.id, first.outputs["y"].tolist()) == ("0", [[1, 1, 1]])
    assert "nope" in error.message
    assert (last.id, last.outputs["y"].tolist()) == ("2", [[5, 5, 5]])


async def test_what_models_have_done_and_their_health(client) -> None:
    for _ in range(3):
        await asyncio.to_thread(client.infer, "affine", {"x": np.ones((2, 3), np.float32)})
    (done,) = await asyncio.to_thread(client.statistics, "affine")
    assert (done.name, done.version, done.inferences, done.success.count) == ("affine", "1", 6, 3)
    assert 1 <= done.executions <= 3
    assert sum(spent.count for spent in done.batches.values()) == done.executions
    assert done.success.total_ns > 0
    assert done.success.mean_us == pytest.approx(done.success.total_ns / 3e3)
    assert await asyncio.to_thread(client.health) == "SERVING"
    assert await asyncio.to_thread(client.health, "model/affine") == "SERVING"
    with pytest.raises(ServerError) as failure:
        await asyncio.to_thread(client.health, "nobody")
    assert failure.value.code is Code.NOT_FOUND
    info = await asyncio.to_thread(client.server)
    assert "statistics" in info.extensions


def test_nobody_there_is_not_live_and_not_ready() -> None:
    with InferenceClient("127.0.0.1:1", timeout_s=2) as client:
        assert not client.is_live()
        assert not client.is_ready()
        with pytest.raises(ServerError) as failure:
            client.model("affine")
    assert failure.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize("first", ["service.client", "tritonclient.grpc"])
def test_our_messages_and_tritonclient_live_in_one_process(first) -> None:
    pytest.importorskip("tritonclient.grpc")
    second = {"service.client", "tritonclient.grpc"} - {first}
    program = f"import {first}; import {second.pop()}; import grpc_health.v1.health_pb2; print('both')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "both\n", done.stderr
