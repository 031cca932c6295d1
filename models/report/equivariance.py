"""Demonstration of equivariance: when the input moves, conv's maps move along, and a fully connected net's do not."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.report.chart import Axis, Line, chart, picture
from models.report.headline import percent
from models.report.heatmap import cells
from models.report.markup import Markup, element, join
from models.report.opening import opening
from models.report.section import Section, figure, folded, paragraph, side_by_side, table
from models.report.shifting import (
    MEASURED,
    SHIFTS,
    difference_to_moved,
    first_layer,
    measure,
    moved,
    told,
    without_ramp,
)
from models.report.signal import trace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from models.networks.convolution import Array
    from models.report.chart import Role
    from models.report.opening import Opening
    from models.report.shifting import ShiftFigures
    from models.report.subject import Pair, Subject

_CELL_WIDTH, _CELL_HEIGHT = 22, 9
_SIGNAL_WIDTH, _SIGNAL_HEIGHT = 640, 120
_BAR, _BARS = 42, 80


@dataclass(frozen=True)
class _Response:
    """The answers of one network to one example at every shift."""

    maps_SCL: Array
    probabilities_SK: Array
    digit: int

    @property
    def _unmoved(self) -> Array:
        unmoved_CL: Array = self.maps_SCL[SHIFTS.index(0)]
        return unmoved_CL

    def remark(self, at: int, role: str) -> str:
        """A sentence that compares the map with the unmoved one."""
        shift = SHIFTS[at]
        if shift == 0:
            return "Not moved: the same map."
        off = difference_to_moved(self._unmoved, self.maps_SCL[at], shift)
        if off is None:
            return (
                "An odd shift falls between two steps of the stride of 2: no column is a moved copy."
                if (role == "conv")
                else "Its units have no positions that could move."
            )
        columns = f"{abs(shift) // 2} column{'s' if abs(shift) > 2 else ''} to the {'right' if shift > 0 else 'left'}"
        highest = float(self.maps_SCL.max())
        if off == 0:
            return f"The map above, moved {columns}: the very same numbers, difference 0."
        return f"No map moved by {columns}: it differs by up to {off:.2g}, of values up to {highest:.2g}."

    def verdict(self, at: int) -> str:
        """The network's answer in words, and whether it is right."""
        p_K = self.probabilities_SK[at]
        said = int(p_K.argmax())
        return f"{'✓' if said == self.digit else '✗'} says {said} ({100 * p_K[said]:.0f} %)"


def section(pair: Pair) -> Section:
    """The section with slider, maps and answers for a few examples, then figures over all examples."""
    title = "Move the input" if pair.other is None else "Move the input: one follows, the other starts anew"
    first = opening(pair)
    figures = {subject.role: measure(subject, pair.examples) for subject in pair.subjects}
    parts = [paragraph(_introduction(pair))]
    if first is not None:
        parts += [paragraph(first.reason), _demonstration(pair, first)]
    parts += _all_examples(pair, figures)
    return Section("equivariance", title, join(*parts))


def _introduction(pair: Pair) -> str:
    conv = (
        "A convolution treats every place alike, so when the input moves, its map moves along: it is equivariant. With "
        "a stride of 2 that is exact for every second shift, and the map moves half as far. "
    )
    fc = "A fully connected layer knows no places: to it a moved digit is 40 other numbers, and its units answer anew. "
    how = "The ramp of each signal is taken off first, so that its ends meet, and its samples go round in a circle."
    return (conv if pair.conv is not None else "") + (fc if pair.fc is not None else "") + how


# ---- the demonstration -------------------------------------------------------------------------------------------


def _demonstration(pair: Pair, first: Opening) -> Markup:
    indices, start = list(first.indices), SHIFTS.index(first.shift)
    level_BL = without_ramp(pair.examples.x_BL[indices])
    responses = {subject.role: _responses(subject, level_BL, pair.examples.y_B[indices]) for subject in pair.subjects}
    buttons = [
        element(
            "button",
            f"a {pair.examples.y_B[index]}",
            type="button",
            data_example=at,
            aria_pressed=str(at == first.at).lower(),
        )
        for at, index in enumerate(indices)
    ]
    controls = element(
        "div",
        element("div", *buttons, class_="buttons", role="group", aria_label="example"),
        element(
            "label",
            "moved by ",
            element("output", told(first.shift), id="shift-told"),
            element(
                "input",
                type="range",
                id="shift",
                min=SHIFTS[0],
                max=SHIFTS[-1],
                step=1,
                value=first.shift,
            ),
        ),
        class_="controls",
    )
    panels = [_panel(subject, responses[subject.role][first.at], start) for subject in pair.subjects]
    data = {
        "shifts": SHIFTS,
        "told": [told(shift) for shift in SHIFTS],
        "signals": [[round(float(value), 3) for value in signal_L] for signal_L in level_BL],
        "networks": {role: [_packed(response, role) for response in each] for role, each in responses.items()},
    }
    return element(
        "div",
        controls,
        element("noscript", paragraph("Without its script the page shows this one shift.", note=True)),
        _signal(level_BL[first.at], first.shift),
        element("div", *panels, class_="columns"),
        element("script", _script_text(data), type="application/json", id="shift-data"),
        id="demonstration",
    )


def _responses(subject: Subject, level_BL: NDArray[Any], digits_B: NDArray[np.int64]) -> list[_Response]:
    """The responses of a network, one for each example."""
    x_BSL = np.stack([moved(level_BL, shift) for shift in SHIFTS], axis=1)
    return [
        _Response(first_layer(subject, x_SL), subject.probabilities(x_SL), int(digit))
        for x_SL, digit in zip(x_BSL, digits_B, strict=True)
    ]


def _packed(response: _Response, role: str) -> dict[str, Any]:
    """A response as data for the page's script: maps as bytes, all sentences as text."""
    highest = max(float(response.maps_SCL.max()), 1e-12)
    shades = np.round(255 * response.maps_SCL / highest).astype(np.uint8)
    return {
        "maps": base64.b64encode(shades.tobytes()).decode(),
        "answers": [[round(float(p), 3) for p in p_K] for p_K in response.probabilities_SK],
        "remarks": [response.remark(at, role) for at in range(len(SHIFTS))],
        "verdicts": [response.verdict(at) for at in range(len(SHIFTS))],
    }


def _panel(subject: Subject, response: _Response, start: int) -> Markup:
    role, unmoved = subject.role, SHIFTS.index(0)
    what = "first layer" if role == "conv" else "first layer, laid out like its twin's"
    return element(
        "figure",
        element("h3", subject.kind, class_=role),
        element("p", f"{what}: as it is", class_="label"),
        _map(response, unmoved, role, "before"),
        element("p", "moved", class_="label"),
        _map(response, start, role, "after"),
        element("p", response.remark(start, role), class_="note remark"),
        _answers(response, start, role),
        element(
            "p",
            "as it is ",
            element("span", response.verdict(unmoved), class_="verdict-before"),
            " · moved ",
            element("strong", response.verdict(start), class_=f"verdict-after {role}"),
            class_="verdict",
        ),
        data_network=role,
    )


def _map(response: _Response, at: int, role: str, when: str) -> Markup:
    map_CL = response.maps_SCL[at]
    marks = [element("title", f"first layer of the {role} net, {'as it is' if when == 'before' else 'moved'}")]
    marks += cells(
        map_CL,
        left=0,
        top=0,
        width=_CELL_WIDTH,
        height=_CELL_HEIGHT,
        largest=float(response.maps_SCL.max()) or 1.0,
        positive=f"fill {role}",
    )
    rows, columns = map_CL.shape
    return picture(columns * _CELL_WIDTH, rows * _CELL_HEIGHT, marks, class_=f"picture map {when}")


def _answers(response: _Response, start: int, role: str) -> Markup:
    """Draw the probabilities before (pale) and after the shift, digit by digit."""
    marks = [element("title", "probabilities of the ten digits before (pale) and after the shift")]
    for when, p_K in (
        ("before", response.probabilities_SK[SHIFTS.index(0)]),
        ("after", response.probabilities_SK[start]),
    ):
        for digit, p in enumerate(p_K):
            size = float(p) * _BARS
            left = digit * _BAR + (4 if when == "before" else 20)
            marks.append(
                element("rect", x=left, y=_BARS - size, width=15, height=size, class_=f"fill {role} bar {when}")
            )
    marks.append(element("line", x1=0, y1=_BARS, x2=10 * _BAR, y2=_BARS, class_="axis"))
    marks += [
        element("text", str(digit), x=digit * _BAR + 20, y=_BARS + 17, text_anchor="middle") for digit in range(10)
    ]
    return picture(10 * _BAR, _BARS + 22, marks, class_="picture answers")


def _signal(level_L: Array, moved_by: int) -> Markup:
    low, high = float(level_L.min()), float(level_L.max())
    step = _SIGNAL_WIDTH / (len(level_L) - 1)
    marks = [element("title", "the signal as it is (pale) and moved")]
    for shift, style in ((0, "signal pale"), (moved_by, "signal now")):
        marks.append(
            trace(
                moved(level_L, shift),
                left=4,
                top=6,
                step=step,
                height=_SIGNAL_HEIGHT - 12,
                low=low,
                high=high,
                class_=style,
            )
        )
    return picture(_SIGNAL_WIDTH + 8, _SIGNAL_HEIGHT, marks, class_="picture moving")


def _script_text(data: Mapping[str, Any]) -> Markup:
    """Encode as JSON that cannot end the script element that contains it."""
    return Markup(json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"))


# ---- over all examples -------------------------------------------------------------------------------------------


def _all_examples(pair: Pair, figures: Mapping[Role, ShiftFigures]) -> list[Markup]:
    x = Axis("samples moved", MEASURED[0], MEASURED[-1], (-10, -5, 0, 5, 10), lambda value: f"{value:g}")
    y = Axis("%", 0, 100, (0, 20, 40, 60, 80, 100), lambda value: f"{value:.0f}")
    count = len(pair.examples)

    def lines(quantity: str) -> list[Line]:
        return [
            Line(
                {"conv": "convolutional", "fc": "fully conn."}[subject.role],
                subject.role,
                [
                    (shift, 100 * value)
                    for shift, value in zip(MEASURED, getattr(figures[subject.role], quantity), strict=True)
                ],
            )
            for subject in pair.subjects
        ]

    rows = [
        [str(shift), *(percent(each) for subject in pair.subjects for each in _row(figures[subject.role], at))]
        for at, shift in enumerate(MEASURED)
    ]
    head = ["shift", *(f"{subject.kind}, {what}" for subject in pair.subjects for what in ("right", "same answer"))]
    return [
        element("h3", f"All {count:,} test examples"),
        paragraph(_conclusion(pair, figures)),
        side_by_side(
            figure(chart("accuracy against shift", lines("accuracy_S"), x, y), title="right answers"),
            figure(chart("agreement against shift", lines("agreement_S"), x, y), title="same answer as unmoved"),
        ),
        folded("the numbers", table("Shift in samples, test examples", head, rows, numeric=range(len(head)))),
        paragraph(
            "A convolutional net is not invariant: its last, linear layer does know places, and strides let only every "
            "second, fourth and eighth shift through its layers whole.",
            note=True,
        )
        if pair.conv is not None
        else Markup(),
    ]


def _row(figures: ShiftFigures, at: int) -> tuple[float, float]:
    return figures.accuracy_S[at], figures.agreement_S[at]


def _conclusion(pair: Pair, figures: Mapping[Role, ShiftFigures]) -> str:
    pairs = [MEASURED.index(-2), MEASURED.index(2)]

    def mean(values: tuple[float, ...]) -> float:
        return sum(values[at] for at in pairs) / len(pairs)

    told = [
        f"the {subject.kind} net stays with its answer for {percent(mean(figures[subject.role].agreement_S))} of the "
        f"examples, and is right on {percent(mean(figures[subject.role].accuracy_S))} of them, unmoved on "
        f"{percent(figures[subject.role].accuracy_S[MEASURED.index(0)])}"
        for subject in pair.subjects
    ]
    return f"Moved by 2 samples to either side, {'; '.join(told)}."
