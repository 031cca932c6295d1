from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.wire.datatypes import DATATYPES
from service.wire.raw_contents import ContentsError, from_raw, to_raw

NUMERIC = [datatype for datatype in DATATYPES.values() if datatype.name not in {"BYTES", "BOOL"}]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


@given(datatype=st.sampled_from(NUMERIC), shape=SHAPES, data=st.data())
def test_numeric_tensors_survive_the_round_trip_bit_for_bit(datatype, shape, data) -> None:
    count = int(np.prod(shape))
    raw = data.draw(st.binary(min_size=count * datatype.itemsize_bytes, max_size=count * datatype.itemsize_bytes))
    array = from_raw(raw, datatype, shape)
    assert array.shape == shape
    assert array.dtype == datatype.numpy
    assert to_raw(array, datatype) == raw


@given(shape=SHAPES, data=st.data())
def test_bools_survive_the_round_trip(shape, data) -> None:
    array = data.draw(hnp.arrays(np.bool_, shape))
    assert np.array_equal(from_raw(to_raw(array, DATATYPES["BOOL"]), DATATYPES["BOOL"], shape), array)


@given(shape=SHAPES, data=st.data())
def test_strings_survive_the_round_trip(shape, data) -> None:
    texts = data.draw(st.lists(st.text(), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    array = np.empty(len(texts), dtype=np.object_)
    array[:] = texts
    array = array.reshape(shape)
    assert np.array_equal(from_raw(to_raw(array, DATATYPES["BYTES"]), DATATYPES["BYTES"], shape), array)


def test_the_byte_order_is_little_endian_and_the_layout_row_major() -> None:
    array = np.array([[1, 2], [3, 4]], dtype=">i2")
    assert to_raw(array, DATATYPES["INT16"]) == b"\x01\x00\x02\x00\x03\x00\x04\x00"
    assert to_raw(np.asfortranarray(array), DATATYPES["INT16"]) == b"\x01\x00\x02\x00\x03\x00\x04\x00"


def test_bytes_elements_carry_a_little_endian_length() -> None:
    elements = np.array([b"\xff", "é"], dtype=np.object_)
    assert to_raw(elements, DATATYPES["BYTES"]) == b"\x01\x00\x00\x00\xff\x02\x00\x00\x00\xc3\xa9"


def test_reading_makes_no_copy() -> None:
    raw = np.arange(4, dtype=np.float32).tobytes()
    array = from_raw(raw, DATATYPES["FP32"], (2, 2))
    assert not array.flags.owndata
    assert not array.flags.writeable


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "says"),
    [
        ("FP32", (2,), b"\0" * 7, r"expected 8 bytes \(FP32\[2\], 4 an element\), got 7"),
        ("FP32", (2,), b"\0" * 12, "expected 8 bytes .*, got 12"),
        ("INT64", (), b"", "expected 8 bytes .*, got 0"),
        ("BOOL", (3,), b"\0\1\2", "expected BOOL bytes 0 or 1, got 2 at element 2"),
        ("BYTES", (1,), b"\1\0\0", "3 bytes are left at 0, a length prefix takes 4"),
        ("BYTES", (1,), b"\5\0\0\0ab", "element 0 should have 5 bytes, 2 are left at 4"),
        ("BYTES", (1,), b"\xff\xff\xff\xffab", "element 0 should have 4294967295 bytes, 2 are left"),
        ("BYTES", (2,), b"\1\0\0\0a", "expected 2 BYTES elements, got 1"),
        ("BYTES", (1,), b"\1\0\0\0a\1\0\0\0b", "expected 1 BYTES elements, got more"),
        ("BYTES", (1,), b"\1\0\0\0\xff", "element 0 is not UTF-8"),
    ],
)
def test_contents_that_do_not_fit_are_refused(datatype, shape, raw, says) -> None:
    with pytest.raises(ContentsError, match=says):
        from_raw(raw, DATATYPES[datatype], shape)


@given(raw=st.binary(max_size=64), count=st.integers(0, 4))
def test_no_bytes_make_the_string_reader_do_anything_but_read_or_refuse(raw, count) -> None:
    try:
        array = from_raw(raw, DATATYPES["BYTES"], (count,))
    except ContentsError:
        return
    assert to_raw(array, DATATYPES["BYTES"]) == raw
