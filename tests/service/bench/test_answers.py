from __future__ import annotations

import numpy as np
import pytest

from service.bench.answers import AnswerCheck
from service.pb.open_inference_pb2 import ModelInferResponse

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
        # Another version may answer; its bits are what counts.
        assert check.problem(0, body([1, 2], typed=typed, version="2")) is None
        assert check.problem(1, body([1, 3], typed=typed)) is None
        problem = check.problem(0, body([1, 3], typed=typed))
        assert problem == ("output y differs from the first answer to the same input" if contents else None)


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
