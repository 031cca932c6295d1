"""Reading weights back from a file, without torch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.errors import ArtifactError
from models.export.weights import weights_of


def model(*initializers: onnx.TensorProto) -> bytes:
    info = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([], "test", [], [info], list(initializers))
    return helper.make_model(graph).SerializeToString()


def test_floats_are_weights_and_integers_are_not():
    weight = np.array([[1.5, -2.0]], np.float32)
    half = np.array([0.25], np.float16)
    weights = weights_of(
        model(
            numpy_helper.from_array(weight, "b.weight"),
            numpy_helper.from_array(np.array([-1, 60]), "shape"),
            numpy_helper.from_array(half, "a.bias"),
        )
    )
    assert list(weights) == ["b.weight", "a.bias"]
    np.testing.assert_array_equal(weights["b.weight"], weight)
    assert weights["a.bias"].dtype == np.float16


def test_weights_are_copies_that_may_be_changed():
    weights = weights_of(model(numpy_helper.from_array(np.zeros(2, np.float32), "w")))
    weights["w"] += 1
    np.testing.assert_array_equal(weights["w"], [1, 1])


@pytest.mark.parametrize("model_bytes", [b"\xff\xff\xff", b"not an ONNX file"])
def test_other_bytes_are_refused(model_bytes):
    with pytest.raises(ArtifactError, match="cannot be read"):
        weights_of(model_bytes)
