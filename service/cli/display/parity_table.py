"""Print a parity report as tables of its checks and of the differences of values.

The input is the JSON form of `models.artifact.parity_report.ParityReport`, as in manifests and ``ProofFailed``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from models.artifact.parity_rows import value_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console


def draw_report(console: Console, report: Mapping[str, Any], *, title: str) -> None:
    """Print the checks, the compared values, and the verdict on the last line."""
    if report["checks"]:
        checks = _table(title, "check", "", "found")
        for check in report["checks"]:
            checks.add_row(check["name"], _mark(passed=check["passed"]), Text(check["detail"], overflow="fold"))
        console.print(checks)
    else:  # it failed before the first check
        console.print(Text(title, style="bold"))
    rows = list(value_rows(report))
    if rows:
        sizes = ", ".join(str(size) for size in report["batch_sizes"])
        values = _table(f"Values, in batches of {sizes}", "output", "against", "difference", "allowed", "argmax", "")
        for row in rows:
            values.add_row(*row[:-1], _mark(passed=row.passed))
        console.print(values)
    verdict = Text("proven: ", style="bold green") if report["passed"] else Text("refuted: ", style="bold red")
    console.print(verdict.append(report["summary"], style="not bold default"))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("check", "output", "against"))
    return table


def _mark(*, passed: bool) -> Text:
    return Text("ok", style="green") if passed else Text("FAILED", style="bold red")
