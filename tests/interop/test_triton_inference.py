"""tritonclient, sync and aio: what an inference can be asked for and what comes back."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from service.client import InferenceClient
from service.wire.datatypes import DATATYPES
from tests.conftest import conv2d_model
from tests.interop.clients import Failure
from tests.interop.zoo import identity_name

X = np.array([[1, 2, 3], [-4, 0.5, 1e30]], np.float32)


def x(array=X, **more):
    return [{"name": "x", "datatype": "FP32", "array": array, **more}]


def sample(datatype: str) -> np.ndarray:
    """Two rows of four elements with the extremes of the datatype among them."""
    if datatype == "BYTES":
        return np.array(
            [[b"", b"plain", "größer".encode(), b"\x00 in it"], [b"a" * 300, b"\n", b'"', b" "]], np.object_
        )
    if datatype == "BOOL":
        return np.array([[True, False, True, True], [False, False, True, False]])
    dtype = DATATYPES[datatype].numpy
    info = ml_dtypes.finfo(dtype) if DATATYPES[datatype].is_float else np.iinfo(dtype)
    return np.array([[info.min, info.max, 0, 1], [2, 3, 5, 8]], dtype)


def test_an_answer_has_the_model_the_version_the_id_and_the_numbers(triton) -> None:
    answer = triton.ask("infer", model_name="affine", inputs=x(), request_id="from tritonclient")
    assert answer["model_name"] == "affine"
    assert answer["model_version"] == "2"
    assert answer["id"] == "from tritonclient"
    assert answer["datatypes"] == {"y": "FP32"}
    assert answer["outputs"]["y"].tobytes() == (X * np.float32(3) + np.float32(1)).tobytes()


def test_a_version_that_is_asked_for_answers(triton) -> None:
    answer = triton.ask("infer", model_name="affine", model_version="1", inputs=x())
    assert answer["model_version"] == "1"
    assert answer["outputs"]["y"].tobytes() == (X * np.float32(2) + np.float32(1)).tobytes()


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_goes_there_and_back(triton, datatype) -> None:
    sent = sample(datatype)
    answer = triton.ask(
        "infer",
        model_name=identity_name(datatype),
        inputs=[{"name": "x", "datatype": datatype, "array": sent}],
    )
    assert not isinstance(answer, Failure), answer
    assert answer["datatypes"] == {"y": datatype}
    received = answer["outputs"]["y"]
    assert received.shape == (2, 4)
    assert received.dtype == sent.dtype
    assert (received.tolist() if datatype == "BYTES" else received.tobytes()) == (
        sent.tolist() if datatype == "BYTES" else sent.tobytes()
    )


def test_several_inputs_and_outputs_of_several_datatypes(triton) -> None:
    inputs = [
        {"name": "text", "datatype": "BYTES", "array": np.array([b"one", "zwölf".encode()], np.object_)},
        {"name": "a", "datatype": "FP32", "array": np.ones((2, 2), np.float32)},
        {"name": "flag", "datatype": "BOOL", "array": np.array([True, False])},
        {"name": "b", "datatype": "INT64", "array": np.array([[1, 2], [3, 4]])},
    ]
    answer = triton.ask("infer", model_name="mixed", inputs=inputs)
    assert answer["order"] == ["total", "flipped", "same", "size"]
    assert answer["outputs"]["total"].tolist() == [[2, 3], [4, 5]]
    assert answer["outputs"]["flipped"].tolist() == [False, True]
    assert answer["outputs"]["same"].tolist() == [b"one", "zwölf".encode()]
    assert answer["outputs"]["size"].tolist() == 4
    some = triton.ask("infer", model_name="mixed", inputs=inputs, outputs=[{"name": "size"}, {"name": "flipped"}])
    assert some["order"] == ["size", "flipped"]
    assert some["outputs"]["flipped"].tolist() == [False, True]


def test_an_image_of_any_size(triton) -> None:
    _, weight, bias = conv2d_model()
    image = np.random.default_rng(0).standard_normal((2, 3, 5, 7)).astype(np.float32)
    answer = triton.ask("infer", model_name="conv2d", inputs=[{"name": "image", "datatype": "FP32", "array": image}])
    padded = np.pad(image, [(0, 0), (0, 0), (1, 1), (1, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    expected = np.einsum("bchwij,fcij->bfhw", windows, weight) + bias[:, None, None]
    np.testing.assert_allclose(answer["outputs"]["features"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_request(triton, algorithm) -> None:
    many = np.zeros((1000, 3), np.float32)
    answer = triton.ask("infer", model_name="affine", inputs=x(many), compression_algorithm=algorithm)
    assert (answer["outputs"]["y"] == 1).all()


def test_parameters_of_any_type_pass(triton) -> None:
    parameters = {"text": "a", "whole": -3, "real": 0.5, "flag": True}
    answer = triton.ask("infer", model_name="affine", inputs=x(), parameters=parameters)
    assert answer["outputs"]["y"].shape == (2, 3)


def test_priority_and_timeout_pass_where_nothing_waits(triton) -> None:
    answer = triton.ask("infer", model_name="affine", inputs=x(), priority=1, timeout=60_000_000)
    assert answer["outputs"]["y"].shape == (2, 3)


@pytest.mark.parametrize("sequence", [7, "seven"])
def test_a_request_of_a_sequence_is_answered_like_any_other(triton, sequence) -> None:
    more = {"sequence_id": sequence, "sequence_start": True, "sequence_end": True}
    assert triton.ask("infer", model_name="affine", inputs=x(), **more)["outputs"]["y"].shape == (2, 3)


def test_headers_pass_with_and_without_a_plugin(triton_sync) -> None:
    headers = {"x-request-id": "7", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    assert triton_sync.ask("infer", model_name="affine", inputs=x(), headers=headers)["model_version"] == "2"
    answer = triton_sync.ask("plugin", headers=headers, call="is_server_live", arguments={})
    assert answer is True


def test_many_at_once_get_each_their_own_answer(triton) -> None:
    rows = [np.full((1 + n % 3, 3), n, np.float32) for n in range(32)]
    answers = triton.ask(
        "async_infer",
        requests=[{"model_name": "affine", "inputs": x(row), "request_id": str(n)} for n, row in enumerate(rows)],
    )
    assert sorted(answer["request"] for answer in answers) == list(range(32))
    for answer in answers:
        assert answer["error"] is None
        assert answer["result"]["id"] == str(answer["request"])
        assert answer["result"]["outputs"]["y"].tolist() == (rows[answer["request"]] * 3 + 1).tolist()


def test_errors_come_to_the_callback_of_their_request(triton) -> None:
    answers = triton.ask(
        "async_infer",
        requests=[{"model_name": name, "inputs": x()} for name in ("affine", "nope", "affine")],
    )
    by_request = {answer["request"]: answer for answer in answers}
    assert by_request[1]["error"] == {"code": "NOT_FOUND", "message": "Request for unknown model: 'nope' is not found"}
    assert by_request[0]["result"]["outputs"]["y"].shape == by_request[2]["result"]["outputs"]["y"].shape == (2, 3)


def test_a_cancelled_request_is_told_cancelled_and_the_others_are_answered(triton) -> None:
    slow = {"model_name": "spin", "inputs": x(np.array([[300]], np.float32))}
    quick = {"model_name": "affine", "inputs": x()}
    answers = triton.ask("async_infer", requests=[slow, quick, slow], cancel=[0, 2])
    by_request = {answer["request"]: answer for answer in answers}
    assert by_request[0]["error"]["code"] == by_request[2]["error"]["code"] == "CANCELLED"
    assert by_request[1]["error"] is None
    assert triton.ask("is_server_live") is True


def test_a_client_that_stops_waiting_is_told_deadline_exceeded(triton) -> None:
    slow = x(np.array([[3000]], np.float32))
    failure = triton.ask("infer", model_name="spin", inputs=slow, client_timeout=0.05)
    assert isinstance(failure, Failure)
    assert failure.code == "DEADLINE_EXCEEDED"
    assert triton.ask("infer", model_name="affine", inputs=x(), client_timeout=30)["model_version"] == "2"


@pytest.mark.needs_torch
@pytest.mark.parametrize("name", ["mnist1d-conv", "mnist1d-fc"])
def test_the_trained_networks_answer_tritonclient_and_our_client_alike(server, trained, new_triton, name) -> None:
    inputs = x(trained.test.x_BL)
    with new_triton("sync", server.port) as triton, InferenceClient(f"127.0.0.1:{server.port}") as client:
        assert triton.ask("is_model_ready", model_name=name)
        theirs = triton.ask("infer", model_name=name, inputs=inputs)["outputs"]
        ours = client.infer(name, {"x": trained.test.x_BL}).outputs
        for output in ("probabilities", "logits"):
            assert theirs[output].tobytes() == ours[output].tobytes()
