"""The interface through which training queries the inference side about versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class VersionStatus:
    """The state of a version in this server."""

    state: str
    """READY, LOADING, UNAVAILABLE or UNLOADING; UNKNOWN if the server has not scanned the version."""
    reason: str = ""


class Serving(Protocol):
    """The inference side, as training sees it."""

    def version(self, model: str) -> int | None:
        """The version that serves for a model; None if none does."""
        ...

    def version_status(self, model: str, version: int) -> VersionStatus:
        """The present state of a version."""
        ...

    async def look(self) -> None:
        """Scan the repository now, in poll mode, and wait until new versions are proven or refused."""
        ...
