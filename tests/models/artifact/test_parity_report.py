"""What counts as agreement, and how a report tells of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from models.artifact.goldens import Tolerance
from models.artifact.parity_report import Check, ParityReport, compare, unanswered, value_check

ABOUT = {"against": "somebody", "output": "y", "batch": 2}
OPINION = np.array([[1.0, 2.0, 3.0], [300.0, 200.0, 100.0]], np.float32)


def changed(at: tuple[int, int], value: float) -> np.ndarray:
    answer = OPINION.copy()
    answer[at] = value
    return answer


def test_equal_answers_agree_exactly():
    comparison = compare(OPINION, OPINION, Tolerance(), **ABOUT)
    assert comparison.passed
    assert (comparison.max_absolute, comparison.argmax_mismatches) == (0.0, 0)


@pytest.mark.parametrize(
    ("tolerance", "passed"),
    [
        (Tolerance(absolute=0.5), True),
        (Tolerance(absolute=0.49), False),
        (Tolerance(relative=0.0025), True),
        (Tolerance(relative=0.0024), False),
        (Tolerance(absolute=0.25, relative=0.00125), True),
    ],
)
def test_the_tolerance_is_absolute_plus_relative_to_the_opinion(tolerance, passed):
    assert compare(changed((1, 1), 200.5), OPINION, tolerance, **ABOUT).passed is passed


def test_a_difference_is_located():
    comparison = compare(changed((1, 2), 100.75), OPINION, Tolerance(absolute=0.1), **ABOUT)
    assert (comparison.example, comparison.position, comparison.max_absolute) == (1, (2,), 0.75)
    assert str(comparison) == "y at batch 2: difference 0.75, worst at example 1, position 2"


def test_the_worst_is_what_lies_farthest_outside_the_tolerance():
    """Of 0.5 at 3 and 0.6 at 300, with one percent allowed, the first is worse."""
    answer = changed((0, 2), 3.5)
    answer[1, 0] = 300.6
    comparison = compare(answer, OPINION, Tolerance(relative=0.01), **ABOUT)
    assert not comparison.passed
    assert (comparison.example, comparison.position) == (0, (2,))
    assert comparison.max_absolute == pytest.approx(0.6, abs=1e-4)


def test_argmax_is_counted_and_left_to_another_check():
    comparison = compare(changed((0, 1), 3.25), OPINION, Tolerance(absolute=2), **ABOUT)
    assert comparison.passed
    assert comparison.argmax_mismatches == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_never_agrees(value):
    comparison = compare(changed((0, 0), value), OPINION, Tolerance(absolute=1e30), **ABOUT)
    assert not comparison.passed
    assert comparison.max_absolute is None
    assert "somebody has 1.0" in comparison.detail
    json.dumps(comparison.to_dict(), allow_nan=False)


@pytest.mark.parametrize("shape", [(2, 2), (1, 3), (2, 3, 1), (6,)])
def test_another_shape_does_not_agree(shape):
    comparison = compare(np.resize(OPINION, shape), OPINION, Tolerance(absolute=1e30), **ABOUT)
    assert not comparison.passed
    assert comparison.detail == f"expected shape [2, 3], got {list(shape)}"


def test_no_examples_prove_nothing():
    empty = np.zeros((0, 3))
    assert not compare(empty, empty, Tolerance(), **ABOUT).passed
    assert not value_check("values", []).passed
    assert not ParityReport("", 0, (), {}).passed
    assert ParityReport("", 0, (), {}).summary == "nothing was checked"


def test_a_value_check_tells_of_the_worst():
    good = compare(OPINION, OPINION, Tolerance(), **ABOUT)
    bad = compare(changed((0, 0), 2), OPINION, Tolerance(), **ABOUT)
    worse = compare(changed((0, 0), 5), OPINION, Tolerance(), **{**ABOUT, "batch": 7})
    check = value_check("values", [good, bad, worse])
    assert not check.passed
    assert check.detail == "y at batch 7: difference 4, worst at example 0, position 0 (and 1 more)"
    assert value_check("values", [good]).detail == "y within 0"


def test_a_missing_answer_is_worse_than_any_difference():
    bad = compare(changed((0, 0), 2), OPINION, Tolerance(), **ABOUT)
    check = value_check("values", [bad, unanswered("cannot run: why", **ABOUT)])
    assert check.detail == "y at batch 2: cannot run: why (and 1 more)"


def test_a_report_passes_when_all_checks_do():
    fine, broken = Check("axes", passed=True, detail="as they should be"), Check("names", passed=False, detail="z")
    assert ParityReport("", 3, (1,), {}, (fine,)).summary == "all 1 checks passed on 3 examples"
    report = ParityReport("", 3, (1,), {}, (fine, broken))
    assert not report.passed
    assert report.failed == (broken,)
    assert report.summary == "1 of 2 checks failed; names: z"


def test_the_json_form_is_strict_and_complete():
    comparison = compare(changed((1, 2), 100.5), OPINION, Tolerance(absolute=1), **ABOUT)
    report = ParityReport("ab", 2, (1, 2), {"y": Tolerance(1.0, 0.5)}, (value_check("values", [comparison]),))
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["passed"] is True
    assert data["tolerances"] == {"y": {"absolute": 1.0, "relative": 0.5}}
    assert data["max_absolute"] == {"y": 0.5}
    assert data["checks"][0]["comparisons"] == [
        {
            "against": "somebody",
            "output": "y",
            "batch": 2,
            "max_absolute": 0.5,
            "example": 1,
            "position": [2],
            "argmax_mismatches": 0,
            "passed": True,
            "detail": "",
        }
    ]
    assert ParityReport("", 0, (), {"y": Tolerance()}).max_absolute("y") is None
