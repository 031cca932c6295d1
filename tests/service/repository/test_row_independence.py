from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.artifact.artifact import Manifest
from models.artifact.goldens import Golden
from models.artifact.onnx_session import open_model
from service.repository.model_settings import ModelSettings
from service.repository.row_independence import row_independence
from service.runtime.row_independence import UNKNOWN
from tests.conftest import onnx_model

CONV = {"network": {"name": "conv", "parameters": 2_050}}
OURS = (True, "published by this project's pipeline: network conv")
INPUT = [("x", TensorProto.FLOAT, ["batch", 40])]
OUTPUTS = [(name, TensorProto.FLOAT, ["batch", 10]) for name in ("logits", "probabilities")]
WEIGHTS = numpy_helper.from_array(np.zeros((40, 10), np.float32), "w")
AXES = numpy_helper.from_array(np.array([0]), "axes")


def node(*words, **attributes):
    return helper.make_node(*words, **attributes)


SOFTMAX = node("Softmax", ["logits"], ["probabilities"], axis=-1)
LINEAR = [node("Gemm", ["x", "w"], ["logits"]), SOFTMAX]


NO_SETTINGS = ModelSettings()


def known(nodes=LINEAR, *, provenance=CONV, settings=NO_SETTINGS, outputs=OUTPUTS, goldens=None):
    """What is known of a version with these nodes whose manifest has this provenance."""
    model_bytes = onnx_model(nodes, INPUT, outputs, [WEIGHTS, AXES])
    interface = open_model(model_bytes)
    names = [spec.name for spec in interface.outputs]
    feeds = {spec.name: np.zeros((2, *spec.shape[1:]), np.float32) for spec in interface.inputs}
    answers = dict(zip(names, interface.run(names, feeds), strict=True))
    manifest = Manifest.of(
        model_bytes,
        name="m",
        version=1,
        inputs=interface.inputs,
        outputs=interface.outputs,
        goldens=[Golden("test_data_set_0", feeds, answers)] if goldens is None else goldens,
        tolerances={},
        tolerance_rationale="none is needed",
        provenance=provenance,
    )
    return row_independence(manifest, settings, lambda: model_bytes)


def test_a_network_of_this_project_is_known() -> None:
    assert known() == OURS


@pytest.mark.needs_torch
@pytest.mark.parametrize("lowering", ["gemm", "conv"])
@pytest.mark.parametrize("network", ["conv", "fc", "conv25", "fc-slide"])
def test_every_export_of_every_network_is_known(network, lowering) -> None:
    pytest.importorskip("torch")
    from models.export.export import export
    from models.networks.architectures import architecture
    from models.networks.modules import build

    model_bytes = export(build(network, seed=0), provenance={}, lowering=lowering)
    interface = open_model(model_bytes)
    manifest = Manifest.of(
        model_bytes,
        name="m",
        version=1,
        inputs=interface.inputs,
        outputs=interface.outputs,
        goldens=[Golden("test_data_set_0", {}, {})],
        tolerances={},
        tolerance_rationale="none is needed",
        provenance={"network": {"name": network, "parameters": architecture(network).parameters}},
    )
    found = row_independence(manifest, ModelSettings(), lambda: model_bytes)
    assert found == (True, f"published by this project's pipeline: network {network}")


@pytest.mark.parametrize(
    "nodes",
    [
        [node("ReduceMax", ["x", "axes"], ["most"]), node("Sub", ["x", "most"], ["less"]), *LINEAR],
        [node("Gemm", ["x", "w"], ["l"]), node("Softmax", ["l"], ["logits"], axis=0), SOFTMAX],
        [node("MatMul", ["x", "w"], ["l"]), node("Add", ["l", "l"], ["logits"]), SOFTMAX],
        [node("Gather", ["x", "axes"], ["one"], axis=0), *LINEAR],
        [node("Transpose", ["x"], ["turned"], perm=[1, 0]), *LINEAR],
        [node("Shape", ["x"], ["shape"]), *LINEAR],
    ],
    ids=["reduction", "softmax over rows", "two inputs", "gather of rows", "transposition", "shape"],
)
def test_a_manifest_that_claims_to_be_ours_is_not_believed(nodes) -> None:
    assert known(nodes) == UNKNOWN


def test_a_model_with_another_interface_is_none_of_ours() -> None:
    nodes = [node("Gemm", ["x", "w"], ["scores"]), node("Softmax", ["scores"], ["probabilities"], axis=-1)]
    outputs = [(name, TensorProto.FLOAT, ["batch", 10]) for name in ("scores", "probabilities")]
    assert known(nodes, outputs=outputs) == UNKNOWN


@pytest.mark.parametrize(
    "provenance",
    [
        {},
        {"network": "conv"},
        {"network": {"name": "resnet", "parameters": 2_050}},
        {"network": {"name": "conv", "parameters": 2_051}},
        {"network": {"name": ["conv"], "parameters": 2_050}},
        {"network": None},
    ],
)
def test_of_any_other_model_nothing_is_known(provenance) -> None:
    assert known(provenance=provenance) == UNKNOWN
    assert not UNKNOWN.is_known


def test_without_a_manifest_or_a_proof_nothing_is_known() -> None:
    assert row_independence(None, ModelSettings(), bytes) == UNKNOWN
    assert known(goldens=[]) == UNKNOWN


@pytest.mark.parametrize("word", [True, False])
def test_the_word_of_the_operator_goes_first(word) -> None:
    told = f"declared by the operator: rows_are_independent is {str(word).lower()}"
    settings = ModelSettings(rows_are_independent=word)
    assert row_independence(None, settings, bytes) == (word, told)
    assert known(settings=settings) == (word, told)
