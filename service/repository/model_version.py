"""What is known of a model at one moment: immutable values, replaced as a whole, so that nobody sees half a change."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING

from service.repository.version_policy import VersionPolicy

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from models.artifact.artifact import Manifest
    from service.runtime.runner import Runner

NEWEST_ONLY = VersionPolicy()


class State(Enum):
    """Lifecycle of a version, in the words of the protocol's repository index."""

    LOADING = "LOADING"
    """The version's files are read and its proof is replayed; until then the previous version keeps serving."""
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"
    """It was refused, or unloaded on purpose; the reason says which."""
    UNLOADING = "UNLOADING"
    """It takes no new request and finishes those that it has; its memory goes with the last of them."""


class Cause(Enum):
    """The kind of a version's ``reason``: what metrics and error details can tell apart without reading prose."""

    NONE = "NONE"
    """There is no reason: it is proven, or still being loaded."""
    UNPROVEN = "UNPROVEN"
    """Served, and carries nothing to prove it with."""
    PROOF_REQUIRED = "PROOF_REQUIRED"
    """The version has no proof, and the server requires one."""
    GOLDEN_MISMATCH = "GOLDEN_MISMATCH"
    """The version's goldens do not replay on this machine."""
    ARTIFACT_INVALID = "ARTIFACT_INVALID"
    """Incomplete, damaged, or not servable."""
    RUN_FAILED = "RUN_FAILED"
    """The runtime failed on its goldens."""
    SETTINGS_INVALID = "SETTINGS_INVALID"
    """The model's own ``model.json`` cannot be used."""
    UNLOADED = "UNLOADED"
    """Taken out on purpose, or on its way out."""
    INTERNAL = "INTERNAL"
    """A defect of the server; its log has the traceback."""

    @property
    def is_refusal(self) -> bool:
        """Whether files were tried and not accepted."""
        return self not in (Cause.NONE, Cause.UNPROVEN, Cause.UNLOADED)


@dataclass(frozen=True)
class ModelVersion:
    """One version and what became of it."""

    name: str
    version: int
    state: State
    reason: str = ""
    """Why it is not ready, or that it is served without a proof; empty for a proven one."""
    cause: Cause = Cause.NONE
    """Kind of the reason. A READY version with a refusal keeps serving from the files that were there before."""
    runner: Runner | None = None
    """Present exactly when READY. Whoever runs a request holds it, and it lives as long as somebody does."""
    manifest: Manifest | None = None
    max_difference: float | None = None
    """Largest difference from the goldens seen on this machine; None if nothing was replayed."""
    mark: Hashable = field(default=None, repr=False)
    """Fingerprint of the files and settings that were tried; while it stays the same there is nothing to load."""

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """Class labels of each output that has some."""
        return self.manifest.labels if self.manifest is not None else {}

    @property
    def is_proven(self) -> bool:
        """Whether its goldens replayed on this machine."""
        return self.state is State.READY and self.max_difference is not None


@dataclass(frozen=True)
class ServedModel:
    """One model with every version that was chosen for it."""

    name: str
    versions: Mapping[int, ModelVersion] = field(default_factory=dict)
    policy: VersionPolicy = NEWEST_ONLY
    """Which versions are served: the model's own choice, or else the server's."""
    problem: str = ""
    """What is wrong with the model as a whole, its ``model.json`` say; its versions go on as they were."""
    is_required: bool = True
    """Whether the server is only ready with it: it was there from the start, or has been ready before."""
    is_unloaded: bool = False
    """Taken out on purpose. Nobody misses it."""

    @cached_property
    def ready(self) -> tuple[ModelVersion, ...]:
        """The ready versions, oldest first."""
        return tuple(version for _, version in sorted(self.versions.items()) if version.state is State.READY)

    @property
    def refused(self) -> tuple[ModelVersion, ...]:
        """The versions whose files were refused, newest first; one of them may serve on from what it was before."""
        return tuple(version for _, version in sorted(self.versions.items(), reverse=True) if version.cause.is_refusal)
