"""One table of all tests that several runs of pytest have skipped, with the reasons.

Each run adds what it has skipped to the file that MNIST1D_SKIPS names, under the name in MNIST1D_SUITE. The run that is
given MNIST1D_SKIPS_TABLE prints the table before its summary line.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Called by pytest, with xdist also in the workers, whose reports come to the process that started them."""
    name = os.environ.get("MNIST1D_SKIPS")
    if not name or hasattr(terminalreporter.config, "workerinput"):
        return
    file = Path(name)
    suite = os.environ.get("MNIST1D_SUITE", "tests")
    with file.open("a", encoding="utf-8") as lines:
        for report in terminalreporter.stats.get("skipped", ()):
            lines.write(f"{suite}\t{_reason(report)}\n")
    if "MNIST1D_SKIPS_TABLE" in os.environ:
        terminalreporter.section("skipped in all suites")
        for line in table(file.read_text(encoding="utf-8")):
            terminalreporter.write_line(line)


def table(text: str) -> list[str]:
    """A row for each suite and reason: how many tests, where, and why."""
    counted = Counter(tuple(line.split("\t", 1)) for line in text.splitlines())
    if not counted:
        return ["nothing"]
    width = max(len(suite) for suite, _ in counted)
    return [f"{count:5}  {suite:{width}}  {reason}" for (suite, reason), count in sorted(counted.items())]


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    words = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return " ".join(words.removeprefix("Skipped: ").split())
