"""What training may know of the inference side: how versions stand there, by a few questions. Answered elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Standing:
    """How a version stands in this server."""

    state: str
    """READY, LOADING, UNAVAILABLE or UNLOADING; UNKNOWN where it is not looked at, or not yet."""
    reason: str = ""


class Serving(Protocol):
    """The inference side."""

    def version(self, model: str) -> int | None:
        """The version that answers for a model; None if none does."""
        ...

    def standing(self, model: str, version: int) -> Standing:
        """How a version stands now."""
        ...

    async def look(self) -> None:
        """Look at the repository now, if that is what it does by itself, until what is new is proven or refused."""
        ...
