"""Feature maps of one example in the three convolution layers, each unit below the samples that it sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from models.report.chart import picture
from models.report.heatmap import cells
from models.report.markup import Markup, element, join
from models.report.receptive_fields import field_of
from models.report.section import Section, figure, paragraph
from models.report.signal import trace

if TYPE_CHECKING:
    from models.networks.convolution import Array
    from models.report.subject import Pair

_LEFT, _STEP, _ROW, _SIGNAL, _GAP, _BARS = 96, 16, 10, 84, 30, 84
_WIDTH: Final = _LEFT + 40 * _STEP


def section(pair: Pair) -> Section:
    """The section with the feature maps of one test example, or the reason why there are none."""
    title = "One example, layer by layer"
    if pair.own.role != "conv":
        text = (
            "The units of a fully connected net belong to no position of the signal, so that its layers are no maps of "
            "it: there are no feature maps to draw. The comparison below lays its first layer out as if it were one."
        )
        return Section("feature-maps", title, paragraph(text))
    index = example(pair)
    text = (
        f"test[{index}], a {pair.examples.y_B[index]}. Each row is a channel, each cell a unit, drawn below the middle "
        "of what it sees; the stronger the colour, the stronger its answer. Cells grow because a stride of 2 halves "
        "their number; the last layer's few answers are what the linear layer decides by."
    )
    return Section("feature-maps", title, join(paragraph(text), figure(drawing(pair, index))))


def example(pair: Pair) -> int:
    """Index of the first test example that the report's own network gets right; 0 if there is none."""
    return int(np.argmax(pair.answers[pair.own.role].argmax(axis=1) == pair.examples.y_B))


def drawing(pair: Pair, index: int) -> Markup:
    """Draw the signal of a test example, a map for each layer, and the probabilities."""
    signal_L = pair.examples.x_BL[index]
    low, high = float(signal_L.min()), float(signal_L.max())
    marks = [
        element("title", f"feature maps of test example {index} through three layers"),
        element("text", "input", x=0, y=_SIGNAL / 2, class_="strong"),
        trace(
            signal_L,
            left=_LEFT + _STEP / 2,
            top=6,
            step=_STEP,
            height=_SIGNAL - 12,
            low=low,
            high=high,
            class_="signal",
        ),
    ]
    top = _SIGNAL + _GAP / 2
    for layer, maps in enumerate(pair.own.hidden(signal_L[None]), 1):
        map_CL = maps[0]
        width = _STEP * 2**layer
        left = _LEFT + _STEP * (field_of(layer, 0).middle + 0.5) - width / 2
        height = _ROW * len(map_CL)
        marks.append(element("text", f"layer {layer}", x=0, y=top + height / 2, class_="strong"))
        marks.append(
            element("text", " × ".join(map(str, map_CL.shape)), x=0, y=top + height / 2 + 16, class_="soft extra")
        )
        marks += cells(map_CL, left=left, top=top, width=width, height=_ROW, positive="fill conv")
        top += height + _GAP
    marks += _probabilities(pair.answers[pair.own.role][index], int(pair.examples.y_B[index]), top)
    return element("div", picture(_WIDTH, top + _BARS + 22, marks, class_="picture fields"), class_="scroll")


def _probabilities(p_K: Array, digit: int, top: float) -> list[Markup]:
    marks = [
        element("text", "answer", x=0, y=top + _BARS / 2, class_="strong"),
        element("line", x1=_LEFT, y1=top + _BARS, x2=_WIDTH, y2=top + _BARS, class_="axis"),
    ]
    for label, p in enumerate(p_K):
        left = _LEFT + label * 64 + 16
        size = float(p) * (_BARS - 18)
        marks.append(element("rect", x=left, y=top + _BARS - size, width=32, height=size, class_="fill conv"))
        words = element("text", str(label), x=left + 16, y=top + _BARS + 17, text_anchor="middle")
        if label == digit:
            words = element(
                "text", str(label), x=left + 16, y=top + _BARS + 17, text_anchor="middle", class_="strong underlined"
            )
        marks.append(words)
        if p >= 0.005:
            share = f"{100 * float(p):.0f} %"
            marks.append(
                element("text", share, x=left + 16, y=top + _BARS - size - 5, text_anchor="middle", class_="soft")
            )
    return marks
