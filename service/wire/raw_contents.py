"""Raw tensor contents: little-endian, row-major, no padding; BYTES as length-prefixed elements.

The same functions serve the server and the client. They know datatypes and bytes, not models or requests.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .datatypes import Datatype

_LENGTH = struct.Struct("<I")
MAX_ELEMENT_BYTES = 2**32 - 1


class ContentsError(ValueError):
    """The contents do not fit the datatype and shape. The message does not name the tensor; the caller does."""


def to_raw(array: np.ndarray, datatype: Datatype) -> bytes:
    """Serialise an array of ``datatype.numpy`` (BYTES: an object array of ``str`` or ``bytes``)."""
    if datatype.name == "BYTES":
        return b"".join(_prefixed(element) for element in array.ravel())
    return array.astype(datatype.numpy, copy=False).tobytes()


def from_raw(raw: bytes, datatype: Datatype, shape: Sequence[int]) -> np.ndarray:
    """View ``raw`` as an array of that shape, without a copy and therefore read-only; BYTES become ``str``.

    Raises:
        ContentsError: the byte count, a length prefix, a BOOL byte or the UTF-8 of a string is wrong.
    """
    count = math.prod(shape)
    if datatype.name == "BYTES":
        return text_array(_split(raw, count), shape)
    expected = count * datatype.itemsize_bytes
    if len(raw) != expected:
        raise ContentsError(
            f"expected {expected} bytes ({datatype.name}{list(shape)}, {datatype.itemsize_bytes} an element), "
            f"got {len(raw)}"
        )
    if datatype.name == "BOOL":
        values = np.frombuffer(raw, np.uint8)
        if values.size and values.max() > 1:
            index = int(np.argmax(values > 1))
            raise ContentsError(f"expected BOOL bytes 0 or 1, got {values[index]} at element {index}")
    return np.frombuffer(raw, datatype.numpy).reshape(shape)


def text_array(elements: Sequence[bytes], shape: Sequence[int]) -> np.ndarray:
    """An object array of ``str``; raises ContentsError for bytes that are not UTF-8, as ONNX strings must be."""
    array = np.empty(len(elements), dtype=np.object_)
    for index, element in enumerate(elements):
        try:
            array[index] = element.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ContentsError(f"element {index} is not UTF-8 ({error.reason} at byte {error.start})") from error
    return array.reshape(shape)


def as_bytes(element: object) -> bytes:
    """One BYTES element as bytes; text is encoded in UTF-8."""
    return element if isinstance(element, bytes) else str(element).encode("utf-8")


def _prefixed(element: object) -> bytes:
    data = as_bytes(element)
    if len(data) > MAX_ELEMENT_BYTES:
        raise ContentsError(f"a BYTES element has {len(data)} bytes, at most {MAX_ELEMENT_BYTES} fit its length prefix")
    return _LENGTH.pack(len(data)) + data


def _split(raw: bytes, count: int) -> list[bytes]:
    elements: list[bytes] = []
    position = 0
    while position < len(raw):
        if len(raw) - position < _LENGTH.size:
            raise ContentsError(f"{len(raw) - position} bytes are left at {position}, a length prefix takes 4")
        (length,) = _LENGTH.unpack_from(raw, position)
        position += _LENGTH.size
        if length > len(raw) - position:
            raise ContentsError(
                f"element {len(elements)} should have {length} bytes, {len(raw) - position} are left at {position}"
            )
        elements.append(raw[position : position + length])
        position += length
        if len(elements) > count:
            break
    if len(elements) != count:
        more = "more" if len(elements) > count else len(elements)
        raise ContentsError(f"expected {count} BYTES elements, got {more}")
    return elements
