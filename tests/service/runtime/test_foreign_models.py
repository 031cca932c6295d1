"""Models as other people bring them, asked by many callers at once: each gets what its request alone would get."""

from __future__ import annotations

import asyncio
import time
from itertools import count
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest

from service.pb.open_inference_pb2 import ModelConfigRequest, ModelInferRequest, ModelStatisticsRequest
from service.wire.datatypes import DATATYPES
from tests import foreign_models
from tests.conftest import publish_affine, put_plain
from tests.service.conftest import affine_request

if TYPE_CHECKING:
    from collections.abc import Callable

CALLERS = 32
ROUNDS = 5
DTYPES = {"FP32": np.float32, "FP64": np.float64, "UINT8": np.uint8, "INT64": np.int64}
UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


def request(model: str, x: np.ndarray) -> ModelInferRequest:
    datatype = next(name for name, dtype in DTYPES.items() if x.dtype == dtype)
    return ModelInferRequest(
        model_name=model,
        inputs=[ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=x.shape)],
        raw_input_contents=[x.tobytes()],
    )


def arrays(response) -> dict[str, np.ndarray]:
    return {
        output.name: np.frombuffer(raw, DATATYPES[output.datatype].numpy).reshape(output.shape)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def same_bits(got: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return got.keys() == right.keys() and all(
        got[name].shape == array.shape and got[name].tobytes() == array.tobytes() for name, array in right.items()
    )


def small_and_huge(caller: int) -> np.ndarray:
    return np.full((1, 4), 4e9 if caller % 2 else 1, np.float32)


def floats(caller: int) -> np.ndarray:
    return np.random.default_rng(caller).standard_normal((caller % 3 + 1, 4)).astype(np.float32)


QUESTIONS = {
    "batch_maximum": small_and_huge,
    "more_than_48_rows": lambda caller: np.full((2, 4), caller, np.float32),
    "picture_over_maximum": lambda caller: np.full((1, 28, 28), 50 + caller, np.uint8),
    "rows_below_100": lambda caller: np.array([[500 if caller % 2 else 1, caller]], np.int64),
    "sigmoid_of_doubles": lambda caller: np.random.default_rng(caller).standard_normal((caller % 3 + 1, 5)),
    "mean_of_1000": lambda caller: np.random.default_rng(caller % 4).standard_normal((5, 1000)).astype(np.float32),
    "two_outputs": floats,
}


async def outcome(call) -> object:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return error.code()


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.01)


async def count_wrong(stub, model: str, model_bytes: bytes) -> int:
    """How many answers of CALLERS callers at once, ROUNDS each, differ from those to each alone."""

    async def wrong_of(caller: int) -> int:
        x = QUESTIONS[model](caller)
        right = foreign_models.alone(model_bytes, x)
        answers = [arrays(await stub.ModelInfer(request(model, x))) for _ in range(ROUNDS)]
        return sum(not same_bits(answer, right) for answer in answers)

    return sum(await asyncio.gather(*map(wrong_of, range(CALLERS))))


@pytest.mark.parametrize("name", QUESTIONS)
async def test_every_caller_of_a_model_of_which_nothing_is_known_gets_its_own_answer(
    repository, serving, connect, name
) -> None:
    model_bytes = getattr(foreign_models, name)()
    put_plain(repository, name, model_bytes)
    async with serving(repository) as server, connect(server) as stubs:
        assert await count_wrong(stubs.inference, name, model_bytes) == 0
        config = (await stubs.inference.ModelConfig(ModelConfigRequest(name=name))).config
        (stats,) = (await stubs.inference.ModelStatistics(ModelStatisticsRequest(name=name))).model_stats
    assert "it is not known whether its rows are independent" in config.parameters["not_batched_because"].string_value
    assert stats.execution_count == CALLERS * ROUNDS


async def test_a_joint_answer_that_lost_rows_is_never_cut(repository, serving, connect, caplog) -> None:
    """Although the operator has said that the rows are independent."""
    model_bytes = foreign_models.rows_below_100()
    put_plain(repository, "rows_below_100", model_bytes, is_independent=True)
    async with serving(repository) as server, connect(server) as stubs:
        before = (await stubs.inference.ModelConfig(ModelConfigRequest(name="rows_below_100"))).config
        assert await count_wrong(stubs.inference, "rows_below_100", model_bytes) == 0
        after = (await stubs.inference.ModelConfig(ModelConfigRequest(name="rows_below_100"))).config
    assert before.max_batch_size == 4096
    assert before.parameters["batched_because"].string_value.startswith("declared by the operator")
    assert after.max_batch_size == 0
    assert "gave output 'y' of shape" in after.parameters["not_batched_because"].string_value
    told = [record for record in caplog.records if record.message == "requests are not batched any more"]
    assert [(record.model, record.version) for record in told] == [("rows_below_100", "1")]


@pytest.mark.parametrize("outputs", [(), ("wide", "twice"), ("wide",)])
async def test_joined_calls_with_several_outputs_get_their_own_parts_of_each(
    repository, serving, connect, outputs
) -> None:
    put_plain(repository, "two_outputs", foreign_models.two_outputs(), is_independent=True)

    async def right(stub, caller: int, x: np.ndarray) -> bool:
        asked = request("two_outputs", x)
        for name in outputs:
            asked.outputs.add(name=name)
        got = arrays(await stub.ModelInfer(asked))
        expected = {"twice": 2 * x, "wide": np.concatenate([x] * 6, axis=1)}
        return same_bits(got, {name: expected[name] for name in outputs or expected})

    async with serving(repository) as server, connect(server) as stubs:
        for _ in range(6):
            callers = (
                right(stubs.inference, caller, np.full((1, 4), caller, np.float32) + np.arange(4, dtype=np.float32))
                for caller in range(60)
            )
            assert all(await asyncio.gather(*callers))
        (stats,) = (await stubs.inference.ModelStatistics(ModelStatisticsRequest(name="two_outputs"))).model_stats
    assert stats.execution_count < 360  # they were joined


async def test_joined_messages_of_streams_with_several_outputs_get_their_own_parts_of_each(
    repository, serving, connect
) -> None:
    put_plain(repository, "two_outputs", foreign_models.two_outputs(), is_independent=True)

    async def wrong_of(stub, stream: int) -> int:
        xs = [np.full((1, 4), 1000 * stream + n, np.float32) for n in range(20)]
        answers = [answer async for answer in stub.ModelStreamInfer(iter([request("two_outputs", x) for x in xs]))]
        return sum(
            not same_bits(arrays(answer.infer_response), {"twice": 2 * x, "wide": np.concatenate([x] * 6, axis=1)})
            for x, answer in zip(xs, answers, strict=True)
        )

    async with serving(repository) as server, connect(server) as stubs:
        assert sum(await asyncio.gather(*(wrong_of(stubs.inference, stream) for stream in range(60)))) == 0
        (stats,) = (await stubs.inference.ModelStatistics(ModelStatisticsRequest(name="two_outputs"))).model_stats
    assert stats.execution_count < 1200


async def test_answers_larger_than_the_largest_frame_are_answered_each_time(repository, serving, connect) -> None:
    """16 MiB and more do not fit into a frame of HTTP/2; the second call and the third take the express lane."""
    put_plain(repository, "large_answer", foreign_models.large_answer())
    x = np.arange(5, dtype=np.float32)[:, None]
    async with serving(repository) as server, connect(server, *UNLIMITED) as stubs:
        for _ in range(3):
            (y,) = arrays(await stubs.inference.ModelInfer(request("large_answer", x), timeout=60)).values()
            assert y.shape == (5, 1_000_000)
            assert np.array_equal(y[:, ::99_999], np.repeat(x, 11, axis=1))
        stream = stubs.inference.ModelStreamInfer(iter([request("large_answer", x)] * 3), timeout=60)
        answers = [arrays(answer.infer_response)["y"] async for answer in stream]
    assert [answer.shape for answer in answers] == [(5, 1_000_000)] * 3


async def test_a_run_without_an_end_is_ended_at_its_deadline_and_holds_up_nobody(repository, serving, connect) -> None:
    put_plain(repository, "loop_of_x", foreign_models.loop_of_x())
    publish_affine(repository)
    short, endless = (request("loop_of_x", np.array([turns])) for turns in (50, 10**12))
    async with serving(repository) as server, connect(server) as stubs:
        runner = server.repository.get("loop_of_x").runner
        for _ in range(3):  # seen to be short, it must not be trusted to be
            answer = arrays(await stubs.inference.ModelInfer(short))
            assert answer["y"].tolist() == [50]
        began = time.monotonic()
        calls = [stubs.inference.ModelInfer(endless, timeout=1) for _ in range(4)]
        ending = asyncio.ensure_future(asyncio.gather(*calls, return_exceptions=True))
        meanwhile = count()
        while not ending.done():
            await stubs.inference.ModelInfer(affine_request(), timeout=0.5)
            next(meanwhile)
        failures = ending.result()
        assert [failure.code() for failure in failures] == [grpc.StatusCode.DEADLINE_EXCEEDED] * 4
        assert time.monotonic() - began < 10
        assert next(meanwhile) > 10
        # The threads are free again, and the model is as good as before.
        answers = await asyncio.gather(*(stubs.inference.ModelInfer(short, timeout=30) for _ in range(8)))
        assert [arrays(answer)["y"].tolist() for answer in answers] == [[50]] * 8
        assert runner.batcher._running == 0


async def test_a_run_as_long_as_the_input_says_is_ended_although_it_is_no_loop(repository, serving, connect) -> None:
    put_plain(repository, "sines", foreign_models.sines_of_a_constant())
    publish_affine(repository)
    short, long = (request("sines", np.array([count])) for count in (3, 2 * 10**7))
    async with serving(repository) as server, connect(server) as stubs:
        for _ in range(3):
            await stubs.inference.ModelInfer(short)
        ending = asyncio.ensure_future(outcome(stubs.inference.ModelInfer(long, timeout=1)))
        while not ending.done():
            await stubs.inference.ModelInfer(affine_request(), timeout=2)
        assert ending.result() is grpc.StatusCode.DEADLINE_EXCEEDED
        batcher = server.repository.get("sines").runner.batcher
        await until(lambda: not batcher._running)


async def test_more_elements_than_ever_before_do_not_run_on_the_event_loop(repository, serving, connect) -> None:
    put_plain(repository, "two_outputs", foreign_models.two_outputs())
    async with serving(repository) as server, connect(server) as stubs:
        execution = server.repository.get("two_outputs").runner._execution
        assert not execution.is_short(4)
        await stubs.inference.ModelInfer(request("two_outputs", np.ones((2, 4), np.float32)))
        execution._s_per_element = 1e-9
        assert [execution.is_short(elements) for elements in (4, 8, 12)] == [True, True, False]


async def test_requests_with_large_answers_are_joined_to_runs_that_a_client_can_read(
    repository, serving, connect
) -> None:
    put_plain(repository, "large_answer", foreign_models.large_answer(), is_independent=True)
    x = np.ones((1, 1), np.float32)
    async with serving(repository) as server, connect(server, *UNLIMITED) as stubs:
        for _ in range(2):
            calls = [stubs.inference.ModelInfer(request("large_answer", x), timeout=60) for _ in range(12)]
            assert [answer.outputs[0].shape[0] for answer in await asyncio.gather(*calls)] == [1] * 12
        (stats,) = (await stubs.inference.ModelStatistics(ModelStatisticsRequest(name="large_answer"))).model_stats
    assert max(counts.batch_size for counts in stats.batch_stats) <= 12
    assert stats.execution_count > 4  # of four rows, which is 16 MB, at the most


async def test_a_declaration_that_a_trial_contradicts_is_not_believed(repository, serving, connect) -> None:
    put_plain(repository, "widest", foreign_models.widest_of_the_batch(), is_independent=True)
    async with serving(repository) as server, connect(server) as stubs:
        config = (await stubs.inference.ModelConfig(ModelConfigRequest(name="widest"))).config
        assert server.readiness.server_is_ready()
    assert "the shape of an answer depends on the rows" in config.parameters["not_batched_because"].string_value


async def test_a_declaration_that_cannot_be_tried_is_shown_as_such(repository, serving, connect) -> None:
    put_plain(repository, "mlp", foreign_models.row_by_row_if(), is_independent=True)
    async with serving(repository) as server, connect(server) as stubs:
        config = (await stubs.inference.ModelConfig(ModelConfigRequest(name="mlp"))).config
    assert config.parameters["batched_because"].string_value == (
        "declared by the operator: rows_are_independent is true; not tried here: the time of a run depends on the "
        "values of its input"
    )


async def test_a_run_without_an_end_is_ended_when_its_caller_leaves(repository, serving, connect) -> None:
    put_plain(repository, "loop_of_x", foreign_models.loop_of_x())
    async with serving(repository) as server, connect(server) as stubs:
        batcher = server.repository.get("loop_of_x").runner.batcher
        for leaves_a_stream in (False, True):
            endless = request("loop_of_x", np.array([10**12]))
            if leaves_a_stream:
                call = stubs.inference.ModelStreamInfer(iter([endless]))
            else:
                call = stubs.inference.ModelInfer(endless)
            await until(lambda: batcher._running)
            call.cancel()
            await until(lambda: not batcher._running)
