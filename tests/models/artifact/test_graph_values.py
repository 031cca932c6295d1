from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.artifact.graph_values import input_values, time_follows_from_shapes
from tests import foreign_models
from tests.conftest import affine_model, conv2d_model, mixed_model, onnx_model

X = [("x", TensorProto.INT64, ["n"])]
Y = [("y", TensorProto.FLOAT, None)]


def node(*words, domain="", **attributes):
    return helper.make_node(*words, domain=domain, **attributes)


def model(*nodes, **constants) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return onnx.ModelProto.FromString(onnx_model(nodes, X, Y, initializers))


BOUNDED = {
    "arithmetic": onnx.ModelProto.FromString(affine_model()),
    "convolution": onnx.ModelProto.FromString(conv2d_model()[0]),
    "several inputs": onnx.ModelProto.FromString(mixed_model()),
    "expansion to a constant shape": onnx.ModelProto.FromString(foreign_models.large_answer()),
    "expansion to the shape of an input": model(node("Shape", ["x"], ["s"]), node("Expand", ["w", "s"], ["y"]), w=1.0),
    "rows that are left out": onnx.ModelProto.FromString(foreign_models.rows_below_100()),
    "a range as long as the input": model(
        node("Size", ["x"], ["n"]), node("Range", ["zero", "n", "one"], ["y"]), zero=np.int64(0), one=np.int64(1)
    ),
}
UNBOUNDED = {
    "a loop": onnx.ModelProto.FromString(foreign_models.loop_of_x()),
    "a range up to the input": model(
        node("ReduceMax", ["x"], ["m"], keepdims=0),
        node("Range", ["zero", "m", "one"], ["y"]),
        zero=np.int64(0),
        one=np.int64(1),
    ),
    "a constant of the input's shape": model(node("ConstantOfShape", ["x"], ["y"])),
    "an expansion, through arithmetic": model(
        node("Add", ["x", "one"], ["s"]), node("Expand", ["one", "s"], ["y"]), one=np.array([1])
    ),
    "a tiling": model(node("Tile", ["w", "x"], ["y"]), w=np.array([1.0])),
    "a padding": model(node("Pad", ["w", "x"], ["y"]), w=np.array([1.0])),
    "an operator that is not ONNX's": model(node("Mystery", ["x"], ["y"], domain="org.example")),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_where_shapes_bound_the_time_of_a_run(name) -> None:
    assert time_follows_from_shapes(BOUNDED[name])


@pytest.mark.parametrize("name", UNBOUNDED)
def test_where_values_decide_about_it(name) -> None:
    assert not time_follows_from_shapes(UNBOUNDED[name])


def test_what_depends_on_shapes_only_does_not_depend_on_values() -> None:
    graph = model(
        node("Shape", ["x"], ["s"]), node("Add", ["s", "one"], ["t"]), node("Neg", ["x"], ["y"]), one=np.int64(1)
    )
    assert input_values(graph) == {"x", "y"}


def test_an_initializer_that_is_an_input_too_is_a_constant() -> None:
    graph = model(node("Neg", ["w"], ["y"]), w=np.int64(1))
    graph.graph.input.append(helper.make_tensor_value_info("w", TensorProto.INT64, []))
    assert input_values(graph) == {"x"}
