"""Prometheus' two text formats: families of samples in, the page of a scrape out.

Written out here, since the client library for Prometheus renames each counter to end in ``_total``, and Triton's names,
which dashboards know, do not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Kind(Enum):
    """What a family's numbers are."""

    COUNTER = "counter"
    """Only grows, but for a restart or a reload, when it begins at 0."""
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Across(Enum):
    """What the samples of several processes that are one server make together."""

    SUM = "sum"
    """They add up."""
    LEAST = "least"
    """The smallest; a process that has no such sample counts as 0."""
    MOST = "most"
    """The largest."""
    SAME = "same"
    """Each says the same, about the machine, say: any of them will do."""
    EACH = "each"
    """They stand beside each other, with the process as a label."""
    WORST = "worst"
    """The values of the process in the worst state, for each model and version; ``worst_first`` orders the states."""


@dataclass(slots=True)
class Family:
    """One metric with its samples."""

    name: str
    kind: Kind
    help: str
    samples: list[tuple[str, Mapping[str, str], float]] = field(default_factory=list)
    """Suffix of the name, labels, value."""
    across: Across = field(default=Across.SUM, kw_only=True)
    worst_first: tuple[str, ...] = field(default=(), kw_only=True)
    """For `Across.WORST`: values of the label ``state``, of which one has the value 1."""

    def add(self, value: float, **labels: str) -> None:
        """One sample of a counter or gauge."""
        self.samples.append(("", labels, value))

    def add_histogram(self, bounds: Sequence[float], counts: Sequence[int], total: float, **labels: str) -> None:
        """One histogram. ``counts`` are those of each bucket alone, with one more bucket than there are bounds."""
        cumulated = 0
        for bound, count in zip((*bounds, math.inf), counts, strict=True):
            cumulated += count
            self.samples.append(("_bucket", {**labels, "le": _number(float(bound))}, cumulated))
        self.samples.append(("_count", labels, cumulated))
        self.samples.append(("_sum", labels, total))


def text(families: Iterable[Family]) -> str:
    """The classic format, version 0.0.4."""
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {_escaped(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind.value}")
        lines += _samples(family)
    return "\n".join((*lines, ""))


def openmetrics(families: Iterable[Family]) -> str:
    """OpenMetrics 1.0. A counter whose name does not end in ``_total`` is of type unknown there: the name matters more,
    since a scraper that asks for this format must not see other names than one that does not.
    """
    lines: list[str] = []
    for family in families:
        name, kind = family.name, family.kind.value
        if family.kind is Kind.COUNTER:
            kind = "counter" if name.endswith("_total") else "unknown"
            name = name.removesuffix("_total")
        help_text = _escaped(family.help).replace('"', '\\"')
        lines += (f"# TYPE {name} {kind}", f"# HELP {name} {help_text}")
        lines += _samples(family)
    return "\n".join((*lines, "# EOF", ""))


def wants_openmetrics(accept: str) -> bool:
    """Whether an ``Accept`` header ranks OpenMetrics no lower than plain text."""
    quality = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for entry in accept.split(","):
        media, *parameters = (part.strip().lower() for part in entry.split(";"))
        if media in quality:
            weights = [part.removeprefix("q=") for part in parameters if part.startswith("q=")]
            try:
                weight = float(weights[0]) if weights else 1.0
            except ValueError:
                continue
            quality[media] = max(quality[media], weight)
    return quality["application/openmetrics-text"] >= max(quality["text/plain"], 1e-9)


def _samples(family: Family) -> list[str]:
    return [f"{family.name}{suffix}{_labels(labels)} {_number(value)}" for suffix, labels, value in family.samples]


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_quoted(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(value: str) -> str:
    return _escaped(value).replace('"', '\\"')


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(int(value))
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else repr(float(value))
