"""Receptive fields: what one unit of each convolution layer sees of the input, drawn on the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from models.data.dataset import SAMPLES
from models.networks.convolution import receptive_field
from models.report.chart import picture
from models.report.markup import Markup, element, join, number
from models.report.section import Section, figure, paragraph
from models.report.signal import trace
from models.report.subject import LAYER

if TYPE_CHECKING:
    from models.networks.convolution import Array
    from models.report.subject import Pair

LAYERS: Final = 3
_STEP, _LEFT, _TOP, _SIGNAL, _GAP = 16, 96, 16, 90, 62


@dataclass(frozen=True)
class Field:
    """The receptive field of one unit."""

    first: int
    """Index of the first input sample that it sees."""
    width: int
    """Number of samples that it sees."""

    @property
    def last(self) -> int:
        """Index of the last input sample that it sees."""
        return self.first + self.width - 1

    @property
    def middle(self) -> float:
        """Middle of the field in samples, where its unit is drawn."""
        return (self.first + self.last) / 2


def field_of(layer: int, unit: int) -> Field:
    """The receptive field of unit 0, 1, ... of layer 1, 2 or 3."""
    return Field(unit * LAYER.stride**layer, receptive_field([LAYER] * layer))


def units(layer: int) -> int:
    """Number of positions of a layer: 19, 9 or 4."""
    length = SAMPLES
    for _ in range(layer):
        length = LAYER.output_length(length)
    return length


def section(pair: Pair) -> Section:
    """The section with the picture of the fields, and what a fully connected unit sees instead."""
    widths = [receptive_field([LAYER] * layer) for layer in range(1, LAYERS + 1)]
    last = field_of(LAYERS, units(LAYERS) - 1).last
    unseen = (
        ""
        if last == SAMPLES - 1
        else f" Sample {last + 1}, the last, is seen by none of them: the strides end before it."
    )
    text = (
        f"A unit of a convolution layer looks at {LAYER.kernel} neighbours in the layer before it, and the next unit "
        f"starts {LAYER.stride} further on. So it sees {widths[0]} samples of the input in the first layer, "
        f"{widths[1]} in the second, {widths[2]} in the third: small things first, then what is made of them.{unseen} "
        f"A unit of the fully connected net sees all {SAMPLES} samples from the first layer on, and "
        "has to learn for itself which of them are neighbours."
    )
    hint = (
        f"The layers have {units(1)}, {units(2)} and {units(3)} units. Point at one, or move to "
        "it with the tab key, to see its field."
    )
    drawn = figure(drawing(pair.examples.x_BL[0]), hint)
    return Section("receptive-fields", "How far a unit sees", join(paragraph(text), drawn))


def drawing(signal_L: Array) -> Markup:
    """Draw a signal, the units of each layer below it, and the field of one unit per layer."""
    marks = [element("title", "receptive fields of the three convolution layers on the input")]
    low, high = float(signal_L.min()), float(signal_L.max())
    base = _TOP + _SIGNAL
    fields, dots = [], []
    for layer in range(1, LAYERS + 1):
        y = base + _GAP * layer
        dots.append(element("text", f"layer {layer}", x=0, y=y - 3, class_="strong"))
        dots.append(element("text", f"{units(layer)} units", x=0, y=y + 13, class_="soft extra"))
        for unit in range(units(layer)):
            field = field_of(layer, unit)
            chosen = unit == _shown(layer)
            shape = _cone(field, y, base)
            spoken = f"layer {layer}, unit {unit}: samples {field.first} to {field.last}"
            if chosen:
                fields.append(element("path", d=shape, class_=f"field layer{layer}", data_layer=layer))
            dots.append(
                element(
                    "circle",
                    element("title", spoken),
                    cx=_x(field.middle),
                    cy=y,
                    r=6,
                    class_=f"unit layer{layer}{' chosen' if chosen else ''}",
                    tabindex=0,
                    role="img",
                    aria_label=spoken,
                    data_layer=layer,
                    data_field=shape,
                )
            )
    marks += fields
    marks.append(element("text", "input", x=0, y=_TOP + _SIGNAL / 2, class_="strong"))
    marks.append(element("text", f"{SAMPLES} samples", x=0, y=_TOP + _SIGNAL / 2 + 16, class_="soft extra"))
    marks.append(
        trace(signal_L, left=_x(0), top=_TOP + 8, step=_STEP, height=_SIGNAL - 24, low=low, high=high, class_="signal")
    )
    for sample in range(SAMPLES):
        marks.append(element("circle", cx=_x(sample), cy=base, r=2.5, class_="sample"))
    marks += dots
    return picture(_x(SAMPLES), base + _GAP * LAYERS + 22, marks, class_="picture fields")


def _x(sample: float) -> float:
    return _LEFT + _STEP * sample


def _cone(field: Field, y: float, base: float) -> str:
    """The ``d`` attribute of the outline from a unit up to the samples that it sees, and over the signal above them."""
    left, right = _x(field.first - 0.4), _x(field.last + 0.4)
    corners = [(left, _TOP), (right, _TOP), (right, base + 6), (_x(field.middle), y), (left, base + 6)]
    return "M" + "L".join(f"{number(a)} {number(b)}" for a, b in corners) + "Z"


def _shown(layer: int) -> int:
    """The unit of a layer whose field is drawn at first; the fields of the three layers lie side by side."""
    return {1: 16, 2: 5, 3: 0}[layer]
