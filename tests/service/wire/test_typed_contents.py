from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.pb.open_inference_pb2 import InferTensorContents
from service.wire.datatypes import DATATYPES
from service.wire.raw_contents import ContentsError
from service.wire.typed_contents import FIELDS, add_typed, from_typed, is_filled

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
NUMERIC = [DATATYPES[name] for name in FIELDS if name != "BYTES"]


def test_every_datatype_but_the_half_precisions_has_a_field() -> None:
    assert set(DATATYPES) - set(FIELDS) == {"FP16", "BF16"}
    assert set(FIELDS.values()) == {field.name for field in InferTensorContents.DESCRIPTOR.fields}


@given(datatype=st.sampled_from(NUMERIC), shape=SHAPES, data=st.data())
def test_arrays_survive_the_round_trip(datatype, shape, data) -> None:
    array = data.draw(hnp.arrays(datatype.numpy, shape))
    contents = InferTensorContents()
    add_typed(contents, array, datatype)
    back = from_typed(InferTensorContents.FromString(contents.SerializeToString()), datatype, shape)
    assert back.dtype == array.dtype
    assert np.array_equal(back, array, equal_nan=datatype.is_float)
    assert is_filled(contents) == (array.size > 0)


@given(texts=st.lists(st.text(), max_size=4))
def test_strings_survive_the_round_trip(texts) -> None:
    array = np.empty(len(texts), dtype=np.object_)
    array[:] = texts
    contents = InferTensorContents()
    add_typed(contents, array, DATATYPES["BYTES"])
    assert list(from_typed(contents, DATATYPES["BYTES"], (len(texts),))) == texts


@pytest.mark.parametrize(
    ("datatype", "shape", "contents", "says"),
    [
        ("FP16", (1,), {"fp32_contents": [1]}, "FP16 has no typed contents; send it in raw_input_contents"),
        ("BF16", (1,), {}, "BF16 has no typed contents"),
        ("FP32", (1,), {"fp64_contents": [1]}, "expected fp32_contents for FP32, got fp64_contents"),
        (
            "FP32",
            (1,),
            {"fp32_contents": [1], "int_contents": [1]},
            "expected fp32_contents for FP32, got int_contents",
        ),
        ("INT8", (2,), {"int_contents": [1]}, r"expected 2 values in int_contents \(INT8\[2\]\), got 1"),
        ("INT8", (2,), {"int_contents": [1, 128]}, "expected INT8 values from -128 to 127, got 128 at element 1"),
        ("UINT16", (1,), {"uint_contents": [65536]}, "expected UINT16 values from 0 to 65535, got 65536 at element 0"),
        ("BYTES", (1,), {"bytes_contents": [b"\xff"]}, "element 0 is not UTF-8"),
    ],
)
def test_contents_that_do_not_fit_are_refused(datatype, shape, contents, says) -> None:
    with pytest.raises(ContentsError, match=says):
        from_typed(InferTensorContents(**contents), DATATYPES[datatype], shape)


def test_half_precision_cannot_be_written_typed() -> None:
    with pytest.raises(ContentsError, match="FP16 has no typed contents"):
        add_typed(InferTensorContents(), np.zeros(1, np.float16), DATATYPES["FP16"])
