"""tritonclient's streams: one response a request, in order; errors within the stream, or ending it if asked to."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from tests.interop.clients import Failure


def request(value: float, model: str = "affine", **more):
    shape = (1, 1) if model == "spin" else (1, 3)
    return {
        "model_name": model,
        "inputs": [{"name": "x", "datatype": "FP32", "array": np.full(shape, value, np.float32)}],
        "request_id": str(value),
        **more,
    }


def test_responses_come_in_the_order_of_the_requests(triton) -> None:
    # The slow ones first: whatever overtakes shows. spin waits in its own queue, affine answers at once.
    models = ["spin", "affine", "spin", "affine", "affine", "affine"]
    answers = triton.ask("stream", requests=[request(20 + n, model) for n, model in enumerate(models)])
    assert [answer["result"]["id"] for answer in answers] == [str(20 + n) for n in range(6)]
    assert [answer["result"]["model_name"] for answer in answers] == models
    assert answers[1]["result"]["outputs"]["y"].tolist() == [[64, 64, 64]]


def test_many_requests_on_one_stream(triton) -> None:
    answers = triton.ask("stream", requests=[request(n) for n in range(200)])
    assert [float(answer["result"]["outputs"]["y"][0, 0]) for answer in answers] == [3 * n + 1 for n in range(200)]


def test_an_error_is_told_within_the_stream_which_goes_on(triton) -> None:
    answers = triton.ask(
        "stream",
        requests=[
            request(1),
            request(2, "nope"),
            request(3, model_version="9"),
            request(4, model_version="x"),
            request(5),
        ],
    )
    assert [answer["error"] and answer["error"]["code"] for answer in answers] == [None, "", "", "", None]
    assert answers[1]["error"]["message"] == "Request for unknown model: 'nope' is not found"
    assert "version 9 is not found" in answers[2]["error"]["message"]
    assert "failed to get model version from specified version string" in answers[3]["error"]["message"]
    assert answers[4]["result"]["id"] == "5"


def test_an_error_within_a_stream_names_its_request(triton_sync) -> None:
    content = base64.b64encode(np.zeros(3, np.float32).tobytes()).decode()
    tensors = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3]}], "raw_input_contents": [content]}
    answers = triton_sync.ask(
        "stub",
        rpc="ModelStreamInfer",
        requests=[
            {"model_name": "nope", "id": "first", **tensors},
            {"model_name": "affine", "id": "second", **tensors},
        ],
    )
    assert answers[0]["error_message"] == "Request for unknown model: 'nope' is not found"
    assert answers[0]["infer_response"] == {"model_name": "nope", "id": "first"}
    assert "error_message" not in answers[1]
    assert answers[1]["infer_response"]["id"] == "second"


def test_a_caller_that_wants_grpc_errors_gets_them_and_the_stream_ends(triton) -> None:
    headers = {"triton_grpc_error": "true"}
    answers = triton.ask("stream", requests=[request(1), request(2, "nope")], headers=headers)
    assert answers[0]["result"]["id"] == "1"
    assert answers[1]["error"] == {"code": "NOT_FOUND", "message": "Request for unknown model: 'nope' is not found"}
    assert len(answers) == 2


def test_nothing_is_answered_after_a_grpc_error(triton_sync) -> None:
    answers = triton_sync.ask(
        "stream",
        requests=[request(1, "nope"), request(2), request(3)],
        responses=1,
        headers={"triton_grpc_error": "true"},
    )
    assert [answer["error"]["code"] for answer in answers] == ["NOT_FOUND"]


def test_a_stream_can_be_opened_again_after_one_ended(triton) -> None:
    for _ in range(3):
        assert triton.ask("stream", requests=[request(1)])[0]["result"]["id"] == "1"


def test_a_cancelled_stream_ends_and_leaves_the_server_well(triton) -> None:
    answers = triton.ask("stream", requests=[request(0), request(500, "spin")], responses=1, cancel=True)
    assert answers[0]["result"]["id"] == "0"
    assert [answer["error"]["code"] for answer in answers[1:]] == ["CANCELLED"]
    assert triton.ask("infer", **request(1))["id"] == "1"


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_stream(triton, algorithm) -> None:
    assert triton.ask("stream", requests=[request(1)], compression_algorithm=algorithm)[0]["result"]["id"] == "1"


def test_a_stream_whose_time_is_over_is_told_deadline_exceeded(triton) -> None:
    answers = triton.ask("stream", requests=[request(3000, "spin")], stream_timeout=0.5)
    assert [answer["error"]["code"] for answer in answers] == ["DEADLINE_EXCEEDED"]


def test_who_asks_for_it_is_told_which_response_is_the_last(triton_sync) -> None:
    answers = triton_sync.ask("stream", requests=[request(1, enable_empty_final_response=True), request(2)])
    assert answers[0]["result"]["parameters"]["triton_final_response"] == {"bool_param": True}
    assert [answer["result"]["id"] for answer in answers] == ["1", "2"]


def test_classification_and_requested_outputs_work_on_a_stream_too(triton) -> None:
    asked = request(1, "labelled", outputs=[{"name": "y", "class_count": 2}])
    (answer,) = triton.ask("stream", requests=[asked])
    assert answer["result"]["outputs"]["y"].tolist() == [[b"3.000000:0:zero", b"3.000000:1:one"]]


def test_a_stream_refused_at_once_tells_its_status(new_triton, zoo_server) -> None:
    # More headers than the server takes: the call fails before any request is read.
    with new_triton("sync", zoo_server.port) as client:
        answers = client.ask("stream", requests=[request(1)], headers={"big": "x" * 40_000})
    assert [answer["error"]["code"] for answer in answers] == ["RESOURCE_EXHAUSTED"]
    assert not isinstance(answers, Failure)
