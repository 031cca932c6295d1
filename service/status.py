"""The state of a server after its first load of the models, as reported to the process that started it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class ServerStatus:
    """The state that a server, or one of several workers, reports once after loading its models."""

    port: int
    """The main port that is really listened on."""
    is_ready: bool
    models: Mapping[str, int]
    """Every model that is known, with the number of its ready versions."""
    serving: tuple[str, ...]
    """A text for each ready version that says whether it is proven."""
    problems: tuple[str, ...]
    """A text for each model without a ready version that says why."""

    def to_dict(self) -> dict[str, Any]:
        """The state as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ServerStatus:
        """Make a state from the result of `to_dict`."""
        return cls(**{**values, "serving": tuple(values["serving"]), "problems": tuple(values["problems"])})
