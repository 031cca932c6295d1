"""Row independence: whether one row of a batch can influence the answer to another."""

from __future__ import annotations

from typing import NamedTuple


class RowIndependence(NamedTuple):
    """Whether the rows of a version are known to be independent before it is opened."""

    is_known: bool
    reason: str
    """The source of that knowledge, or what is missing."""


UNKNOWN = RowIndependence(
    False,
    "it is not known whether its rows are independent: it is none of this project's networks, and model.json does not "
    "say rows_are_independent",
)
