"""Whether requests for a version may be joined: only where its rows are known not to influence each other.

A model can mix the rows of a batch (a maximum over the batch, a branch on its size) and look as if it did not, on any
few rows that it is tried on. Until that is proven from the graph, it counts as known for the networks of this project,
and for others on the word of the operator.
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
    """What the manifest, the model (``read`` gives its bytes) and ``model.json`` say.

    The last goes first: it is the word of the operator.
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
