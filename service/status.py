"""How a server stands when its first look at the models is over: what whoever started it wants to know."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Standing:
    """Told once, by a server or by one of several workers."""

    port: int
    """The main port, as it is really listened on."""
    is_ready: bool
    models: Mapping[str, int]
    """Every model that is known, with the number of its ready versions."""
    serving: tuple[str, ...]
    """Each ready version, and whether it is proven, in words."""
    problems: tuple[str, ...]
    """Each model without a ready version, and why."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Standing:
        """The reverse."""
        return cls(**{**values, "serving": tuple(values["serving"]), "problems": tuple(values["problems"])})
