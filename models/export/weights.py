"""Read the weights inside an ONNX file without torch.

An exported network keeps the parameter names it had in PyTorch (``conv1.weight``, ``output.bias``, ...), so that its
weights can be read back from the published file itself. Knows nothing of networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from models.errors import ArtifactError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FLOATS = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
)


def weights_of(model_bytes: bytes) -> dict[str, NDArray[Any]]:
    """The floating-point initializers of a model by name, in file order, as copies.

    Integer initializers (shapes and axes that the exporter writes) are not weights and are left out. Raises
    ArtifactError if the bytes are no ONNX model, or refer to weights in another file.
    """
    try:
        model = onnx.ModelProto.FromString(model_bytes)
        return {
            tensor.name: np.array(numpy_helper.to_array(tensor))
            for tensor in model.graph.initializer
            if tensor.data_type in _FLOATS
        }
    except (DecodeError, ValueError, TypeError) as error:
        raise ArtifactError(f"the weights of the model cannot be read: {error}") from error
