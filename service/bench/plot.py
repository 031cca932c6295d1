"""The picture of a load test as one self-contained SVG file, made without a plotting package.

The upper chart shows the latency at each percentile, on axes that expand the tail. The lower one shows rate and errors
over time, with the median and the 99th percentile of each interval.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from service.bench.drawing import SOFT, Axis, document, line, path, text
from service.bench.report import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from service.bench.plan import Result
    from service.bench.report import Setup

_WIDTH, _HEIGHT = 860, 746
_LEFT, _RIGHT = 76, 784
_LATENCY = "#2563ab"
_RATE = "#2f7d5b"
_P99 = "#c2571a"
_ERROR = "#b3261e"
_NINES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)
_CURVE_POINTS = 240


def svg(setup: Setup, result: Result) -> str:
    """The picture of a load test as an SVG document."""
    version = f", version {setup.version}" if setup.version else ""
    body = [
        text(_LEFT, 34, f"{setup.model}{version} at {setup.server}", size=17, weight=600),
        text(_LEFT, 56, _summary(setup, result), size=12.5, colour=SOFT),
        *_percentiles(result, top=96, bottom=330),
        *_rates(result, top=396, bottom=530),
        *_latencies_over_time(result, top=590, bottom=710),
    ]
    return document(_WIDTH, _HEIGHT, body)


def _summary(setup: Setup, result: Result) -> str:
    each = f", {setup.batch} examples a request" if setup.batch != 1 else ""
    failed = f", {result.failed:,} failed" if result.failed else ", none failed"
    return (
        f"{setup.load}{each}: {result.rate:,.0f} requests/s, {result.done:,} answers in {result.seconds:.1f} s{failed}"
    )


def _percentiles(result: Result, top: float, bottom: float) -> Iterable[str]:
    yield _title(top, "Latency by percentile")
    latency = result.latency
    if not latency.count:
        yield _nothing(top, bottom)
        return
    # Only percentiles with at least one answer above them.
    nines = [q for q in _NINES if q < 0.9 or (1 - q) * latency.count >= 1]
    most = max(0.5, 1 - max(1 / latency.count, (1 - nines[-1]) / 3))
    x = Axis(1.0, 1 / (1 - most), _LEFT, _RIGHT, log=True)
    y = _log_axis(latency.quantile_s(0.0), latency.max_s, top, bottom)
    yield from _horizontal_lines(y, _decades(y), duration)
    for q in nines:
        at = x.at(1 / (1 - q))
        yield line(at, top, at, bottom)
        yield text(at, bottom + 18, f"{100 * q:.6g} %", size=11, colour=SOFT, anchor="middle")
    curve = [x.high ** (step / _CURVE_POINTS) for step in range(_CURVE_POINTS + 1)]
    yield path([(x.at(value), y.at(latency.quantile_s(1 - 1 / value))) for value in curve], _LATENCY)
    for q in (0.5, 0.9, 0.99, 0.999):
        if q > most:
            continue
        at, value = x.at(1 / (1 - q)), latency.quantile_s(q)
        yield f'<circle cx="{at:.1f}" cy="{y.at(value):.1f}" r="3.5" fill="{_LATENCY}"/>'
        # The first one is close to the axis, so its label goes to the other side of the curve.
        across, down, anchor = (8, 16, "start") if q == 0.5 else (-6, -8, "end")
        yield text(
            at + across, y.at(value) + down, duration(value), size=11.5, colour=_LATENCY, anchor=anchor, weight=600
        )


def _rates(result: Result, top: float, bottom: float) -> Iterable[str]:
    yield _title(top, "Right answers a second over time")
    x = _time_axis(result)
    points = [(i.start_s + i.seconds / 2, i.done / i.seconds) for i in result.intervals if i.seconds > 0]
    failed = [(i.start_s + i.seconds / 2, i.errors.total() / i.seconds) for i in result.intervals if i.seconds > 0]
    if not points:
        yield _nothing(top, bottom)
        return
    highest = max(value for _, value in (*points, *failed)) or 1.0
    steps = _round_steps(highest)
    y = Axis(0.0, max(highest * 1.05, steps[-1]), bottom, top)
    yield from _horizontal_lines(y, steps, lambda value: f"{value:,.6g}")
    yield from _time_labels(x, bottom)
    yield path([(x.at(t), y.at(value)) for t, value in points], _RATE)
    legend = [("right answers", _RATE)]
    if result.failed:
        yield path([(x.at(t), y.at(value)) for t, value in failed], _ERROR)
        legend.append(("failed", _ERROR))
        yield from _legend(top, legend)


def _latencies_over_time(result: Result, top: float, bottom: float) -> Iterable[str]:
    yield _title(top, "Latency over time")
    seen = [interval for interval in result.intervals if interval.done]
    if not seen:
        yield _nothing(top, bottom)
        return
    x = _time_axis(result)
    lines = [(q, [(i.start_s + i.seconds / 2, i.latency.quantile_s(q)) for i in seen]) for q in (0.5, 0.99)]
    values = [value for _, points in lines for _, value in points]
    y = _log_axis(min(values), max(values), top, bottom)
    yield from _horizontal_lines(y, _decades(y), duration)
    yield from _time_labels(x, bottom)
    for (_, points), colour in zip(lines, (_LATENCY, _P99), strict=True):
        yield path([(x.at(t), y.at(value)) for t, value in points], colour)
    yield from _legend(top, [("p50", _LATENCY), ("p99", _P99)])


def _time_axis(result: Result) -> Axis:
    last = max((interval.start_s + interval.seconds for interval in result.intervals), default=0.0)
    return Axis(0.0, max(last, 1e-3), _LEFT, _RIGHT)


def _log_axis(low: float, high: float, top: float, bottom: float) -> Axis:
    low = max(low, 1e-6)
    return Axis(low * 0.8, max(high * 1.2, low * 2), bottom, top, log=True)


def _decades(axis: Axis) -> list[float]:
    """Axis marks at 1, 2 and 5 times the powers of ten; only at the powers if those are too many."""
    powers = range(math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high)) + 1)
    for digits in ((1, 2, 5), (1,)):
        marks = [digit * 10.0**power for power in powers for digit in digits]
        marks = [mark for mark in marks if axis.low <= mark <= axis.high]
        if len(marks) <= 8:
            break
    return marks


def _round_steps(highest: float) -> list[float]:
    power = 10 ** math.floor(math.log10(highest))
    step = next(power * part for part in (0.1, 0.2, 0.25, 0.5, 1, 2) if highest / (power * part) <= 5)
    return [step * number for number in range(int(highest / step) + 1)]


def _horizontal_lines(axis: Axis, marks: Sequence[float], label: Callable[[float], str]) -> Iterable[str]:
    for mark in marks:
        at = axis.at(mark)
        yield line(_LEFT, at, _RIGHT, at)
        yield text(_LEFT - 10, at + 4, label(mark), size=11, colour=SOFT, anchor="end")


def _time_labels(axis: Axis, bottom: float) -> Iterable[str]:
    for mark in _round_steps(axis.high):
        yield text(axis.at(mark), bottom + 18, f"{mark:g} s", size=11, colour=SOFT, anchor="middle")
        yield line(axis.at(mark), bottom, axis.at(mark), bottom + 4)
    yield line(_LEFT, bottom, _RIGHT, bottom, SOFT)


def _legend(top: float, entries: Sequence[tuple[str, str]]) -> Iterable[str]:
    at = float(_RIGHT)
    for name, colour in reversed(entries):
        yield text(at, top - 12, name, size=11.5, colour=colour, anchor="end", weight=600)
        at -= 8 * len(name) + 14


def _title(top: float, words: str) -> str:
    return text(_LEFT, top - 12, words, size=13, weight=600)


def _nothing(top: float, bottom: float) -> str:
    return text((_LEFT + _RIGHT) / 2, (top + bottom) / 2, "no right answers", size=12, colour=SOFT, anchor="middle")
