from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.artifact.tensor_spec import TensorSpec
from service.errors import InvalidRequest, Unsupported
from service.inference.tensors import decode, encode
from service.pb.open_inference_pb2 import InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse

INPUTS = {
    "x": TensorSpec("x", "FP32", ("batch", 3)),
    "flag": TensorSpec("flag", "BOOL", ("batch",)),
}
OUTPUTS = {
    "y": TensorSpec("y", "FP32", ("batch", 3)),
    "half": TensorSpec("half", "FP16", ("batch",)),
}


def tensor(name: str, datatype: str, shape, contents=None) -> ModelInferRequest.InferInputTensor:
    typed = InferTensorContents(**contents) if contents is not None else None
    return ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape, contents=typed)


def good(*, batch: int = 2, outputs=("y",)) -> ModelInferRequest:
    return ModelInferRequest(
        model_name="m",
        id="7",
        inputs=[tensor("x", "FP32", [batch, 3]), tensor("flag", "BOOL", [batch])],
        raw_input_contents=[np.arange(3 * batch, dtype=np.float32).tobytes(), b"\x01" * batch],
        outputs=[ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs],
    )


def read(request: ModelInferRequest, *, allow_non_finite: bool = False):
    return decode(request, INPUTS, OUTPUTS, allow_non_finite=allow_non_finite)


def test_raw_contents_become_arrays_of_the_declared_type_and_shape() -> None:
    asked = read(good())
    assert asked.is_raw
    assert [spec.name for spec in asked.outputs] == ["y"]
    assert np.array_equal(asked.feeds["x"], np.arange(6, dtype=np.float32).reshape(2, 3))
    assert np.array_equal(asked.feeds["flag"], [True, True])


def test_typed_contents_become_the_same_arrays() -> None:
    request = ModelInferRequest(
        inputs=[
            tensor("flag", "BOOL", [1], {"bool_contents": [True]}),
            tensor("x", "FP32", [1, 3], {"fp32_contents": [1, 2, 3]}),
        ]
    )
    asked = read(request)
    assert not asked.is_raw
    assert [spec.name for spec in asked.outputs] == ["y", "half"]
    assert np.array_equal(asked.feeds["x"], [[1, 2, 3]])


def test_an_empty_contents_message_beside_raw_contents_is_no_contents() -> None:
    request = good()
    request.inputs[0].contents.SetInParent()
    assert read(request).is_raw


def change(**fields):
    def apply(request: ModelInferRequest) -> None:
        for path, value in fields.items():
            *parents, leaf = path.split("__")
            target = request
            for parent in parents:
                target = target[int(parent)] if parent.isdigit() else getattr(target, parent)
            if isinstance(value, list):
                getattr(target, leaf)[:] = value
            else:
                setattr(target, leaf, value)

    return apply


def add_input(request: ModelInferRequest) -> None:
    request.inputs.append(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


def drop_flag(request: ModelInferRequest) -> None:
    del request.inputs[1]
    del request.raw_input_contents[1]


def fill_both(request: ModelInferRequest) -> None:
    request.inputs[0].contents.fp32_contents.extend(range(6))


def with_value(value: float):
    def apply(request: ModelInferRequest) -> None:
        array = np.zeros((2, 3), np.float32)
        array[1, 2] = value
        request.raw_input_contents[0] = array.tobytes()

    return apply


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (change(inputs__0__shape=[2, 4]), r"input 'x': expected shape \[-1, 3\], got \[2, 4\]: axis 1 must be 3"),
        (
            change(inputs__0__shape=[6]),
            r"input 'x': expected shape \[-1, 3\], got \[6\]: rank 2 expected, rank 1 given",
        ),
        (change(inputs__0__shape=[-1, 3]), r"got \[-1, 3\]: the batch axis must be at least 1"),
        (change(inputs__0__shape=[0, 3]), r"got \[0, 3\]: the batch axis must be at least 1"),
        (change(inputs__1__shape=[1]), r"input 'flag': .*axis 0 \('batch'\) is 1 here and 2 in input 'x'"),
        (change(inputs__0__datatype="FP64"), "input 'x': expected datatype FP32, got FP64"),
        (change(inputs__0__datatype=""), "input 'x': expected datatype FP32, got none"),
        (change(inputs__0__name="z"), "input 'z' is unknown; the model takes 'x', 'flag'"),
        (change(outputs__0__name="z"), "requested output 'z' is unknown; the model has 'y', 'half'"),
        (change(raw_input_contents=[b""]), "raw_input_contents: expected 2 entries, one an input, got 1"),
        (change(raw_input_contents=[b"\0" * 24, b"\1\1", b""]), "expected 2 entries, one an input, got 3"),
        (change(raw_input_contents=[b"\0" * 23, b"\1\1"]), r"input 'x': expected 24 bytes .*, got 23"),
        (change(raw_input_contents=[b"\0" * 24, b"\1\3"]), "input 'flag': expected BOOL bytes 0 or 1, got 3"),
        (
            change(raw_input_contents=[]),
            r"input 'x': expected FP32\[2, 3\] in raw_input_contents or contents, got neither",
        ),
        (add_input, "input 'x' is given twice"),
        (drop_flag, r"input 'flag' is missing; the model takes x FP32\[batch, 3\], flag BOOL\[batch\]"),
        (fill_both, "input 'x': got both raw and typed contents, expected one of them"),
        (with_value(np.nan), r"input 'x': expected finite values, got nan at \[1, 2\]"),
        (with_value(np.inf), r"input 'x': expected finite values, got inf at \[1, 2\]"),
        (with_value(-np.inf), r"input 'x': expected finite values, got -inf at \[1, 2\]"),
    ],
)
def test_a_wrong_request_is_told_what_was_expected_and_what_came(spoil, says) -> None:
    request = good()
    spoil(request)
    with pytest.raises(InvalidRequest, match=says):
        read(request)


def test_an_output_asked_for_twice_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="requested output 'y' is given twice"):
        read(good(outputs=("y", "y")))


def test_dimensions_whose_product_is_astronomical_are_refused_without_allocating() -> None:
    inputs = {"x": TensorSpec("x", "FP32", ("", "", "", ""))}
    request = ModelInferRequest(inputs=[tensor("x", "FP32", [1, 0, 2**62, 2**62])], raw_input_contents=[b""])
    with pytest.raises(InvalidRequest, match="input 'x'"):
        decode(request, inputs, OUTPUTS, allow_non_finite=False)
    request.inputs[0].shape[:] = [2**62, 2**62, 2**62, 4]
    with pytest.raises(InvalidRequest, match=r"input 'x': expected [0-9]+ bytes"):
        decode(request, inputs, OUTPUTS, allow_non_finite=False)


def test_axes_of_the_same_name_need_not_match_when_the_name_is_empty() -> None:
    inputs = {name: TensorSpec(name, "FP32", ("",)) for name in "ab"}
    request = ModelInferRequest(
        inputs=[tensor("a", "FP32", [1]), tensor("b", "FP32", [2])], raw_input_contents=[b"\0" * 4, b"\0" * 8]
    )
    asked = decode(request, inputs, OUTPUTS, allow_non_finite=False)
    assert [len(array) for array in asked.feeds.values()] == [1, 2]


def test_non_finite_values_pass_where_they_are_allowed() -> None:
    request = good()
    with_value(np.nan)(request)
    assert np.isnan(read(request, allow_non_finite=True).feeds["x"][1, 2])


@pytest.mark.parametrize("place", ["request", "input", "output"])
@pytest.mark.parametrize(
    ("key", "error", "says"),
    [
        ("shared_memory_region", Unsupported, "shared memory is not supported"),
        ("triton_anything", InvalidRequest, "keys that begin with 'triton_' are reserved"),
    ],
)
def test_a_parameter_that_would_change_what_is_asked_is_refused(place, key, error, says) -> None:
    request = good()
    target = {"request": request, "input": request.inputs[0], "output": request.outputs[0]}[place]
    target.parameters[key].CopyFrom(InferParameter(string_param="x"))
    with pytest.raises(error, match=says) as refused:
        read(request)
    if error is InvalidRequest:
        owner = {"request": "", "input": "inputs[0].", "output": "outputs[0]."}[place]
        assert refused.value.details.field == f"{owner}parameters[{key}]"


@pytest.mark.parametrize(
    ("parameter", "says"),
    [
        (InferParameter(string_param="3"), "parameter 'classification': expected an integer, got string_param"),
        (InferParameter(), "expected an integer, got nothing"),
        (InferParameter(int64_param=-1), "parameter 'classification': got -1, expected 1 to 1000000"),
        (InferParameter(int64_param=0), "parameter 'classification': got 0, expected 1 to 1000000"),
        (InferParameter(int64_param=1_000_001), "got 1000001, expected 1 to 1000000"),
    ],
)
def test_a_classification_that_makes_no_sense_is_refused(parameter, says) -> None:
    request = good()
    request.outputs[0].parameters["classification"].CopyFrom(parameter)
    with pytest.raises(InvalidRequest, match=says) as refused:
        read(request)
    assert refused.value.details.field == "outputs[0].parameters[classification]"


def test_a_classification_of_what_has_no_order_is_refused() -> None:
    request = good(outputs=("half",))
    request.outputs[0].parameters["classification"].int64_param = 1
    with pytest.raises(InvalidRequest, match=r"'half': class result not available .* unsupported type 'FP16'"):
        read(request)


@pytest.mark.parametrize("is_raw", [True, False])
def test_an_output_wanted_as_classes_comes_as_text(is_raw) -> None:
    request = good()
    request.outputs[0].parameters["classification"].uint64_param = 2
    asked = replace(read(request), is_raw=is_raw)
    arrays = (np.array([[0.25, 0.5, 0.125], [1, 2, 3]], np.float32),)
    response = encode(request, "4", asked, arrays, {"y": ("a", "b")})
    output = response.outputs[0]
    assert (output.datatype, list(output.shape)) == ("BYTES", [2, 2])
    expected = [b"0.500000:1:b", b"0.250000:0:a", b"3.000000:2", b"2.000000:1:b"]
    if is_raw:
        assert response.raw_output_contents[0] == b"".join(len(e).to_bytes(4, "little") + e for e in expected)
    else:
        assert list(output.contents.bytes_contents) == expected


def test_a_parameter_that_changes_nothing_is_let_pass() -> None:
    request = good()
    request.parameters["headers"].string_param = "whatever"
    assert read(request).is_raw


def test_a_response_echoes_the_id_and_names_the_version_that_answered() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    response = encode(good(), "4", read(good()), (array,))
    assert (response.model_name, response.model_version, response.id) == ("m", "4", "7")
    assert response.outputs[0] == ModelInferResponse.InferOutputTensor(name="y", datatype="FP32", shape=[2, 3])
    assert list(response.raw_output_contents) == [array.tobytes()]


def test_a_typed_response_has_no_raw_contents() -> None:
    response = encode(good(), "4", replace(read(good()), is_raw=False), (np.ones((1, 3), np.float32),))
    assert list(response.outputs[0].contents.fp32_contents) == [1, 1, 1]
    assert not response.raw_output_contents


def test_a_response_with_a_half_precision_output_is_raw_as_a_whole() -> None:
    arrays = (np.ones((1, 3), np.float32), np.ones(1, np.float16))
    asked = replace(read(good(outputs=())), is_raw=False)
    response = encode(good(), "4", asked, arrays)
    assert len(response.raw_output_contents) == 2
    assert not any(output.HasField("contents") for output in response.outputs)
