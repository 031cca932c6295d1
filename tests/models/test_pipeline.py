"""From a recipe to a published model, and every way of not getting there."""

from __future__ import annotations

import json
import re
import socket
from datetime import datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from models import provenance
from models.artifact.artifact import Artifact
from models.artifact.onnx_session import open_model
from models.data.dataset import CANONICAL_SHA256, canonical
from models.errors import InvalidRecipe, ProofFailed, PublicationError, TrainingInterrupted
from models.export.lowering import DEFAULT_LOWERING
from models.report.counterpart import pair_of
from models.report.page import page
from models.report.subject import Subject
from models.training import events
from models.training.backend import chosen
from models.training.history import History, curve_steps

pytestmark = pytest.mark.needs_torch
torch = pytest.importorskip("torch")

from models import pipeline  # noqa: E402  (torch may be missing)
from models.training.evaluation import evaluate  # noqa: E402

STAGES = ["data", "train", "prepare", "evaluate", "export", "prove", "publish"]


@pytest.fixture(autouse=True)
def _fixed_code(monkeypatch):
    """The state of the checkout is in the file's metadata; somebody may edit it while the tests run."""
    monkeypatch.setattr(provenance, "code", lambda: {"version": "0.0.0", "commit": None, "modified": None})


@pytest.fixture
def no_export(conv, monkeypatch):
    """Skip the second that an export takes: the file of another run, so that the proof must fail."""
    monkeypatch.setattr(pipeline, "export", lambda network, **_: conv.model_bytes)


def test_the_version_is_complete(published):
    assert published.name == "mnist1d-conv"
    assert published.version == 1
    assert published.path.parts[-2:] == ("mnist1d-conv", "1")
    artifact = Artifact.load(published.path)
    assert artifact.manifest is not None
    assert artifact.manifest.to_dict() == json.loads(json.dumps(published.manifest.to_dict()))
    assert sorted(path.name for path in published.path.iterdir()) == [
        "history.json",
        "manifest.json",
        "model.onnx",
        "report.html",
        "test_data_set_0",
        "test_data_set_1",
        "test_data_set_2",
    ]
    assert [path.name for path in published.path.parent.iterdir()] == ["1"]


def test_the_manifest_says_what_a_user_wants_to_know(published):
    manifest = published.manifest
    assert [str(spec) for spec in manifest.inputs] == ["x FP32[batch, 40]"]
    assert [str(spec) for spec in manifest.outputs] == ["probabilities FP32[batch, 10]", "logits FP32[batch, 10]"]
    assert manifest.labels["probabilities"] == tuple("0123456789")
    assert manifest.tolerances["logits"].absolute == 1e-4
    assert manifest.tolerances["probabilities"].absolute == 2e-5
    assert "fixed before it is measured" in manifest.tolerance_rationale
    assert manifest.metrics["test"] == published.evaluation.to_dict()
    assert manifest.metrics["test"]["count"] == 1000
    assert manifest.metrics["train"]["count"] == 4000
    assert "validation" not in manifest.metrics
    assert manifest.parity["passed"] is True
    assert datetime.fromisoformat(manifest.created).utcoffset().total_seconds() == 0


def test_the_provenance_is_complete_and_private(published, tiny):
    origin = published.manifest.provenance
    assert origin["network"]["name"] == "conv"
    assert origin["network"]["parameters"] == 2050
    assert origin["recipe"] == tiny("conv").to_dict()
    assert (origin["seed"], origin["steps"]) == (0, 200)
    assert origin["data_sha256"] == dict(CANONICAL_SHA256)
    assert origin["libraries"]["torch"] == torch.__version__
    assert origin["engine"] == chosen("auto", tiny("conv"))
    if origin["engine"] == "fused":
        assert origin["libraries"]["numba"] == metadata.version("numba")
    assert len(origin["weights_sha256"]) == 64
    assert origin["training_duration_s"] > 0
    text = (published.path / "manifest.json").read_text() + (published.path / "model.onnx").read_text("latin-1")
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text)  # a host may be called like a part of a word
    for private in (f"{Path.home()}/", str(published.path.parent), str(Path.cwd())):
        assert private not in text


def test_the_history_leads_to_what_is_published(published):
    history = History.read(published.path)
    assert list(history.curves) == ["train", "test"]
    for split, curve in history.curves.items():
        assert curve.steps_N == curve_steps(200)
        assert curve.accuracy_N[-1] == published.manifest.metrics[split]["accuracy"]
        assert curve.loss_N[-1] == published.manifest.metrics[split]["loss"]
    assert history.curves["test"].accuracy_N[0] < 0.3 < history.curves["test"].accuracy_N[-1]


def test_the_report_is_the_one_that_can_be_made_again_from_the_files(published):
    written = (published.path / "report.html").read_text()
    assert "<h1>mnist1d-conv, version 1</h1>" in written
    assert "no published version of its counterpart fc" in written
    assert page(pair_of(Subject.read(published.path), published.path.parent.parent)) == written


def test_the_lowering_changes_the_file_and_nothing_else(published, tiny, tmp_path, operators):
    assert published.manifest.provenance["lowering"] == DEFAULT_LOWERING == "gemm"
    other = pipeline.run(tiny("conv"), repository=tmp_path, lowering="conv")
    assert other.parity.passed
    assert other.manifest.provenance["lowering"] == "conv"
    model_bytes = (other.path / "model.onnx").read_bytes()
    assert operators(model_bytes).count("FusedConv") == 3
    assert open_model(model_bytes).metadata["lowering"] == "conv"
    assert other.manifest.model_sha256 != published.manifest.model_sha256
    assert other.manifest.provenance["weights_sha256"] == published.manifest.provenance["weights_sha256"]
    assert other.manifest.metrics == published.manifest.metrics


def test_the_file_says_itself_where_it_comes_from(published):
    metadata = open_model((published.path / "model.onnx").read_bytes()).metadata
    origin = dict(published.manifest.provenance)
    del origin["training_duration_s"]  # differs from run to run, and the file must not
    assert set(metadata) == set(origin)
    assert metadata["weights_sha256"] == origin["weights_sha256"]
    assert json.loads(metadata["recipe"]) == origin["recipe"]


def test_goldens_are_test_examples_with_pytorchs_answers(published):
    goldens = Artifact.load(published.path).goldens
    assert [golden.batch for golden in goldens] == [1, 2, 64]
    x_BL = np.concatenate([golden.inputs["x"] for golden in goldens])
    np.testing.assert_array_equal(x_BL, canonical().test.x_BL[:67])
    assert [list(golden.outputs) for golden in goldens] == [["probabilities", "logits"]] * 3
    # PyTorch's answers and not onnxruntime's own: close, but not the same bits everywhere.
    model = open_model((published.path / "model.onnx").read_bytes())
    seen = [model.run(["logits"], golden.inputs)[0] for golden in goldens]
    recorded = [golden.outputs["logits"] for golden in goldens]
    np.testing.assert_allclose(np.concatenate(seen), np.concatenate(recorded), rtol=0, atol=1e-4)
    assert any((a != b).any() for a, b in zip(seen, recorded, strict=True))


def test_the_result_is_strict_json(published):
    result = json.loads(json.dumps(published.to_dict(), allow_nan=False))
    assert result["parity"]["passed"] is True
    assert result["metrics"]["test"]["accuracy"] == published.evaluation.accuracy
    assert result["path"] == str(published.path)


def test_the_same_recipe_gives_the_same_file_and_the_next_version(published, tiny, tmp_path):
    seen: list[events.Event] = []
    repository = tmp_path / "repository"
    (repository / "mnist1d-conv" / "1").mkdir(parents=True)
    again = pipeline.run(tiny("conv"), repository=repository, on_event=seen.append)
    assert again.version == 2
    assert again.manifest.model_sha256 == published.manifest.model_sha256
    assert [event.stage for event in seen if isinstance(event, events.StageStarted)] == STAGES
    finished = [event for event in seen if isinstance(event, events.StageFinished)]
    assert [event.stage for event in finished] == [
        "data",
        "prepare",
        "train",
        *STAGES[3:],
    ]  # one is a part of the other
    assert all(event.duration_s >= 0 for event in finished)
    assert finished[-1].detail["version"] == 2
    for event in seen:
        json.loads(events.to_json_line(event))


def test_an_interrupted_run_that_is_resumed_publishes_the_same_file(published, tiny, tmp_path):
    asked = iter(range(1000))
    options = {"repository": tmp_path / "repository", "checkpoint_dir": tmp_path / "run"}
    with pytest.raises(TrainingInterrupted) as interrupted:
        pipeline.run(tiny("conv"), **options, stop=lambda: next(asked) >= 30)
    assert 30 <= interrupted.value.step < tiny("conv").steps  # an engine may take several steps before it asks again
    assert not options["repository"].exists()
    resumed = pipeline.run(tiny("conv"), **options, resume=True)
    assert resumed.manifest.model_sha256 == published.manifest.model_sha256


@pytest.mark.parametrize("last", ["evaluate", "export", "prove"])
def test_a_stop_after_training_publishes_nothing(last, tiny, conv, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "export", lambda network, **_: conv.model_bytes)
    done: list[str] = []

    def note(event):
        if isinstance(event, events.StageFinished):
            done.append(event.stage)

    with pytest.raises(TrainingInterrupted) as stopped:
        pipeline.run(
            tiny("conv"),
            repository=tmp_path / "repository",
            on_event=note,
            checkpoint_dir=tmp_path / "run",
            stop=lambda: last in done,
        )
    assert done[-1] == last
    assert stopped.value.checkpoint.is_file()
    assert not (tmp_path / "repository").exists()


@pytest.mark.usefixtures("no_export")
def test_a_failed_proof_publishes_nothing_and_carries_the_report(tiny, tmp_path, snapshot):
    repository = tmp_path / "repository"
    (repository / "mnist1d-conv" / "1").mkdir(parents=True)
    (repository / "mnist1d-conv" / "1" / "model.onnx").write_bytes(b"the version before")
    before = snapshot(repository)
    stages: list[str] = []

    def note(event):
        if isinstance(event, events.StageStarted):
            stages.append(event.stage)

    with pytest.raises(ProofFailed, match=r"nothing was published: .* checks failed; weights") as failure:
        pipeline.run(tiny("conv", seed=1), repository=repository, on_event=note)
    assert failure.value.report["passed"] is False
    names = [check["name"] for check in failure.value.report["checks"] if not check["passed"]]
    assert "values: PyTorch" in names
    json.dumps(failure.value.report, allow_nan=False)
    assert stages == STAGES[:-1]
    assert snapshot(repository) == before
    assert [path.name for path in (repository / "mnist1d-conv").iterdir()] == ["1"]


def test_a_lowering_whose_bits_depend_on_the_batch_is_not_published(tiny, conv, edited, tmp_path, monkeypatch):
    def add_a_trace_of_the_first_example(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.output[:] = ["own" if name == "logits" else name for name in node.output]
        start, stop, scale = (np.array([value]) for value in (0, 1, np.float32(1e-6)))
        for name, value in (("start", start), ("stop", stop), ("scale", scale)):
            model.graph.initializer.append(numpy_helper.from_array(value, name))
        model.graph.node.insert(
            len(model.graph.node) - 1, helper.make_node("Slice", ["own", "start", "stop"], ["first"])
        )
        for op_type, inputs, output in (("Mul", ["first", "scale"], "trace"), ("Add", ["own", "trace"], "logits")):
            model.graph.node.insert(len(model.graph.node) - 1, helper.make_node(op_type, inputs, [output]))

    model_bytes = edited(conv.model_bytes, add_a_trace_of_the_first_example)
    monkeypatch.setattr(pipeline, "export", lambda network, **_: model_bytes)
    with pytest.raises(ProofFailed) as failure:
        pipeline.run(tiny("conv"), repository=tmp_path / "repository")
    failed = [check["name"] for check in failure.value.report["checks"] if not check["passed"]]
    assert "bit identity" in failed
    assert "values: PyTorch" not in failed
    assert not (tmp_path / "repository").exists()


@pytest.mark.usefixtures("no_export")
def test_a_failed_proof_does_not_even_make_the_repository(tiny, tmp_path):
    with pytest.raises(ProofFailed):
        pipeline.run(tiny("conv", seed=1), repository=tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_validation_figures_are_those_of_the_weights_that_are_published(tiny):
    """Early stopping goes back to the best step; the manifest tells of that one."""
    recipe = tiny("conv", validation=500, evaluate_every=50, early_stopping_patience=2)
    trained = pipeline.train(recipe, canonical())
    metrics = pipeline._metrics(trained, canonical(), evaluate(trained.network, canonical().test))
    chosen = min((e for e in trained.history if e.split == "validation"), key=lambda e: e.loss)
    assert chosen.step == trained.steps
    assert metrics["validation"] == {"accuracy": chosen.accuracy, "loss": chosen.loss, "count": 500}
    seen = next(e for e in trained.history if e.split == "train" and e.step == trained.steps)
    assert metrics["train"] == {"accuracy": seen.accuracy, "loss": seen.loss, "count": 3500}


def test_held_out_examples_are_not_counted_among_those_for_training(tiny, tmp_path):
    told: list[events.Event] = []
    made = pipeline.run(tiny("conv", validation=500), repository=tmp_path, on_event=told.append)
    data = next(event for event in told if isinstance(event, events.StageFinished) and event.stage == "data")
    assert data.detail == {"train": 3500, "validation": 500, "test": 1000}
    assert {split: figures["count"] for split, figures in made.manifest.metrics.items()} == data.detail


@pytest.mark.parametrize("name", ["", "../escape", ".hidden", "a/b", "x" * 129])
def test_a_bad_name_is_noticed_before_training(name, tiny, tmp_path):
    with pytest.raises(PublicationError, match="model name"):
        pipeline.run(tiny("conv"), repository=tmp_path, publish_as=name, on_event=lambda _: pytest.fail("began"))


def test_a_repository_that_is_a_file_is_noticed_before_training(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PublicationError, match="is not a directory"):
        pipeline.run(tiny("conv"), repository=tmp_path / "file", on_event=lambda _: pytest.fail("began"))


@pytest.mark.parametrize("repository", ["/proc/x", "/sys"])
def test_a_repository_that_cannot_be_written_is_noticed_before_training(repository, tiny):
    with pytest.raises(PublicationError, match=r"cannot be published to .*: nothing can be made in "):
        pipeline.run(tiny("conv"), repository=Path(repository), on_event=lambda _: pytest.fail("began"))


def test_other_data_may_be_trained_on(tiny, tmp_path):
    """Where there are fewer test examples than the goldens need, they are repeated."""
    from models.data.dataset import Dataset, fresh

    data = Dataset.of(fresh(300, seed=1), fresh(40, seed=2))
    model = pipeline.run(tiny("fc"), repository=tmp_path, publish_as="mine", data=data)
    assert model.name == "mine"
    assert model.parity.batch_sizes == (1, 2, 7)
    assert model.manifest.provenance["data_sha256"] == dict(data.sha256)
    assert [golden.batch for golden in Artifact.load(model.path).goldens] == [1, 2, 64]
    with pytest.raises(InvalidRecipe, match="batch_size"):
        pipeline.run(tiny("fc", batch_size=301), repository=tmp_path, data=data)


def test_default_names():
    assert pipeline.default_name("fc-slide") == "mnist1d-fc-slide"
