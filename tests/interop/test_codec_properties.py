"""Property: tensors of any datatype and shape, raw or typed, come back bit for bit and in the form they came in.

The requests are built here, from NumPy and the rules of the protocol, not with this project's own codec.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

import grpc
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.pb import open_inference_pb2 as pb
from tests.interop.zoo import identity_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# datatype: (NumPy's type, the list of InferTensorContents, or None where there is none)
FIXED_SIZE = {
    "BOOL": (np.bool_, "bool_contents"),
    "UINT8": (np.uint8, "uint_contents"),
    "UINT16": (np.uint16, "uint_contents"),
    "UINT32": (np.uint32, "uint_contents"),
    "UINT64": (np.uint64, "uint64_contents"),
    "INT8": (np.int8, "int_contents"),
    "INT16": (np.int16, "int_contents"),
    "INT32": (np.int32, "int_contents"),
    "INT64": (np.int64, "int64_contents"),
    "FP16": (np.float16, None),
    "BF16": (ml_dtypes.bfloat16, None),
    "FP32": (np.float32, "fp32_contents"),
    "FP64": (np.float64, "fp64_contents"),
}
EXAMPLES = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SHAPES = st.tuples(st.integers(1, 5), st.integers(0, 6))


@pytest.fixture(scope="module")
def infer(zoo_server) -> Iterator[Callable[[pb.ModelInferRequest], pb.ModelInferResponse]]:
    with grpc.insecure_channel(f"127.0.0.1:{zoo_server.port}") as channel:
        yield channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            pb.ModelInferRequest.SerializeToString,
            pb.ModelInferResponse.FromString,
        )


def request(datatype: str, shape: tuple[int, ...]) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name=identity_name(datatype), id="property")
    made.inputs.add(name="x", datatype=datatype, shape=shape)
    return made


def check_head(response: pb.ModelInferResponse, datatype: str, shape: tuple[int, ...]) -> None:
    (output,) = response.outputs
    assert (output.name, output.datatype, tuple(output.shape)) == ("y", datatype, shape)
    assert (response.id, response.model_version) == ("property", "1")


def values(datatype: str, data: st.DataObject, shape: tuple[int, ...]) -> np.ndarray:
    """Any bits that are a value; of floats the finite ones, since a server refuses others unless it is told not to."""
    dtype = np.dtype(FIXED_SIZE[datatype][0])
    count = math.prod(shape)
    bits = data.draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
    array = (np.frombuffer(bits, np.uint8) & 1).astype(bool) if datatype == "BOOL" else np.frombuffer(bits, dtype)
    if dtype.kind not in "biu":
        array = np.where(np.isfinite(array), array, np.zeros_like(array))
    return array.reshape(shape)


@pytest.mark.parametrize("datatype", FIXED_SIZE)
@EXAMPLES
@given(data=st.data(), shape=SHAPES)
def test_raw_contents_come_back_raw(infer, datatype, data, shape) -> None:
    array = values(datatype, data, shape)
    asked = request(datatype, shape)
    asked.raw_input_contents.append(array.tobytes())
    response = infer(asked)
    check_head(response, datatype, shape)
    assert list(response.raw_output_contents) == [array.tobytes()]
    assert not response.outputs[0].HasField("contents")


@pytest.mark.parametrize("datatype", [name for name, (_, field) in FIXED_SIZE.items() if field])
@EXAMPLES
@given(data=st.data(), shape=SHAPES)
def test_typed_contents_come_back_typed(infer, datatype, data, shape) -> None:
    array = values(datatype, data, shape)
    field = FIXED_SIZE[datatype][1]
    asked = request(datatype, shape)
    asked.inputs[0].contents.SetInParent()
    getattr(asked.inputs[0].contents, field).extend(array.ravel().tolist())
    response = infer(asked)
    check_head(response, datatype, shape)
    if array.size:
        assert not response.raw_output_contents
        received = np.array(getattr(response.outputs[0].contents, field), array.dtype)
        assert received.tobytes() == array.tobytes()
        assert [name.name for name, _ in response.outputs[0].contents.ListFields()] == [field]


TEXTS = st.lists(st.text(max_size=12), min_size=1, max_size=12)


@EXAMPLES
@given(texts=TEXTS)
def test_text_comes_back_in_the_form_it_came_in(infer, texts) -> None:
    elements = [text.encode("utf-8", "replace") for text in texts]
    prefixed = b"".join(struct.pack("<I", len(element)) + element for element in elements)
    shape = (len(elements), 1)
    raw, typed = request("BYTES", shape), request("BYTES", shape)
    raw.raw_input_contents.append(prefixed)
    typed.inputs[0].contents.bytes_contents.extend(elements)
    of_raw, of_typed = infer(raw), infer(typed)
    check_head(of_raw, "BYTES", shape)
    check_head(of_typed, "BYTES", shape)
    assert list(of_raw.raw_output_contents) == [prefixed]
    assert list(of_typed.outputs[0].contents.bytes_contents) == elements


@pytest.mark.parametrize("datatype", [*FIXED_SIZE, "BYTES"])
@EXAMPLES
@given(noise=st.binary(max_size=64), shape=SHAPES)
def test_any_bytes_are_answered_or_refused_with_a_reason(infer, datatype, noise, shape) -> None:
    asked = request(datatype, shape)
    asked.raw_input_contents.append(noise)
    try:
        response = infer(asked)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT  # noqa: PT017 - either outcome is right
        assert "input 'x'" in error.details()  # noqa: PT017
    else:
        assert list(response.raw_output_contents) == [noise]
