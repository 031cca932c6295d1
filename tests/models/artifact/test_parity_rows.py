"""A report's comparisons as rows: the worst over all batch sizes, and what was allowed."""

from __future__ import annotations

import numpy as np
import pytest

from models.artifact.goldens import Tolerance
from models.artifact.parity_report import Check, ParityReport, compare, value_check
from models.artifact.parity_rows import ValueRow, value_rows

OPINION = np.array([[1.0, 2.0]])
TOLERANCES = {"logits": Tolerance(1e-4, 1e-6), "digits": Tolerance()}


def rows(*checks: Check) -> list[ValueRow]:
    return list(value_rows(ParityReport("", 1, (1, 64), TOLERANCES, checks).to_dict()))


def comparison(by: float, *, batch: int = 1, output: str = "logits"):
    return compare(OPINION + by, OPINION, TOLERANCES[output], against="PyTorch", output=output, batch=batch)


def test_a_row_has_the_largest_difference_over_all_batch_sizes() -> None:
    found = rows(
        Check("axes", passed=True, detail="[batch]"),
        value_check("values: PyTorch", [comparison(5e-5), comparison(4e-5, batch=64)]),
    )
    assert found == [ValueRow("logits", "PyTorch", "5e-05", "0.0001 + 1e-06|v|", "same", passed=True)]


def test_each_output_and_opinion_has_a_row_of_its_own() -> None:
    found = rows(
        value_check("values: PyTorch", [comparison(0), comparison(0, output="digits")]),
        value_check("values", [comparison(0)]),
    )
    assert [row[:2] for row in found] == [("logits", "PyTorch"), ("digits", "PyTorch"), ("logits", "goldens")]
    assert found[1].allowed == "none"


@pytest.mark.parametrize(
    ("answer", "difference", "largest"),
    [
        (OPINION + 5, "5", "same"),
        (OPINION + np.nan, "none", "1 differ"),
        (OPINION[:, ::-1], "1", "1 differ"),
    ],
)
def test_what_does_not_agree_has_not_passed(answer, difference, largest) -> None:
    found = compare(answer, OPINION, TOLERANCES["logits"], against="PyTorch", output="logits", batch=1)
    assert rows(value_check("values: PyTorch", [comparison(0), found])) == [
        ValueRow("logits", "PyTorch", difference, "0.0001 + 1e-06|v|", largest, passed=False)
    ]


def test_the_largest_being_another_one_has_not_passed_whatever_the_tolerance() -> None:
    other = compare(OPINION[:, ::-1], OPINION, Tolerance(10.0), against="PyTorch", output="digits", batch=1)
    assert [row.passed for row in rows(value_check("values: PyTorch", [other]))] == [False]


@pytest.mark.parametrize(("report", "error"), [({}, KeyError), ({"checks": [1]}, TypeError)])
def test_what_is_no_report_raises(report, error) -> None:
    with pytest.raises(error):
        list(value_rows(report))
