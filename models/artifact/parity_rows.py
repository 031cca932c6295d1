"""The values of a parity report as table rows, for a terminal or an HTML page.

Reads the JSON form of `models.artifact.parity_report.ParityReport`, which manifests and ``ProofFailed`` carry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class ValueRow(NamedTuple):
    """One output compared with one opinion over all batch sizes, as text for a table."""

    output: str
    against: str
    difference: str
    """The largest difference; ``none`` if it is not finite or nothing could be compared."""
    allowed: str
    """The tolerance as ``absolute + relative|v|``, where v is the opinion's value."""
    largest: str
    """``same`` if the argmax along the last axis is the same everywhere, else how many differ."""
    passed: bool


def value_rows(report: Mapping[str, Any]) -> Iterator[ValueRow]:
    """Yield a row for each output and opinion; raises KeyError or TypeError if ``report`` has another form."""
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
