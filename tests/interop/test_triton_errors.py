"""Every error through tritonclient: the code that docs/protocol.md promises and a text that names what is wrong.

Texts in quotation marks are Triton's own, word for word, where clients are known to look for them.
"""

from __future__ import annotations

import base64
import signal
import struct
import time

import numpy as np
import pytest

from service.wire.datatypes import DATATYPES
from tests.interop.clients import Failure
from tests.interop.zoo import identity_name
from tests.processes import serve

X = np.zeros((2, 3), np.float32)


def tensor(array=X, name="x", datatype="FP32", **more):
    return {"name": name, "datatype": datatype, "array": array, **more}


def infer(*inputs, model="affine", **more):
    return ("infer", {"model_name": model, "inputs": list(inputs), **more})


def raw(*contents: bytes) -> list[str]:
    return [base64.b64encode(content).decode() for content in contents]


def stub(model="affine", inputs=None, **more):
    """A request that tritonclient's own classes cannot be made to send, through its stub."""
    x = {"name": "x", "datatype": "FP32", "shape": [1, 3]}
    return ("stub", {"rpc": "ModelInfer", "requests": [{"model_name": model, "inputs": inputs or [x], **more}]})


def contents_of(datatype: str, shape, content: bytes):
    x = {"name": "x", "datatype": datatype, "shape": shape}
    return stub(identity_name(datatype), [x], raw_input_contents=raw(content))


ONE = np.array([[1]], np.int32)
TRITON_UNKNOWN = "Request for unknown model: 'nope' is not found"
TRITON_VERSION = "failed to get model version from specified version string"
REGION = {"region_name": "region", "byte_size": 24}

# name: (what is asked, code, what the message contains)
ERRORS = {
    # What is not there
    "unknown model, infer": (infer(tensor(), model="nope"), "NOT_FOUND", TRITON_UNKNOWN),
    "unknown model, metadata": (("get_model_metadata", {"model_name": "nope"}), "NOT_FOUND", TRITON_UNKNOWN),
    "unknown model, config": (("get_model_config", {"model_name": "nope"}), "NOT_FOUND", TRITON_UNKNOWN),
    "unknown model, statistics": (("get_inference_statistics", {"model_name": "nope"}), "NOT_FOUND", TRITON_UNKNOWN),
    "unknown model, ready": (("is_model_ready", {"model_name": "nope"}), "NOT_FOUND", TRITON_UNKNOWN),
    "unknown version": (infer(tensor(), model_version="9"), "NOT_FOUND", "version 9 is not found"),
    "version of 40 digits": (infer(tensor(), model_version="1" * 40), "NOT_FOUND", "is not found"),
    "unknown version, metadata": (
        ("get_model_metadata", {"model_name": "affine", "model_version": "9"}), "NOT_FOUND", "version 9 is not found",
    ),
    "unknown version, ready": (
        ("is_model_ready", {"model_name": "affine", "model_version": "9"}), "NOT_FOUND", "version 9 is not found",
    ),
    "version that is no number": (infer(tensor(), model_version="one"), "INVALID_ARGUMENT", TRITON_VERSION),
    "negative version": (infer(tensor(), model_version="-1"), "INVALID_ARGUMENT", TRITON_VERSION),
    "empty model name": (infer(tensor(), model=""), "NOT_FOUND", "Request for unknown model: ''"),
    # What is there and not ready
    "no ready version": (infer(tensor(), model="broken"), "UNAVAILABLE", "no version is at ready state"),
    "version not ready": (infer(tensor(), model="broken", model_version="1"), "UNAVAILABLE", "not at ready state"),
    "not ready, metadata": (("get_model_metadata", {"model_name": "broken"}), "UNAVAILABLE", "at ready state"),
    "not ready, config": (("get_model_config", {"model_name": "broken"}), "UNAVAILABLE", "at ready state"),
    # Inputs
    "input missing": (infer(), "INVALID_ARGUMENT", "input 'x' is missing"),
    "input unknown": (infer(tensor(), tensor(name="z")), "INVALID_ARGUMENT", "input 'z' is unknown"),
    "input twice": (infer(tensor(), tensor()), "INVALID_ARGUMENT", "input 'x' is given twice"),
    "other datatype": (
        infer(tensor(X.astype(np.float64), datatype="FP64")), "INVALID_ARGUMENT", "expected datatype FP32, got FP64",
    ),
    "unknown datatype": (
        stub(inputs=[{"name": "x", "datatype": "FP8", "shape": [1, 3]}], raw_input_contents=raw(bytes(3))),
        "INVALID_ARGUMENT", "expected datatype FP32, got FP8",
    ),
    "rank": (infer(tensor(X[0])), "INVALID_ARGUMENT", "expected shape [-1, 3], got [3]"),
    "dimension": (infer(tensor(X[:, :2])), "INVALID_ARGUMENT", "expected shape [-1, 3], got [2, 2]"),
    "empty batch": (infer(tensor(X[:0])), "INVALID_ARGUMENT", "the batch axis must be at least 1"),
    "negative dimension": (infer(tensor(claimed_shape=[-1, 3])), "INVALID_ARGUMENT", "got [-1, 3]"),
    "too large a batch": (
        infer(tensor(np.zeros((4097, 3), np.float32))), "INVALID_ARGUMENT", "a batch of at most 4096",
    ),
    "batches that differ": (
        infer(
            tensor(np.zeros((2, 2), np.float32), "a"),
            tensor(np.zeros((3, 2), np.int64), "b", "INT64"),
            tensor(np.zeros(2, bool), "flag", "BOOL"),
            tensor(np.array([b"", b""], np.object_), "text", "BYTES"),
            model="mixed",
        ),
        "INVALID_ARGUMENT", "input 'b'",
    ),
    "too few bytes": (infer(tensor(claimed_shape=[3, 3])), "INVALID_ARGUMENT", "expected 36 bytes"),
    "too many bytes": (infer(tensor(claimed_shape=[1, 3])), "INVALID_ARGUMENT", "expected 12 bytes"),
    "no contents": (infer({"name": "x", "datatype": "FP32", "shape": [1, 3]}), "INVALID_ARGUMENT", "got neither"),
    "NaN": (infer(tensor(X + np.float32("nan"))), "INVALID_ARGUMENT", "expected finite values, got nan at [0, 0]"),
    "BOOL of 2": (contents_of("BOOL", [1, 2], b"\x00\x02"), "INVALID_ARGUMENT", "expected BOOL bytes 0 or 1, got 2"),
    "BYTES length past the end": (
        contents_of("BYTES", [1, 1], struct.pack("<I", 9) + b"ab"), "INVALID_ARGUMENT", "should have 9 bytes",
    ),
    "BYTES half a length": (contents_of("BYTES", [1, 1], b"\x01\x00"), "INVALID_ARGUMENT", "a length prefix takes 4"),
    "BYTES too few elements": (
        contents_of("BYTES", [1, 2], struct.pack("<I", 0)), "INVALID_ARGUMENT", "expected 2 BYTES elements, got 1",
    ),
    "BYTES that are no UTF-8": (
        contents_of("BYTES", [1, 1], struct.pack("<I", 1) + b"\xff"), "INVALID_ARGUMENT", "is not UTF-8",
    ),
    "raw and typed": (
        stub(
            inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 3], "contents": {"fp32_contents": [1, 2, 3]}}],
            raw_input_contents=raw(bytes(12)),
        ),
        "INVALID_ARGUMENT", "both raw and typed contents",
    ),
    "one raw too many": (stub(raw_input_contents=raw(bytes(12), bytes(12))), "INVALID_ARGUMENT", "expected 1 entries"),
    "typed in the list of another datatype": (
        stub(inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 3], "contents": {"int_contents": [1, 2, 3]}}]),
        "INVALID_ARGUMENT", "fp32_contents",
    ),
    "typed FP16": (
        stub(
            "identity_fp16",
            [{"name": "x", "datatype": "FP16", "shape": [1, 1], "contents": {"fp32_contents": [1]}}],
        ),
        "INVALID_ARGUMENT", "FP16",
    ),
    "typed out of range": (
        stub(
            "identity_int8",
            [{"name": "x", "datatype": "INT8", "shape": [1, 1], "contents": {"int_contents": [128]}}],
        ),
        "INVALID_ARGUMENT", "128",
    ),
    # Outputs
    "output unknown": (infer(tensor(), outputs=[{"name": "z"}]), "INVALID_ARGUMENT", "requested output 'z' is unknown"),
    "output twice": (infer(tensor(), outputs=[{"name": "y"}, {"name": "y"}]), "INVALID_ARGUMENT", "is given twice"),
    "classes of text": (
        infer(
            tensor(np.array([[b"a"]], np.object_), datatype="BYTES"),
            model="identity_bytes", outputs=[{"name": "y", "class_count": 1}],
        ),
        "INVALID_ARGUMENT", "class result not available for output due to unsupported type",
    ),
    "classes below 0": (
        infer(tensor(), outputs=[{"name": "y", "class_count": -1}]), "INVALID_ARGUMENT", "'classification'",
    ),
    # Parameters
    "reserved parameter": (
        stub(raw_input_contents=raw(bytes(12)), parameters={"triton_x": {"bool_param": True}}),
        "INVALID_ARGUMENT", "'triton_x'",
    ),
    "timeout that is text": (
        stub(raw_input_contents=raw(bytes(12)), parameters={"timeout": {"string_param": "1"}}),
        "INVALID_ARGUMENT", "'timeout'",
    ),
    "negative timeout": (infer(tensor(), timeout=-1), "INVALID_ARGUMENT", "'timeout'"),
    "input in shared memory": (
        infer({"name": "x", "datatype": "FP32", "shape": [2, 3], "shared_memory": REGION}),
        "UNIMPLEMENTED", "shared memory is not supported",
    ),
    "output in shared memory": (
        infer(tensor(), outputs=[{"name": "y", "shared_memory": REGION}]),
        "UNIMPLEMENTED", "shared memory is not supported",
    ),
    # Calls that have no meaning here
    "system shared memory, status": (
        ("get_system_shared_memory_status", {}), "UNIMPLEMENTED", "send raw_input_contents",
    ),
    "system shared memory, register": (
        ("register_system_shared_memory", {"name": "region", "key": "/region", "byte_size": 24}),
        "UNIMPLEMENTED", "system shared memory is not supported",
    ),
    "system shared memory, unregister": (
        ("unregister_system_shared_memory", {}), "UNIMPLEMENTED", "system shared memory is not supported",
    ),
    "CUDA shared memory, status": (("get_cuda_shared_memory_status", {}), "UNIMPLEMENTED", "computes on the CPU"),
    "CUDA shared memory, register": (
        ("register_cuda_shared_memory", {"name": "r", "raw_handle": b"aA==", "device_id": 0, "byte_size": 1}),
        "UNIMPLEMENTED", "CUDA shared memory is not supported",
    ),
    "CUDA shared memory, unregister": (
        ("unregister_cuda_shared_memory", {}), "UNIMPLEMENTED", "CUDA shared memory is not supported",
    ),
    # Limits
    "too large a message": (
        infer(tensor(np.zeros((4096, 400), np.float32))), "RESOURCE_EXHAUSTED", "larger than max",
    ),
    "too large a message, compressed": (
        infer(tensor(np.zeros((4096, 400), np.float32)), compression_algorithm="gzip"), "RESOURCE_EXHAUSTED", "max",
    ),
    "too many headers": (("is_server_live", {"headers": {"big": "x" * 40_000}}), "RESOURCE_EXHAUSTED", "metadata"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_error(triton, name) -> None:
    (method, arguments), code, text = ERRORS[name]
    failure = triton.ask(method, **arguments)
    assert isinstance(failure, Failure), failure
    assert failure.code == code, failure.message
    assert text in failure.message


def test_the_server_is_well_after_all_of_them(triton) -> None:
    method, arguments = infer(tensor())
    assert (triton.ask(method, **arguments)["outputs"]["y"] == 1).all()


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_has_its_byte_count_checked(triton_sync, datatype) -> None:
    method, arguments = contents_of(datatype, [1, 3], bytes(7))
    failure = triton_sync.ask(method, **arguments)
    assert failure.code == "INVALID_ARGUMENT"
    assert "input 'x'" in failure.message


def spin(turns: int, **more):
    array = np.array([[turns]], np.float32)
    return {"model_name": "spin", "inputs": [tensor(array)], **more}


def test_a_full_queue_is_told_unavailable_in_tritons_words(zoo, tmp_path, new_triton) -> None:
    options = ("--max-queue-size", "1", "--max-batch-size", "1", "--no-strict-readiness")
    with serve(zoo, tmp_path / "log", *options) as server, new_triton("sync", server.port) as client:
        answers = client.ask("async_infer", requests=[spin(200)] * 12)
        refused = [answer["error"] for answer in answers if answer["error"]]
        # One runs and one waits; while they do the rest arrive.
        assert 1 <= len(refused) <= 11
        for error in refused:
            assert error["code"] == "UNAVAILABLE"
            assert "Exceeds maximum queue size" in error["message"]
        assert client.ask("infer", **spin(1))["outputs"]["y"].tolist() == [[1]]


def test_a_queue_timeout_is_told_unavailable_in_tritons_words(triton) -> None:
    # The first keeps the model busy for longer than the second, which comes 1 microsecond too late, will wait.
    answers = triton.ask("async_infer", requests=[spin(300), spin(1, timeout=1), spin(2, timeout=60_000_000)])
    by_request = {answer["request"]: answer for answer in answers}
    assert by_request[0]["error"] is None
    assert by_request[1]["error"]["code"] == "UNAVAILABLE"
    assert "Request timeout expired" in by_request[1]["error"]["message"]
    assert by_request[2]["result"]["outputs"]["y"].tolist() == [[2]]


def test_a_server_that_exits_says_so_and_finishes_what_runs(zoo, tmp_path, new_triton) -> None:
    with (
        serve(zoo, tmp_path / "log", "--grace-s", "30", "--no-strict-readiness") as server,
        new_triton("sync", server.port) as client,
    ):
        assert client.ask("is_server_ready")
        client.ask("begin", requests=[spin(1500)])
        # Later on the same connection: once it is answered, the long one has arrived.
        assert client.ask("infer", **infer(tensor())[1])["model_version"] == "2"
        server.process.send_signal(signal.SIGTERM)
        failure, until = None, time.monotonic() + 20
        while not isinstance(failure, Failure) and time.monotonic() < until:
            failure = client.ask("infer", **infer(tensor())[1])
        assert (failure.code, failure.message) == ("UNAVAILABLE", "Server exiting")
        assert client.ask("is_server_ready") is False
        (finished,) = client.ask("finish")
        assert finished["error"] is None
        assert finished["result"]["outputs"]["y"].tolist() == [[1500]]
        assert server.process.wait(30) == 0
