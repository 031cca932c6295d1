"""Line charts as SVG: error and loss over steps, and figures over shifts.

Colours come from the page: a line has a role, and the style sheet gives the role its colours in light and dark mode. A
picture without a page contains the same rules (`standalone`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from models.report.markup import Markup, element, join, number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Role: TypeAlias = Literal["conv", "fc"]
"""Which network a line belongs to; it decides the colour, the same on the whole page."""
Stroke: TypeAlias = Literal["solid", "dashed", "dotted"]
"""How a line is drawn, to distinguish lines of one colour."""

WIDTH: Final = 440
_HEIGHT: Final = 300
_LEFT, _TOP, _BOTTOM = 46, 14, 44
_LEAST_LABEL_ROOM: Final = 100
_LABEL_START: Final = 6
"""Distance from the end of a line to its label."""
_CHARACTER_WIDTH: Final = 7.2
"""Average width of a label's character in DejaVu Sans, the widest font that a page asks for, rounded up."""
_ABOVE_AXIS: Final = 9
_LABEL_GAP: Final = 16
"""Least distance between two labels at the ends of lines."""

STYLE: Final = """\
svg{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;font-size:13px}
svg{--ink:#1d2430;--soft:#5a6472;--grid:#e3e7ec;--conv:#1f66b8;--fc:#b9500f;--paper:#fff}
@media (prefers-color-scheme:dark){
svg{--ink:#e8ebf0;--soft:#a3adba;--grid:#343c48;--conv:#79b8ff;--fc:#ffa657;--paper:#161b22}}
text{fill:var(--ink)}
.soft{fill:var(--soft)}
.grid{stroke:var(--grid)}
.axis{stroke:var(--soft)}
.line{fill:none;stroke-width:2.2;stroke-linejoin:round}
.dashed{stroke-dasharray:5 4;stroke-width:1.8}
.dotted{stroke-dasharray:.1 5;stroke-width:2.6;stroke-linecap:round}
.conv{stroke:var(--conv)}
.fc{stroke:var(--fc)}
text.conv{fill:var(--conv);stroke:none}
text.fc{fill:var(--fc);stroke:none}
.strong{font-weight:600}
"""
"""Style sheet of a picture without a page; the page's style sheet has the same classes."""


@dataclass(frozen=True)
class Line:
    """One line of a chart. ValueError without points."""

    label: str
    """Text at the end of the line."""
    role: Role
    points: Sequence[tuple[float, float]]
    stroke: Stroke = "solid"
    """The label of a solid line is printed in bold."""

    def __post_init__(self) -> None:
        if not self.points:
            raise ValueError(f"the line {self.label!r} has no points")


@dataclass(frozen=True)
class Axis:
    """The title, range, ticks and number format of an axis."""

    title: str
    low: float
    high: float
    ticks: Sequence[float]
    tell: Callable[[float], str]

    def place(self, value: float, start: float, end: float) -> float:
        """Map a value to a position between two pixels; values outside of the range are put at its edge."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return start + (end - start) * share


def label_room(labels: Iterable[str]) -> float:
    """Width that labels need at the right of a chart; charts that share an axis should share this, too."""
    return max(_LEAST_LABEL_ROOM, _LABEL_START + _CHARACTER_WIDTH * max(map(len, labels), default=0))


def chart(
    title: str, lines: Sequence[Line], x: Axis, y: Axis, *, description: str = "", room: float = _LEAST_LABEL_ROOM
) -> Markup:
    """An SVG of `WIDTH` x 300 with a label at the end of each line; ``title`` is for screen readers.

    ``room`` is the width left for labels beside the axes, as `label_room` returns it.
    """
    left, right, top, bottom = _LEFT, WIDTH - room, _TOP, _HEIGHT - _BOTTOM
    marks = [element("title", title)]
    if description:
        marks.append(element("desc", description))
    for tick in y.ticks:
        at = y.place(tick, bottom, top)
        marks.append(element("line", x1=left, y1=at, x2=right, y2=at, class_="grid"))
        marks.append(element("text", y.tell(tick), x=left - 7, y=at + 4.5, text_anchor="end", class_="soft"))
    for tick in x.ticks:
        at = x.place(tick, left, right)
        marks.append(element("line", x1=at, y1=bottom, x2=at, y2=bottom + 4, class_="axis"))
        marks.append(element("text", x.tell(tick), x=at, y=bottom + 19, text_anchor="middle", class_="soft"))
    marks.append(element("line", x1=left, y1=bottom, x2=right, y2=bottom, class_="axis"))
    marks.append(element("text", x.title, x=(left + right) / 2, y=_HEIGHT - 6, text_anchor="middle", class_="soft"))
    marks.append(element("text", y.title, x=left + 6, y=top + 11, class_="soft"))
    pixels_of = [[(x.place(a, left, right), y.place(b, bottom, top)) for a, b in line.points] for line in lines]
    ends = [pixels[-1] for pixels in pixels_of]
    # A label within the axes is put above the horizontal axis, not on it.
    lowest = bottom - _ABOVE_AXIS if any(end_x < right for end_x, _ in ends) else bottom
    label_ys = spread([end_y for _, end_y in ends], _LABEL_GAP, top + 6, lowest)
    for line, pixels, label_y in zip(lines, pixels_of, label_ys, strict=True):
        is_solid = line.stroke == "solid"
        style = f"line {line.role}{'' if is_solid else f' {line.stroke}'}"
        marks.append(element("path", d=path(pixels), class_=style))
        style = f"{line.role}{' strong' if is_solid else ''}{' within' if pixels[-1][0] < right else ''}"
        label_x = pixels[-1][0] + _LABEL_START
        marks.append(element("text", line.label, x=label_x, y=label_y + 4.5, class_=style))
    return picture(WIDTH, _HEIGHT, marks)


def picture(width: float, height: float, marks: Iterable[Markup], *, class_: str = "picture") -> Markup:
    """An SVG element of ``width`` x ``height`` units that scales to its container; the first mark should be a title."""
    return element("svg", *marks, viewBox=f"0 0 {number(width)} {number(height)}", role="img", class_=class_)


def standalone(width: float, height: float, marks: Iterable[Markup]) -> Markup:
    """An SVG file: marks on a background, with `STYLE`, which follows the viewer's light or dark mode."""
    style = element("style", Markup(STYLE))
    paper = element("rect", width=width, height=height, fill="var(--paper)")
    box = f"0 0 {number(width)} {number(height)}"
    namespace = "http://www.w3.org/2000/svg"
    svg = element("svg", style, paper, *marks, xmlns=namespace, viewBox=box, width=width, height=height, role="img")
    return join(svg, "\n")


def path(points: Iterable[tuple[float, float]]) -> str:
    """The ``d`` attribute of an SVG path through points."""
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)


def ticks(high: float, *, at_most: int = 5) -> tuple[float, ...]:
    """Round numbers from 0 to ``high`` or just below it, 1, 2 or 5 times a power of ten apart."""
    if not (math.isfinite(high) and high > 0):
        raise ValueError(f"high must be above 0, got {high}")
    step = 10.0 ** math.floor(math.log10(high / at_most))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step * at_most >= high)
    return tuple(step * index for index in range(int(high / step * (1 + 1e-9)) + 1))


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near ``wanted``, at least ``gap`` apart, in the same order, between ``low`` and ``high``."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    places = [0.0] * len(wanted)
    floor = low
    for index in order:
        places[index] = max(wanted[index], floor)
        floor = places[index] + gap
    ceiling = high
    for index in reversed(order):
        places[index] = min(places[index], ceiling)
        ceiling = places[index] - gap
    return places
