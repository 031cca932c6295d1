"""Which version a training run has published, if any: asked by whoever does not know whether a run got so far.

A run that is killed between its publication and the news of it must not publish again. So a run's id is in the manifest
of what it published, which appears together with the version, in one rename. Torch-free.
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
"""Where a manifest's provenance has the id of its run."""


def find(repository: Path, name: str, run_id: str) -> Manifest | None:
    """The manifest of the version of ``name`` that the run published; None if it published none."""
    for version in reversed(versions(repository / name)):
        directory = repository / name / str(version)
        if not (directory / MANIFEST_FILE).exists():
            continue
        try:
            manifest = read_manifest(directory)
        except ArtifactError:
            continue  # damaged, or another program's: nothing that a run of ours has just written
        if manifest.provenance.get(RUN_KEY) == run_id:
            return manifest
    return None
