"""The tensor datatypes and their names in each library and protocol.

One row for each datatype that the Open Inference Protocol (with Triton's BF16) and onnxruntime both know:
its protocol name, its ONNX element type, onnxruntime's name for it, and the NumPy dtype that carries it.
Knows nothing of tensors themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from onnx import TensorProto

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Datatype:
    """One tensor element type."""

    name: str
    """Open Inference Protocol name, for example ``FP32``."""
    onnx: int
    """Value of ``onnx.TensorProto.DataType``."""
    ort: str
    """onnxruntime's name, for example ``tensor(float)``."""
    numpy: np.dtype[np.generic]
    """Little-endian NumPy dtype. BYTES elements are Python ``str`` in an object array: ONNX strings are UTF-8."""

    @property
    def is_float(self) -> bool:
        """Whether an element can be NaN or infinite."""
        return self.name in {"FP16", "BF16", "FP32", "FP64"}


def _row(name: str, onnx_type: int, ort: str, dtype: Any) -> Datatype:  # noqa: ANN401 - anything that np.dtype takes
    return Datatype(name, int(onnx_type), f"tensor({ort})", np.dtype(dtype))


DATATYPES: Mapping[str, Datatype] = {
    row.name: row
    for row in (
        _row("BOOL", TensorProto.BOOL, "bool", np.bool_),
        _row("UINT8", TensorProto.UINT8, "uint8", np.uint8),
        _row("UINT16", TensorProto.UINT16, "uint16", "<u2"),
        _row("UINT32", TensorProto.UINT32, "uint32", "<u4"),
        _row("UINT64", TensorProto.UINT64, "uint64", "<u8"),
        _row("INT8", TensorProto.INT8, "int8", np.int8),
        _row("INT16", TensorProto.INT16, "int16", "<i2"),
        _row("INT32", TensorProto.INT32, "int32", "<i4"),
        _row("INT64", TensorProto.INT64, "int64", "<i8"),
        _row("FP16", TensorProto.FLOAT16, "float16", "<f2"),
        _row("BF16", TensorProto.BFLOAT16, "bfloat16", ml_dtypes.bfloat16),
        _row("FP32", TensorProto.FLOAT, "float", "<f4"),
        _row("FP64", TensorProto.DOUBLE, "double", "<f8"),
        _row("BYTES", TensorProto.STRING, "string", np.object_),
    )
}
"""Every datatype that can be served, by its protocol name."""

BY_ORT: Mapping[str, Datatype] = {row.ort: row for row in DATATYPES.values()}
BY_ONNX: Mapping[int, Datatype] = {row.onnx: row for row in DATATYPES.values()}
