"""Load a version from its directory: read it once, compare it with its manifest, open it and prove it.

This module handles files and runners; which versions are wanted is decided elsewhere.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from typing import TYPE_CHECKING

from models.artifact.artifact import FOR_PEOPLE, MANIFEST_FILE, MODEL_FILE, Artifact
from models.errors import ArtifactError, GoldenMismatch
from service.errors import InferenceFailed
from service.repository.model_settings import ModelSettings
from service.repository.model_version import Cause, ModelVersion, State
from service.repository.row_independence import row_independence
from service.runtime.active_runs import ActiveRuns
from service.runtime.batcher import Batching, RunEnded
from service.runtime.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from concurrent.futures import Executor
    from pathlib import Path

    import numpy as np

    from models.artifact.goldens import Arrays
    from models.artifact.onnx_session import RunOptions

    RunnerFactory = Callable[[str, int, Artifact, ModelSettings, RunOptions | None], Runner]
    """(name, version, artifact, settings of the model, options of the trial's runs) -> an open runner."""

_log = logging.getLogger(__name__)

SERVERS_SETTINGS = ModelSettings()
"""Settings of a model without ``model.json``: those of the server apply."""


def runner_factory(
    executor: Executor | None = None, batching: Batching | None = None, active_runs: ActiveRuns | None = None
) -> RunnerFactory:
    """Return a function that opens a `Runner` with the server's settings and those of the model."""
    shared = batching if batching is not None else Batching()

    def open_runner(
        name: str, version: int, artifact: Artifact, settings: ModelSettings, trial_options: RunOptions | None = None
    ) -> Runner:
        own = shared
        if settings.max_batch_size is not None:
            own = dataclasses.replace(shared, max_batch_size=settings.max_batch_size)
        return Runner(
            name,
            version,
            artifact.model_bytes,
            executor,
            batching=own,
            rows=row_independence(artifact.manifest, settings, lambda: artifact.model_bytes),
            examples=[golden.inputs for golden in artifact.goldens],
            active_runs=active_runs,
            trial_options=trial_options,
        )

    return open_runner


def mark_of(directory: Path, settings: ModelSettings) -> Hashable:
    """A fingerprint of the files and settings of a version, made from a directory listing and a few `stat` calls.

    Equal marks mean the same files, as far as inode, size and times show; files that are not part of a version do not
    count.
    """
    return (
        str(directory),
        settings.of_a_version,
        _listing(directory),
        *(_stat(path) for path in (directory / MODEL_FILE, directory / MANIFEST_FILE)),
    )


class ProofMissing(ArtifactError):
    """The version has no goldens, and a proof is required."""


class Loader:
    """Loads and proves one version at a time. Blocks; never raises for a bad model."""

    def __init__(
        self,
        *,
        require_proof: bool = False,
        open_runner: RunnerFactory | None = None,
        active_runs: ActiveRuns | None = None,
    ) -> None:
        self._require_proof = require_proof
        self._open_runner = open_runner if open_runner is not None else runner_factory()
        self._active_runs = active_runs if active_runs is not None else ActiveRuns()

    def load(
        self, name: str, version: int, directory: Path, settings: ModelSettings = SERVERS_SETTINGS
    ) -> ModelVersion:
        """Load and prove a version; returns it as READY, or as UNAVAILABLE with its reason and cause."""
        began = time.perf_counter()
        # Taken before the files are read: if they change meanwhile, the mark differs and they are loaded again.
        mark = mark_of(directory, settings)

        where = {"model": name, "version": version}
        try:
            with self._active_runs.options() as options:
                loaded = self._prove(name, version, directory, settings, options)
        except (ArtifactError, InferenceFailed) as error:
            _log.error("version refused", extra={**where, "reason": str(error)})
            return ModelVersion(name, version, State.UNAVAILABLE, str(error), _cause(error), mark=mark)
        except RunEnded:
            reason = "the server stopped while it was loaded"
            return ModelVersion(name, version, State.UNAVAILABLE, reason, Cause.INTERNAL)
        except Exception:  # noqa: BLE001 - one model's defect must not keep the others from being served
            _log.exception("version refused", extra=where)
            reason = "internal error, see the server's log"
            return ModelVersion(name, version, State.UNAVAILABLE, reason, Cause.INTERNAL, mark=mark)
        _log.info(
            "version ready",
            extra={
                **where,
                "proof": "proven" if loaded.is_proven else "unproven",
                "max_difference": loaded.max_difference,
                **_batching(loaded.runner),
                "took_ms": round(1e3 * (time.perf_counter() - began), 1),
            },
        )
        return dataclasses.replace(loaded, mark=mark)

    def _prove(
        self, name: str, version: int, directory: Path, settings: ModelSettings, options: RunOptions
    ) -> ModelVersion:
        artifact = Artifact.load(directory)
        if not artifact.is_provable and self._require_proof:
            raise ProofMissing("it carries no proof (no manifest with goldens) and --require-proof is set")
        runner = self._open_runner(name, version, artifact, settings, options)
        artifact.check_interface(tuple(runner.inputs.values()), tuple(runner.outputs.values()))
        if not artifact.is_provable:
            reason = "served without a proof: no manifest with goldens"
            return ModelVersion(name, version, State.READY, reason, Cause.UNPROVEN, runner, artifact.manifest)

        def infer(feeds: Arrays) -> Mapping[str, np.ndarray]:
            return dict(zip(runner.outputs, runner.run(feeds, tuple(runner.outputs), options), strict=True))

        report = artifact.replay(infer)
        report.raise_if_failed()
        return ModelVersion(
            name, version, State.READY, runner=runner, manifest=artifact.manifest, max_difference=report.max_absolute
        )


def _batching(runner: Runner | None) -> dict[str, str]:
    """Log fields that say whether requests are batched, and why."""
    if runner is None:
        return {}
    if runner.why_not_batched is not None:
        return {"not_batched_because": runner.why_not_batched}
    return {"batched_because": runner.rows.reason}


def _cause(error: ArtifactError | InferenceFailed) -> Cause:
    if isinstance(error, InferenceFailed):
        return Cause.RUN_FAILED
    if isinstance(error, GoldenMismatch):
        return Cause.GOLDEN_MISMATCH
    return Cause.PROOF_REQUIRED if isinstance(error, ProofMissing) else Cause.ARTIFACT_INVALID


def _listing(directory: Path) -> frozenset[tuple[str, int]] | None:
    """Names and inodes of a version's files, without hidden ones, which are still being written."""
    try:
        with os.scandir(directory) as entries:
            return frozenset(
                (entry.name, entry.inode())
                for entry in entries
                if entry.name not in FOR_PEOPLE and not entry.name.startswith(".")
            )
    except OSError:
        return None


def _stat(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
