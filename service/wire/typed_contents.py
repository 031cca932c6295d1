"""Typed tensor contents: the repeated fields of ``InferTensorContents``.

Maps datatypes to fields and converts both ways. FP16 and BF16 have no field and can only be sent raw.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .raw_contents import ContentsError, as_bytes, text_array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..pb.open_inference_pb2 import InferTensorContents
    from .datatypes import Datatype

FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field of each datatype that has one."""

_ALL_FIELDS = tuple(dict.fromkeys(FIELDS.values()))
# Types of the fields: narrower integers are sent in 32 bits and must be checked against their range.
_CARRIER = {"int_contents": np.dtype("<i4"), "uint_contents": np.dtype("<u4")}


def is_filled(contents: InferTensorContents) -> bool:
    """Whether any field holds a value."""
    return any(len(getattr(contents, field)) for field in _ALL_FIELDS)


def from_typed(contents: InferTensorContents, datatype: Datatype, shape: Sequence[int]) -> np.ndarray:
    """Convert ``contents`` to an array of that datatype and shape.

    Raises:
        ContentsError: no field for the datatype, another field filled, a wrong count, a value out of range, or a
            string that is not UTF-8.
    """
    field = FIELDS.get(datatype.name)
    if field is None:
        raise ContentsError(f"{datatype.name} has no typed contents; send it in raw_input_contents")
    others = [other for other in _ALL_FIELDS if other != field and len(getattr(contents, other))]
    if others:
        raise ContentsError(f"expected {field} for {datatype.name}, got {', '.join(others)}")
    values = getattr(contents, field)
    count = math.prod(shape)
    if len(values) != count:
        raise ContentsError(f"expected {count} values in {field} ({datatype.name}{list(shape)}), got {len(values)}")
    if datatype.name == "BYTES":
        return text_array(values, shape)
    carrier = _CARRIER.get(field, datatype.numpy)
    array = np.fromiter(values, carrier, count)
    if carrier != datatype.numpy:
        _check_range(array, datatype)
        array = array.astype(datatype.numpy)
    return array.reshape(shape)


def add_typed(contents: InferTensorContents, array: np.ndarray, datatype: Datatype) -> None:
    """Append an array to the field of its datatype; raises ContentsError for a datatype without one."""
    field = FIELDS.get(datatype.name)
    if field is None:
        raise ContentsError(f"{datatype.name} has no typed contents")
    if datatype.name == "BYTES":
        contents.bytes_contents.extend(as_bytes(element) for element in array.ravel())
    else:
        getattr(contents, field).extend(array.ravel().tolist())


def _check_range(array: np.ndarray, datatype: Datatype) -> None:
    bounds = np.iinfo(datatype.numpy.name)
    wrong = (array < bounds.min) | (array > bounds.max)
    if wrong.any():
        index = int(np.argmax(wrong))
        raise ContentsError(
            f"expected {datatype.name} values from {bounds.min} to {bounds.max}, got {array[index]} at element {index}"
        )
