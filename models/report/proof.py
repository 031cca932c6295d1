"""The proof that the published file is the trained network, as the manifest keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.artifact.parity_rows import value_rows
from models.report.markup import join
from models.report.section import Section, paragraph, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.report.markup import Markup
    from models.report.subject import Pair


def section(pair: Pair) -> Section:
    """The section with every check, and the differences between the independent computations."""
    report, title = pair.own.manifest.parity, "The proof"
    if not report.get("checks"):
        return Section("proof", title, paragraph("The manifest of this version keeps no proof."))
    try:
        return Section("proof", title, _told(report))
    except (KeyError, TypeError, AttributeError, ValueError):
        # The proof in a manifest may have been written by another program or version.
        return Section("proof", title, paragraph("The manifest of this version keeps a proof in a form unknown here."))


def _told(report: Mapping[str, Any]) -> Markup:
    verdict = "Proven" if report.get("passed") else "Refuted"
    text = (
        f"{verdict}: {report.get('summary')}. The published file was compared with the PyTorch network that it was "
        "made from, and with independent opinions on the same weights, within tolerances that were set beforehand."
    )
    rows = [(check["name"], _mark(check["passed"]), check["detail"]) for check in report["checks"]]
    parts = [paragraph(text), table("Checks", ("check", "", "found"), rows)]
    values = [(*row[:-1], _mark(row.passed)) for row in value_rows(report)]
    if values:
        sizes = ", ".join(str(size) for size in report["batch_sizes"])
        head = ("output", "against", "difference", "allowed", "largest class", "")
        parts.append(table(f"Values, in batches of {sizes}", head, values, numeric=(2, 3)))
    return join(*parts)


def _mark(passed: object) -> str:
    return "✓" if passed else "✗ failed"
