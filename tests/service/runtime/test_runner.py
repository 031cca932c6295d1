from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.errors import InferenceFailed, InvalidRequest
from service.runtime.batcher import Batching
from service.runtime.row_independence import UNKNOWN, RowIndependence
from service.runtime.runner import Execution, Runner
from tests.conftest import affine_model, conv2d_model, identity_model, mixed_model, onnx_model

INDEPENDENT = RowIndependence(True, "declared by this test")


def matmul_model() -> bytes:
    """y = a @ b with every axis free and unnamed: a mismatch is found by the runtime only."""
    return onnx_model(
        [helper.make_node("MatMul", ["a", "b"], ["y"])],
        [("a", TensorProto.FLOAT, [None, None]), ("b", TensorProto.FLOAT, [None, None])],
        [("y", TensorProto.FLOAT, [None, None])],
    )


def test_answers_come_in_the_order_asked_for() -> None:
    runner = Runner("m", 3, affine_model())
    (y,) = runner.run({"x": np.ones((2, 3), np.float32)}, ["y"])
    assert np.array_equal(y, np.full((2, 3), 3, np.float32))
    assert (runner.name, runner.version) == ("m", "3")


def test_what_the_runtime_refuses_names_the_shapes_and_keeps_its_words_for_the_log(caplog) -> None:
    runner = Runner("m", 1, matmul_model())
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(InferenceFailed, match=r"model 'm' version 1 failed on inputs a\[2, 3\], b\[2, 3\]") as failure,
    ):
        runner.run({"a": np.zeros((2, 3), np.float32), "b": np.zeros((2, 3), np.float32)}, ["y"])
    assert "MatMul" not in str(failure.value)
    assert "MatMul" in caplog.text


async def test_a_run_of_unknown_or_long_duration_leaves_the_event_loop() -> None:
    threads: list[str] = []
    really_run = Execution.run

    def spy(execution, feeds, outputs, options):
        threads.append(threading.current_thread().name)
        return really_run(execution, feeds, outputs, options)

    with ThreadPoolExecutor(1, thread_name_prefix="compute") as executor:
        runner = Runner("m", 1, affine_model(), executor, batching=Batching(max_batch_size=10_000))
        runner.batcher._run = spy.__get__(runner._execution)
        x = np.ones((1, 3), np.float32)
        await runner.infer({"x": x}, ["y"])
        runner._execution._s_per_element = 1e-7
        await runner.infer({"x": x}, ["y"])
        runner._execution._s_per_element = 1e-7
        await runner.infer({"x": np.ones((5000, 3), np.float32)}, ["y"])
    main = threading.main_thread().name
    assert [name == main for name in threads] == [False, True, False]


async def test_the_memory_of_a_runner_comes_back_with_its_last_reference(caplog) -> None:
    """Without waiting for the garbage collector: that is how a replaced version says that it has drained."""
    caplog.set_level(logging.CRITICAL)  # pytest keeps log records, and with them the frames of their tracebacks
    gc.disable()
    try:
        with ThreadPoolExecutor(1) as executor:
            runner = Runner("m", 1, matmul_model(), executor)
            x = np.ones((3, 3), np.float32)
            await runner.infer({"a": x, "b": x}, ["y"])
            with pytest.raises(InferenceFailed):
                await runner.infer({"a": x[:2], "b": x[:2]}, ["y"])
            abandoned = asyncio.create_task(runner.infer({"a": x, "b": x}, ["y"]))
            await asyncio.sleep(0)
            abandoned.cancel()
            with pytest.raises(asyncio.CancelledError):
                await abandoned
            del abandoned
            remains = weakref.ref(runner), weakref.ref(runner._model)
            del runner
            for _ in range(3000):  # the abandoned run may still go on
                if not any(remain() for remain in remains):
                    break
                await asyncio.sleep(0.01)
        assert [remain() for remain in remains] == [None, None]
    finally:
        gc.enable()


async def test_concurrent_runs_do_not_mix_their_answers() -> None:
    with ThreadPoolExecutor(4) as executor:
        runner = Runner("m", 1, affine_model(), executor, rows=INDEPENDENT)
        batches = [np.full((n % 7 + 1, 3), n, np.float32) for n in range(200)]
        answers = await asyncio.gather(*(runner.infer({"x": x}, ["y"]) for x in batches))
    for x, ((y,), _) in zip(batches, answers, strict=True):
        assert np.array_equal(y, 2 * x + 1)
    assert runner.statistics.snapshot().execution_count < 200


async def test_more_rows_than_a_batch_may_have_are_refused() -> None:
    runner = Runner("m", 1, affine_model(), batching=Batching(max_batch_size=4), rows=INDEPENDENT)
    with pytest.raises(InvalidRequest, match=r"model 'm': expected a batch of at most 4 \(--max-batch-size\), got 5"):
        await runner.infer({"x": np.ones((5, 3), np.float32)}, ["y"])


def mean_model() -> bytes:
    """y = x - mean over the batch: an answer that depends on its companions."""
    axes = numpy_helper.from_array(np.array([0], np.int64), "axes")
    return onnx_model(
        [helper.make_node("ReduceMean", ["x", "axes"], ["mean"]), helper.make_node("Sub", ["x", "mean"], ["y"])],
        [("x", TensorProto.FLOAT, ["batch", 3])],
        [("y", TensorProto.FLOAT, ["batch", 3])],
        [axes],
    )


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (affine_model(), None),
        (mean_model(), "has other bits"),
        (identity_model(TensorProto.FLOAT, (4, 2)), "the first axis of input 'x' is not free"),
        (mixed_model(), "the first axis of output 'size' is not free"),
        (conv2d_model()[0], None),  # without goldens there is nothing to try it on: the word counts
        (identity_model(TensorProto.STRING), None),
        (identity_model(TensorProto.INT8), None),
        (identity_model(TensorProto.BOOL), None),
        (identity_model(TensorProto.BFLOAT16), None),
    ],
)
async def test_a_word_that_the_rows_are_independent_counts_unless_the_model_contradicts(model, why) -> None:
    runner = Runner("m", 1, model, rows=INDEPENDENT)
    if why is None:
        assert runner.why_not_batched is None
        assert runner.max_batch_size == 4096
    else:
        assert why in runner.why_not_batched
        assert runner.max_batch_size == 0


@pytest.mark.parametrize("model", [affine_model(), conv2d_model()[0], identity_model(TensorProto.STRING)])
async def test_a_model_of_which_nothing_is_known_is_not_batched(model) -> None:
    runner = Runner("m", 1, model)
    assert runner.why_not_batched == UNKNOWN.reason
    assert runner.max_batch_size == 0


async def test_goldens_are_what_the_rows_are_tried_on() -> None:
    rows = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    same = np.ones((8, 3), np.float32)  # whose mean over any batch is the same
    for examples, why in (({"x": rows}, "has other bits"), ({"x": same}, "beside far larger companions")):
        assert why in str(Runner("m", 1, mean_model(), rows=INDEPENDENT, examples=[examples]).why_not_batched)


async def test_a_model_whose_rows_depend_on_each_other_answers_each_request_alone() -> None:
    runner = Runner("m", 1, mean_model())
    batches = [np.full((2, 3), n, np.float32) for n in range(20)]
    answers = await asyncio.gather(*(runner.infer({"x": x}, ["y"]) for x in batches))
    assert all(not y.any() for (y,), _ in answers)
    assert runner.statistics.snapshot().execution_count == 20


async def test_a_slow_model_is_not_tried_for_long(monkeypatch) -> None:
    import service.runtime.runner as module

    run = module.run
    tried = []

    def slow(model, feeds):
        tried.append(feeds)
        time.sleep(0.05)
        return run(model, feeds)

    monkeypatch.setattr(module, "run", slow)
    monkeypatch.setattr(module, "bit_identity", lambda *_: pytest.fail("it was tried"))
    assert Runner("m", 1, affine_model(), rows=INDEPENDENT).why_not_batched is None
    assert len(tried) == 4
