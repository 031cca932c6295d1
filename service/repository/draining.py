"""Versions that take no new request and still finish some.

Nobody counts requests: each holds the runner that it started on, and a weak reference tells when the last one has let
go. What is reported is therefore what is in memory, and a request costs nothing for it.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from service.repository.model_version import Cause, ModelVersion, State

if TYPE_CHECKING:
    from service.runtime.runner import Runner


class Draining:
    """What is on its way out. Written by one thread, read from anywhere."""

    def __init__(self) -> None:
        self._leaving: tuple[tuple[ModelVersion, weakref.ref[Runner]], ...] = ()

    def add(self, version: ModelVersion) -> None:
        """Watch a READY version that nobody will be given any more."""
        if version.runner is None:
            return
        gone = ModelVersion(
            version.name, version.version, State.UNLOADING, "it finishes the requests that it has", Cause.UNLOADED
        )
        self._leaving = (*self._alive(), (gone, weakref.ref(version.runner)))

    def versions(self) -> tuple[ModelVersion, ...]:
        """Versions that still have requests, as UNLOADING."""
        return tuple(version for version, _ in self._alive()) if self._leaving else ()

    def _alive(self) -> tuple[tuple[ModelVersion, weakref.ref[Runner]], ...]:
        return tuple(entry for entry in self._leaving if entry[1]() is not None)
