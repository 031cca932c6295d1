"""Find the version that a training run has published, if any, when it is unknown how far the run got.

A run that is killed after its publication, but before it was reported, must not publish again. So a run's id is in the
manifest of the version it published, and both appear in one rename. Torch-free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from models.artifact.artifact import MANIFEST_FILE, read_manifest
from models.artifact.publication import versions
from models.errors import ArtifactError

if TYPE_CHECKING:
    from pathlib import Path

    from models.artifact.artifact import Manifest

RUN_KEY: Final = "run"
"""Key of the run's id in a manifest's provenance."""


def find(repository: Path, name: str, run_id: str) -> Manifest | None:
    """The manifest of the version of ``name`` that the run published; None if it published none."""
    for version in reversed(versions(repository / name)):
        directory = repository / name / str(version)
        if not (directory / MANIFEST_FILE).exists():
            continue
        try:
            manifest = read_manifest(directory)
        except ArtifactError:
            continue  # damaged, or written by another program: not by this run
        if manifest.provenance.get(RUN_KEY) == run_id:
            return manifest
    return None
