from __future__ import annotations

import json
import logging
import os

import numpy as np
import pytest
from onnx import TensorProto, helper

from service.errors import InvalidRequest, ModelNotFound, ModelNotReady
from service.repository.loader import Loader
from service.repository.model_version import Cause, State
from service.repository.repository import Repository
from service.repository.version_policy import VersionPolicy
from tests.conftest import affine_model, goldens_for, identity_model, onnx_model, publish_affine, put_plain


def load(root, policy: str = "latest:1", **settings) -> Repository:
    repository = Repository(root, VersionPolicy.parse(policy), Loader(**settings))
    repository.load_all()
    return repository


def refused(repository: Repository, name: str, version: int) -> str:
    found = repository.models[name].versions[version]
    assert found.state is State.UNAVAILABLE
    assert found.runner is None
    return found.reason


def test_each_kind_of_reason_has_its_cause(repository, monkeypatch) -> None:
    publish_affine(repository, "proven")
    put_plain(repository, "plain", affine_model())
    publish_affine(repository, "off", goldens=goldens_for(affine_model(), shift=1e-3))
    golden = goldens_for(affine_model(), [1])[0]
    golden.inputs["x"] = np.ones((1, 5), np.float32)
    publish_affine(repository, "unfit", goldens=[golden])
    put_plain(repository, "junk", b"junk")
    causes = {
        "proven": Cause.NONE,
        "plain": Cause.UNPROVEN,
        "off": Cause.GOLDEN_MISMATCH,
        "unfit": Cause.RUN_FAILED,
        "junk": Cause.ARTIFACT_INVALID,
    }
    assert {name: model.versions[1].cause for name, model in load(repository).models.items()} == causes
    strict = load(repository, require_proof=True).models
    assert strict["plain"].versions[1].cause is Cause.PROOF_REQUIRED
    monkeypatch.setattr("service.repository.loader.Artifact.load", lambda directory: 1 / 0)
    assert load(repository).models["plain"].versions[1].cause is Cause.INTERNAL


def test_the_newest_version_is_served_and_proven(repository) -> None:
    publish_affine(repository, scale=2)
    publish_affine(repository, scale=3)
    loaded = load(repository)
    found = loaded.get("affine")
    assert (found.version, found.is_proven, found.max_difference) == (2, True, 0.0)
    assert found.runner.run({"x": np.ones((1, 3), np.float32)}, ["y"])[0][0, 0] == 4


def test_falsified_goldens_are_refused_and_the_older_version_goes_on(repository, caplog) -> None:
    publish_affine(repository)
    publish_affine(repository, goldens=goldens_for(affine_model(), shift=1e-3))
    with caplog.at_level(logging.ERROR):
        loaded = load(repository)
    assert loaded.get("affine").version == 1
    reason = refused(loaded, "affine", 2)
    assert reason.startswith("golden mismatch: test_data_set_0 (batch 1), output 'y': difference 0.001")
    assert [record.reason for record in caplog.records if record.message == "version refused"] == [reason]
    with pytest.raises(ModelNotReady, match=r"'affine' version 2: not at ready state: golden mismatch"):
        loaded.get("affine", "2")


def test_a_model_swapped_under_its_manifest_is_refused(repository) -> None:
    publish_affine(repository)
    (repository / "affine" / "1" / "model.onnx").write_bytes(affine_model(scale=2.5))
    loaded = load(repository)
    assert "model.onnx is not what was proven" in refused(loaded, "affine", 1)
    with pytest.raises(ModelNotReady, match=r"no version is at ready state: version 1: model.onnx is not what"):
        loaded.get("affine")


def test_a_manifest_that_promises_another_interface_is_refused(repository) -> None:
    directory = publish_affine(repository)
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["inputs"][0]["shape"] = ["batch", 4]
    (directory / "manifest.json").write_text(json.dumps(manifest))
    assert refused(load(repository), "affine", 1) == (
        "inputs: the manifest promises x FP32[batch, 4], the model has x FP32[batch, 3]"
    )


def test_a_tolerance_within_which_any_weights_would_be_proven_is_refused(repository) -> None:
    directory = publish_affine(repository)
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["tolerances"]["y"]["absolute"] = 1e9
    (directory / "manifest.json").write_text(json.dumps(manifest))
    assert refused(load(repository), "affine", 1) == (
        "manifest, tolerances.y.absolute: got 1e+09, expected at most 0.01: within a wider tolerance nothing is proven"
    )


def test_goldens_that_the_model_cannot_even_run_are_a_refusal(repository) -> None:
    golden = goldens_for(affine_model(), [1])[0]
    golden.inputs["x"] = np.ones((1, 5), np.float32)
    publish_affine(repository, goldens=[golden])
    assert "failed on inputs x[1, 5]" in refused(load(repository), "affine", 1)


@pytest.mark.parametrize(
    ("model_bytes", "reason"),
    [
        (b"junk", "not an ONNX model"),
        (b"", "not an ONNX model"),
        (
            onnx_model(
                [helper.make_node("Nonsense", ["x"], ["y"], domain="nobody")],
                [("x", TensorProto.FLOAT, [1])],
                [("y", TensorProto.FLOAT, [1])],
            ),
            "onnxruntime cannot load the model",
        ),
    ],
)
def test_a_broken_file_is_refused_with_its_reason_and_harms_no_other(repository, model_bytes, reason) -> None:
    put_plain(repository, "broken", model_bytes)
    put_plain(repository, "sound", affine_model())
    loaded = load(repository)
    assert reason in refused(loaded, "broken", 1)
    assert loaded.is_ready("sound")
    assert not loaded.is_ready("broken")


def test_a_plain_model_is_served_and_says_that_it_is_unproven(repository) -> None:
    put_plain(repository, "plain", affine_model())
    found = load(repository).get("plain")
    assert not found.is_proven
    assert found.reason == "served without a proof: no manifest with goldens"


def test_require_proof_refuses_a_plain_model(repository) -> None:
    put_plain(repository, "plain", affine_model())
    assert "--require-proof" in refused(load(repository, require_proof=True), "plain", 1)


def test_each_policy_serves_its_versions(repository) -> None:
    for scale in (1, 2, 3):
        publish_affine(repository, scale=scale)
    expected = {"latest:1": [3], "latest:2": [2, 3], "all": [1, 2, 3], "specific:1,3": [1, 3]}
    for policy, numbers in expected.items():
        loaded = load(repository, policy)
        assert [version.version for version in loaded.models["affine"].ready] == numbers
        assert loaded.get("affine").version == numbers[-1]


def test_names_that_are_no_versions_are_not_looked_at(repository) -> None:
    publish_affine(repository)
    for name in ("01", "0", "-2", "v3", ".publishing-x", "9.5"):
        (repository / "affine" / name).mkdir()
    (repository / "affine" / "7").write_text("a file")
    assert list(load(repository, "all").models["affine"].versions) == [1]


def test_an_empty_folder_is_no_model(repository, caplog) -> None:
    (repository / "empty").mkdir()
    with caplog.at_level(logging.WARNING):
        loaded = load(repository)
    assert not loaded.models
    assert "model has no version to serve" in caplog.text


@pytest.mark.parametrize(
    ("name", "version", "error", "says"),
    [
        ("nope", "", ModelNotFound, "unknown model: 'nope' is not found"),
        ("", "", ModelNotFound, "unknown model: '' is not found"),
        ("affine", "2", ModelNotFound, "unknown model: 'affine' version 2 is not found"),
        ("affine", "9" * 50, ModelNotFound, "is not found"),
        ("affine", "-1", InvalidRequest, "version string '-1': expected a whole number"),
        ("affine", "one", InvalidRequest, "version string 'one'"),
        ("affine", "١", InvalidRequest, "expected a whole number"),
    ],
)
def test_what_is_not_there_is_not_found(repository, name, version, error, says) -> None:
    publish_affine(repository)
    with pytest.raises(error, match=says):
        load(repository).get(name, version)


def test_before_the_first_load_is_over_models_are_loading(repository) -> None:
    publish_affine(repository, "a")
    publish_affine(repository, "b")
    seen: list[dict[str, list[State]]] = []
    loaded = Repository(repository, VersionPolicy(), on_change=lambda: seen.append(states()))

    def states() -> dict[str, list[State]]:
        return {name: [v.state for v in model.versions.values()] for name, model in loaded.models.items()}

    assert not loaded.is_loaded
    loaded.load_all()
    assert loaded.is_loaded
    assert {"a": [State.LOADING], "b": [State.LOADING]} in seen
    assert {"a": [State.READY], "b": [State.LOADING]} in seen
    assert seen[-1] == {"a": [State.READY], "b": [State.READY]}


def test_before_the_first_look_nobody_is_told_that_a_model_does_not_exist(repository) -> None:
    publish_affine(repository)
    loaded = Repository(repository, VersionPolicy.parse("latest"))
    for name in ("affine", "nope"):
        with pytest.raises(ModelNotReady, match=f"'{name}': the server is starting") as failure:
            loaded.get(name)
        assert failure.value.details.retry_after_s is not None
        assert not loaded.is_ready(name)
    loaded.load_all()
    assert loaded.get("affine").version == 1
    with pytest.raises(ModelNotFound):
        loaded.get("nope")


def test_an_unexpected_failure_while_loading_keeps_its_details_in_the_log(repository, caplog, monkeypatch) -> None:
    publish_affine(repository)
    monkeypatch.setattr("service.repository.loader.Artifact.load", lambda _: 1 / 0)
    loaded = load(repository)
    assert refused(loaded, "affine", 1) == "internal error, see the server's log"
    assert "ZeroDivisionError" in caplog.text


def test_a_model_with_an_output_that_is_no_tensor_is_refused(repository) -> None:
    model = onnx_model(
        [helper.make_node("SequenceConstruct", ["x"], ["s"])],
        [("x", TensorProto.FLOAT, [1])],
        [],
    )
    import onnx

    proto = onnx.ModelProto.FromString(model)
    proto.graph.output.append(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None))
    put_plain(repository, "sequence", proto.SerializeToString())
    put_plain(repository, "float8", identity_model(TensorProto.FLOAT8E4M3FN))
    loaded = load(repository)
    assert "output 's' has the type seq(tensor(float))" in refused(loaded, "sequence", 1)
    assert "input 'x' has the type tensor(float8e4m3fn)" in refused(loaded, "float8", 1)


def test_a_model_directory_that_cannot_be_listed_harms_no_other(repository, caplog, monkeypatch) -> None:
    import service.repository.renewal as module

    publish_affine(repository, "a")
    publish_affine(repository, "b")
    listed = module.versions

    def refuse(directory):
        if directory.name == "a":
            raise PermissionError(13, "Permission denied", str(directory))
        return listed(directory)

    monkeypatch.setattr(module, "versions", refuse)
    loaded = load(repository)
    assert [name for name, model in loaded.models.items() if model.ready] == ["b"]
    with pytest.raises(ModelNotReady, match=r"it cannot be looked at: .*Permission denied"):
        loaded.get("a")
    assert loaded.models["a"].is_required
    assert "model cannot be looked at" in caplog.text


@pytest.mark.parametrize("file", ["model.onnx", "manifest.json", "test_data_set_0/input_0.pb"])
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(repository, file) -> None:
    path = publish_affine(repository) / file
    path.unlink()
    os.mkfifo(path)
    assert f"{file} is no regular file" in refused(load(repository), "affine", 1)
