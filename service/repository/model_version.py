"""Immutable states of a model and its versions; a change replaces the whole value, so readers see it atomically."""

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
    """Lifecycle of a version, with the names of the protocol's repository index."""

    LOADING = "LOADING"
    """The version's files are read and its proof is replayed; until then the previous version keeps serving."""
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"
    """The version was refused, or unloaded on purpose; the reason says which."""
    UNLOADING = "UNLOADING"
    """The version takes no new requests; its memory is freed when the last of its requests has finished."""


class Cause(Enum):
    """The kind of a version's ``reason``, for metrics and error details."""

    NONE = "NONE"
    """There is no reason: the version is proven, or still being loaded."""
    UNPROVEN = "UNPROVEN"
    """The version is served, and has no goldens to prove it with."""
    PROOF_REQUIRED = "PROOF_REQUIRED"
    """The version has no proof, and the server requires one."""
    GOLDEN_MISMATCH = "GOLDEN_MISMATCH"
    """The version's goldens do not replay on this machine."""
    ARTIFACT_INVALID = "ARTIFACT_INVALID"
    """The version is incomplete, damaged, or cannot be served."""
    RUN_FAILED = "RUN_FAILED"
    """The runtime failed on the version's goldens."""
    SETTINGS_INVALID = "SETTINGS_INVALID"
    """The model's ``model.json`` is invalid."""
    UNLOADED = "UNLOADED"
    """The version was unloaded on purpose, or is draining."""
    INTERNAL = "INTERNAL"
    """The server has a defect; its log has the traceback."""

    @property
    def is_refusal(self) -> bool:
        """Whether the version's files were refused."""
        return self not in (Cause.NONE, Cause.UNPROVEN, Cause.UNLOADED)


@dataclass(frozen=True)
class ModelVersion:
    """One version with its state."""

    name: str
    version: int
    state: State
    reason: str = ""
    """Why the version is not ready, or that it is served without a proof; empty for a proven one."""
    cause: Cause = Cause.NONE
    """Kind of the reason. A READY version with a refusal keeps serving from the files that were there before."""
    runner: Runner | None = None
    """Present exactly when READY. Each running request holds a reference to it."""
    manifest: Manifest | None = None
    max_difference: float | None = None
    """Largest difference from the goldens seen on this machine; None if nothing was replayed."""
    mark: Hashable = field(default=None, repr=False)
    """Fingerprint of the files and settings that were loaded; the version is loaded again only if it changes."""

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """Class labels of each output that has some."""
        return self.manifest.labels if self.manifest is not None else {}

    @property
    def is_proven(self) -> bool:
        """Whether the version's goldens replayed on this machine."""
        return self.state is State.READY and self.max_difference is not None


@dataclass(frozen=True)
class ServedModel:
    """One model with the versions that its policy chose."""

    name: str
    versions: Mapping[int, ModelVersion] = field(default_factory=dict)
    policy: VersionPolicy = NEWEST_ONLY
    """Which versions are served, by the model's policy or else the server's."""
    problem: str = ""
    """A problem of the model as a whole, such as an invalid ``model.json``; its versions serve on."""
    is_required: bool = True
    """Whether the server is ready only if this model is: it was there from the start, or has been ready before."""
    is_unloaded: bool = False
    """Whether the model was unloaded on purpose; the server is ready without it."""

    @cached_property
    def ready(self) -> tuple[ModelVersion, ...]:
        """The ready versions, oldest first."""
        return tuple(version for _, version in sorted(self.versions.items()) if version.state is State.READY)

    @property
    def refused(self) -> tuple[ModelVersion, ...]:
        """The versions whose files were refused, newest first; one may still serve from its earlier files."""
        return tuple(version for _, version in sorted(self.versions.items(), reverse=True) if version.cause.is_refusal)
