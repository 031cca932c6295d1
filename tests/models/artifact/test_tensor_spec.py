from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.artifact.datatypes import DATATYPES
from models.artifact.tensor_spec import TensorSpec
from models.errors import ArtifactError

GOOD = {"name": "x", "datatype": "FP32", "shape": ["batch", 40]}

specs = st.builds(
    TensorSpec,
    name=st.text(min_size=1),
    datatype=st.sampled_from(list(DATATYPES)),
    shape=st.lists(st.integers(min_value=0, max_value=2**63 - 1) | st.text(), max_size=5).map(tuple),
)


@settings(deadline=None)
@given(specs)
def test_json_keeps_a_spec(spec):
    assert TensorSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    ("shape", "wire_shape", "batch_axis", "text"),
    [
        (("batch", 40), (-1, 40), "batch", "x FP32[batch, 40]"),
        ((1, 40), (1, 40), None, "x FP32[1, 40]"),
        ((), (), None, "x FP32[]"),
        (("", 3, "h", 0), (-1, 3, -1, 0), "", "x FP32[?, 3, h, 0]"),
    ],
)
def test_the_same_shape_for_the_wire_for_batching_and_for_people(shape, wire_shape, batch_axis, text):
    spec = TensorSpec("x", "FP32", shape)
    assert spec.wire_shape == wire_shape
    assert spec.batch_axis == batch_axis
    assert str(spec) == text


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({**GOOD, "name": None}, "tensor name: got None"),
        ({**GOOD, "name": ""}, "tensor name: got ''"),
        ({**GOOD, "name": 3}, "tensor name: got 3"),
        ({**GOOD, "datatype": "FLOAT"}, "tensor 'x', datatype: got 'FLOAT', expected one of BOOL"),
        ({**GOOD, "datatype": ["FP32"]}, r"tensor 'x', datatype: got \['FP32'\]"),
        ({**GOOD, "shape": None}, "tensor 'x', shape: got None"),
        ({**GOOD, "shape": "batch"}, "tensor 'x', shape: got 'batch'"),
        ({**GOOD, "shape": [True]}, r"tensor 'x', shape: got \[True\]"),
        ({**GOOD, "shape": [-1, 40]}, r"tensor 'x', shape: got \[-1, 40\]"),
        ({**GOOD, "shape": [1.0]}, r"tensor 'x', shape: got \[1.0\]"),
        ({**GOOD, "shape": [None]}, r"tensor 'x', shape: got \[None\]"),
        ({}, "tensor name: got None"),
        ("x", "tensor: got 'x', expected an object"),
        (None, "tensor: got None, expected an object"),
        ([GOOD], "tensor: got .*, expected an object"),
    ],
)
def test_what_is_no_spec_is_refused_by_field(data, named):
    with pytest.raises(ArtifactError, match=named):
        TensorSpec.from_dict(data)


def test_unknown_keys_are_left_for_later_formats():
    assert TensorSpec.from_dict({**GOOD, "unit": "V"}) == TensorSpec("x", "FP32", ("batch", 40))
