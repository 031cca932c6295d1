"""What the replay of goldens calls equal, and how it tells what is not."""

from __future__ import annotations

import json
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.artifact.datatypes import DATATYPES
from models.artifact.goldens import Difference, Golden, ReplayReport, Tolerance, replay
from models.errors import ArtifactError, GoldenMismatch
from tests.models.artifact.test_goldens import F32_MAX, F64_MAX, INF, NAN, SAMPLES, golden


def difference(expected: object, got: object, tolerance: Tolerance | None = None) -> Difference:
    """Replay one golden with one output; None as the answer means none."""
    tolerances = {} if tolerance is None else {"y": tolerance}
    answers = {} if got is None else {"y": np.asarray(got)}
    (only,) = replay([golden(y=expected)], tolerances, lambda feeds: answers).differences
    return only


class TestReplay:
    @pytest.mark.parametrize("name", DATATYPES)
    def test_the_recorded_answer_passes_bit_for_bit(self, name):
        recorded = np.array(SAMPLES[name], DATATYPES[name].numpy)
        found = difference(recorded, recorded.copy())
        assert found.passed
        assert found.max_absolute == 0

    @pytest.mark.parametrize(
        ("expected", "got", "tolerance", "passed"),
        [
            # absolute: the bound itself is allowed, the next float is not
            (1.0, 1.5, Tolerance(absolute=0.5), True),
            (1.0, 0.5, Tolerance(absolute=0.5), True),
            (1.0, np.nextafter(1.5, 2), Tolerance(absolute=0.5), False),
            (1.0, 0.5 - 2**-53, Tolerance(absolute=0.5), False),
            # relative to the reference, not to the answer
            (-8.0, -10.0, Tolerance(relative=0.25), True),
            (-10.0, -8.0, Tolerance(relative=0.1875), False),
            (8.0, np.nextafter(10.0, 11), Tolerance(relative=0.25), False),
            (0.0, 1e-300, Tolerance(relative=1e9), False),
            # the two add up
            (4.0, 5.5, Tolerance(absolute=0.5, relative=0.25), True),
            (4.0, np.nextafter(5.5, 6), Tolerance(absolute=0.5, relative=0.25), False),
            # none at all: one bit counts, the sign of a zero does not
            (1.0, np.nextafter(1.0, 2), None, False),
            (np.float32(1), np.nextafter(np.float32(1), np.float32(2)), None, False),
            (np.float16(1), np.nextafter(np.float16(1), np.float16(2)), None, False),
            (ml_dtypes.bfloat16(1), ml_dtypes.bfloat16(1.0078125), None, False),
            (5e-324, 0.0, None, False),
            (0.0, -0.0, None, True),
            # not a number, not finite
            (NAN, NAN, None, True),
            (INF, INF, None, True),
            (-INF, INF, Tolerance(1e300, 1e300), False),
            (NAN, 1.0, Tolerance(1e300, 1e300), False),
            (1.0, NAN, Tolerance(1e300, 1e300), False),
            (INF, 1.0, Tolerance(1e300, 1e300), False),
            (1.0, INF, Tolerance(1e300, 1e300), False),
            (F32_MAX, -F32_MAX, Tolerance(absolute=1.0), False),
            # float64 overflows in the difference, and in the allowance
            (F64_MAX, -F64_MAX, Tolerance(absolute=1.0), False),
            (F64_MAX, F64_MAX / 2, Tolerance(relative=10.0), True),
            # whole numbers, exactly
            (np.int64(2**63 - 1), np.int64(2**63 - 2), None, False),
            (np.int64(2**63 - 1), np.int64(2**63 - 2), Tolerance(absolute=1), True),
            (np.int64(2**62), np.int64(2**62 + 1), None, False),
            (np.int64(-(2**63)), np.int64(2**63 - 1), Tolerance(absolute=1), False),
            (np.int64(-(2**63)), np.int64(2**63 - 1), Tolerance(absolute=2.0**64), True),
            (np.uint64(2**64 - 1), np.uint64(2**64 - 2), None, False),
            (np.uint64(0), np.uint64(2**64 - 1), Tolerance(absolute=2), False),
            (np.int8(-128), np.int8(127), Tolerance(absolute=254), False),
            (np.int8(-128), np.int8(127), Tolerance(absolute=255), True),
            (np.uint8(1), np.uint8(2), Tolerance(absolute=0.99), False),
            # yes, no and text are the same or they are not: no tolerance makes them so
            (True, False, Tolerance(absolute=10), False),
            (np.array("a", object), np.array("b", object), Tolerance(absolute=10), False),
            (np.array("a", object), np.array("a\x00", object), None, False),
        ],
    )
    def test_what_is_within_tolerance(self, expected, got, tolerance, passed):
        dtype = np.asarray(expected).dtype
        for shape in ((), (1,), (2, 1)):
            found = difference(
                np.full(shape, expected, dtype), np.full(shape, got, dtype), *([tolerance] if tolerance else [])
            )
            assert found.passed is passed
            assert bool(found.detail) is not passed

    @pytest.mark.parametrize(
        ("expected", "got", "detail"),
        [
            (np.zeros((2, 3)), np.zeros((2, 4)), "expected float64[2, 3], got float64[2, 4]"),
            (np.zeros((2, 3)), np.zeros(6), "expected float64[2, 3], got float64[6]"),
            (np.zeros(()), np.zeros(1), "expected float64[], got float64[1]"),
            (np.zeros((0, 3)), np.zeros((0, 4)), "expected float64[0, 3], got float64[0, 4]"),
            (np.zeros(2), np.zeros(2, np.float32), "expected float64[2], got float32[2]"),
            (np.zeros(2, np.int64), np.zeros(2, np.uint64), "expected int64[2], got uint64[2]"),
            (np.zeros(2), None, "the model has no such output"),
            (np.array([True, False]), np.array([True, True]), "expected np.False_ at (1,), got np.True_"),
            (np.array([["a", "b"]], object), np.array([["a", ""]], object), "expected 'b' at (0, 1), got ''"),
        ],
    )
    def test_what_cannot_be_compared_says_why(self, expected, got, detail):
        found = difference(expected, got, Tolerance(absolute=1e9))
        assert not found.passed
        assert found.detail == detail

    @pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_, object, ml_dtypes.bfloat16])
    def test_empty_answers_are_equal(self, dtype):
        assert difference(np.empty((0, 3), dtype), np.empty((0, 3), dtype)).passed

    def test_the_worst_place_is_the_one_farthest_outside_its_own_bound(self):
        expected, got = np.array([[1000.0, 1.0], [NAN, 2.0]]), np.array([[1001.0, 1.5], [NAN, 2.0]])
        found = difference(expected, got, Tolerance(relative=0.01))
        assert (found.max_absolute, found.worst_index) == (1.0, (0, 1))
        assert found.detail == "difference 0.5 at (0, 1): expected 1.0, got 1.5, allowed 0 + 0.01 x |reference|"

    def test_an_output_without_a_tolerance_must_be_equal(self):
        recorded = Golden("test_data_set_0", {}, {"loose": np.ones(1), "strict": np.ones(1)})
        report = replay(
            [recorded],
            {"loose": Tolerance(1.0), "other": Tolerance(9.0)},
            lambda _: dict.fromkeys(("loose", "strict"), np.full(1, 1.5)),
        )
        assert [(item.output, item.passed) for item in report.differences] == [("loose", True), ("strict", False)]

    def test_every_golden_is_asked_with_its_own_inputs(self):
        recorded = [golden(number, x=np.full(number + 1, 1.0), y=np.full(number + 1, 2.0)) for number in range(3)]
        report = replay(recorded, {}, lambda feeds: {"y": 2 * feeds["x"]})
        assert report.passed
        assert [(item.golden, item.batch) for item in report.differences] == [
            ("test_data_set_0", 1),
            ("test_data_set_1", 2),
            ("test_data_set_2", 3),
        ]

    def test_what_the_model_raises_passes_through(self):
        def infer(feeds):
            raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            replay([golden()], {}, infer)

    def test_a_model_that_changes_its_feeds_does_not_change_the_golden(self):
        recorded = golden()
        replay([recorded], {}, lambda feeds: {"y": feeds.pop("x")})
        assert list(recorded.inputs) == ["x"]


class TestReport:
    def test_no_goldens_prove_nothing(self):
        report = replay([], {}, lambda feeds: {})
        assert not report.passed
        assert report.max_absolute == 0
        with pytest.raises(GoldenMismatch, match="there are no goldens to replay"):
            report.raise_if_failed()

    def test_a_pass_raises_nothing_and_keeps_the_largest_difference(self):
        report = ReplayReport((difference(1.0, 1.5, Tolerance(1)), difference(1.0, 1.25, Tolerance(1))))
        report.raise_if_failed()
        assert report.passed
        assert report.max_absolute == 0.5
        assert str(report.differences[0]) == (
            "test_data_set_0 (batch 1), output 'y': largest difference 0.5, allowed 1 + 0 x |reference|"
        )

    def test_a_failure_names_golden_output_place_and_both_numbers(self):
        report = ReplayReport((difference(1.0, 1.0), difference([1.0], [1.5], Tolerance(0.25)), difference(1.0, None)))
        with pytest.raises(GoldenMismatch) as raised:
            report.raise_if_failed()
        assert str(raised.value) == (
            "golden mismatch: test_data_set_0 (batch 1), output 'y': difference 0.5 at (0,): expected 1.0, got 1.5, "
            "allowed 0.25 + 0 x |reference| (and 1 more)"
        )

    @pytest.mark.parametrize(
        ("expected", "got", "max_absolute"),
        [([1.0], [1.25], 0.25), ([1.0], [NAN], None), ([INF], [-INF], None), ([1.0], None, 0.0), (["a"], ["b"], 1.0)],
    )
    def test_every_difference_is_json(self, expected, got, max_absolute):
        dtype = object if expected == ["a"] else float
        found = difference(np.array(expected, dtype), None if got is None else np.array(got, dtype))
        data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert data["max_absolute"] == max_absolute
        assert data["passed"] is False
        assert data["worst_index"] == (None if got is None else [0])
        assert data["tolerance"] == {"absolute": 0.0, "relative": 0.0}


class TestTolerance:
    @pytest.mark.parametrize("field", ["absolute", "relative"])
    @pytest.mark.parametrize(
        "value", [NAN, INF, -INF, -1e-9, -1, 10**400, True, None, "0.1", np.float32(0.1)], ids=repr
    )
    def test_only_finite_numbers_of_at_least_0(self, field, value):
        with pytest.raises(ArtifactError, match=f"tolerance, {field}: got .*, expected a finite number of at least 0"):
            Tolerance(**{field: value})

    @settings(deadline=None)
    @given(st.floats(0, allow_infinity=False) | st.integers(0, 2**1000), st.floats(0, allow_infinity=False))
    def test_json_keeps_it(self, absolute, relative):
        tolerance = Tolerance(absolute, relative)
        assert Tolerance(**json.loads(json.dumps(tolerance.to_dict(), allow_nan=False))) == tolerance

    @settings(deadline=None)
    @given(st.floats(width=32), st.floats(width=32), st.floats(0, 1e6), st.floats(0, 1e6))
    def test_it_is_the_documented_formula(self, expected, got, absolute, relative):
        found = difference(np.float32(expected), np.float32(got), Tolerance(absolute, relative))
        if math.isfinite(expected) and math.isfinite(got):
            assert found.passed is (abs(got - expected) <= absolute + relative * abs(expected))
        else:
            assert found.passed is (expected == got or (math.isnan(expected) and math.isnan(got)))
