from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import TensorProto, helper

from service.errors import InferenceFailed
from service.inference.runner import Runner
from tests.conftest import affine_model, onnx_model


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

    class Spy(Runner):
        def run(self, feeds, outputs):
            threads.append(threading.current_thread().name)
            return super().run(feeds, outputs)

    with ThreadPoolExecutor(1, thread_name_prefix="compute") as executor:
        runner = Spy("m", 1, affine_model(), executor)
        x = np.ones((1, 3), np.float32)
        await runner.infer({"x": x}, ["y"])
        runner._s_per_row = 1e-6
        await runner.infer({"x": x}, ["y"])
        runner._s_per_row = 1e-6
        await runner.infer({"x": np.ones((5000, 3), np.float32)}, ["y"])
    main = threading.main_thread().name
    assert [name == main for name in threads] == [False, True, False]


async def test_concurrent_runs_do_not_mix_their_answers() -> None:
    with ThreadPoolExecutor(4) as executor:
        runner = Runner("m", 1, affine_model(), executor)
        batches = [np.full((n % 7 + 1, 3), n, np.float32) for n in range(200)]
        answers = await asyncio.gather(*(runner.infer({"x": x}, ["y"]) for x in batches))
    for x, (y,) in zip(batches, answers, strict=True):
        assert np.array_equal(y, 2 * x + 1)
