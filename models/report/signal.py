"""Draw a signal of 40 samples as a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.report.chart import path
from models.report.markup import Markup, element

if TYPE_CHECKING:
    from models.networks.convolution import Array


def trace(
    signal_L: Array, *, left: float, top: float, step: float, height: float, low: float, high: float, class_: str
) -> Markup:
    """Draw a line through the samples, ``step`` apart, sample 0 at ``left``; ``low``..``high`` fill the height."""
    return element("path", d=trace_path(signal_L, left, top, step, height, low, high), class_=class_)


def trace_path(signal_L: Array, left: float, top: float, step: float, height: float, low: float, high: float) -> str:
    """The ``d`` attribute of the path that `trace` draws."""
    scale = height / (high - low) if high > low else 0.0
    return path((left + step * index, top + (high - float(value)) * scale) for index, value in enumerate(signal_L))
