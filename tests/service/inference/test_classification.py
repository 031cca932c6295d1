from __future__ import annotations

import numpy as np
import pytest

from models.artifact.tensor_spec import TensorSpec
from service.errors import InvalidRequest
from service.inference.classification import check_classifiable, classify


@pytest.mark.parametrize(
    ("array", "count", "labels", "has_batch_axis", "expected"),
    [
        (np.array([[0.1, 0.7, 0.2]], np.float32), 2, (), True, [["0.700000:1", "0.200000:2"]]),
        (np.array([[0.1, 0.7]], np.float32), 5, ("zero", "one"), True, [["0.700000:1:one", "0.100000:0:zero"]]),
        (np.array([0.5, 0.5, 0.25]), 3, (), False, ["0.500000:0", "0.500000:1", "0.250000:2"]),
        (np.array([[3, -7]], np.int8), 1, (), True, [["3:0"]]),
        (np.array([[0, 255]], np.uint8), 2, (), True, [["255:1", "0:0"]]),
        (np.array([[[1, 2], [3, 4]]], np.int64), 2, (), True, [["4:3", "3:2"]]),
    ],
)
def test_the_best_classes_come_first_with_value_index_and_label(array, count, labels, has_batch_axis, expected) -> None:
    assert classify(array, count, labels, has_batch_axis=has_batch_axis).tolist() == expected


@pytest.mark.parametrize("datatype", ["BOOL", "BYTES", "FP16", "BF16"])
def test_what_has_no_order_that_triton_knows_is_refused(datatype) -> None:
    with pytest.raises(InvalidRequest, match=f"unsupported type '{datatype}'"):
        check_classifiable(TensorSpec("y", datatype, ("batch", 2)))
