"""The values of a parity report as rows for whoever draws them: on a terminal, or as a page.

Reads the JSON form of `models.artifact.parity_report.ParityReport`, which is what manifests and ``ProofFailed``
carry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class ValueRow(NamedTuple):
    """One output against one other opinion, over all batch sizes."""

    output: str
    against: str
    difference: str
    """The largest; none where it is not finite or nothing could be compared."""
    allowed: str
    """``absolute + relative|v|``, v being the opinion's value."""
    largest: str
    """Whether the largest element along the last axis is the same one everywhere."""
    passed: bool


def value_rows(report: Mapping[str, Any]) -> Iterator[ValueRow]:
    """A row for each output and opinion; raises KeyError and TypeError for what is no such report."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for check in report["checks"]:
        against = check["name"].removeprefix("values: ") if check["name"] != "values" else "goldens"
        for comparison in check["comparisons"]:
            groups.setdefault((comparison["output"], against), []).append(comparison)
    for (output, against), comparisons in groups.items():
        seen = [item["max_absolute"] for item in comparisons]
        mismatches = sum(item["argmax_mismatches"] for item in comparisons)
        yield ValueRow(
            output,
            against,
            "none" if None in seen else f"{max(seen):.2g}",
            _allowed(report["tolerances"].get(output)),
            f"{mismatches} differ" if mismatches else "same",
            not mismatches and all(item["passed"] for item in comparisons),
        )


def _allowed(tolerance: Mapping[str, float] | None) -> str:
    if tolerance is None or not (tolerance["absolute"] or tolerance["relative"]):
        return "none"
    relative = f" + {tolerance['relative']:g}|v|" if tolerance["relative"] else ""
    return f"{tolerance['absolute']:g}{relative}"
