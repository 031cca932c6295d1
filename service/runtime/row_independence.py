"""What is known of the rows of a model: whether one row of a batch can influence the answer to another."""

from __future__ import annotations

from typing import NamedTuple


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
