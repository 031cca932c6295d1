"""Renders metric families in Prometheus' two text formats.

Prometheus' client library is not used, since it renames each counter to end in ``_total``, and Triton's names, which
dashboards use, do not end so.
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
    """The type of a metric family."""

    COUNTER = "counter"
    """A number that only grows, except that a restart or a reload sets it to 0."""
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Across(Enum):
    """How the samples of several processes of one server are combined."""

    SUM = "sum"
    """The sum."""
    LEAST = "least"
    """The smallest value; a process without the sample counts as 0."""
    MOST = "most"
    """The largest value."""
    SAME = "same"
    """The value of any process, since all have the same one, for example about the machine."""
    EACH = "each"
    """All values, each with its process as a label."""
    WORST = "worst"
    """The values of the process in the worst state, for each model and version; ``worst_first`` orders the states."""


@dataclass(slots=True)
class Family:
    """One metric with its samples."""

    name: str
    kind: Kind
    help: str
    samples: list[tuple[str, Mapping[str, str], float]] = field(default_factory=list)
    """Samples: suffix of the name, labels, value."""
    across: Across = field(default=Across.SUM, kw_only=True)
    worst_first: tuple[str, ...] = field(default=(), kw_only=True)
    """For `Across.WORST`: values of the label ``state``, worst first; the sample of the present state is 1."""

    def add(self, value: float, **labels: str) -> None:
        """Add a sample of a counter or gauge."""
        self.samples.append(("", labels, value))

    def add_histogram(self, bounds: Sequence[float], counts: Sequence[int], total: float, **labels: str) -> None:
        """Add a histogram. ``counts`` are not cumulated, and there is one more bucket than there are bounds."""
        cumulated = 0
        for bound, count in zip((*bounds, math.inf), counts, strict=True):
            cumulated += count
            self.samples.append(("_bucket", {**labels, "le": _number(float(bound))}, cumulated))
        self.samples.append(("_count", labels, cumulated))
        self.samples.append(("_sum", labels, total))


def text(families: Iterable[Family]) -> str:
    """Render the classic text format, version 0.0.4."""
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {_escaped(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind.value}")
        lines += _samples(family)
    return "\n".join((*lines, ""))


def openmetrics(families: Iterable[Family]) -> str:
    """Render OpenMetrics 1.0. A counter whose name does not end in ``_total`` gets the type unknown, since names must
    be the same in both formats.
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
