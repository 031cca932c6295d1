"""Small models as other people bring them: they mix rows, lose rows, answer much, or run as long as the input says.

``alone`` is the right answer to a request: what onnxruntime gives to that request's own arrays.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from models.artifact.onnx_session import open_model
from tests.conftest import onnx_model

FLOATS = [("x", TensorProto.FLOAT, ["batch", 4])]
"""Inputs of most of them."""


def _model(nodes, inputs, outputs, **constants) -> bytes:
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return onnx_model([helper.make_node(*node, **more) for *node, more in nodes], inputs, outputs, initializers)


def batch_maximum() -> bytes:
    """y = x + the batch's maximum where that is above 1e9: rows look independent until a caller sends large numbers."""
    return _model(
        [
            ("ReduceMax", ["x", "axes"], ["maximum"], {"keepdims": 1}),
            ("Greater", ["maximum", "big"], ["is_big"], {}),
            ("Where", ["is_big", "maximum", "zero"], ["added"], {}),
            ("Add", ["x", "added"], ["y"], {}),
        ],
        FLOATS,
        [("y", TensorProto.FLOAT, ["batch", 4])],
        axes=np.array([0, 1]),
        big=np.float32(1e9),
        zero=np.float32(0),
    )


def more_than_48_rows() -> bytes:
    """y = x + 1 where the batch has more than 48 rows, else x."""
    return _model(
        [
            ("Shape", ["x"], ["shape"], {}),
            ("Gather", ["shape", "first"], ["rows"], {}),
            ("Greater", ["rows", "most"], ["is_large"], {}),
            ("Cast", ["is_large"], ["one"], {"to": TensorProto.FLOAT}),
            ("Add", ["x", "one"], ["y"], {}),
        ],
        FLOATS,
        [("y", TensorProto.FLOAT, ["batch", 4])],
        first=np.int64(0),
        most=np.int64(48),
    )


def picture_over_maximum() -> bytes:
    """y = x / the batch's maximum, x UINT8[batch, 28, 28]: trying it with zeros and ones shows nothing."""
    return _model(
        [
            ("Cast", ["x"], ["float"], {"to": TensorProto.FLOAT}),
            ("ReduceMax", ["float"], ["maximum"], {"keepdims": 0}),
            ("Div", ["float", "maximum"], ["y"], {}),
        ],
        [("x", TensorProto.UINT8, ["batch", 28, 28])],
        [("y", TensorProto.FLOAT, ["batch", 28, 28])],
    )


def rows_below_100() -> bytes:
    """y = the rows of x INT64[batch, 2] whose first element is below 100: an answer may have fewer rows."""
    return _model(
        [
            ("Slice", ["x", "begin", "end", "axes"], ["column"], {}),
            ("Squeeze", ["column", "axes"], ["firsts"], {}),
            ("Less", ["firsts", "bound"], ["keep"], {}),
            ("Compress", ["x", "keep"], ["y"], {"axis": 0}),
        ],
        [("x", TensorProto.INT64, ["batch", 2])],
        [("y", TensorProto.INT64, ["batch", 2])],
        begin=np.array([0]),
        end=np.array([1]),
        axes=np.array([1]),
        bound=np.int64(100),
    )


def sigmoid_of_doubles() -> bytes:
    """y = sigmoid(x), x FP64[batch, 5]: the last elements of a buffer get other bits than the ones before."""
    axes = ["batch", 5]
    return _model([("Sigmoid", ["x"], ["y"], {})], [("x", TensorProto.DOUBLE, axes)], [("y", TensorProto.DOUBLE, axes)])


def mean_of_1000() -> bytes:
    """y = the mean of each row, x FP32[batch, 1000]: its bits depend on where the input lies in memory."""
    return _model(
        [("ReduceMean", ["x", "axes"], ["y"], {"keepdims": 1})],
        [("x", TensorProto.FLOAT, ["batch", 1000])],
        [("y", TensorProto.FLOAT, ["batch", 1])],
        axes=np.array([1]),
    )


def large_answer() -> bytes:
    """y = each element of x FP32[batch, 1] a million times: 4 MB a row."""
    return _model(
        [("Expand", ["x", "shape"], ["y"], {})],
        [("x", TensorProto.FLOAT, ["batch", 1])],
        [("y", TensorProto.FLOAT, ["batch", 1_000_000])],
        shape=np.array([1, 1_000_000]),
    )


def loop_of_x() -> bytes:
    """y = a number counted up max(x) times, x INT64[n]: runs for as long as the request says."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_out"]), helper.make_node("Add", ["s", "one"], ["s_out"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("s_out", TensorProto.FLOAT, [1]),
        ],
        [numpy_helper.from_array(np.array([1], np.float32), "one")],
    )
    return _model(
        [("ReduceMax", ["x"], ["turns"], {"keepdims": 0}), ("Loop", ["turns", "", "zero"], ["y"], {"body": body})],
        [("x", TensorProto.INT64, ["n"])],
        [("y", TensorProto.FLOAT, [1])],
        zero=np.array([0], np.float32),
    )


def sines_of_a_constant() -> bytes:
    """y = the sum of x[0] ones after 400 sines, x INT64[1]: no Loop, and yet runs for as long as the request says."""
    sines = [("Sin", [f"s{n}"], [f"s{n + 1}"], {}) for n in range(400)]
    return _model(
        [("ConstantOfShape", ["x"], ["s0"], {}), *sines, ("ReduceSum", ["s400"], ["y"], {"keepdims": 1})],
        [("x", TensorProto.INT64, [1])],
        [("y", TensorProto.FLOAT, [1])],
    )


def widest_of_the_batch() -> bytes:
    """y = x[:, :k] where k is the largest x of the batch: a joint answer has other shapes than those alone."""
    return _model(
        [
            ("ReduceMax", ["x"], ["most"], {"keepdims": 0}),
            ("Cast", ["most"], ["k"], {"to": TensorProto.INT64}),
            ("Unsqueeze", ["k", "zero"], ["end"], {}),
            ("Slice", ["x", "zero", "end", "one"], ["y"], {}),
        ],
        FLOATS,
        [("y", TensorProto.FLOAT, ["batch", "k"])],
        zero=np.array([0]),
        one=np.array([1]),
    )


def two_outputs() -> bytes:
    """twice = 2 x of shape [batch, 4] and wide = x six times, [batch, 24]: parts of different sizes."""
    return _model(
        [("Mul", ["x", "two"], ["twice"], {}), ("Concat", ["x"] * 6, ["wide"], {"axis": 1})],
        FLOATS,
        [("twice", TensorProto.FLOAT, ["batch", 4]), ("wide", TensorProto.FLOAT, ["batch", 24])],
        two=np.float32(2),
    )


def row_by_row_if() -> bytes:
    """y = x where the batch has rows, by an If: its rows are independent, and no trial can show it."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["same"])],
        "body",
        [],
        [helper.make_tensor_value_info("same", TensorProto.FLOAT, ["batch", 4])],
    )
    return _model(
        [
            ("Size", ["x"], ["size"], {}),
            ("Cast", ["size"], ["has_rows"], {"to": TensorProto.BOOL}),
            ("If", ["has_rows"], ["y"], {"then_branch": body, "else_branch": body}),
        ],
        FLOATS,
        [("y", TensorProto.FLOAT, ["batch", 4])],
    )


def alone(model_bytes: bytes, x: np.ndarray) -> dict[str, np.ndarray]:
    """The right answer to a request with this ``x``."""
    model = open_model(model_bytes)
    names = [spec.name for spec in model.outputs]
    return dict(zip(names, model.run(names, {"x": x}), strict=True))
