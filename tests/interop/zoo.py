"""The models that the interop suites are served from: one of each kind, none of which needs torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from service.wire.datatypes import DATATYPES
from tests.conftest import conv2d_model, identity_model, mixed_model, onnx_model, publish_affine, put_plain

if TYPE_CHECKING:
    from pathlib import Path

LABELS = ("zero", "one", "two")
ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def identity_name(datatype: str) -> str:
    """The model that gives back what it gets, of that datatype: x[batch, length] -> y."""
    return f"identity_{datatype.lower()}"


def spin_model() -> bytes:
    """y = x for x FP32[batch, 1], after as many products of two 256 x 256 matrices (about 1 ms each) as max(x) says."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("MatMul", ["m_in", "matrix"], ["product"]),
            helper.make_node("Tanh", ["product"], ["m_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("m_in", TensorProto.FLOAT, [256, 256]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("m_out", TensorProto.FLOAT, [256, 256]),
        ],
    )
    matrix = np.random.default_rng(3).standard_normal((256, 256)).astype(np.float32) / 16
    return onnx_model(
        [
            helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
            helper.make_node("Cast", ["most"], ["turns"], to=TensorProto.INT64),
            helper.make_node("Loop", ["turns", "go", "matrix"], ["m"], body=body),
            # The loop's product must count for something, or it would be optimised away.
            helper.make_node("ReduceMean", ["m"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "nothing"], ["none"]),
            helper.make_node("Add", ["x", "none"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, ["batch", 1])],
        [("y", TensorProto.FLOAT, ["batch", 1])],
        [
            numpy_helper.from_array(matrix, "matrix"),
            numpy_helper.from_array(np.array(True), "go"),
            numpy_helper.from_array(np.array(0, np.float32), "nothing"),
        ],
    )


def unbatched_model() -> bytes:
    """y = x for x FP32[2, 3]: no axis is free, so no axis is a batch axis."""
    return identity_model(TensorProto.FLOAT, (2, 3))


def fill_zoo(repository: Path) -> None:
    """Put every kind of model into a repository: affine has two versions, y = 2 x + 1 and y = 3 x + 1."""
    publish_affine(repository, scale=2.0)
    publish_affine(repository, scale=3.0)
    publish_affine(repository, "labelled", labels={"y": LABELS})
    put_plain(repository, "mixed", mixed_model())
    put_plain(repository, "conv2d", conv2d_model()[0])
    put_plain(repository, "spin", spin_model())
    put_plain(repository, "unbatched", unbatched_model())
    for datatype in DATATYPES:
        put_plain(repository, identity_name(datatype), identity_model(ONNX_TYPES[datatype], ("batch", "length")))
    # Never ready, and no harm to the others.
    put_plain(repository, "broken", b"this is no ONNX model")
