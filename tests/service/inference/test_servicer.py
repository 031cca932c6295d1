"""The six methods of the Open Inference Protocol through a live server."""

from __future__ import annotations

import grpc
import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto

import models
from models.artifact.datatypes import DATATYPES as SERVED
from service.pb import open_inference_pb2 as pb
from service.wire.datatypes import DATATYPES
from service.wire.raw_contents import from_raw, to_raw
from service.wire.typed_contents import FIELDS, add_typed, from_typed
from tests.conftest import affine_model, conv2d_model, identity_model, mixed_model, publish_affine, put_plain
from tests.service.conftest import affine_request

SAMPLES = {
    "BOOL": np.array([[True, False]]),
    "FP16": np.array([[1.5, -2]], np.float16),
    "BF16": np.array([[1.5, -2]], ml_dtypes.bfloat16),
    "FP32": np.array([[1.5, -2]], np.float32),
    "FP64": np.array([[1.5, 1e300]], np.float64),
    "BYTES": np.array([["", "naïve\0"]], np.object_),
    **{
        name: np.array([[np.iinfo(DATATYPES[name].numpy.name).min, np.iinfo(DATATYPES[name].numpy.name).max]], dtype)
        for name, dtype in ((name, DATATYPES[name].numpy) for name in DATATYPES if "INT" in name)
    },
}


async def failure(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details()


def test_there_is_a_sample_of_every_datatype() -> None:
    assert set(SAMPLES) == set(DATATYPES)


@pytest.mark.parametrize("name", DATATYPES)
async def test_every_datatype_is_served_raw(repository, serving, connect, name) -> None:
    datatype, sample = DATATYPES[name], SAMPLES[name]
    put_plain(repository, "same", identity_model(SERVED[name].onnx))
    request = pb.ModelInferRequest(
        model_name="same",
        inputs=[pb.ModelInferRequest.InferInputTensor(name="x", datatype=name, shape=sample.shape)],
        raw_input_contents=[to_raw(sample, datatype)],
    )
    async with serving(repository) as server, connect(server) as stubs:
        response = await stubs.inference.ModelInfer(request)
    assert response.outputs[0].datatype == name
    assert list(response.raw_output_contents) == [to_raw(sample, datatype)]
    assert np.array_equal(from_raw(response.raw_output_contents[0], datatype, response.outputs[0].shape), sample)


@pytest.mark.parametrize("name", FIELDS)
async def test_every_datatype_that_has_typed_contents_is_served_typed(repository, serving, connect, name) -> None:
    datatype, sample = DATATYPES[name], SAMPLES[name]
    put_plain(repository, "same", identity_model(SERVED[name].onnx))
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype=name, shape=sample.shape)
    add_typed(tensor.contents, sample, datatype)
    async with serving(repository) as server, connect(server) as stubs:
        response = await stubs.inference.ModelInfer(pb.ModelInferRequest(model_name="same", inputs=[tensor]))
    assert not response.raw_output_contents
    assert np.array_equal(from_typed(response.outputs[0].contents, datatype, sample.shape), sample)


async def test_a_convolution_over_images_of_any_size(repository, serving, connect) -> None:
    model, weight, bias = conv2d_model()
    put_plain(repository, "conv2d", model)
    images = np.random.default_rng(1).standard_normal((2, 3, 5, 7)).astype(np.float32)
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    expected = np.einsum("bchwmn,ocmn->bohw", windows, weight, dtype=np.float64) + bias[:, None, None]
    request = pb.ModelInferRequest(
        model_name="conv2d",
        inputs=[pb.ModelInferRequest.InferInputTensor(name="image", datatype="FP32", shape=images.shape)],
        raw_input_contents=[images.tobytes()],
    )
    async with serving(repository) as server, connect(server) as stubs:
        response = await stubs.inference.ModelInfer(request)
        metadata = await stubs.inference.ModelMetadata(pb.ModelMetadataRequest(name="conv2d"))
    features = from_raw(response.raw_output_contents[0], DATATYPES["FP32"], response.outputs[0].shape)
    assert features.shape == (2, 4, 5, 7)
    assert np.abs(features - expected).max() < 1e-5
    assert list(metadata.inputs[0].shape) == [-1, 3, -1, -1]


async def test_several_inputs_and_datatypes_in_any_order_with_chosen_outputs(repository, serving, connect) -> None:
    put_plain(repository, "mixed", mixed_model())
    arrays = {
        "text": ("BYTES", np.array(["a", "β"], np.object_)),
        "b": ("INT64", np.array([[1, 2], [3, 4]], np.int64)),
        "a": ("FP32", np.array([[0.5, 0.5], [0.5, 0.5]], np.float32)),
        "flag": ("BOOL", np.array([True, False])),
    }
    request = pb.ModelInferRequest(
        model_name="mixed",
        id="call-1",
        inputs=[
            pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=array.shape)
            for name, (datatype, array) in arrays.items()
        ],
        raw_input_contents=[to_raw(array, DATATYPES[datatype]) for datatype, array in arrays.values()],
        outputs=[{"name": name} for name in ("size", "same", "total")],
    )
    async with serving(repository) as server, connect(server) as stubs:
        response = await stubs.inference.ModelInfer(request)
    assert response.id == "call-1"
    assert [(o.name, o.datatype, list(o.shape)) for o in response.outputs] == [
        ("size", "INT64", []),
        ("same", "BYTES", [2]),
        ("total", "FP32", [2, 2]),
    ]
    size, same, total = response.raw_output_contents
    assert from_raw(size, DATATYPES["INT64"], ()) == 4
    assert list(from_raw(same, DATATYPES["BYTES"], (2,))) == ["a", "β"]
    assert np.array_equal(from_raw(total, DATATYPES["FP32"], (2, 2)), [[1.5, 2.5], [3.5, 4.5]])


async def test_the_asked_version_answers_and_the_answer_says_which(repository, serving, connect) -> None:
    publish_affine(repository, scale=2)
    publish_affine(repository, scale=5)
    async with serving(repository, version_policy="all") as server, connect(server) as stubs:
        answers = {
            version: await stubs.inference.ModelInfer(affine_request(version=version)) for version in ("", "1", "2")
        }
    assert {version: answer.model_version for version, answer in answers.items()} == {"": "2", "1": "1", "2": "2"}
    first = {v: float(np.frombuffer(a.raw_output_contents[0], np.float32)[0]) for v, a in answers.items()}
    assert first == {"": 6.0, "1": 3.0, "2": 6.0}


async def test_live_ready_and_metadata(repository, serving, connect) -> None:
    publish_affine(repository, metrics={"test": {"accuracy": 0.97125}}, labels={"y": ("a", "b", "c")})
    put_plain(repository, "broken", b"junk")
    async with serving(repository) as server, connect(server) as stubs:
        inference = stubs.inference
        assert (await inference.ServerLive(pb.ServerLiveRequest())).live
        assert not (await inference.ServerReady(pb.ServerReadyRequest())).ready
        assert (await inference.ModelReady(pb.ModelReadyRequest(name="affine"))).ready
        assert (await inference.ModelReady(pb.ModelReadyRequest(name="affine", version="1"))).ready
        assert not (await inference.ModelReady(pb.ModelReadyRequest(name="broken"))).ready
        about = await inference.ServerMetadata(pb.ServerMetadataRequest())
        assert (about.name, about.version) == ("mnist1d-service", models.__version__)
        assert list(about.extensions) == sorted(about.extensions)
        assert {"statistics", "classification", "model_configuration", "binary_tensor_data"} <= set(about.extensions)
        model = await inference.ModelMetadata(pb.ModelMetadataRequest(name="affine"))
    assert (model.name, list(model.versions), model.platform) == ("affine", ["1"], "onnxruntime_onnx")
    assert [(t.name, t.datatype, list(t.shape)) for t in model.inputs] == [("x", "FP32", [-1, 3])]
    assert [(t.name, t.datatype, list(t.shape)) for t in model.outputs] == [("y", "FP32", [-1, 3])]
    assert model.properties["proof"] == "proven"
    assert model.properties["test_accuracy"] == "0.9712"
    assert model.properties["labels.y"] == "a,b,c"
    assert len(model.properties["sha256"]) == 64


@pytest.mark.parametrize(
    ("call", "code", "says"),
    [
        (lambda s: s.ModelInfer(affine_request(model="nope")), "NOT_FOUND", "unknown model: 'nope' is not found"),
        (lambda s: s.ModelInfer(affine_request(version="9")), "NOT_FOUND", "version 9 is not found"),
        (lambda s: s.ModelInfer(affine_request(version="x")), "INVALID_ARGUMENT", "version string 'x'"),
        (lambda s: s.ModelInfer(affine_request(model="broken")), "UNAVAILABLE", "not an ONNX model"),
        (lambda s: s.ModelInfer(pb.ModelInferRequest(model_name="affine")), "INVALID_ARGUMENT", "input 'x' is missing"),
        (lambda s: s.ModelReady(pb.ModelReadyRequest(name="nope")), "NOT_FOUND", "'nope' is not found"),
        (lambda s: s.ModelReady(pb.ModelReadyRequest(name="affine", version="9")), "NOT_FOUND", "version 9"),
        (lambda s: s.ModelMetadata(pb.ModelMetadataRequest(name="nope")), "NOT_FOUND", "'nope' is not found"),
        (lambda s: s.ModelMetadata(pb.ModelMetadataRequest(name="broken")), "UNAVAILABLE", "not an ONNX model"),
    ],
)
async def test_errors_have_the_code_and_name_the_thing(repository, serving, connect, call, code, says) -> None:
    publish_affine(repository)
    put_plain(repository, "broken", b"junk")
    async with serving(repository) as server, connect(server) as stubs:
        got, details = await failure(call(stubs.inference))
    assert got.name == code
    assert says in details


async def test_after_every_error_the_server_goes_on(repository, serving, connect) -> None:
    publish_affine(repository)
    wrong = affine_request()
    wrong.inputs[0].shape[:] = [1, 4]
    async with serving(repository) as server, connect(server) as stubs:
        for _ in range(20):
            assert (await failure(stubs.inference.ModelInfer(wrong)))[0] is grpc.StatusCode.INVALID_ARGUMENT
        assert (await stubs.inference.ModelInfer(affine_request())).model_version == "1"


async def test_the_bits_of_an_answer_depend_on_no_companion(repository, serving, connect) -> None:
    publish_affine(repository)
    random = np.random.default_rng(3)
    x = random.standard_normal((64, 3)).astype(np.float32)

    def request(rows: np.ndarray) -> pb.ModelInferRequest:
        made = affine_request(batch=len(rows))
        made.raw_input_contents[0] = rows.tobytes()
        return made

    async with serving(repository) as server, connect(server) as stubs:
        whole = (await stubs.inference.ModelInfer(request(x))).raw_output_contents[0]
        single = [(await stubs.inference.ModelInfer(request(row[None]))).raw_output_contents[0] for row in x]
    assert b"".join(single) == whole


async def test_non_finite_inputs_are_refused_unless_allowed(repository, serving, connect) -> None:
    put_plain(repository, "affine", affine_model())
    request = affine_request()
    request.raw_input_contents[0] = np.array([1, np.nan, np.inf], np.float32).tobytes()
    async with serving(repository) as server, connect(server) as stubs:
        code, details = await failure(stubs.inference.ModelInfer(request))
    assert (code, "nan at [0, 1]" in details) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    async with serving(repository, allow_non_finite=True) as server, connect(server) as stubs:
        answer = np.frombuffer((await stubs.inference.ModelInfer(request)).raw_output_contents[0], np.float32)
    assert answer[0] == 3
    assert np.isnan(answer[1])
    assert np.isposinf(answer[2])


async def test_a_model_without_inputs_answers_raw(repository, serving, connect) -> None:
    from onnx import helper, numpy_helper

    from tests.conftest import onnx_model

    constant = numpy_helper.from_array(np.array([4, 2], np.int32), "c")
    model = onnx_model([helper.make_node("Constant", [], ["y"], value=constant)], [], [("y", TensorProto.INT32, [2])])
    put_plain(repository, "constant", model)
    async with serving(repository) as server, connect(server) as stubs:
        response = await stubs.inference.ModelInfer(pb.ModelInferRequest(model_name="constant"))
    assert list(response.raw_output_contents) == [np.array([4, 2], np.int32).tobytes()]


async def test_a_message_that_quotes_a_huge_name_is_cut_and_still_arrives(repository, serving, connect) -> None:
    publish_affine(repository)
    long_name = affine_request()
    long_name.inputs[0].name = "x" * 100_000
    async with serving(repository) as server, connect(server) as stubs:
        code, details = await failure(stubs.inference.ModelInfer(long_name))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert details.startswith("input 'xxx")
        assert details.endswith("is unknown; the model takes 'x'")
        assert "characters left out" in details
        code, _ = await failure(stubs.inference.ModelInfer(affine_request(model="m" * 20_000)))
        assert code is grpc.StatusCode.NOT_FOUND
