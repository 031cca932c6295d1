"""The tensor datatypes of the Open Inference Protocol (with Triton's BF16), and the NumPy dtypes that carry them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Datatype:
    """One tensor element type on the wire."""

    name: str
    """The protocol's name, for example ``FP32``."""
    numpy: np.dtype[Any]
    """Little-endian NumPy dtype. BYTES elements are Python ``str`` in an object array."""
    itemsize_bytes: int
    """Bytes of one element in raw contents; 0 for BYTES, whose elements differ in length."""

    @property
    def is_float(self) -> bool:
        """Whether an element can be NaN or infinite."""
        return self.name in {"FP16", "BF16", "FP32", "FP64"}


_NUMPY: Mapping[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": np.int8,
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "BF16": ml_dtypes.bfloat16,
    "FP32": "<f4",
    "FP64": "<f8",
}

DATATYPES: Mapping[str, Datatype] = {
    **{name: Datatype(name, np.dtype(dtype), np.dtype(dtype).itemsize) for name, dtype in _NUMPY.items()},
    "BYTES": Datatype("BYTES", np.dtype(np.object_), 0),
}
"""Every supported datatype, by its name in the protocol."""
