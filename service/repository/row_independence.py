"""Whether requests for a version may be joined, which requires that its rows do not influence each other.

A model can mix the rows of a batch (a maximum over the batch, a branch on its size) without showing it on the few rows
of a trial. Until that is proven from the graph, independence is known for the networks of this project, and for others
only if the operator declares it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.artifact.own_networks import network_of
from service.runtime.row_independence import UNKNOWN, RowIndependence

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.artifact.artifact import Manifest
    from service.repository.model_settings import ModelSettings


def row_independence(manifest: Manifest | None, settings: ModelSettings, read: Callable[[], bytes]) -> RowIndependence:
    """Decide from ``model.json``, the manifest and the model, whose bytes ``read`` returns.

    ``model.json`` takes precedence: it is the operator's declaration.
    """
    if settings.rows_are_independent is not None:
        word = str(settings.rows_are_independent).lower()
        return RowIndependence(
            settings.rows_are_independent, f"declared by the operator: rows_are_independent is {word}"
        )
    network = network_of(manifest, read) if manifest is not None else None
    if network is not None:
        return RowIndependence(True, f"published by this project's pipeline: network {network}")
    return UNKNOWN
