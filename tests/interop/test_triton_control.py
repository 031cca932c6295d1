"""tritonclient: the repository's index; loading and unloading, with Triton's words in each control mode."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.conftest import affine_model, goldens_for, publish_affine, put_plain
from tests.interop.clients import Failure
from tests.interop.conftest import triton_client
from tests.processes import serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.interop.clients import ClientProcess
    from tests.processes import ServerProcess

X = [{"name": "x", "datatype": "FP32", "array": np.ones((1, 3), np.float32)}]


def answer(client: ClientProcess, model: str, **more) -> float:
    """scale + 1 of the affine model that answered."""
    answered = client.ask("infer", model_name=model, inputs=X, **more)
    assert not isinstance(answered, Failure), answered
    return float(answered["outputs"]["y"][0, 0])


def index(client: ClientProcess) -> dict[tuple[str, str], dict]:
    """The repository's index by name and version; a model that is not loaded has one entry without a version."""
    models = client.ask("get_model_repository_index").get("models", [])
    return {(model["name"], model.get("version", "")): model for model in models}


def states(client: ClientProcess, name: str) -> dict[str, str]:
    return {version: entry.get("state", "") for (model, version), entry in index(client).items() if model == name}


def test_index_of_every_version_with_its_state_and_reason(triton) -> None:
    found = index(triton)
    assert found["affine", "1"]["state"] == found["affine", "2"]["state"] == "READY"
    assert found["broken", "1"]["state"] == "UNAVAILABLE"
    assert "ONNX" in found["broken", "1"]["reason"]
    assert "proof" in found["conv2d", "1"]["reason"]
    as_json = triton.ask("get_model_repository_index", as_json=True)
    assert len(as_json["models"]) == len(found)


def test_index_of_what_is_ready_only(triton_sync) -> None:
    (ready,) = triton_sync.ask("stub", rpc="RepositoryIndex", requests=[{"ready": True}])
    found = {(model["name"], model["version"]) for model in ready["models"]}
    assert ("affine", "2") in found
    assert not any(name == "broken" for name, _ in found)
    assert {model["state"] for model in ready["models"]} == {"READY"}


@pytest.fixture(scope="module")
def explicit_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """affine with two versions (scales 2 and 3), loaded at the start; spare and damaged, which are not."""
    repository = tmp_path_factory.mktemp("explicit")
    publish_affine(repository, scale=2.0)
    publish_affine(repository, scale=3.0)
    publish_affine(repository, "spare", scale=7.0)
    put_plain(repository, "damaged", b"this is no ONNX model")
    return repository


@pytest.fixture(scope="module")
def explicit_server(explicit_repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = ("--model-control-mode", "explicit", "--load-model", "affine")
    with serve(explicit_repository, tmp_path_factory.mktemp("explicit_server") / "log", *options) as running:
        yield running


@pytest.fixture(scope="module", params=["sync", "aio"])
def control(request, explicit_server) -> Iterator[ClientProcess]:
    with triton_client(request.param, explicit_server.port) as client:
        yield client


@pytest.fixture
def affine_again(control) -> Iterator[None]:
    """Whatever a test does to affine, afterwards it is as it was."""
    yield
    assert control.ask("load_model", model_name="affine") is None
    assert "READY" in states(control, "affine").values()


def test_a_model_is_loaded_and_unloaded(control) -> None:
    assert control.ask("is_server_ready") is True
    assert set(states(control, "spare").values()) <= {"", "UNAVAILABLE"}
    assert control.ask("load_model", model_name="spare") is None
    assert control.ask("is_model_ready", model_name="spare") is True
    assert answer(control, "spare") == 8
    assert control.ask("unload_model", model_name="spare") is None
    unloaded = control.ask("infer", model_name="spare", inputs=X)
    assert unloaded.code == "NOT_FOUND"
    assert "Request for unknown model: 'spare' has no available versions" in unloaded.message
    assert control.ask("is_model_ready", model_name="spare") is False
    assert index(control)["spare", "1"] == {
        "name": "spare", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded",
    }  # fmt: skip
    # What was unloaded on purpose is no reason for a load balancer to leave the server.
    assert control.ask("is_server_ready") is True


def test_unload_takes_tritons_parameter_and_models_that_are_not_there(control) -> None:
    control.ask("load_model", model_name="spare")
    assert control.ask("unload_model", model_name="spare", unload_dependents=True) is None
    assert "READY" not in states(control, "spare").values()
    assert control.ask("unload_model", model_name="nope") is None


def test_an_old_version_leaves_although_its_last_request_failed(control, explicit_repository, affine_again) -> None:
    before = answer(control, "affine")
    assert control.ask("infer", model_name="affine", inputs=[]).code == "INVALID_ARGUMENT"
    (failed,) = control.ask("stream", requests=[{"model_name": "affine", "inputs": []}])
    assert "is missing" in failed["error"]["message"]
    publish_affine(explicit_repository, scale=before)
    control.ask("load_model", model_name="affine")
    assert "UNLOADING" not in states(control, "affine").values()


def test_a_new_version_is_served_after_a_load(control, explicit_repository, affine_again) -> None:
    before = answer(control, "affine")
    publish_affine(explicit_repository, scale=before)  # scale s answers s + 1
    assert answer(control, "affine") == before
    assert control.ask("load_model", model_name="affine") is None
    assert answer(control, "affine") == before + 1


def test_a_config_chooses_the_versions(control, affine_again) -> None:
    config = {
        "name": "affine",
        "version_policy": {"specific": {"versions": [1]}},
        "max_batch_size": 4,
        "parameters": {"rows_are_independent": {"string_value": "true"}},
    }
    assert control.ask("load_model", model_name="affine", config=json.dumps(config)) is None
    assert answer(control, "affine") == 3
    told = control.ask("get_model_config", model_name="affine")["config"]
    assert told["version_policy"] == {"specific": {"versions": ["1"]}}
    assert told["max_batch_size"] == 4
    assert control.ask("infer", model_name="affine", model_version="2", inputs=X).code == "NOT_FOUND"


def test_a_model_is_loaded_from_files_in_the_request(control, affine_again) -> None:
    config = json.dumps({"name": "affine", "backend": "onnxruntime"})
    files = {"file:5/model.onnx": affine_model(scale=40)}
    assert control.ask("load_model", model_name="affine", config=config, files=files) is None
    assert answer(control, "affine") == 41
    assert answer(control, "affine", model_version="5") == 41
    assert control.ask("get_model_metadata", model_name="affine")["versions"] == ["5"]


BAD_FILES = {"file:5/model.onnx": b"this is no ONNX model"}
GOOD_FILES = {"file:5/model.onnx": affine_model()}
# what load_model is given, code, what the message contains
REFUSED_LOADS = {
    "no such model": (
        {"model_name": "nope"}, "INTERNAL", "failed to load 'nope', failed to poll from model repository",
    ),
    "broken model": ({"model_name": "damaged"}, "INTERNAL", "failed to load 'damaged', no version is available"),
    "files without config": (
        {"model_name": "affine", "files": GOOD_FILES}, "INVALID_ARGUMENT", "'config' must be there",
    ),
    "broken file": (
        {"model_name": "affine", "config": "{}", "files": BAD_FILES}, "INTERNAL", "failed to load 'affine'",
    ),
    "config that is no JSON": ({"model_name": "affine", "config": "{"}, "INVALID_ARGUMENT", "'config'"),
    "policy that is none": (
        {"model_name": "affine", "config": '{"version_policy": {"newest": {}}}'}, "INVALID_ARGUMENT", "version_policy",
    ),
    "name with a path": ({"model_name": "../affine"}, "INVALID_ARGUMENT", "model name"),
    **{
        f"file {path}": (
            {"model_name": "affine", "config": "{}", "files": {path: affine_model()}}, "INVALID_ARGUMENT", path,
        )
        for path in ("file:../../escape.onnx", "file:/etc/x", "file:1/../../x", "file:model.onnx/")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_LOADS)
def test_a_load_that_is_refused_says_why_and_changes_nothing(control, name) -> None:
    arguments, code, text = REFUSED_LOADS[name]
    before = answer(control, "affine")
    failure = control.ask("load_model", **arguments)
    assert (failure.code, text in failure.message) == (code, True), failure.message
    assert answer(control, "affine") == before
    assert control.ask("is_server_ready") is True


def test_a_model_that_fails_its_proof_does_not_replace_the_one_that_serves(control, explicit_repository) -> None:
    before = answer(control, "affine")
    damaged = publish_affine(explicit_repository, scale=9.0, goldens=goldens_for(affine_model(9.0), shift=1.0))
    try:
        failure = control.ask("load_model", model_name="affine")
        assert failure.code == "FAILED_PRECONDITION"
        assert "golden mismatch" in failure.message
        assert answer(control, "affine") == before
        refused = index(control)["affine", damaged.name]
        assert refused["state"] == "UNAVAILABLE"
        assert "difference 1" in refused["reason"]
    finally:
        shutil.rmtree(damaged)


@pytest.mark.parametrize("mode", ["poll", "none"])
def test_loading_is_told_why_it_is_not_allowed(explicit_repository, tmp_path, new_triton, mode) -> None:
    options = ("--model-control-mode", mode, "--no-strict-readiness")
    with (
        serve(explicit_repository, tmp_path / "log", *options) as server,
        new_triton("sync", server.port) as client,
    ):
        for method in ("load_model", "unload_model"):
            failure = client.ask(method, model_name="affine")
            assert failure.code == "UNAVAILABLE"
            assert "explicit model load / unload is not allowed if polling is enabled" in failure.message
