"""Several calls timed in turns, so that a busy machine slows all of them; what counts is their ratio."""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SLICE_S = 0.004
"""About as long one call is repeated before it is the next one's turn."""


@dataclass(frozen=True)
class Timing:
    """One call against the first of its table."""

    took_us: float
    """Median over the rounds of the time of one call."""
    times_as_fast: float
    """Median over the rounds of the first call's time divided by this one's in the same round."""


def compare(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Time every call, in an order that shifts from round to round."""
    repeats = {name: max(1, int(SLICE_S / _once_s(call))) for name, call in calls.items()}
    took_s: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    gc.collect()
    gc.disable()
    try:
        for i in range(rounds):
            for name in names[i % len(names) :] + names[: i % len(names)]:
                call = calls[name]
                started_s = time.perf_counter()
                for _ in range(repeats[name]):
                    call()
                took_s[name].append((time.perf_counter() - started_s) / repeats[name])
    finally:
        gc.enable()
    first = took_s[names[0]]
    return {
        name: Timing(
            took_us=statistics.median(values) * 1e6,
            times_as_fast=statistics.median(a / b for a, b in zip(first, values, strict=True)),
        )
        for name, values in took_s.items()
    }


def _once_s(call: Callable[[], object]) -> float:
    """The shortest of a few calls, after a first one that does not count."""
    call()
    shortest_s = float("inf")
    for _ in range(5):
        started_s = time.perf_counter()
        call()
        shortest_s = min(shortest_s, time.perf_counter() - started_s)
    return max(shortest_s, 1e-7)


def table(title: str, first_column: str, columns: Mapping[str, Mapping[str, Timing]]) -> str:
    """Markdown: a row for each call, a column for each of ``columns``: its time, and how many times as fast it is."""
    lines = [f"## {title}", "", "| " + " | ".join([first_column, *columns]) + " |", "|" + "---|" * (len(columns) + 1)]
    for name in next(iter(columns.values())):
        cells = [
            f"{timings[name].took_us:,.1f} us, **{timings[name].times_as_fast:.2f}**" for timings in columns.values()
        ]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)
