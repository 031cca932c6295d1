"""Two SVG charts of results: the spread of the seeds of each recipe, and the error curves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from models.networks.architectures import architecture
from models.report.chart import Axis, path, standalone, ticks
from models.report.curves import steps_axis
from models.report.markup import Markup, element

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from models.sweeps.summary import Cell
    from models.training.history import Curve

_ROLES: Final = {"conv": "conv", "fully_connected": "fc"}
_HEADING: Final = 17
_CAPTION: Final = 12.5


# ---- spread of the seeds -------------------------------------------------------------------------------------------

_PLOT_WIDTH, _GAP, _SIDE = 500, 20, 36
_CHARACTER: Final = 7.0
"""Largest width of a character in a label."""
_ROW: Final = 30
_TOP: Final = 96


def spreads(cells: Sequence[Cell]) -> str:
    """A row for each cell: a dot for each seed's test accuracy, a bar for the interval of the mean, a line at the mean.

    ValueError without cells.
    """
    figures = [[100 * accuracy for accuracy in cell.accuracies("test")] for cell in cells]
    axis = _accuracy_axis([value for values in figures for value in values])
    start = _SIDE + _CHARACTER * max(len(_name(cell)) for cell in cells) + _GAP
    end = start + _PLOT_WIDTH
    bottom = _TOP + _ROW * len(cells)
    marks = [
        element("title", "Test accuracy over seeds"),
        _words(24, 36, "Test accuracy over seeds", size=_HEADING, class_="strong"),
        _words(24, 58, "A dot is a seed, a line the mean, a bar its 95 % interval (Student's t).", size=_CAPTION),
    ]
    for tick in axis.ticks:
        at = axis.place(tick, start, end)
        marks.append(element("line", x1=at, y1=_TOP - 14, x2=at, y2=bottom, class_="grid"))
        marks.append(_words(at, bottom + 20, axis.tell(tick), anchor="middle"))
    for number, (cell, values) in enumerate(zip(cells, figures, strict=True)):
        marks += _row(cell, values, axis, start, _TOP + _ROW * number + 6)
    return standalone(end + _SIDE, bottom + 38, marks)


def _name(cell: Cell) -> str:
    return f"{cell.network}  {cell.label}"


def _accuracy_axis(values: Sequence[float]) -> Axis:
    """An axis around the values, between 0 and 100 %."""
    span = max(max(values) - min(values), 1.0)
    step = ticks(span, at_most=6)[1]
    low = max(0.0, (math.floor(min(values) / step) - 0.5) * step)
    high = min(100.0, (math.ceil(max(values) / step) + 0.5) * step)
    marks = [number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    return Axis("test accuracy", low, high, marks, lambda value: f"{value:g} %")


def _row(cell: Cell, values: Sequence[float], axis: Axis, left: float, at: float) -> Iterable[Markup]:
    role, right = _role(cell), left + _PLOT_WIDTH
    yield _words(left - _GAP, at + 4.5, _name(cell), anchor="end", class_="", size=_CAPTION)
    spread = cell.spread("test")
    if spread is not None and spread.interval is not None:
        start, end = (axis.place(100 * value, left, right) for value in spread.interval)
        yield element("rect", x=start, y=at - 7, width=end - start, height=14, style=_pale(role))
        mean = axis.place(100 * spread.mean, left, right)
        yield element("line", x1=mean, y1=at - 9, x2=mean, y2=at + 9, class_=f"line {role}")
    for value in values:
        yield element("circle", cx=axis.place(value, left, right), cy=at, r=3.5, style=f"fill:var(--{role})")


# ---- error curves --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Panel:
    """The curves of one or two cells in one coordinate system."""

    title: str
    cells: Sequence[Cell]
    """The first is the subject of the panel, in its network's colour; the second is grey."""
    labels: Sequence[str]
    """Names of the cells in the legend."""


_CELLS: Final = 2
_PANEL_WIDTH, _PANEL_GAP = 400, 60
_PANEL_LEFT, _PANEL_TOP, _PANEL_BOTTOM = 64, 132, 424
_MARGIN: Final = 28


def error_curves(title: str, caption: str, panels: Sequence[Panel]) -> str:
    """Errors against steps, in panels side by side with the same axes: test as a solid line, training dashed.

    A band spans the lowest to the highest seed, the line is their mean. ValueError without panels, and for more than
    two cells in one.
    """
    for panel in panels:
        if len(panel.cells) > _CELLS:
            raise ValueError(f"a panel has room for {_CELLS} cells, got {len(panel.cells)}")
    curves = [curve for panel in panels for cell in panel.cells for curve in _curves(cell, "test")]
    highest = 100 * max(max(curve.error_N) for curve in curves)
    step = ticks(highest)[1]
    top = math.ceil(highest / step - 1e-9) * step
    y = Axis("error", 0.0, top, ticks(top), lambda value: f"{value:g} %")
    x = steps_axis(max(curve.steps_N[-1] for curve in curves))
    width = _PANEL_LEFT + len(panels) * _PANEL_WIDTH + (len(panels) - 1) * _PANEL_GAP + _MARGIN
    marks = [
        element("title", title),
        _words(24, 36, title, size=_HEADING, class_="strong"),
        _words(24, 58, caption, size=_CAPTION),
    ]
    for number, panel in enumerate(panels):
        marks += _panel(panel, x, y, _PANEL_LEFT + number * (_PANEL_WIDTH + _PANEL_GAP))
    return standalone(width, _PANEL_BOTTOM + 58, marks)


def _panel(panel: Panel, x: Axis, y: Axis, left: float) -> Iterable[Markup]:
    right = left + _PANEL_WIDTH
    yield _words(left, _PANEL_TOP - 40, panel.title, size=14, class_="strong")
    for tick in y.ticks:
        at = y.place(tick, _PANEL_BOTTOM, _PANEL_TOP)
        yield element("line", x1=left, y1=at, x2=right, y2=at, class_="grid")
        yield _words(left - 8, at + 4.5, y.tell(tick), anchor="end")
    for tick in x.ticks:
        at = x.place(tick, left, right)
        yield element("line", x1=at, y1=_PANEL_BOTTOM, x2=at, y2=_PANEL_BOTTOM + 4, class_="axis")
        yield _words(at, _PANEL_BOTTOM + 20, x.tell(tick), anchor="middle")
    yield element("line", x1=left, y1=_PANEL_BOTTOM, x2=right, y2=_PANEL_BOTTOM, class_="axis")
    yield _words((left + right) / 2, _PANEL_BOTTOM + 40, x.title, anchor="middle")
    roles = [_role(panel.cells[0]), "soft"]
    # The panel's first cell is drawn last, on top of the other.
    for cell, role in reversed(list(zip(panel.cells, roles, strict=False))):
        for split, style in (("train", " dashed"), ("test", "")):
            low, mean, high = (
                [(x.place(a, left, right), y.place(100 * b, _PANEL_BOTTOM, _PANEL_TOP)) for a, b in points]
                for points in _over_seeds(cell, split)
            )
            yield element("path", d=f"{path([*high, *reversed(low)])}Z", style=_pale(role), class_="band")
            yield element("path", d=path(mean), class_=f"line{style}", style=f"stroke:var(--{role})")
    at = left
    for label, role in zip(panel.labels, roles, strict=False):
        yield from _legend(at, label, role)
        at += _legend_width(label)


def _legend(at: float, label: str, role: str) -> Iterable[Markup]:
    y = _PANEL_TOP - 18
    yield _words(at, y + 4.5, label, size=_CAPTION, class_="")
    at += 6.6 * len(label) + 8
    for name, style in (("test", ""), ("train", " dashed")):
        yield element("path", d=path([(at, y), (at + 20, y)]), class_=f"line{style}", style=f"stroke:var(--{role})")
        yield element("text", name, x=at + 25, y=y + 4.5, font_size=_CAPTION, style=f"fill:var(--{role})")
        at += 58


def _legend_width(label: str) -> float:
    return 6.6 * len(label) + 8 + 2 * 58 + 14


def _curves(cell: Cell, split: str) -> list[Curve]:
    return [result.history.curves[split] for result in cell.results]


def _over_seeds(cell: Cell, split: str) -> tuple[list[tuple[int, float]], ...]:
    """Lowest, mean and highest error at each step at which every seed was evaluated, as (step, error)."""
    by_step = [dict(zip(curve.steps_N, curve.error_N, strict=True)) for curve in _curves(cell, split)]
    steps = sorted(set.intersection(*(set(errors) for errors in by_step)))
    errors = {step: [each[step] for each in by_step] for step in steps}
    return (
        [(step, min(each)) for step, each in errors.items()],
        [(step, math.fsum(each) / len(each)) for step, each in errors.items()],
        [(step, max(each)) for step, each in errors.items()],
    )


def _role(cell: Cell) -> str:
    return _ROLES[architecture(cell.network).kind]


def _pale(role: str) -> str:
    return f"fill:var(--{role});fill-opacity:.2"


def _words(x: float, y: float, words: str, *, size: float = 13, anchor: str = "start", class_: str = "soft") -> Markup:
    return element("text", words, x=x, y=y, font_size=size, text_anchor=anchor, class_=class_ or None)
