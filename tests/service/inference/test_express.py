"""The express lane: what it leaves behind, and what it does not take."""

from __future__ import annotations

import gc
from collections import Counter

import numpy as np
import pytest

from service.inference.express import ExpressCall
from service.pb import open_inference_pb2 as pb
from tests.conftest import publish_affine
from tests.service.conftest import affine_request

INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture
def express_calls(monkeypatch) -> list[int]:
    """Grows by one with each call that goes this way."""
    seen: list[int] = []
    settle_all = ExpressCall.settle_all

    def counted(batch, outcomes):
        seen.extend(call.rows for call in batch)
        return settle_all(batch, outcomes)

    monkeypatch.setattr(ExpressCall, "settle_all", staticmethod(counted))
    return seen


@pytest.fixture
def garbage():
    """What only the garbage collector would find, by type."""

    def found() -> Counter[str]:
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds = Counter(type(each).__name__ for each in gc.garbage)
        gc.garbage.clear()
        return kinds

    gc.collect()
    gc.disable()
    yield found
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


async def test_calls_leave_nothing_to_the_garbage_collector(
    repository, serving, connect, express_calls, garbage
) -> None:
    publish_affine(repository)
    async with serving(repository, transport="http2") as server, connect(server) as stubs:
        for _ in range(20):
            await stubs.inference.ModelInfer(affine_request(batch=3))
            await stubs.inference.ModelInfer(affine_request(batch=3), timeout=60)
        kinds = garbage()
    assert len(express_calls) >= 38
    assert not {"Stream", "ExpressCall", "ReadRequest", "Call"} & kinds.keys()


async def test_general_calls_leave_nothing_either(repository, serving, connect, garbage) -> None:
    publish_affine(repository)
    async with serving(repository) as server, connect(server) as stubs:
        for number in range(20):
            request = affine_request(batch=3)
            request.id = str(number)
            await stubs.inference.ModelInfer(request)
        kinds = garbage()
    assert not {"Stream", "ReadRequest", "Call", "Inference"} & kinds.keys()


def crafted() -> bytes:
    """A request with an unknown field after its contents, whose contents look like the beginning of other contents."""
    message = pb.ModelInferRequest(
        model_name="affine", inputs=[pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[2, 3])]
    )
    contents = np.arange(6, dtype=np.float32).tobytes()
    inner = b"\x3a" + bytes([len(contents)])
    at = 2
    contents = contents[:at] + inner + contents[at + len(inner) :]
    unknown = b"\x82\x7d" + bytes([at + len(inner) - 3]) + b"\0" * (at + len(inner) - 3)
    return message.SerializeToString() + inner + contents + unknown


async def test_bytes_that_only_look_like_those_of_a_plan_are_answered_like_the_first_time(
    repository, serving, connect, express_calls
) -> None:
    publish_affine(repository)
    async with serving(repository, transport="http2") as server, connect(server) as stubs:
        answers = {await stubs.channel.unary_unary(INFER)(crafted()) for _ in range(3)}
    assert len(answers) == 1
    assert express_calls == []
