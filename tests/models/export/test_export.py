"""The exported file: its interface, its weights, and what must not be in it."""

from __future__ import annotations

import copy
import hashlib
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest

from models.artifact.onnx_session import open_model
from models.export.weights import weights_of

pytestmark = pytest.mark.needs_torch
torch = pytest.importorskip("torch")

from models.export.export import BATCH_AXIS, INPUT, OUTPUTS, export  # noqa: E402  (torch may be missing)
from models.networks.modules import build, state_arrays  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
EXPORTS = ["conv", "conv_as_conv", "fc"]


@pytest.mark.parametrize("which", EXPORTS)
def test_interface(which, request):
    model = open_model(request.getfixturevalue(which).model_bytes)
    assert [str(spec) for spec in model.inputs] == ["x FP32[batch, 40]"]
    assert [str(spec) for spec in model.outputs] == ["probabilities FP32[batch, 10]", "logits FP32[batch, 10]"]
    assert (INPUT, OUTPUTS, BATCH_AXIS) == ("x", ("probabilities", "logits"), "batch")


@pytest.mark.parametrize("which", EXPORTS)
def test_answers_are_the_softmax_of_the_networks_logits(which, request, few):
    exported = request.getfixturevalue(which)
    probabilities_BK, logits_BK = open_model(exported.model_bytes).run(list(OUTPUTS), {"x": few.x_BL})
    with torch.inference_mode():
        expected_BK = exported.network(torch.tensor(few.x_BL))
    np.testing.assert_allclose(logits_BK, expected_BK.numpy(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(probabilities_BK, expected_BK.softmax(-1).numpy(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("which", EXPORTS)
def test_weights_come_back_under_their_own_names(which, request):
    exported = request.getfixturevalue(which)
    expected = state_arrays(exported.network)
    weights = weights_of(exported.model_bytes)
    assert list(weights) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(weights[name], array)


def test_zero_and_equal_weights_are_kept():
    """The exporter alone would drop zero biases and merge tensors that are equal."""
    network = build("conv", seed=0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.0 if parameter.ndim == 1 else 0.5)
    weights = weights_of(export(network, provenance={}))
    assert {name: array.shape for name, array in weights.items()} == {
        name: tuple(tensor.shape) for name, tensor in network.state_dict().items()
    }
    assert not weights["conv3.bias"].any()
    assert (weights["conv3.weight"] == 0.5).all()


def test_the_graph_does_not_depend_on_the_weights(conv):
    def without_values(model_bytes: bytes) -> onnx.ModelProto:
        model = onnx.ModelProto.FromString(model_bytes)
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                tensor.ClearField("raw_data")
        del model.metadata_props[:]
        return model

    fresh = export(build("conv", seed=9), provenance={})
    assert without_values(fresh) == without_values(conv.model_bytes)


@pytest.mark.parametrize("which", EXPORTS)
def test_nothing_of_the_place_of_export_is_inside(which, request):
    model_bytes = request.getfixturevalue(which).model_bytes
    model = onnx.ModelProto.FromString(model_bytes)
    for element in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        assert not element.doc_string
    for element in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        assert not element.metadata_props
    text = model_bytes.decode("latin-1")
    for trace in (str(ROOT), f"{Path.home()}/", "site-packages", ".py", "stack_trace", 'File "'):
        assert trace not in text


@pytest.mark.parametrize(("which", "convolutions", "products"), [("conv", 0, 4), ("conv_as_conv", 3, 1), ("fc", 0, 4)])
def test_the_lowering_decides_what_onnxruntime_runs(which, convolutions, products, request, operators):
    operators_run = operators(request.getfixturevalue(which).model_bytes)
    assert sum("Conv" in operator for operator in operators_run) == convolutions
    assert sum("Gemm" in operator for operator in operators_run) == products
    assert not {"EyeLike", "ConstantOfShape", "Transpose"} & set(operators_run)


def test_everything_is_in_one_file(conv):
    model = onnx.ModelProto.FromString(conv.model_bytes)
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    onnx.checker.check_model(model, full_check=True)


def test_provenance_is_in_the_metadata_in_order_of_keys():
    network = build("conv", seed=0)
    model_bytes = export(network, provenance={"seed": "0", "network": "conv"})
    assert open_model(model_bytes).metadata == {"network": "conv", "seed": "0"}
    assert model_bytes == export(network, provenance={"network": "conv", "seed": "0"})


@pytest.mark.slow
def test_the_same_network_gives_the_same_bytes_in_another_process():
    program = (
        "import hashlib; from models.export.export import export; from models.networks.modules import build; "
        "print(hashlib.sha256(export(build('conv', seed=4), provenance={'a': 'b'})).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    here = export(build("conv", seed=4), provenance={"a": "b"})
    assert other.stdout.strip() == hashlib.sha256(here).hexdigest()
    assert other.stderr == ""


def test_the_network_is_left_as_it_was():
    network = build("conv", seed=0).train()
    before = copy.deepcopy(network.state_dict())
    export(network, provenance={})
    assert network.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_warnings_of_the_network_are_still_heard():
    class Warning_(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = build("conv", seed=0)

        def forward(self, x_BL):
            warnings.warn("heard", UserWarning, stacklevel=1)
            return self.inner(x_BL)

    with pytest.warns(UserWarning, match="heard"):
        export(Warning_(), provenance={})
