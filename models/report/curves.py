"""Error and loss against training steps, as the book's figure 10.8 has them: one panel per network, on one scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from models.report.chart import Axis, Line, chart, label_room, ticks
from models.report.markup import join
from models.report.section import Section, figure, paragraph, side_by_side

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.report.chart import Role, Stroke
    from models.report.markup import Markup
    from models.report.subject import Pair
    from models.training.history import Curve, History

Quantity: TypeAlias = Literal["error", "loss"]

_QUANTITIES: Final[tuple[Quantity, ...]] = ("error", "loss")

_SMALLEST_LOSS_SCALE: Final = 0.5
_STROKES: Final[Mapping[str, Stroke]] = {"train": "dashed", "validation": "dotted", "test": "solid"}


def curve_charts(runs: Sequence[tuple[str, Role, History]], quantity: Quantity) -> list[Markup]:
    """One SVG for each (title, role, history), all with the same axes; ValueError if no history has curves.

    Error is in percent of the examples from 0 to 100, loss in nats from 0 to just above the highest value.
    """
    curves = [curve for _, _, history in runs for curve in history.curves.values()]
    x = steps_axis(max(curve.steps_N[-1] for curve in curves))
    y = error_axis() if quantity == "error" else _loss_axis(curves)
    room = label_room(f"{split} {_tell('error', 1)}" for _, _, history in runs for split in history.curves)
    return [
        chart(
            f"{title}: {quantity} against training steps",
            curve_lines(history, role, quantity),
            x,
            y,
            description=describe(history, quantity),
            room=room,
        )
        for title, role, history in runs
    ]


def curve_lines(history: History, role: Role, quantity: Quantity) -> list[Line]:
    """A line for each split, with the last value at its end; strokes differ, and that of the test set is solid."""
    return [
        Line(
            f"{split} {_tell(quantity, values[-1])}",
            role,
            list(zip(curve.steps_N, (_scaled(quantity, value) for value in values), strict=True)),
            stroke=_STROKES[split],
        )
        for split, curve in history.curves.items()
        if (values := _values(curve, quantity))
    ]


def steps_axis(steps: int) -> Axis:
    """The horizontal axis of training steps, from 0 to the last step."""
    return Axis("training steps", 0, steps, ticks(steps), tell_steps)


def error_axis() -> Axis:
    """The vertical axis of errors in percent of the examples, 0 to 100."""
    return Axis("% wrong", 0, 100, (0, 20, 40, 60, 80, 100), lambda value: f"{value:.0f}")


def describe(history: History, quantity: Quantity) -> str:
    """The last values in a sentence, for readers who cannot see the picture."""
    ends = [
        f"{split} {quantity} {_tell(quantity, _values(curve, quantity)[-1])}"
        for split, curve in history.curves.items()
        if len(curve)
    ]
    return f"At the end: {', '.join(ends)}."


def tell_steps(step: float) -> str:
    """Format a number of steps: ``0``, ``500``, ``2.5k``, ``100k``, ``1M``."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if step >= size:
            return f"{step / size:g}{letter}"
    return f"{step:g}"


def _values(curve: Curve, quantity: Quantity) -> tuple[float, ...]:
    return curve.error_N if quantity == "error" else curve.loss_N


def _scaled(quantity: Quantity, value: float) -> float:
    return 100 * value if quantity == "error" else value


def _tell(quantity: Quantity, value: float) -> str:
    return f"{100 * value:.1f} %" if quantity == "error" else f"{value:.2f}"


def _loss_axis(curves: Sequence[Curve]) -> Axis:
    high = 1.05 * max(_SMALLEST_LOSS_SCALE, *(loss for curve in curves for loss in curve.loss_N))
    return Axis("loss, nats", 0, high, ticks(high), lambda value: f"{value:g}")


# ---- the section -------------------------------------------------------------------------------------------------


def section(pair: Pair) -> Section:
    """The section with error and loss of both networks, or a note that there are none."""
    runs = [(subject.kind, subject.role, subject.history) for subject in pair.subjects]
    drawn = [(title, role, history) for title, role, history in runs if history is not None and history.curves]
    if not drawn:
        return Section("curves", "How it was learnt", paragraph("This version kept no history of its training."))
    held_out = any("validation" in history.curves for _, _, history in drawn)
    parts = [
        paragraph(
            "Share of the examples that are classified wrongly, after so many updates of the weights: of those that a "
            "network is trained on (dashed), "
            + ("of those that were held out of these to choose by (dotted), " if held_out else "")
            + "and of the test examples, which it never sees."
        ),
        *(side_by_side(*figures) for figures in _rows(drawn)),
        *(paragraph(remark) for title, _, history in drawn for remark in overfitting(title, history)),
    ]
    parts += [
        paragraph(f"The {title} one kept no history of its training.", note=True)
        for title, _, history in runs
        if history is None or not history.curves
    ]
    parts.append(paragraph("The test set is only looked at: nothing was chosen by it.", note=True))
    return Section("curves", "How they learnt" if len(drawn) > 1 else "How it learnt", join(*parts))


def _rows(drawn: Sequence[tuple[str, Role, History]]) -> list[list[Markup]]:
    """A row for each quantity with the networks side by side; for one network, a single row with both quantities."""
    rows = [
        [
            figure(svg, title=f"{title}: {quantity}", role=role)
            for (title, role, _), svg in zip(drawn, curve_charts(drawn, quantity), strict=True)
        ]
        for quantity in _QUANTITIES
    ]
    return rows if len(drawn) > 1 else [[row[0] for row in rows]]


def overfitting(title: str, history: History) -> list[str]:
    """A sentence if the test loss rose again by more than a tenth after its lowest point."""
    curve = history.curves.get("test")
    if curve is None or not len(curve):
        return []
    lowest = min(range(len(curve)), key=lambda index: curve.loss_N[index])
    if curve.loss_N[-1] <= 1.1 * curve.loss_N[lowest]:
        return []
    sentence = (
        f"The test loss of the {title} net is lowest, {curve.loss_N[lowest]:.2f}, after {curve.steps_N[lowest]:,} "
        f"steps and ends at {curve.loss_N[-1]:.2f}, while its test error goes from {100 * curve.error_N[lowest]:.1f} "
        f"to {100 * curve.error_N[-1]:.1f}\N{NO-BREAK SPACE}%: it grows surer of its mistakes. That is overfitting."
    )
    return [sentence]
