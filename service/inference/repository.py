"""The models on disk and which of them are ready: a version is READY only after its proof replayed here.

Loading blocks and belongs in a thread. Readers take snapshots: every model is an immutable value that is replaced
as a whole, so that a look-up is a dict access without locks, and nobody sees half a change.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from models.artifact import Artifact, Manifest
from models.errors import ArtifactError, GoldenMismatch
from models.publication import model_names, versions
from service.errors import InferenceFailed, InvalidRequest, ModelNotFound, ModelNotReady
from service.inference.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor
    from pathlib import Path

    import numpy as np

    from models.goldens import Arrays
    from service.inference.batcher import Batching
    from service.inference.version_policy import VersionPolicy

_log = logging.getLogger(__name__)


class State(Enum):
    """Lifecycle of a version, in the words of the protocol's repository index."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


class Cause(Enum):
    """The kind of a version's ``reason``: what metrics and error details can tell apart without reading prose."""

    NONE = "NONE"
    """There is no reason: it is proven, or still being loaded."""
    UNPROVEN = "UNPROVEN"
    """Served, and carries nothing to prove it with."""
    PROOF_REQUIRED = "PROOF_REQUIRED"
    """The same, refused because a proof is required."""
    GOLDEN_MISMATCH = "GOLDEN_MISMATCH"
    """Its goldens do not replay on this machine."""
    ARTIFACT_INVALID = "ARTIFACT_INVALID"
    """Incomplete, damaged, or not servable."""
    RUN_FAILED = "RUN_FAILED"
    """The runtime failed on its goldens."""
    INTERNAL = "INTERNAL"
    """A defect of the server; its log has the traceback."""


@dataclass(frozen=True)
class ModelVersion:
    """One version and what became of it."""

    name: str
    version: int
    state: State
    reason: str = ""
    """Why it is not ready, or that it is served without a proof; empty for a proven one."""
    cause: Cause = Cause.NONE
    """Of which kind the reason is."""
    runner: Runner | None = None
    """Present exactly when READY."""
    manifest: Manifest | None = None
    max_difference: float | None = None
    """Largest difference from the goldens seen on this machine; None if nothing was replayed."""

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
    """One model: its versions, oldest first."""

    name: str
    versions: Mapping[int, ModelVersion] = field(default_factory=dict)

    @property
    def ready(self) -> tuple[ModelVersion, ...]:
        """The ready versions, oldest first."""
        return tuple(version for _, version in sorted(self.versions.items()) if version.state is State.READY)


class ProofMissing(ArtifactError):
    """A version without goldens where a proof is required."""


class Repository:
    """The models below one directory."""

    def __init__(
        self,
        root: Path,
        policy: VersionPolicy,
        *,
        require_proof: bool = False,
        executor: Executor | None = None,
        batching: Batching | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._root = root
        self._policy = policy
        self._require_proof = require_proof
        self._executor = executor
        self._batching = batching
        self._on_change = on_change
        self._models: dict[str, ServedModel] = {}
        self._is_loaded = False

    @property
    def is_loaded(self) -> bool:
        """Whether the first look at every model is over, whatever came of it."""
        return self._is_loaded

    def policy_of(self, name: str) -> VersionPolicy:  # noqa: ARG002 - one policy for every model so far
        """Which versions of a model are served."""
        return self._policy

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """A snapshot, by name."""
        return dict(self._models)

    def get(self, name: str, version: str = "") -> ModelVersion:
        """A ready version; the newest one where ``version`` is empty.

        Raises:
            InvalidRequest: ``version`` is no whole number.
            ModelNotFound: no such model, or no such version of it.
            ModelNotReady: it exists but is not ready.
        """
        model = self._models.get(name)
        if model is None:
            raise ModelNotFound(f"Request for unknown model: {name!r} is not found")
        if version:
            found = self._version(model, version)
            if found.state is not State.READY:
                raise ModelNotReady(f"Request for model {name!r} version {version}: not at ready state: {_why(found)}")
            return found
        ready = model.ready
        if not ready:
            raise ModelNotReady(f"Request for model {name!r}: no version is at ready state: {_newest_reason(model)}")
        return ready[-1]

    def is_ready(self, name: str, version: str = "") -> bool:
        """Whether `get` would succeed; raises as it does for what does not exist."""
        try:
            self.get(name, version)
        except ModelNotReady:
            return False
        return True

    def load_all(self) -> None:
        """Load and prove every model below the root. Blocks; never raises for a bad model."""
        present = {name: self._candidates(name) for name in model_names(self._root)}
        for name, candidates in present.items():
            if not candidates:
                _log.warning("model has no version to serve", extra={"model": name, "policy": str(self._policy)})
                continue
            loading = {version: ModelVersion(name, version, State.LOADING) for version in candidates[:1]}
            self._put(ServedModel(name, loading))
        for name, candidates in present.items():
            if candidates:
                self._put(self._load_model(name, candidates))
        self._is_loaded = True
        self._on_change()

    def _candidates(self, name: str) -> list[int]:
        try:
            return self._policy.candidates(versions(self._root / name))
        except OSError as error:
            _log.error("model cannot be looked at", extra={"model": name, "reason": str(error)})
            return []

    def _put(self, model: ServedModel) -> None:
        self._models[model.name] = model
        self._on_change()

    def _load_model(self, name: str, candidates: list[int]) -> ServedModel:
        loaded: dict[int, ModelVersion] = {}
        ready = 0
        for version in candidates:
            if self._policy.latest is not None and ready >= self._policy.latest:
                break
            loaded[version] = self._load_version(name, version)
            ready += loaded[version].state is State.READY
        if not ready:
            _log.error("model is not served: no version is ready", extra={"model": name})
        return ServedModel(name, dict(sorted(loaded.items())))

    def _load_version(self, name: str, version: int) -> ModelVersion:
        began = time.perf_counter()
        where = {"model": name, "version": version}
        try:
            loaded = self._prove(name, version)
        except (ArtifactError, InferenceFailed) as error:
            _log.error("version refused", extra={**where, "reason": str(error)})
            return ModelVersion(name, version, State.UNAVAILABLE, reason=str(error), cause=_cause(error))
        except Exception:  # noqa: BLE001 - one model's defect must not keep the others from being served
            _log.exception("version refused", extra=where)
            reason = "internal error, see the server's log"
            return ModelVersion(name, version, State.UNAVAILABLE, reason=reason, cause=Cause.INTERNAL)
        _log.info(
            "version ready",
            extra={
                **where,
                "proof": "proven" if loaded.is_proven else "unproven",
                "max_difference": loaded.max_difference,
                "took_ms": round(1e3 * (time.perf_counter() - began), 1),
            },
        )
        return loaded

    def _prove(self, name: str, version: int) -> ModelVersion:
        artifact = Artifact.load(self._root / name / str(version))
        if not artifact.is_provable and self._require_proof:
            raise ProofMissing("it carries no proof (no manifest with goldens) and --require-proof is set")
        runner = Runner(
            name,
            version,
            artifact.model_bytes,
            self._executor,
            batching=self._batching,
            examples=[golden.inputs for golden in artifact.goldens],
        )
        artifact.check_interface(tuple(runner.inputs.values()), tuple(runner.outputs.values()))
        if not artifact.is_provable:
            reason = "served without a proof: no manifest with goldens"
            return ModelVersion(name, version, State.READY, reason, Cause.UNPROVEN, runner, artifact.manifest)

        def infer(feeds: Arrays) -> Mapping[str, np.ndarray]:
            return dict(zip(runner.outputs, runner.run(feeds, tuple(runner.outputs)), strict=True))

        report = artifact.replay(infer)
        report.raise_if_failed()
        return ModelVersion(
            name, version, State.READY, runner=runner, manifest=artifact.manifest, max_difference=report.max_absolute
        )

    def _version(self, model: ServedModel, version: str) -> ModelVersion:
        if not (version.isascii() and version.isdecimal()):
            raise InvalidRequest(
                f"failed to get model version from specified version string {version!r}: expected a whole number"
            )
        found = model.versions.get(int(version)) if len(version) < 20 else None
        if found is None:
            raise ModelNotFound(f"Request for unknown model: {model.name!r} version {version} is not found")
        return found


def _cause(error: ArtifactError | InferenceFailed) -> Cause:
    if isinstance(error, InferenceFailed):
        return Cause.RUN_FAILED
    if isinstance(error, GoldenMismatch):
        return Cause.GOLDEN_MISMATCH
    return Cause.PROOF_REQUIRED if isinstance(error, ProofMissing) else Cause.ARTIFACT_INVALID


def _why(version: ModelVersion) -> str:
    return version.reason or version.state.value


def _newest_reason(model: ServedModel) -> str:
    newest = max(model.versions, default=0)
    return f"version {newest}: {_why(model.versions[newest])}" if newest else "no versions"
