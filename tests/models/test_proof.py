"""The proof holds for what is exported, and every way of being wrong fails at the check that is named after it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.artifact.artifact import Artifact
from models.artifact.goldens import Golden, Tolerance
from models.data.dataset import canonical
from models.errors import ArtifactError
from models.networks.architectures import ARCHITECTURES

pytestmark = pytest.mark.needs_torch
torch = pytest.importorskip("torch")

from models.export.export import export  # noqa: E402  (torch may be missing)
from models.networks.modules import build  # noqa: E402
from models.proof import BATCH_SIZES, TOLERANCES, prove, prove_published  # noqa: E402

VALUES = ("values: PyTorch", "values: NumPy reference", "values: dense twin")
EVERYTHING = ("file", "names", "axes", "shapes", "dtypes", "weights", *VALUES, "argmax", "bit identity")


def failed(report) -> list[str]:
    json.dumps(report.to_dict(), allow_nan=False)  # whatever happens, a report can be kept
    return [check.name for check in report.failed]


def test_the_tolerances_are_those_that_are_promised():
    assert BATCH_SIZES == (1, 2, 7, 64, 1000)
    assert TOLERANCES["probabilities"].to_dict() == {"absolute": 2e-5, "relative": 0.0}
    assert TOLERANCES["logits"].to_dict() == {"absolute": 1e-4, "relative": 1e-6}


@pytest.mark.parametrize("lowering", ["conv", "conv_as_conv"])
def test_the_convolutional_net_is_proven_on_the_whole_test_set(lowering, request):
    conv = request.getfixturevalue(lowering)
    report = prove(conv.network, conv.architecture, conv.model_bytes, canonical().test)
    assert report.passed, report.summary
    assert tuple(check.name for check in report.checks) == EVERYTHING
    assert (report.examples, report.batch_sizes) == (1000, BATCH_SIZES)
    for check in report.checks[6:9]:
        assert [(c.output, c.batch) for c in check.comparisons] == [
            (output, batch) for batch in BATCH_SIZES for output in ("probabilities", "logits")
        ]
    assert 0 < report.max_absolute("logits") <= 1e-4
    assert 0 < report.max_absolute("probabilities") <= 2e-5


def test_the_baseline_is_proven_and_has_no_twin(fc, few):
    report = prove(fc.network, fc.architecture, fc.model_bytes, few)
    assert report.passed, report.summary
    assert "values: dense twin" not in [check.name for check in report.checks]
    assert report.batch_sizes == (1, 2, 7, 64)


@pytest.mark.parametrize("name", ["conv25", "fc-slide"])
def test_the_other_networks_are_proven_untrained(name, few):
    network = build(name, seed=1).eval()
    assert failed(prove(network, ARCHITECTURES[name], export(network, provenance={}), few)) == []


def weights_changed(name: str, index: tuple[int, ...], by: float):
    def edit(model: onnx.ModelProto) -> None:
        (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
        array = numpy_helper.to_array(tensor).copy()
        array[index] += by
        tensor.CopyFrom(numpy_helper.from_array(array, name))

    return edit


def outputs_in_another_order(model: onnx.ModelProto) -> None:
    model.graph.output.reverse()


def outputs_with_each_others_names(model: onnx.ModelProto) -> None:
    other = {"probabilities": "logits", "logits": "probabilities"}
    for node in model.graph.node:
        node.input[:] = [other.get(name, name) for name in node.input]
        node.output[:] = [other.get(name, name) for name in node.output]


def axis_renamed(model: onnx.ModelProto) -> None:
    for info in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for axis in info.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_param = "n"


def axis_fixed(model: onnx.ModelProto) -> None:
    del model.graph.value_info[:]
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.shape.dim[0].dim_value = 2


def through(model: onnx.ModelProto, output: str, *nodes: onnx.NodeProto) -> None:
    """Send an output through more nodes: they read ``inner`` and write ``output``."""
    for node in model.graph.node:
        node.input[:] = ["inner" if name == output else name for name in node.input]
        node.output[:] = ["inner" if name == output else name for name in node.output]
    model.graph.node.extend(nodes)


def logits_in_double(model: onnx.ModelProto) -> None:
    through(model, "logits", helper.make_node("Cast", ["inner"], ["logits"], to=TensorProto.DOUBLE))
    model.graph.output[1].type.tensor_type.elem_type = TensorProto.DOUBLE


def input_in_double(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.input[:] = ["single" if name == "x" else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["single"], to=TensorProto.FLOAT))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def twenty_logits(model: onnx.ModelProto) -> None:
    through(model, "logits", helper.make_node("Concat", ["inner", "inner"], ["logits"], axis=1))
    model.graph.output[1].type.tensor_type.shape.dim[1].dim_value = 20


def minus_the_batch_mean(scale: float):
    def edit(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "first_axis"))
        model.graph.node.append(helper.make_node("Constant", [], ["scale"], value_float=scale))
        through(
            model,
            "logits",
            helper.make_node("ReduceMean", ["inner", "first_axis"], ["mean"], keepdims=1),
            helper.make_node("Mul", ["mean", "scale"], ["part"]),
            helper.make_node("Sub", ["inner", "part"], ["logits"]),
        )

    return edit


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (weights_changed("linear.bias", (3,), 1e-3), ["weights", *VALUES]),
        (weights_changed("conv1.weight", (0, 0, 1), 1e-3), ["weights", *VALUES]),
        (weights_changed("linear.bias", (3,), 1e-6), ["weights"]),
        (weights_changed("linear.bias", (3,), 5.0), ["weights", *VALUES, "argmax"]),
        (weights_changed("conv1.weight", (0, 0, 1), np.nan), ["weights", *VALUES, "argmax"]),
        (outputs_in_another_order, ["names"]),
        (outputs_with_each_others_names, [*VALUES]),
        (axis_renamed, ["axes"]),
        (axis_fixed, ["axes", *VALUES, "argmax", "bit identity"]),
        (logits_in_double, ["dtypes"]),
        (input_in_double, ["dtypes", *VALUES, "argmax", "bit identity"]),
        (twenty_logits, ["shapes", *VALUES, "argmax"]),
        (minus_the_batch_mean(1.0), [*VALUES, "argmax", "bit identity"]),
        (minus_the_batch_mean(1e-6), ["bit identity"]),
    ],
    ids=[
        "one bias off by 1e-3",
        "one weight off by 1e-3",
        "one bias off by 1e-6",
        "one bias off by 5",
        "a weight that is NaN",
        "outputs in another order",
        "outputs with each other's names",
        "axis renamed",
        "axis fixed",
        "logits in double",
        "input in double",
        "twenty logits",
        "answers minus the batch's mean",
        "a trace of the batch's mean",
    ],
)
def test_what_is_wrong_fails_at_the_check_named_after_it(edit, expected, conv, few, edited):
    model_bytes = edited(conv.model_bytes, edit)
    assert failed(prove(conv.network, conv.architecture, model_bytes, few)) == expected


def test_a_difference_is_located(conv, few, edited):
    model_bytes = edited(conv.model_bytes, weights_changed("linear.bias", (3,), 1e-3))
    report = prove(conv.network, conv.architecture, model_bytes, few)
    (check,) = (check for check in report.checks if check.name == "values: NumPy reference")
    worst = [c for c in check.comparisons if c.output == "logits"]
    assert {c.position for c in worst} == {(3,)}
    assert all(0 <= c.example < 70 for c in worst)
    assert report.max_absolute("logits") == pytest.approx(1e-3, rel=0.05)


def test_a_file_that_does_not_load_fails_everything_and_raises_nothing(conv, few):
    report = prove(conv.network, conv.architecture, b"not an ONNX file", few)
    assert failed(report) == list(EVERYTHING)
    assert "not run" in report.checks[1].detail


def test_another_networks_file_is_refuted(conv, fc, few):
    assert failed(prove(conv.network, conv.architecture, fc.model_bytes, few)) == ["weights", *VALUES, "argmax"]


def test_without_examples_nothing_is_proven(conv, few):
    report = prove(conv.network, conv.architecture, conv.model_bytes, few.take([]))
    assert failed(report) == [*VALUES, "argmax", "bit identity"]


@pytest.mark.parametrize("recorded", ["0" * 64, ""])
def test_the_recorded_hash_of_the_weights_counts(recorded, conv, few):
    report = prove(conv.network, conv.architecture, conv.model_bytes, few, expected_weights_sha256=recorded)
    assert failed(report) == ["weights"]


def test_goldens_are_part_of_the_proof(conv, few):
    with torch.inference_mode():
        logits_BK = conv.network(torch.tensor(few.x_BL[:2])).numpy()
    good = Golden("test_data_set_0", {"x": few.x_BL[:2]}, {"logits": logits_BK})
    bad = dataclasses.replace(good, outputs={"logits": logits_BK + np.float32(1e-3)})
    assert failed(prove(conv.network, conv.architecture, conv.model_bytes, few, goldens=[good])) == []
    assert failed(prove(conv.network, conv.architecture, conv.model_bytes, few, goldens=[good, bad])) == ["goldens"]


def test_torch_keeps_its_number_of_threads(conv, few):
    before = torch.get_num_threads()
    prove(conv.network, conv.architecture, conv.model_bytes, few)
    assert torch.get_num_threads() == before


# ---- published versions


@pytest.fixture
def version(published, tmp_path):
    """A copy of a published version, and a function that rewrites its manifest."""
    directory = tmp_path / "1"
    shutil.copytree(published.path, directory)

    def rewrite(change) -> Artifact:
        data = json.loads((directory / "manifest.json").read_text())
        change(data)
        (directory / "manifest.json").write_text(json.dumps(data))
        return Artifact.load(directory)

    return directory, rewrite


@pytest.fixture(scope="module")
def whole():
    """The whole test set, on which a published version's accuracy was measured."""
    return canonical().test


def test_a_published_version_is_proven_from_its_own_files(published, whole):
    report = prove_published(Artifact.load(published.path), whole)
    assert report.passed, report.summary
    assert [check.name for check in report.checks] == ["manifest", *EVERYTHING, "goldens", "accuracy"]


def test_exchanged_weights_are_found_even_if_the_manifest_has_the_files_hash(version, whole, edited):
    directory, rewrite = version
    model_bytes = edited((directory / "model.onnx").read_bytes(), weights_changed("linear.bias", (0,), 1e-3))
    (directory / "model.onnx").write_bytes(model_bytes)
    artifact = rewrite(lambda data: data["model"].update(sha256=hashlib.sha256(model_bytes).hexdigest()))
    assert failed(prove_published(artifact, whole)) == ["weights", "goldens"]


def test_a_manifest_that_promises_another_interface_is_refuted(version, whole):
    _, rewrite = version
    artifact = rewrite(lambda data: data["outputs"].reverse())
    assert failed(prove_published(artifact, whole)) == ["manifest"]


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ({"accuracy": 0.999, "count": 1000}, r"measured \d\d\.\d\d% of 1,000 test examples, recorded 99\.90%"),
        ({"accuracy": 0.0, "count": 1000}, r"recorded 0\.00%"),
        ({"accuracy": 1.0, "count": 3}, "recorded are 1.0 of 3 examples, measured was on 1000"),
        ({"accuracy": None, "count": 1000}, "recorded are None of 1000"),
        ([0.9], "recorded are None"),
    ],
)
def test_an_accuracy_that_was_not_measured_is_refuted(test, message, version, whole):
    _, rewrite = version
    artifact = rewrite(lambda data: data["metrics"].update(test=test))
    report = prove_published(artifact, whole)
    assert failed(report) == ["accuracy"]
    assert re.search(message, report.summary)


def test_an_accuracy_within_what_the_tolerance_leaves_open_is_let_pass(version, whole, monkeypatch):
    _, rewrite = version
    recorded = Artifact.load(version[0]).manifest.test_accuracy
    artifact = rewrite(lambda data: data["metrics"]["test"].update(accuracy=recorded + 0.001))
    assert failed(prove_published(artifact, whole)) == ["accuracy"]
    monkeypatch.setattr("models.proof.TOLERANCES", {**TOLERANCES, "logits": Tolerance(absolute=1.0)})
    assert failed(prove_published(artifact, whole)) == []


def test_where_no_accuracy_is_recorded_there_is_nothing_to_compare(version, whole):
    _, rewrite = version
    report = prove_published(rewrite(lambda data: data.update(metrics={})), whole)
    assert report.passed
    assert report.checks[-1].detail == "does not apply: the manifest records none"


@pytest.mark.parametrize(
    ("provenance", "message"),
    [
        ({}, "names no network and weight hash"),
        ({"network": "conv", "weights_sha256": "0"}, "names no network"),
        ({"network": {"name": "resnet"}, "weights_sha256": "0"}, "'resnet'; known are conv, fc"),
        ({"network": {"name": "fc"}, "weights_sha256": "0"}, "not those of a network fc"),
    ],
)
def test_a_version_of_somebody_else_cannot_be_proven_like_this(provenance, message, version, whole):
    _, rewrite = version
    artifact = rewrite(lambda data: data.update(provenance=provenance))
    with pytest.raises(ArtifactError, match=message):
        prove_published(artifact, whole)


def test_a_version_without_a_manifest_cannot_be_proven_like_this(version, whole):
    directory, _ = version
    (directory / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="names no network"):
        prove_published(Artifact.load(directory), whole)
