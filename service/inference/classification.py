"""Triton's classification extension: return the top classes of an output instead of its values.

An element is ``value:index`` or ``value:index:label``, best first, as BYTES. The values are ranked as they are,
without a softmax.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from service.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.artifact.tensor_spec import TensorSpec

_UNRANKED = ("BOOL", "BYTES", "FP16", "BF16")


def check_classifiable(spec: TensorSpec) -> None:
    """Raise InvalidRequest for an output whose datatype Triton does not rank."""
    if spec.datatype in _UNRANKED:
        raise InvalidRequest(
            f"requested output {spec.name!r}: class result not available for output due to unsupported type "
            f"{spec.datatype!r}"
        )


def classify(array: np.ndarray, count: int, labels: Sequence[str], *, has_batch_axis: bool) -> np.ndarray:
    """The ``count`` best classes: shape (B, min(count, K)) of ``str``, or (min(count, K),) without a batch axis."""
    rows = array.reshape(len(array), -1) if has_batch_axis else array.reshape(1, -1)
    best = min(count, rows.shape[1])
    classes = np.empty((len(rows), best), dtype=np.object_)
    for row, values in enumerate(rows):
        # Stable: of equal values the lower index comes first. Reversed twice, as unsigned values cannot be negated.
        order = len(values) - 1 - np.argsort(values[::-1], kind="stable")[::-1]
        for rank, index in enumerate(order[:best]):
            classes[row, rank] = _element(values[index], int(index), labels)
    return classes if has_batch_axis else classes[0]


def _element(value: np.generic, index: int, labels: Sequence[str]) -> str:
    number = f"{value:.6f}" if value.dtype.kind == "f" else f"{value}"
    return f"{number}:{index}:{labels[index]}" if index < len(labels) else f"{number}:{index}"
