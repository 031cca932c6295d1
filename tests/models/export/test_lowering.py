"""Convolution layers as matrix products: the same answers, the same weights, and what is left alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from models.artifact.batch_identity import bit_identity
from models.artifact.onnx_session import open_model
from models.export.lowering import DENSE_ROWS, to_gemm
from models.export.weights import weights_of
from models.networks.convolution import ConvLayer

EVERYTHING_DENSE = 10**6
LAYER = ConvLayer(kernel=3, stride=2)


@dataclass(frozen=True)
class Layer:
    """One Conv and what follows it."""

    channels: int = 4
    geometry: ConvLayer = LAYER
    bias: bool = True
    relu: bool = True


NET = (Layer(), Layer(), Layer())


def conv_model(layers: tuple[Layer, ...], length: int = 40, flatten: bool = True) -> onnx.ModelProto:
    """``x`` (batch, length) -> ``y``, the last layer's units, with random weights."""
    rng = np.random.default_rng(0)
    initializers = [numpy_helper.from_array(np.array([1]), "axis")]
    nodes = [helper.make_node("Unsqueeze", ["x", "axis"], ["h0"])]
    infos = [helper.make_tensor_value_info("h0", TensorProto.FLOAT, ["batch", 1, length])]
    h, channels = "h0", 1
    for i, layer in enumerate(layers, 1):
        inputs = [h, f"conv{i}.weight", *([f"conv{i}.bias"] if layer.bias else [])]
        weight = rng.standard_normal((layer.channels, channels, layer.geometry.kernel)).astype(np.float32)
        initializers.append(numpy_helper.from_array(weight, inputs[1]))
        if layer.bias:
            initializers.append(
                numpy_helper.from_array(rng.standard_normal(layer.channels).astype(np.float32), inputs[2])
            )
        geometry, channels = layer.geometry, layer.channels
        length = geometry.output_length(length)
        attributes = {"strides": [geometry.stride], "dilations": [geometry.dilation]}
        if geometry.padding:  # ONNX lets the attributes out that have their default
            attributes["pads"] = [geometry.padding] * 2
        nodes.append(helper.make_node("Conv", inputs, [f"c{i}"], **attributes))
        infos.append(helper.make_tensor_value_info(f"c{i}", TensorProto.FLOAT, ["batch", channels, length]))
        h = f"c{i}"
        if layer.relu:
            nodes.append(helper.make_node("Relu", [h], [f"r{i}"]))
            infos.append(helper.make_tensor_value_info(f"r{i}", TensorProto.FLOAT, ["batch", channels, length]))
            h = f"r{i}"
    if flatten:
        nodes.append(helper.make_node("Flatten", [h], ["flat"]))
        infos.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["batch", channels * length]))
        h = "flat"
    nodes.append(helper.make_node("Identity", [h], ["y"]))
    shape = ["batch", channels * length] if flatten else ["batch", channels, length]
    graph = helper.make_graph(
        nodes,
        "chain",
        [
            helper.make_tensor_value_info(
                "x", TensorProto.FLOAT, ["batch", infos[0].type.tensor_type.shape.dim[2].dim_value]
            )
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        initializers,
        value_info=infos,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def lowered(model: onnx.ModelProto, dense_rows: int = DENSE_ROWS) -> tuple[onnx.ModelProto, int]:
    """A lowered copy, and how many layers were lowered."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    count = to_gemm(copy, dense_rows=dense_rows)
    onnx.checker.check_model(copy, full_check=True)
    return copy, count


def signals(count: int, length: int = 40) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, length)).astype(np.float32)


def answers(model: onnx.ModelProto, x_BL: np.ndarray) -> np.ndarray:
    return open_model(model.SerializeToString()).run(["y"], {"x": x_BL})[0]


def assert_same_function(model: onnx.ModelProto, dense_rows: int, length: int = 40) -> None:
    other, _ = lowered(model, dense_rows)
    x_BL = signals(5, length)
    expected = answers(model, x_BL)
    np.testing.assert_allclose(answers(other, x_BL), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


# ---- the same function -------------------------------------------------------------------------------------------

layers = st.builds(
    Layer,
    channels=st.integers(1, 5),
    geometry=st.builds(
        ConvLayer,
        kernel=st.integers(1, 4),
        stride=st.integers(1, 3),
        padding=st.integers(0, 2),
        dilation=st.integers(1, 2),
    ),
    bias=st.booleans(),
    relu=st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(layers, min_size=1, max_size=3),
    st.integers(30, 45),
    st.booleans(),
    st.sampled_from([0, 60, EVERYTHING_DENSE]),
)
def test_every_geometry_keeps_its_answers(chain, length, flatten, dense_rows):
    left = length
    for layer in chain:
        if left + 2 * layer.geometry.padding < layer.geometry.span:
            assume(False)  # nothing of the signal is left for this layer
        left = layer.geometry.output_length(left)
    model = conv_model(tuple(chain), length, flatten)
    assert lowered(model, dense_rows)[1] == len(chain)
    assert_same_function(model, dense_rows, length)


@pytest.mark.parametrize(
    ("dense_rows", "gathers"),
    [(0, 3), (40, 1), (EVERYTHING_DENSE, 0)],
    ids=["im2col throughout", "im2col for the second of 76 units", "dense throughout"],
)
def test_onnxruntime_runs_products_and_no_convolution(dense_rows, gathers, operators):
    """The matrices are computed from the weights when the file is loaded, and not again for each run."""
    model, count = lowered(conv_model(NET), dense_rows)
    assert count == 3
    run = operators(model.SerializeToString())
    assert (run.count("FusedGemm"), run.count("Gather")) == (3, gathers)
    assert set(run) <= {"FusedGemm", "Gather", "Reshape", "Transpose", "Identity"}


@pytest.mark.parametrize("dense_rows", [0, DENSE_ROWS, EVERYTHING_DENSE])
@pytest.mark.parametrize("channels", [15, 25])
def test_bits_do_not_depend_on_the_batch(dense_rows, channels):
    model, _ = lowered(conv_model(tuple(replace(layer, channels=channels) for layer in NET)), dense_rows)
    check = bit_identity(open_model(model.SerializeToString()), {"x": signals(200)}, [*range(1, 40), 64, 199])
    assert check.passed, check.detail


@pytest.mark.parametrize("dense_rows", [0, DENSE_ROWS])
@pytest.mark.parametrize("companion", [np.nan, np.inf, -np.inf, 3e38])
def test_a_companion_that_is_no_number_harms_itself_alone(dense_rows, companion):
    model, _ = lowered(conv_model(NET), dense_rows)
    x_BL = signals(20)
    mixed_BL = x_BL.copy()
    mixed_BL[1::2] = companion
    np.testing.assert_array_equal(answers(model, mixed_BL)[::2], answers(model, x_BL)[::2])


@pytest.mark.parametrize("position", [0, 20, 39])
def test_a_dense_first_layer_tells_of_a_nan_wherever_it_is(position):
    model, _ = lowered(conv_model(NET))
    x_BL = signals(3)
    x_BL[1, position] = np.nan
    assert np.isnan(answers(model, x_BL)).all(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize("dense_rows", [0, DENSE_ROWS])
def test_no_examples_are_no_error(dense_rows):
    model, _ = lowered(conv_model(NET), dense_rows)
    assert answers(model, signals(0)).shape == (0, 16)


# ---- the file ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dense_rows", [0, DENSE_ROWS, EVERYTHING_DENSE])
def test_the_weights_stay_in_the_file_as_they_are(dense_rows):
    model = conv_model(NET)
    before, after = (weights_of(proto.SerializeToString()) for proto in (model, lowered(model, dense_rows)[0]))
    assert list(after) == list(before)
    for name, array in before.items():
        assert after[name].tobytes() == array.tobytes()


def test_what_only_the_old_nodes_needed_is_gone():
    model, _ = lowered(conv_model(NET))
    read = {name for node in model.graph.node for name in node.input}
    written = {name for node in model.graph.node for name in node.output}
    assert {tensor.name for tensor in model.graph.initializer} <= read
    assert {info.name for info in model.graph.value_info} <= written
    assert "axis" not in read
    assert len(written) == len(model.graph.node)


# ---- what is left alone ------------------------------------------------------------------------------------------


def with_groups(model: onnx.ModelProto) -> None:
    model.graph.node[3].attribute.append(helper.make_attribute("group", 2))
    model.graph.initializer[3].CopyFrom(numpy_helper.from_array(np.ones((4, 2, 3), np.float32), "conv2.weight"))


def with_automatic_padding(model: onnx.ModelProto) -> None:
    model.graph.node[3].attribute.append(helper.make_attribute("auto_pad", "VALID"))


def with_computed_weights(model: onnx.ModelProto) -> None:
    model.graph.node[3].input[1] = "twice"
    model.graph.node.insert(0, helper.make_node("Add", ["conv2.weight", "conv2.weight"], ["twice"]))


def with_another_reader(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Neg", ["r1"], ["side"]))
    model.graph.output.append(helper.make_tensor_value_info("side", TensorProto.FLOAT, ["batch", 4, 19]))


def with_an_inner_output(model: onnx.ModelProto) -> None:
    (info,) = (info for info in model.graph.value_info if info.name == "r1")
    model.graph.output.append(info)


def without_lengths(model: onnx.ModelProto) -> None:
    kept = [info for info in model.graph.value_info if info.name in ("h0", "c1", "r1")]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)


@pytest.mark.parametrize(
    "edit",
    [
        with_groups,
        with_automatic_padding,
        with_computed_weights,
        with_another_reader,
        with_an_inner_output,
        without_lengths,
    ],
)
def test_layers_behind_what_it_does_not_know_stay_conv(edit):
    model = conv_model(NET)
    edit(model)
    after, count = lowered(model)
    assert count == 1
    convolutions = {node.output[0] for node in after.graph.node if node.op_type == "Conv"}
    assert {"c2", "c3"} <= convolutions
    assert "c1" not in convolutions
    assert_same_function(model, DENSE_ROWS)


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (
            lambda model: model.graph.node[0].CopyFrom(helper.make_node("Reshape", ["x", "shape"], ["h0"])),
            "no Unsqueeze",
        ),
        (lambda model: model.graph.value_info.pop(0), "its shape is not stated"),
    ],
)
def test_a_chain_that_begins_otherwise_stays(edit, why):
    model = conv_model(NET)
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 1, 40]), "shape"))
    edit(model)
    before = model.SerializeToString(deterministic=True)
    assert to_gemm(model) == 0, why
    assert model.SerializeToString(deterministic=True) == before
