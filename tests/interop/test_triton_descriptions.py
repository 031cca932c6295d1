"""tritonclient: what the server says of itself and of its models, and the sequence of calls of perf_analyzer."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from service.wire.datatypes import DATATYPES
from tests.interop.clients import Failure
from tests.interop.zoo import LABELS, identity_name

EXTENSIONS = {
    "classification", "sequence", "model_repository", "model_repository(unload_dependents)", "schedule_policy",
    "model_configuration", "system_shared_memory", "cuda_shared_memory", "binary_tensor_data", "parameters",
    "statistics", "trace", "logging",
}  # fmt: skip
"""Every name that Triton knows."""
ABSENT = {"sequence", "system_shared_memory", "cuda_shared_memory", "trace"}
"""trace comes with --otel."""
PARTS = ("queue", "compute_input", "compute_infer", "compute_output")
AFFINE = {"name": "x", "datatype": "FP32", "array": np.zeros((2, 3), np.float32)}
IMAGE = {"name": "image", "datatype": "FP32", "array": np.zeros((2, 3, 4, 4), np.float32)}


class Grown:
    """How much a number of the statistics has grown between two looks at them."""

    def __init__(self, before: dict, after: dict) -> None:
        self._looks = (before, after)

    def __call__(self, *path: str) -> int:
        values = []
        for found in self._looks:
            for key in path[:-1]:
                found = found.get(key, {})
            values.append(int(found.get(path[-1], 0)))
        return values[1] - values[0]


def infer(triton, model: str, array, **more):
    return triton.ask("infer", model_name=model, inputs=[{"name": "x", "datatype": "FP32", "array": array}], **more)


def statistics(triton, model: str, version: str) -> dict:
    (found,) = triton.ask("get_inference_statistics", model_name=model, model_version=version)["model_stats"]
    return found


def test_live_and_ready(triton) -> None:
    assert triton.ask("is_server_live") is True
    assert triton.ask("is_server_ready") is True


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [("affine", "", True), ("affine", "1", True), ("affine", "2", True), ("broken", "", False), ("broken", "1", False)],
)
def test_model_ready(triton, name, version, ready) -> None:
    assert triton.ask("is_model_ready", model_name=name, model_version=version) is ready


def test_model_metadata(triton) -> None:
    answer = triton.ask("get_model_metadata", model_name="affine")
    assert answer["name"] == "affine"
    assert answer["versions"] == ["1", "2"]
    assert answer["platform"] == "onnxruntime_onnx"
    assert answer["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "3"]}]
    assert answer["outputs"] == [{"name": "y", "datatype": "FP32", "shape": ["-1", "3"]}]
    assert triton.ask("get_model_metadata", model_name="affine", model_version="1", as_json=True)["name"] == "affine"


def test_model_config(triton) -> None:
    config = triton.ask("get_model_config", model_name="affine")["config"]
    assert config["name"] == "affine"
    assert config["platform"] == "onnxruntime_onnx"
    assert config["backend"] == "onnxruntime"
    assert config["max_batch_size"] > 0
    # Triton's most asked-about difference: no batch axis here, -1 for it in the metadata.
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["3"]}]
    assert config["output"] == [{"name": "y", "data_type": "TYPE_FP32", "dims": ["3"]}]
    assert config["version_policy"] == {"all": {}}
    assert "dynamic_batching" in config
    assert config["default_model_filename"] == "model.onnx"


def test_the_config_of_a_model_without_a_batch_axis_has_every_axis_and_no_batching(triton) -> None:
    config = triton.ask("get_model_config", model_name="unbatched")["config"]
    assert "max_batch_size" not in config
    assert "dynamic_batching" not in config
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["2", "3"]}]


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_has_its_name_in_the_config(triton_sync, datatype) -> None:
    config = triton_sync.ask("get_model_config", model_name=identity_name(datatype))["config"]
    assert config["input"][0]["data_type"] == ("TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}")
    # The length is free as well, so these models are not batched and their dims have every axis.
    assert config["input"][0]["dims"] == ["-1", "-1"]


def test_statistics_count_rows_and_runs_of_each_version(triton) -> None:
    before = {version: statistics(triton, "affine", version) for version in ("1", "2")}
    for rows in (1, 4):
        infer(triton, "affine", np.zeros((rows, 3), np.float32), model_version="2")
    infer(triton, "affine", np.zeros((1, 4), np.float32), model_version="2")
    after = {version: statistics(triton, "affine", version) for version in ("1", "2")}
    assert after["1"] == before["1"]

    grown = Grown(before["2"], after["2"])
    assert grown("inference_count") == 5
    assert grown("execution_count") == 2
    assert grown("inference_stats", "success", "count") == 2
    assert grown("inference_stats", "fail", "count") == 1
    for part in PARTS:
        assert grown("inference_stats", part, "count") == 2
    took_ns = [grown("inference_stats", part, "ns") for part in PARTS]
    assert 0 < sum(took_ns) <= grown("inference_stats", "success", "ns")
    assert abs(int(after["2"]["last_inference"]) - 1000 * time.time()) < 60_000
    sizes = {int(batch["batch_size"]): int(batch["compute_infer"]["count"]) for batch in after["2"]["batch_stats"]}
    assert sizes[1] >= 1
    assert sizes[4] >= 1


def test_statistics_of_every_model_at_once(triton) -> None:
    found = triton.ask("get_inference_statistics", as_json=True)["model_stats"]
    versions = {(model["name"], model["version"]) for model in found}
    assert {("affine", "1"), ("affine", "2"), ("conv2d", "1")} <= versions
    assert not any(name == "broken" for name, _ in versions)
    of_affine = triton.ask("get_inference_statistics", model_name="affine")["model_stats"]
    assert [model["version"] for model in of_affine] == ["1", "2"]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [["7.000000:2:two"], ["3.000000:0:zero"]]),
        (2, [["7.000000:2:two", "5.000000:1:one"], ["3.000000:0:zero", "1.000000:1:one"]]),
        (
            99,
            [
                ["7.000000:2:two", "5.000000:1:one", "3.000000:0:zero"],
                ["3.000000:0:zero", "1.000000:1:one", "-1.000000:2:two"],
            ],
        ),
    ],
)
def test_classification(triton, count, expected) -> None:
    rows = np.array([[1, 2, 3], [1, 0, -1]], np.float32)  # labelled: y = 2 x + 1
    answer = infer(triton, "labelled", rows, outputs=[{"name": "y", "class_count": count}])
    assert answer["datatypes"] == {"y": "BYTES"}
    assert answer["outputs"]["y"].tolist() == [[text.encode() for text in row] for row in expected]
    assert LABELS == ("zero", "one", "two")


def test_classification_without_labels_has_no_label(triton) -> None:
    answer = infer(triton, "affine", np.array([[0, 1, 0.5]], np.float32), outputs=[{"name": "y", "class_count": 2}])
    assert answer["outputs"]["y"].tolist() == [[b"4.000000:1", b"2.500000:2"]]


@pytest.mark.parametrize(("model", "tensor", "is_batched"), [("affine", AFFINE, True), ("conv2d", IMAGE, False)])
def test_what_perf_analyzer_asks_before_and_after_a_window(triton_sync, model, tensor, is_batched) -> None:
    metadata = triton_sync.ask("get_model_metadata", model_name=model)
    config = triton_sync.ask("get_model_config", model_name=model)["config"]
    assert not isinstance(config, Failure)
    assert (config.get("max_batch_size", 0) > 0) is is_batched
    # It drops the first axis of the metadata where the model batches, and compares the rest with the configuration.
    for told, configured in ((metadata["inputs"], config["input"]), (metadata["outputs"], config["output"])):
        for described, entry in zip(told, configured, strict=True):
            assert described["name"] == entry["name"]
            assert described["shape"][0] == "-1"
            assert described["shape"][is_batched:] == entry["dims"]
            assert entry["data_type"] == f"TYPE_{described['datatype']}"
    assert not config.get("model_transaction_policy", {}).get("decoupled", False)
    assert "sequence_batching" not in config
    assert "ensemble_scheduling" not in config
    assert "statistics" in triton_sync.ask("get_server_metadata")["extensions"]

    version = metadata["versions"][-1]
    rows = len(tensor["array"]) if is_batched else 1  # as Triton counts a request to a model that does not batch
    before = statistics(triton_sync, model, version)
    calls = {"model_name": model, "inputs": [tensor]}
    answers = triton_sync.ask("async_infer", requests=[calls] * 24) + triton_sync.ask("stream", requests=[calls] * 8)
    assert all(answer["error"] is None for answer in answers)
    window = Grown(before, statistics(triton_sync, model, version))
    assert window("inference_count") == 32 * rows
    assert 1 <= window("execution_count") <= 32
    assert window("inference_stats", "success", "count") == 32
    assert window("inference_stats", "fail", "count") == 0
    for part in PARTS:
        assert window("inference_stats", part, "count") == 32
    assert window("inference_stats", "compute_infer", "ns") > 0
    assert sum(window("inference_stats", part, "ns") for part in PARTS) <= window("inference_stats", "success", "ns")


def test_server_metadata_lists_the_extensions_that_work(triton) -> None:
    answer = triton.ask("get_server_metadata")
    assert answer["name"] == "mnist1d-service"
    assert set(answer["extensions"]) == EXTENSIONS - ABSENT
    assert triton.ask("get_server_metadata", as_json=True) == answer


def test_every_method_of_the_clients_is_called_by_a_test(triton) -> None:
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_triton_*.py"))
    # The drivers call these: they make up "stream", "async_infer" and "plugin", which the tests ask for.
    by_driver = {"start_stream", "stop_stream", "async_stream_infer", "stream_infer", "close"}
    by_driver |= {"register_plugin", "unregister_plugin"}
    for method in set(triton.ask("public_methods")) - by_driver:
        assert f'"{method}"' in text, method
