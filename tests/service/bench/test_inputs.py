from __future__ import annotations

import numpy as np
import pytest

from service.bench.inputs import InputsError, given_inputs, made_inputs, messages, samples_of
from service.client import ModelInfo, TensorInfo
from service.pb.open_inference_pb2 import ModelInferRequest
from service.wire.datatypes import DATATYPES


def model(*inputs: tuple[str, str, tuple[int, ...]]) -> ModelInfo:
    return ModelInfo("m", ("1",), "", tuple(TensorInfo(*each) for each in inputs), ())


def made(info, *, batch=1, count=2, shapes=None, seed=0):
    return made_inputs(info, batch=batch, count=count, shapes=shapes or {}, seed=seed)


@pytest.mark.parametrize("datatype", list(DATATYPES))
def test_every_datatype_can_be_made_and_sent(datatype) -> None:
    first, second = made(model(("x", datatype, (-1, 40))), batch=3)
    assert first["x"].shape == (3, 40)
    assert first["x"].dtype == DATATYPES[datatype].numpy
    assert first["x"].tolist() != second["x"].tolist()
    (sent,) = messages("m", "7", [first], typed=False)
    request = ModelInferRequest.FromString(sent)
    assert (request.model_name, request.model_version) == ("m", "7")
    assert (request.inputs[0].datatype, list(request.inputs[0].shape)) == (datatype, [3, 40])


def test_a_model_that_is_not_described_is_refused_and_one_that_takes_nothing_is_not() -> None:
    with pytest.raises(InputsError, match="the server describes neither inputs nor outputs of model 'm'"):
        made(ModelInfo("m", ("1",), "", (), ()))
    constant = ModelInfo("m", ("1",), "", (), (TensorInfo("y", "FP32", (1,)),))
    assert made(constant) == [{}, {}]


def test_the_same_seed_makes_the_same_inputs() -> None:
    info = model(("x", "FP32", (-1, 4)))
    assert made(info)[1]["x"].tolist() == made(info)[1]["x"].tolist()
    assert made(info)[1]["x"].tolist() != made(info, seed=1)[1]["x"].tolist()


@pytest.mark.parametrize(
    ("shape", "given", "batch", "expected"),
    [
        ((-1, 3, -1, -1), [3, 8, 9], 2, (2, 3, 8, 9)),
        ((-1, 3, -1, -1), [8, 9], 2, (2, 3, 8, 9)),
        ((-1, -1), [5, 6], 2, (5, 6)),
        ((4,), None, 1, (4,)),
        ((), None, 1, ()),
        ((1, 3), None, 1, (1, 3)),
    ],
)
def test_free_axes_get_the_lengths_that_are_given(shape, given, batch, expected) -> None:
    info = model(("x", "FP32", shape))
    shapes = {"x": given} if given else {}
    inputs = made(info, batch=batch, shapes=shapes)[0]
    assert inputs["x"].shape == expected
    assert samples_of(info, inputs) == (expected[0] if shape and shape[0] == -1 else 1)


@pytest.mark.parametrize(
    ("inputs", "batch", "shapes", "says"),
    [
        ([("x", "FP32", (-1, -1))], 1, {}, r"leaves axes free; say --shape x:"),
        ([("x", "FP32", (-1, 3))], 1, {"x": [4]}, r"shape \[4\] does not fit \[-1, 3\]"),
        ([("x", "FP32", (-1, 3))], 1, {"y": [4]}, "no such input"),
        ([("x", "FP32", (3, 3))], 2, {}, "no free first axis; use batch 1"),
        ([("x", "FP31", (3, 3))], 1, {}, "datatype 'FP31' is unknown"),
    ],
)
def test_inputs_that_cannot_be_made_are_refused(inputs, batch, shapes, says) -> None:
    with pytest.raises(InputsError, match=says):
        made(model(*inputs), batch=batch, shapes=shapes)


def test_given_rows_are_used_from_the_first_and_over_again() -> None:
    info = model(("x", "FP32", (-1, 2)))
    rows = np.arange(10, dtype=np.float64).reshape(5, 2)
    made = given_inputs(info, {"x": rows}, batch=2, count=9)
    assert [each["x"][:, 0].tolist() for each in made] == [[0, 2], [4, 6], [8, 0]]
    assert made[0]["x"].dtype == np.float32
    assert len(given_inputs(info, {"x": rows}, batch=1, count=3)) == 3


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({}, "expected arrays for the inputs x, y, got none"),
        ({"x": np.zeros((2, 2)), "y": np.zeros((3, 2))}, "same number of rows"),
        ({"x": np.zeros((0, 2)), "y": np.zeros((0, 2))}, "same number of rows"),
        ({"x": np.zeros(()), "y": np.zeros(())}, "same number of rows"),
        ({"x": np.zeros(2), "y": np.zeros((2, 2))}, "'x': expected"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays, says) -> None:
    with pytest.raises(InputsError, match=says):
        given_inputs(model(("x", "FP32", (-1, 2)), ("y", "FP32", (-1, 2))), arrays, batch=1, count=1)
