"""Draining versions, which take no new request and finish those that they have.

Requests are not counted: each holds a reference to its runner, and a weak reference shows when the last one is gone.
The versions reported are therefore those still in memory, and requests have no bookkeeping to do.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from service.repository.model_version import Cause, ModelVersion, State

if TYPE_CHECKING:
    from service.runtime.runner import Runner


class Draining:
    """The versions that are draining. Written by one thread, read from any."""

    def __init__(self) -> None:
        self._leaving: tuple[tuple[ModelVersion, weakref.ref[Runner]], ...] = ()

    def add(self, version: ModelVersion) -> None:
        """Track a READY version that will get no further requests."""
        if version.runner is None:
            return
        gone = ModelVersion(
            version.name, version.version, State.UNLOADING, "it finishes the requests that it has", Cause.UNLOADED
        )
        self._leaving = (*self._alive(), (gone, weakref.ref(version.runner)))

    def versions(self) -> tuple[ModelVersion, ...]:
        """Versions that still have requests, with state UNLOADING."""
        return tuple(version for version, _ in self._alive()) if self._leaving else ()

    def _alive(self) -> tuple[tuple[ModelVersion, weakref.ref[Runner]], ...]:
        return tuple(entry for entry in self._leaving if entry[1]() is not None)
