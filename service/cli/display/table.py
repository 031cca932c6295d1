"""Tables for terminals of any width, in which words and numbers are never split."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from rich.console import Console, RenderableType
    from rich.measure import Measurement

_GAP = 2
"""Terminal columns between two columns of a table."""
_EDGES = 2
"""Terminal columns for the left and the right edge of a table."""


class Fitted(NamedTuple):
    """A table that fits the console."""

    shown: RenderableType
    left_out: tuple[str, ...]
    """Names of the columns that were left out."""


def fitted(
    console: Console,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    dispensable: Sequence[str] = (),
    wraps: Container[str] | None = None,
) -> Fitted:
    """Make a table that fits the console. Cells are console markup.

    If the table is too wide, lines are wrapped between words, in headers and in the columns of ``wraps`` (None: in all
    of them); then ``dispensable`` columns are left out in their order; finally each row becomes a block of lines.
    """
    for count in range(len(dispensable) + 1):
        left_out = dispensable[:count]
        kept = [at for at, column in enumerate(columns) if column not in left_out]
        cells = [[row[at] for at in kept] for row in (columns, *rows)]
        may_wrap = [wraps is None or columns[at] in wraps for at in kept]
        widths = _widths(console, cells, may_wrap)
        if widths is not None:
            return Fitted(_table(title, cells, widths), tuple(left_out))
    return Fitted(_blocks(title, columns, rows), ())


def _widths(console: Console, cells: Sequence[Sequence[str]], may_wrap: Sequence[bool]) -> list[int] | None:
    """The width of each column; None if the console is too narrow."""
    widths, least = [], []
    for column, wraps in zip(zip(*cells, strict=True), may_wrap, strict=True):
        sizes = [_size(console, cell) for cell in column]
        widths.append(max(size.maximum for size in sizes))
        least.append(max(size.minimum if wraps or at == 0 else size.maximum for at, size in enumerate(sizes)))
    room = console.width - _EDGES - _GAP * (len(widths) - 1)
    if sum(least) > room:
        return None
    while sum(widths) > room:
        _, widest = max((width, at) for at, width in enumerate(widths) if width > least[at])
        widths[widest] -= 1
    return widths


def _size(console: Console, cell: str) -> Measurement:
    """The widths of the longest word and of the longest line."""
    text = Text.from_markup(cell)
    return text.__rich_measure__(console, console.options)


def _table(title: str, cells: Sequence[Sequence[str]], widths: Sequence[int]) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, _GAP - 1, 0, 0),  # the box adds one between columns
        pad_edge=False,
    )
    for name, width in zip(cells[0], widths, strict=True):
        table.add_column(name, overflow="fold", width=width)
    for row in cells[1:]:
        table.add_row(*row)
    return table


def _blocks(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Group:
    blocks: list[RenderableType] = [Text(title, style="bold")]
    for row in rows:
        block = Table.grid(padding=(0, _GAP, 0, 0))
        block.add_column(style="dim", no_wrap=True)
        block.add_column(overflow="fold")
        for name, cell in zip(columns, row, strict=True):
            block.add_row(name, cell)
        blocks += [Text(), block]
    return Group(*blocks, Text())
