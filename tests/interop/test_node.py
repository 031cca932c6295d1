"""Node's @grpc/grpc-js with protos/ loaded at run time: what a JavaScript client gets."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.interop.clients import Failure, client_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.interop.clients import ClientProcess

pytestmark = pytest.mark.slow  # a suite of another project's client

FOLDER = Path(__file__).with_name("node")
PROTOS = Path(__file__).parents[2] / "protos"


@pytest.fixture(scope="module")
def node(zoo_server) -> Iterator[ClientProcess]:
    program = shutil.which("node")
    if program is None or not (FOLDER / "node_modules").is_dir():
        pytest.skip("node, or its packages, are not installed (`make interop-clients` installs the packages)")
    with client_process(program, FOLDER / "driver.js", f"127.0.0.1:{zoo_server.port}", PROTOS) as client:
        yield client


def request(array=((1, 2, 3),), *, model: str = "affine", request_id: str = "", **more):
    x = np.array(array, np.float32)
    tensor = {"name": "x", "datatype": "FP32", "shape": list(x.shape)}
    return {"model_name": model, "id": request_id, "inputs": [tensor], "raw_input_contents": [x.tobytes()], **more}


def test_live_and_ready(node) -> None:
    assert node.ask("unary", rpc="ServerLive") == {"live": True}
    assert node.ask("unary", rpc="ServerReady") == {"ready": True}
    assert node.ask("unary", rpc="ModelReady", request={"name": "affine"}) == {"ready": True}


def test_metadata_and_config(node) -> None:
    metadata = node.ask("unary", rpc="ModelMetadata", request={"name": "affine"})
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "3"]}]
    assert metadata["properties"]["proof"] == "proven"
    config = node.ask("unary", rpc="ModelConfig", request={"name": "affine"})["config"]
    assert config["scheduling_choice"] == "dynamic_batching"
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["3"]}]


def test_raw_contents(node) -> None:
    answer = node.ask("unary", rpc="ModelInfer", request=request(request_id="from node"))
    assert (answer["id"], answer["model_version"]) == ("from node", "2")
    assert np.frombuffer(answer["raw_output_contents"][0], np.float32).tolist() == [4, 7, 10]


def test_typed_contents(node) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], "contents": {"fp32_contents": [1, 2, 3]}}
    answer = node.ask("unary", rpc="ModelInfer", request={"model_name": "affine", "inputs": [tensor]})
    assert answer["outputs"][0]["contents"]["fp32_contents"] == [4, 7, 10]
    assert "raw_output_contents" not in answer


def test_64_bit_integers_and_text(node) -> None:
    for datatype, field, values in (
        ("INT64", "int64_contents", [str(-(2**63)), str(2**63 - 1)]),
        ("UINT64", "uint64_contents", [str(2**64 - 1), "0"]),
        ("BYTES", "bytes_contents", ["größer".encode(), b""]),
    ):
        tensor = {"name": "x", "datatype": datatype, "shape": [1, 2], "contents": {field: values}}
        asked = {"model_name": f"identity_{datatype.lower()}", "inputs": [tensor]}
        answer = node.ask("unary", rpc="ModelInfer", request=asked)
        assert answer["outputs"][0]["contents"][field] == values


def test_errors(node) -> None:
    unknown = node.ask("unary", rpc="ModelInfer", request=request(model="nope"))
    assert (unknown.code, unknown.message) == ("NOT_FOUND", "Request for unknown model: 'nope' is not found")
    wrong = node.ask("unary", rpc="ModelInfer", request=request([[1, 2]]))
    assert wrong.code == "INVALID_ARGUMENT"
    assert "expected shape [-1, 3], got [1, 2]" in wrong.message
    absent = node.ask("unary", rpc="CudaSharedMemoryStatus")
    assert absent.code == "UNIMPLEMENTED"


DETAILS = {
    "an unknown model": (request(model="nope"), "MODEL_NOT_FOUND", {"model": "nope"}, None, None),
    "an unknown version": (
        request(model_version="9"), "MODEL_NOT_FOUND", {"model": "affine", "version": "9"}, None, None,
    ),
    "a shape": (request([[1, 2]]), "INVALID_REQUEST", {}, "inputs[0].shape", None),
    "a model that was refused": (request(model="broken"), "ARTIFACT_INVALID", {"model": "broken"}, None, None),
}  # fmt: skip


@pytest.mark.parametrize("name", DETAILS)
def test_errors_have_details_for_programs(node, name) -> None:
    asked, reason, metadata, field, retry_after_s = DETAILS[name]
    by_type = {detail["type"]: detail for detail in node.ask("unary", rpc="ModelInfer", request=asked).details}
    info = by_type["ErrorInfo"]
    assert (info["reason"], info["domain"]) == (reason, "mnist1d-service")
    assert metadata.items() <= info.get("metadata", {}).items()
    assert ("BadRequest" in by_type) is (field is not None)
    if field is not None:
        (violation,) = by_type["BadRequest"]["field_violations"]
        assert violation["field"] == field
        assert "expected shape [-1, 3]" in violation["description"]
    assert ("RetryInfo" in by_type) is (retry_after_s is not None)
    if retry_after_s is not None:
        delay = by_type["RetryInfo"]["retry_delay"]
        assert int(delay.get("seconds", 0)) + delay.get("nanos", 0) / 1e9 == retry_after_s


def test_a_stream_answers_in_order_and_tells_errors_within(node) -> None:
    answer = node.ask(
        "stream",
        requests=[
            request([[20]], model="spin", request_id="0"),
            request(request_id="1"),
            request(model="nope", request_id="2"),
            request(request_id="3"),
        ],
    )
    assert "error" not in answer
    responses = answer["responses"]
    assert [response["infer_response"]["id"] for response in responses] == ["0", "1", "2", "3"]
    assert responses[2]["error_message"] == "Request for unknown model: 'nope' is not found"
    assert [bool(response.get("error_message")) for response in responses] == [False, False, True, False]


def test_a_stream_that_asked_for_grpc_errors_ends_with_one(node) -> None:
    answer = node.ask(
        "stream",
        requests=[request(request_id="0"), request(model="nope")],
        headers={"triton_grpc_error": "true"},
        responses=3,
    )
    assert len(answer["responses"]) == 1
    assert answer["error"]["code"] == "NOT_FOUND"


def test_a_cancelled_stream(node) -> None:
    answer = node.ask("stream", requests=[request(), request([[500]], model="spin")], responses=1)
    assert "error" not in answer
    assert len(answer["responses"]) == 1
    assert node.ask("unary", rpc="ServerLive") == {"live": True}


def test_a_deadline(node) -> None:
    late = node.ask("unary", rpc="ModelInfer", request=request([[3000]], model="spin"), deadline_ms=50)
    assert late.code == "DEADLINE_EXCEEDED"
    assert not isinstance(node.ask("unary", rpc="ModelInfer", request=request(), deadline_ms=30_000), Failure)


def test_a_cancelled_call(node) -> None:
    assert node.ask("unary", rpc="ModelInfer", request=request([[300]], model="spin"), cancel=True).code == "CANCELLED"
    assert node.ask("unary", rpc="ServerLive") == {"live": True}


def test_health(node) -> None:
    assert node.ask("health", rpc="Check", request={"service": ""}) == {"status": "SERVING"}
    assert node.ask("health", rpc="Check", request={"service": "model/affine"}) == {"status": "SERVING"}
    assert node.ask("health", rpc="Check", request={"service": "model/broken"}) == {"status": "NOT_SERVING"}
    assert node.ask("health", rpc="Check", request={"service": "model/nope"}).code == "NOT_FOUND"
    statuses = node.ask("health", rpc="List")["statuses"]
    assert statuses["model/affine"] == {"status": "SERVING"}
    watched = node.ask("watch", request={"service": "model/nope"}, responses=1)
    assert watched["responses"] == [{"status": "SERVICE_UNKNOWN"}]
