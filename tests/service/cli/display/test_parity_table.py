"""A report as tables: everything that failed is in sight, on 80 columns too."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from models.artifact.goldens import Tolerance
from models.artifact.parity_report import Check, ParityReport, compare, value_check
from service.cli.display.parity_table import draw_report

TOLERANCES = {"logits": Tolerance(1e-4, 1e-6), "digits": Tolerance()}
OPINION = np.array([[1.0, 2.0]])


def drawn(*checks: Check) -> str:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    draw_report(console, ParityReport("", 1, (1, 64), TOLERANCES, checks).to_dict(), title="Proof of something")
    return console.file.getvalue()


def comparison(by: float, against: str, batch: int, output: str = "logits"):
    return compare(OPINION + by, OPINION, TOLERANCES[output], against=against, output=output, batch=batch)


def row(text: str, *words: str) -> str:
    (line,) = (line for line in text.splitlines() if all(word in line for word in words))
    return " ".join(line.split())


def test_a_proof_that_holds():
    rows = [comparison(1e-5, "PyTorch", 1), comparison(5e-5, "PyTorch", 64)]
    text = drawn(Check("axes", passed=True, detail="[batch] -> [batch]"), value_check("values: PyTorch", rows))
    assert row(text, "axes") == "axes ok [batch] -> [batch]"
    assert row(text, "same") == "logits PyTorch 5e-05 0.0001 + 1e-06|v| same ok"
    assert "Values, in batches of 1, 64" in text
    assert text.rstrip().endswith("proven: all 2 checks passed on 1 examples")


def test_a_proof_that_does_not_hold():
    check = value_check("values: PyTorch", [comparison(1e-5, "PyTorch", 1), comparison(5, "PyTorch", 64)])
    text = drawn(check)
    assert row(text, "same") == "logits PyTorch 5 0.0001 + 1e-06|v| same FAILED"
    assert "refuted: 1 of 1 checks failed; values: PyTorch" in " ".join(text.split())


def test_argmax_alone_is_a_failure():
    other = compare(OPINION[:, ::-1], OPINION, Tolerance(10.0), against="PyTorch", output="logits", batch=1)
    assert row(drawn(value_check("values: PyTorch", [other])), "differ", "FAILED").endswith("1 differ FAILED")


def test_goldens_are_one_row_and_what_is_not_finite_is_none():
    rows = [comparison(0, "test_data_set_0", 1, "digits"), comparison(np.nan, "test_data_set_1", 2, "digits")]
    text = drawn(value_check("goldens", rows))
    assert row(text, "digits", "goldens", "none") == "digits goldens none none 1 differ FAILED"
    assert "test_data_set_0" not in text


def test_without_comparisons_there_is_no_table_of_values():
    text = drawn(Check("file", passed=False, detail="no such [file]"))
    assert "Values" not in text
    assert row(text, "file ", "FAILED") == "file FAILED no such [file]"
