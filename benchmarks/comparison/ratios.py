"""What the project promises of its server beside others, and whether a run shows it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.comparison.measurements import Measurement

Figure = Literal["rate", "samples_rate", "p50_us"]


@dataclass(frozen=True)
class Target:
    """``ours`` is to be at least so many times as good as the best of ``against`` under a load."""

    load: str
    ours: str
    against: tuple[str, ...]
    figure: Figure
    at_least: float | None
    """None: no promise, shown for comparison."""


_PLAIN = ("plain", "plain-typed")

TARGETS = (
    Target("B", "http2", _PLAIN, "rate", 20.0),
    Target("B", "http2", ("echo",), "rate", 0.9),
    Target("T", "http2", _PLAIN, "rate", 15.0),
    Target("A", "http2", _PLAIN, "p50_us", 2.0),
    Target("C", "http2", ("kserve",), "samples_rate", 3.0),
    Target("C", "http2", ("mlserver",), "samples_rate", 4.0),
    Target("D", "http2-2", _PLAIN, "samples_rate", 2.0),
    Target("S", "http2", _PLAIN, "rate", 10.0),
    Target("H", "http2", ("echo",), "rate", None),
    Target("H", "http2", ("plain",), "rate", None),
    Target("B", "http2", ("grpcio",), "rate", None),
    Target("D", "http2", _PLAIN, "samples_rate", None),
    Target("B", "grpcio", _PLAIN, "rate", None),
)


@dataclass(frozen=True)
class Ratio:
    """A target and what came of it."""

    target: Target
    median: float | None
    """Of the rounds; None where it cannot be said."""
    lowest: float = 0.0
    highest: float = 0.0
    why: str = ""
    """Why it cannot be said."""
    processor: float | None = None
    """How many times less processor time an answer takes, by the same rules. Other work on the machine moves this
    less; it is no part of the verdict."""

    @property
    def verdict(self) -> str:
        """``pass``, ``miss``, ``-`` where nothing is promised, ``not measured``."""
        if self.median is None:
            return "not measured"
        if self.target.at_least is None:
            return "-"
        return "pass" if self.median >= self.target.at_least else "miss"


def ratios(measurements: Sequence[Measurement], targets: Iterable[Target] = TARGETS) -> list[Ratio]:
    """Each target against the measurements: the ratio within each round, and the median of these.

    Within a round, since a machine's speed changes less from one server to the next than from one round to another.
    Where several are compared with, the best of each round counts. A round in which one of both sides gave no right
    answer, or a wrong one, does not.
    """
    return [_ratio(measurements, target) for target in targets]


def median(measurements: Sequence[Measurement], contender: str, load: str, figure: str) -> float | None:
    """Of a figure over the rounds with right answers only; None where there is none."""
    values = [getattr(m, figure) for m in measurements if m.contender == contender and m.load == load and usable(m)]
    return statistics.median(values) if values else None


def usable(measurement: Measurement) -> bool:
    """Whether every answer was right and there was one."""
    return measurement.done > 0 and measurement.failed == 0


def _ratio(measurements: Sequence[Measurement], target: Target) -> Ratio:
    values = _quotients(measurements, target, target.figure)
    if not values:
        seen = {each.contender for each in measurements if each.load == target.load}
        missing = [key for key in (target.ours, *target.against) if key not in seen]
        return Ratio(target, None, why=f"{', '.join(missing)} absent" if missing else "wrong answers")
    processor = _quotients(measurements, target, "server_us")
    return Ratio(
        target,
        statistics.median(values),
        min(values),
        max(values),
        processor=statistics.median(processor) if processor else None,
    )


def _quotients(measurements: Sequence[Measurement], target: Target, figure: str) -> list[float]:
    """How many times as good, in each round that has both sides; times are the better the smaller they are."""
    by_round: dict[int, dict[str, float]] = {}
    for each in measurements:
        if each.load == target.load and usable(each) and getattr(each, figure) > 0:
            by_round.setdefault(each.round, {})[each.contender] = getattr(each, figure)
    values = []
    for found in by_round.values():
        theirs = [found[key] for key in target.against if key in found]
        if target.ours in found and theirs:
            ours = found[target.ours]
            values.append(min(theirs) / ours if figure.endswith("_us") else ours / max(theirs))
    return values
