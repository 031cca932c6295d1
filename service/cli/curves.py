"""Curves on a terminal: dots of Braille characters, two across and four down in each, or plain signs without them.

Shapes: a canvas of ``columns`` by ``rows`` characters, 2 ``columns`` by 4 ``rows`` dots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.text import Text

from service.cli.output import can_write

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
    """(x, y), x ascending; what is not finite leaves a gap."""

    def add(self, x: float, y: float) -> None:
        """One more point. From where an x comes again what follows it is no more."""
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
    low: float | None,
    high: float | None,
) -> Text:
    """A chart with its title, a scale on the left and a legend below; ``low`` and ``high`` None fit the points."""
    values = [y for curve in curves for _, y in curve.points if math.isfinite(y)]
    bottom = min(values, default=0.0) if low is None else low
    top = max(values, default=1.0) if high is None else high
    if top <= bottom:
        top = bottom + 1e-9
    width = max(columns - _LABEL_COLUMNS - 2, 4)
    cells: dict[tuple[int, int], tuple[int, str]] = {}
    for curve in curves:
        for x, y in _dots(curve, width, rows, last_x, bottom, top):
            cell = (y // 4, x // 2)
            bits, _ = cells.get(cell, (0, ""))
            cells[cell] = bits | _DOTS[y % 4][x % 2], curve.style
    is_braille = can_write(chr(_BRAILLE))
    text = Text(" " * (_LABEL_COLUMNS + 2)).append(title, style="bold")
    for row in range(rows):
        label = _label(top - (top - bottom) * row / (rows - 1)) if row in (0, rows - 1) else ""
        text.append(f"\n{label:>{_LABEL_COLUMNS}} ", style="dim").append("│" if is_braille else "|", style="dim")
        for column in range(width):
            bits, style = cells.get((row, column), (0, ""))
            text.append((chr(_BRAILLE | bits) if is_braille else ".") if bits else " ", style=style)
    text.append("\n" + " " * (_LABEL_COLUMNS + 2))
    for curve in curves:
        if curve.points:
            text.append(f"{curve.name} {_label(curve.points[-1][1])}  ", style=curve.style)
    return text


def _dots(curve: Curve, columns: int, rows: int, last_x: float, bottom: float, top: float) -> list[tuple[int, int]]:
    """Where a curve goes, as (x, y) in dots from the top left."""
    width, height = 2 * columns - 1, 4 * rows - 1
    found: list[tuple[int, int]] = []
    before: tuple[int, int] | None = None
    for x, y in curve.points:
        if not math.isfinite(y):
            before = None
            continue
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
