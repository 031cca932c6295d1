"""Whether requests for a version may be joined: only where its rows are known not to influence each other.

A model can mix the rows of a batch (a maximum over the batch, a branch on its size) and look as if it did not, on any
few rows that it is tried on. Until that is proven from the graph, it counts as known for the networks of this project,
and for others on the word of the operator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from models.networks.architectures import ARCHITECTURES

if TYPE_CHECKING:
    from models.artifact.artifact import Manifest
    from service.inference.model_file import ModelSettings


class RowIndependence(NamedTuple):
    """What is known of a version's rows before it is opened."""

    is_known: bool
    reason: str
    """Where that comes from, or what is missing."""


UNKNOWN = RowIndependence(
    False,
    "it is not known whether its rows are independent: it is none of this project's networks, and model.json does not "
    "say rows_are_independent",
)


def row_independence(manifest: Manifest | None, settings: ModelSettings) -> RowIndependence:
    """What the manifest and ``model.json`` say. The latter goes first: it is the word of the operator."""
    if settings.rows_are_independent is not None:
        word = str(settings.rows_are_independent).lower()
        return RowIndependence(
            settings.rows_are_independent, f"declared by the operator: rows_are_independent is {word}"
        )
    network = _network(manifest) if manifest is not None else None
    if network is not None:
        return RowIndependence(True, f"published by this project's pipeline: network {network}")
    return UNKNOWN


def _network(manifest: Manifest) -> str | None:
    """The network of this project whose proven export the manifest describes; None for any other model."""
    said = manifest.provenance.get("network")
    if not isinstance(said, dict) or not manifest.goldens:
        return None
    known = (each for each in ARCHITECTURES.values() if said.get("name") == each.name)
    return next((each.name for each in known if said.get("parameters") == each.parameters), None)
