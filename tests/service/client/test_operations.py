from __future__ import annotations

import json

import numpy as np
import pytest

from service.client import ServerError, TimeSpent, datatype_of, operations, request
from service.errors import Code
from service.pb import open_inference_pb2 as pb


@pytest.mark.parametrize(
    ("array", "name"),
    [
        (np.zeros(1, np.float32), "FP32"),
        (np.zeros(1, ">f4"), "FP32"),
        (np.zeros(1, np.int8), "INT8"),
        (np.zeros(1, bool), "BOOL"),
        (np.array(["a"]), "BYTES"),
        (np.array([b"a"]), "BYTES"),
        (np.array(["a"], object), "BYTES"),
    ],
)
def test_the_datatype_follows_from_the_array(array, name) -> None:
    assert datatype_of(array).name == name


def test_an_array_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(TypeError, match="complex64 cannot be sent"):
        datatype_of(np.zeros(1, np.complex64))


@pytest.mark.parametrize(
    ("value", "field"), [(True, "bool_param"), (1, "int64_param"), (0.5, "double_param"), ("a", "string_param")]
)
def test_a_parameter_travels_in_the_field_of_its_type(value, field) -> None:
    message = request("m", {}, parameters={"p": value}).request
    assert message.parameters["p"].WhichOneof("parameter_choice") == field
    answer = operations.read_answer(pb.ModelInferResponse(parameters=message.parameters))
    assert answer.parameters == {"p": value}
    assert type(answer.parameters["p"]) is type(value)


def test_a_parameter_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="parameter 'p': got list"):
        request("m", {}, parameters={"p": []})


def test_priority_and_queue_timeout_travel_as_triton_reads_them() -> None:
    message = request("m", {}, priority=2, queue_timeout_s=0.25, parameters={"note": "n"}).request
    assert message.parameters["priority"].int64_param == 2
    assert message.parameters["timeout"].int64_param == 250_000
    assert message.parameters["note"].string_param == "n"
    # 0 would be no timeout at all.
    assert request("m", {}, queue_timeout_s=1e-9).request.parameters["timeout"].int64_param == 1


def test_classes_travel_with_their_output() -> None:
    message = request("m", {}, outputs=["a", "b"], classes={"b": 3, "c": 1}).request
    assert [output.name for output in message.outputs] == ["a", "b", "c"]
    counts = [output.parameters["classification"].int64_param for output in message.outputs if output.parameters]
    assert counts == [3, 1]
    assert not message.outputs[0].parameters


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"priority": -1}, "priority: got -1"),
        ({"queue_timeout_s": 0}, "queue_timeout_s: got 0"),
        ({"queue_timeout_s": float("nan")}, "queue_timeout_s: got nan"),
        ({"queue_timeout_s": float("inf")}, "queue_timeout_s: got inf"),
        ({"classes": {"y": 0}}, "classes of output 'y': got 0"),
        ({"priority": 1, "parameters": {"priority": 2}}, "'priority' is given twice"),
        ({"queue_timeout_s": 1, "parameters": {"timeout": 2}}, "'timeout' is given twice"),
    ],
)
def test_arguments_out_of_bounds_are_refused(arguments, says) -> None:
    with pytest.raises(ValueError, match=says):
        request("m", {}, **arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"version": 1}, "version: got 1, expected a str"),
        ({"request_id": 7}, "request_id: got 7, expected a str"),
        ({"outputs": "logits"}, "outputs: got 'logits', expected a sequence of names"),
        ({"inputs": {"x": [[1.0, 2.0]]}}, "input 'x': got a list, expected an array"),
        ({"inputs": {"x": 3.0}}, "input 'x': got a float, expected an array"),
    ],
)
def test_arguments_of_another_type_are_named(arguments, says) -> None:
    with pytest.raises(TypeError, match=says):
        request("m", **{"inputs": {}, **arguments})


@pytest.mark.parametrize(
    "operation",
    [operations.model_ready, operations.model_metadata, operations.model_config, operations.model_statistics],
)
def test_a_version_is_text_wherever_it_is_asked_for(operation) -> None:
    with pytest.raises(TypeError, match="version: got 2, expected a str"):
        operation("m", 2)


def test_a_configuration_of_another_server_is_read() -> None:
    response = pb.ModelConfigResponse()
    response.config.input.add(name="t", data_type=13, dims=[-1])
    response.config.input.add(name="f", data_type=99, dims=[2, 3])
    response.config.model_transaction_policy.decoupled = True
    response.config.parameters["k"].string_value = "v"
    config = operations.model_config("m", "").read(response)
    assert [(t.name, t.datatype, t.dims) for t in config.inputs] == [("t", "BYTES", (-1,)), ("f", "TYPE_99", (2, 3))]
    assert (config.max_batch_size, config.batches_requests, config.decoupled) == (0, False, True)
    assert config.parameters == {"k": "v"}
    response.config.dynamic_batching.preferred_batch_size.extend([4, 8])
    response.config.dynamic_batching.max_queue_delay_microseconds = 100
    config = operations.model_config("m", "").read(response)
    assert (config.batches_requests, config.preferred_batch_sizes, config.max_queue_delay_us) == (True, (4, 8), 100)


def test_a_load_carries_configuration_and_files_as_triton_reads_them() -> None:
    message = operations.load("m", {"max_batch_size": 4}, {"1/model.onnx": b"a", "file:2/model.onnx": b"b"}).request
    assert json.loads(message.parameters["config"].string_param) == {"max_batch_size": 4}
    assert message.parameters["file:1/model.onnx"].bytes_param == b"a"
    assert message.parameters["file:2/model.onnx"].bytes_param == b"b"
    assert not operations.load("m", None, {}).request.parameters


@pytest.mark.parametrize(
    "response",
    [
        pb.ModelInferResponse(
            outputs=[{"name": "y", "datatype": "FP32", "shape": [2]}], raw_output_contents=[b"\0\0\0\0"]
        ),
        pb.ModelInferResponse(
            outputs=[{"name": "y", "datatype": "FP32", "shape": [1]}, {"name": "y", "datatype": "FP32", "shape": [1]}],
            raw_output_contents=[b"\0\0\0\0"],
        ),
        pb.ModelInferResponse(outputs=[{"name": "y", "datatype": "FP31", "shape": [0]}]),
        pb.ModelInferResponse(outputs=[{"name": "y", "datatype": "FP32", "shape": [1]}]),
    ],
    ids=["size", "count", "datatype", "typed count"],
)
def test_a_damaged_response_is_said_to_be_damaged(response) -> None:
    with pytest.raises(ServerError, match="output 'y' of the response is damaged") as failure:
        operations.read_answer(response)
    assert failure.value.code is Code.DATA_LOSS


def test_never_done_takes_no_time() -> None:
    assert TimeSpent(0, 0).mean_us == 0
    assert TimeSpent(4, 8000).mean_us == 2
