"""The result of a run as plain values, always taken from the published manifest on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.artifact.artifact import Manifest


def result_of(manifest: Manifest) -> dict[str, Any]:
    """The result in a manifest: name, version, steps, metrics, parity report, hashes and gate decision."""
    provenance = manifest.provenance
    return {
        "model_name": manifest.name,
        "model_version": manifest.version,
        "steps": provenance.get("steps", 0),
        "metrics": {split: _metrics(figures) for split, figures in manifest.metrics.items()},
        "parity": dict(manifest.parity),
        "model_sha256": manifest.model_sha256,
        "weights_sha256": provenance.get("weights_sha256", ""),
        "gate": provenance.get("gate"),
    }


def _metrics(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: figures[name] for name in ("accuracy", "loss", "count") if name in figures}
