from __future__ import annotations

import numpy as np
import pytest

from service.bench.answers import AnswerCheck, Right
from service.pb.open_inference_pb2 import ModelInferResponse, ModelStreamInferResponse

EXPECTED = (("y", "FP32", (-1, 2)),)


def body(values, *, name="y", datatype="FP32", shape=(1, 2), version="1", typed=False) -> bytes:
    response = ModelInferResponse(model_name="m", model_version=version)
    tensor = response.outputs.add(name=name, datatype=datatype, shape=shape)
    if typed:
        tensor.contents.fp32_contents.extend(values)
    else:
        response.raw_output_contents.append(np.array(values, "<f4").tobytes())
    return response.SerializeToString()


@pytest.mark.parametrize("typed", [False, True])
def test_bits_count_only_when_asked(typed) -> None:
    for contents in (False, True):
        check = AnswerCheck(EXPECTED, 2, contents=contents)
        assert check.problem(0, body([1, 2], typed=typed)) is None
        assert check.problem(0, body([1, 2], typed=typed)) is None
        # Another version may answer; it is compared with itself.
        for _ in range(2):
            assert check.problem(0, body([2, 1], typed=typed, version="2")) is None
            assert check.problem(0, body([1, 2], typed=typed)) is None
        assert check.problem(1, body([1, 3], typed=typed)) is None
        problem = check.problem(0, body([1, 3], typed=typed))
        differs = "output y differs from the first answer to the same input by the same version"
        assert problem == (differs if contents else None)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (body([1, 2], name="z"), "expected outputs y, got z"),
        (body([1], shape=(1, 1)), r"output 'y': expected FP32\[-1, 2\], got FP32\[1, 1\]"),
        (body([1, 2], shape=(2,)), r"got FP32\[2\]"),
        (body([1, 2], datatype="INT32"), r"got INT32\[1, 2\]"),
        (body([1]), "damaged answer: .*expected 8 bytes"),
        (b"\xff", "damaged answer"),
    ],
)
def test_a_wrong_answer_is_said_to_be_wrong_each_time(wrong, says) -> None:
    check = AnswerCheck(EXPECTED, 1, contents=False)
    for _ in range(2):
        with pytest.raises(AssertionError, match=says):
            raise AssertionError(check.problem(0, wrong))


def test_the_shape_of_the_first_answer_is_that_of_all() -> None:
    check = AnswerCheck(EXPECTED, 1, contents=False)
    assert check.problem(0, body([1, 2])) is None
    assert "expected the outputs of the first answer" in (check.problem(0, body([1, 2, 3, 4], shape=(2, 2))) or "")


def test_outputs_that_were_not_declared_are_nobodys_business() -> None:
    assert AnswerCheck((), 1, contents=True).problem(0, body([1, 2])) is None


@pytest.mark.parametrize(
    ("tolerance", "off", "fine"), [(0.0, 0.0, True), (0.0, 1e-6, False), (1e-3, 1e-4, True), (1e-3, 1e-2, False)]
)
def test_numbers_that_are_known_are_compared_with_each_answer(tolerance, off, fine) -> None:
    y = np.array([[1, 2], [3, 4]], np.float32)
    right = Right(outputs=({"y": y}, {"y": y + 1}), tolerance=tolerance)
    check = AnswerCheck(EXPECTED, 2, contents=False, right=right)
    problem = check.problem(0, body((y + np.float32(off)).ravel(), shape=(2, 2)))
    assert problem == (None if fine else f"output 'y' is off by more than {tolerance:g}")
    # One right answer excuses no other.
    assert check.problem(0, body(y.ravel(), shape=(2, 2))) is None
    assert check.problem(0, body((y + 1).ravel(), shape=(2, 2))) is not None
    assert check.problem(1, body((y + 1).ravel(), shape=(2, 2), typed=True)) is None
    assert check.problem(1, body([1, 2])) == "output 'y': expected the shape [2, 2], got [1, 2]"
    assert check.problem(1, body([1, 2], name="z")) == "expected outputs y, got z"


def test_bodies_that_are_known_are_right_and_others_are_looked_at() -> None:
    check = AnswerCheck(EXPECTED, 2, contents=False, right=Right(bodies=(b"one", b"two")))
    assert check.problem(0, b"one") is None
    assert check.problem(1, b"two") is None
    assert check.problem(0, b"two") is not None


def test_answers_of_a_stream_are_taken_out_of_it() -> None:
    check = AnswerCheck(EXPECTED, 1, contents=True, streamed=True)
    inner = ModelInferResponse.FromString(body([1, 2]))
    streamed = ModelStreamInferResponse(infer_response=inner).SerializeToString()
    assert check.problem(0, streamed) is None
    assert check.problem(0, streamed) is None
    other = ModelStreamInferResponse(infer_response=ModelInferResponse.FromString(body([1, 3])))
    assert "differs from the first answer" in (check.problem(0, other.SerializeToString()) or "")
    told = ModelStreamInferResponse(error_message="no such model", infer_response=inner)
    assert check.problem(0, told.SerializeToString()) == "an error in the stream: no such model"
