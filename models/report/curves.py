"""Error and loss against training steps, as the book's figure 10.8 has them: one panel a network, on one scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from models.report.chart import Axis, Line, chart, ticks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.history import Curve, History
    from models.report.chart import Role
    from models.report.markup import Markup

Quantity = Literal["error", "loss"]

_SMALLEST_LOSS_SCALE: Final = 0.5
_DASHED: Final = {"train": True, "validation": True, "test": False}


def curve_charts(runs: Sequence[tuple[str, Role, History]], quantity: Quantity) -> list[Markup]:
    """One SVG for each (title, whose, history), all with the same axes; a history without curves is a ValueError.

    Error is in percent of the examples from 0 to 100, loss in nats from 0 to what was seen.
    """
    curves = [curve for _, _, history in runs for curve in history.curves.values()]
    x = steps_axis(max(curve.steps_N[-1] for curve in curves))
    y = error_axis() if quantity == "error" else _loss_axis(curves)
    return [
        chart(
            f"{title}: {quantity} against training steps",
            curve_lines(history, role, quantity),
            x,
            y,
            description=describe(history, quantity),
        )
        for title, role, history in runs
    ]


def curve_lines(history: History, role: Role, quantity: Quantity) -> list[Line]:
    """A line for each split, the test set's drawn through, with its last value at its end."""
    return [
        Line(
            f"{split} {_tell(quantity, values[-1])}",
            role,
            list(zip(curve.steps_N, (_scaled(quantity, value) for value in values), strict=True)),
            dashed=_DASHED[split],
        )
        for split, curve in history.curves.items()
        if (values := _values(curve, quantity))
    ]


def steps_axis(steps: int) -> Axis:
    """From 0 to the last step."""
    return Axis("training steps", 0, steps, ticks(steps), tell_steps)


def error_axis() -> Axis:
    """Percent of the examples, 0 to 100."""
    return Axis("% wrong", 0, 100, (0, 20, 40, 60, 80, 100), lambda value: f"{value:.0f}")


def describe(history: History, quantity: Quantity) -> str:
    """The last values in a sentence, for those who do not see the picture."""
    ends = [
        f"{split} {quantity} {_tell(quantity, _values(curve, quantity)[-1])}"
        for split, curve in history.curves.items()
        if len(curve)
    ]
    return f"At the end: {', '.join(ends)}."


def tell_steps(step: float) -> str:
    """``0``, ``500``, ``2.5k``, ``100k``, ``1M``."""
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
