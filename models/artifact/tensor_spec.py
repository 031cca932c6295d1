"""The declared name, datatype and shape of an input or output of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models.artifact.datatypes import DATATYPES
from models.errors import ArtifactError


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """The declared interface of one input or output."""

    name: str
    datatype: str
    """A key of ``DATATYPES``."""
    shape: tuple[int | str, ...]
    """One entry per axis: a fixed length, or the name of an axis whose length is free ('' if it has none)."""

    @property
    def batch_axis(self) -> str | None:
        """The name of the first axis where its length is free, else None."""
        return self.shape[0] if self.shape and isinstance(self.shape[0], str) else None

    @property
    def wire_shape(self) -> tuple[int, ...]:
        """The shape as the protocol's metadata gives it: -1 for a free axis."""
        return tuple(axis if isinstance(axis, int) else -1 for axis in self.shape)

    def __str__(self) -> str:
        axes = ", ".join(str(axis) if axis != "" else "?" for axis in self.shape)
        return f"{self.name} {self.datatype}[{axes}]"

    def to_dict(self) -> dict[str, Any]:
        """The spec as the manifest stores it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, data: object) -> TensorSpec:
        """The inverse of `to_dict`; raises ArtifactError naming the field at fault."""
        if not isinstance(data, dict):
            raise ArtifactError(f"tensor: got {data!r}, expected an object with name, datatype and shape")
        name, datatype, shape = data.get("name"), data.get("datatype"), data.get("shape")
        if not isinstance(name, str) or not name:
            raise ArtifactError(f"tensor name: got {name!r}, expected a non-empty string")
        if not isinstance(datatype, str) or datatype not in DATATYPES:
            raise ArtifactError(f"tensor {name!r}, datatype: got {datatype!r}, expected one of {', '.join(DATATYPES)}")
        axes_fit = isinstance(shape, list) and all(
            isinstance(axis, str) or (type(axis) is int and axis >= 0) for axis in shape
        )
        if not axes_fit:
            raise ArtifactError(f"tensor {name!r}, shape: got {shape!r}, expected a list of lengths and axis names")
        return cls(name, datatype, tuple(shape or ()))
