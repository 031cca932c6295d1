from __future__ import annotations

import numpy as np
import pytest

from models.artifact import datatypes as served
from service.wire.datatypes import DATATYPES

NUMBERS = [datatype for datatype in DATATYPES.values() if datatype.name != "BYTES"]


def test_what_travels_is_what_can_be_served():
    assert {name: datatype.numpy for name, datatype in DATATYPES.items()} == {
        name: datatype.numpy for name, datatype in served.DATATYPES.items()
    }
    assert all(datatype.name == name for name, datatype in DATATYPES.items())


@pytest.mark.parametrize("datatype", NUMBERS, ids=lambda datatype: datatype.name)
def test_the_wire_is_little_endian_and_has_numpys_item_size(datatype):
    assert datatype.itemsize_bytes == datatype.numpy.itemsize
    one = np.ones((), datatype.numpy).tobytes()
    little = {"FP16": b"\x00\x3c", "BF16": b"\x80\x3f", "FP32": b"\x00\x00\x80\x3f", "FP64": b"\x00" * 6 + b"\xf0\x3f"}
    assert one == little.get(datatype.name, (1).to_bytes(datatype.itemsize_bytes, "little"))


def test_strings_have_no_item_size_and_are_python_objects():
    text = DATATYPES["BYTES"]
    assert (text.itemsize_bytes, text.numpy) == (0, np.dtype(object))


def test_only_floating_point_can_be_nan_or_infinite():
    assert {name for name, datatype in DATATYPES.items() if datatype.is_float} == {"FP16", "BF16", "FP32", "FP64"}
