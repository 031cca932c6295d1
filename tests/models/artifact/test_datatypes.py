from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from models.artifact.datatypes import BY_ONNX, BY_ORT, DATATYPES
from tests.conftest import identity_model


def test_the_datatypes_are_the_protocols():
    assert list(DATATYPES) == [
        *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
        *("FP16", "BF16", "FP32", "FP64", "BYTES"),
    ]


def test_every_datatype_is_found_under_each_of_its_names():
    assert len(BY_ORT) == len(BY_ONNX) == len(DATATYPES)
    for name, datatype in DATATYPES.items():
        assert datatype.name == name
        assert BY_ORT[datatype.ort] is datatype
        assert BY_ONNX[datatype.onnx] is datatype


@pytest.mark.parametrize("datatype", DATATYPES.values(), ids=DATATYPES)
def test_onnx_has_the_same_numpy_dtype(datatype):
    assert helper.tensor_dtype_to_np_dtype(datatype.onnx) == datatype.numpy


@pytest.mark.parametrize("datatype", DATATYPES.values(), ids=DATATYPES)
def test_onnxruntime_has_the_same_name(datatype):
    session = ort.InferenceSession(identity_model(datatype.onnx), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].type == datatype.ort


def test_strings_are_python_objects():
    text = DATATYPES["BYTES"]
    assert (text.numpy, text.onnx) == (np.dtype(object), TensorProto.STRING)


def test_only_floating_point_can_be_nan_or_infinite():
    assert {name for name, datatype in DATATYPES.items() if datatype.is_float} == {"FP16", "BF16", "FP32", "FP64"}
