"""The cells of a sweep as rows of text, for a terminal and for Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from models.networks.architectures import architecture
from models.sweeps.summary import choice

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from models.sweeps.spread import Spread
    from models.sweeps.summary import Cell

RECIPE: Final = "recipe"
"""The column whose text may have any length."""
COLUMNS: Final = (
    "network",
    "parameters",
    RECIPE,
    "seeds",
    "test %",
    "95 % interval",
    "deviation",
    "range",
    "validation %",
    "train %",
)
DISPENSABLE: Final = ("range", "parameters", "train %", "deviation")
"""Columns to leave out, in this order, if there is no room for all."""
NONE: Final = "–"
"""The text of a cell without a figure."""


def rows(cells: Sequence[Cell]) -> list[tuple[str, ...]]:
    """A row for each cell, with the `COLUMNS`; the chosen cell has a star after its validation accuracy."""
    chosen = choice(cells)
    return [
        (
            cell.network,
            f"{architecture(cell.network).parameters:,}",
            cell.label,
            str(len(cell.results)),
            *spread_in_words(cell.spread("test")),
            mean_in_words(cell.spread("validation")) + (" *" if cell is chosen else ""),
            mean_in_words(cell.spread("train")),
        )
        for cell in cells
    ]


def spread_in_words(spread: Spread | None) -> tuple[str, str, str, str]:
    """Format mean, interval, deviation and range in percent."""
    if spread is None:
        return (NONE,) * 4
    mean = mean_in_words(spread)
    if spread.interval is None or spread.deviation is None:
        return mean, NONE, NONE, NONE
    low, high = spread.interval
    return (
        mean,
        f"{100 * low:.1f} to {100 * high:.1f}",
        f"{100 * spread.deviation:.2f}",
        f"{100 * spread.lowest:.1f} to {100 * spread.highest:.1f}",
    )


def mean_in_words(spread: Spread | None) -> str:
    """Format the mean in percent, with two decimals."""
    return NONE if spread is None else f"{100 * spread.mean:.2f}"


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown that ends with a newline."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
