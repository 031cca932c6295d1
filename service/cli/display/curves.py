"""Curves on a terminal, drawn with Braille characters of 2 by 4 dots, or with plain characters without them.

Shapes: a canvas of ``columns`` by ``rows`` characters, 2 ``columns`` by 4 ``rows`` dots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.text import Text

from service.cli.display.output import can_write

if TYPE_CHECKING:
    from collections.abc import Sequence

_BRAILLE = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each dot, by row and column."""
_LABEL_COLUMNS = 7
_TICKS = 1000


@dataclass
class Curve:
    """A named line."""

    name: str
    style: str
    points: list[tuple[float, float]] = field(default_factory=list)
    """Points (x, y) with ascending x; those that are not finite are not drawn."""
    short_name: str = ""
    """Name for a legend without space for the full one."""

    def add(self, x: float, y: float) -> None:
        """Add a point. Earlier points with the same or a larger x are removed."""
        while self.points and self.points[-1][0] >= x:
            self.points.pop()
        self.points.append((x, y))


def drawn(
    title: str,
    curves: Sequence[Curve],
    *,
    columns: int,
    rows: int,
    last_x: float,
    bounds: tuple[float, float] | None = None,
    is_logarithmic: bool = False,
) -> Text:
    """Draw a chart with a title, a scale on the left, and the last x and a legend below it.

    Without ``bounds`` the y axis fits the points. A logarithmic scale leaves out values that are not above 0.
    """
    scale = math.log10 if is_logarithmic else float
    scaled = [[(x, scale(y)) for x, y in curve.points if _has_place(y, is_logarithmic)] for curve in curves]
    values = [y for points in scaled for _, y in points]
    bottom, top = bounds if bounds is not None else (min(values, default=0.0), max(values, default=0.0))
    if top <= bottom:
        top = bottom + 1
    width = max(columns - _LABEL_COLUMNS - 2, 4)
    cells: dict[tuple[int, int], tuple[int, str]] = {}
    for curve, points in zip(curves, scaled, strict=True):
        for x, y in _dots(points, width, rows, last_x, bottom, top):
            bits, _ = cells.get((y // 4, x // 2), (0, ""))
            cells[y // 4, x // 2] = bits | _DOTS[y % 4][x % 2], curve.style
    is_braille = can_write(chr(_BRAILLE))
    text = Text(" " * (_LABEL_COLUMNS + 2)).append(title, style="bold")
    for row in range(rows):
        at = top - (top - bottom) * row / (rows - 1)
        label = _label(10**at if is_logarithmic else at) if values and row in (0, rows - 1) else ""
        text.append(f"\n{label:>{_LABEL_COLUMNS}} {'│' if is_braille else '|'}", style="dim")
        for column in range(width):
            bits, style = cells.get((row, column), (0, ""))
            text.append((chr(_BRAILLE | bits) if is_braille else ".") if bits else " ", style=style)
    end = f" {last_x:,.0f} steps"
    line = ("└" + "─" * (width - len(end))) if is_braille else ("+" + "-" * (width - len(end)))
    text.append(f"\n{'':>{_LABEL_COLUMNS}} {line}{end}\n", style="dim")
    return text.append(_legend(curves, columns))


def _legend(curves: Sequence[Curve], columns: int) -> Text:
    """Each curve's name and last value on one line, aligned with the plot area if that leaves enough space."""
    columns -= 2  # a gap to the next chart
    drawn_curves = [curve for curve in curves if curve.points]
    entries = [f"{curve.name} {_label(curve.points[-1][1])}" for curve in drawn_curves]
    if len("  ".join(entries)) > columns:
        entries = [f"{curve.short_name or curve.name} {_label(curve.points[-1][1])}" for curve in drawn_curves]
    indent = max(min(_LABEL_COLUMNS + 2, columns - len("  ".join(entries))), 0)
    text = Text(" " * indent)
    for i, (curve, entry) in enumerate(zip(drawn_curves, entries, strict=True)):
        text.append("  " * (i > 0)).append(entry, style=curve.style)
    text.truncate(columns)
    return text


def _has_place(y: float, is_logarithmic: bool) -> bool:
    return math.isfinite(y) and (y > 0 or not is_logarithmic)


def _dots(
    points: Sequence[tuple[float, float]], columns: int, rows: int, last_x: float, bottom: float, top: float
) -> list[tuple[int, int]]:
    """The path of a curve, as (x, y) in dots from the top left."""
    width, height = 2 * columns - 1, 4 * rows - 1
    found: list[tuple[int, int]] = []
    before: tuple[int, int] | None = None
    for x, y in points:
        share = min(max((y - bottom) / (top - bottom), 0.0), 1.0)
        at = round(min(x / max(last_x, 1e-9), 1.0) * width), round((1 - share) * height)
        found += _line(before or at, at)
        before = at
    return found


def _line(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    length = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    steps = range(length + 1)
    return [
        (round(start[0] + (end[0] - start[0]) * i / length), round(start[1] + (end[1] - start[1]) * i / length))
        for i in steps
    ]


def _label(value: float) -> str:
    return f"{value:.3g}" if abs(value) < _TICKS else f"{value:.0f}"
