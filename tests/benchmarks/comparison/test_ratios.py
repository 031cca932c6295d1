from __future__ import annotations

import pytest

from benchmarks.comparison.loads import LOADS
from benchmarks.comparison.measurements import Measurement
from benchmarks.comparison.ratios import TARGETS, Target, median, ratios


def measured(contender: str, load: str, round_number: int = 1, **figures) -> Measurement:
    fields = {
        "contender": contender, "load": load, "round": round_number, "seconds": 2.0, "done": 100, "failed": 0,
        "problems": (), "rate": 50.0, "samples_rate": 50.0, "p50_us": 20.0, "p99_us": 30.0, "generator_share": 0.5,
        "server_us": 10.0, "others_share": 0.1,
    }  # fmt: skip
    return Measurement(**(fields | figures))


def rounds(contender: str, load: str, figure: str, *values: float) -> list[Measurement]:
    return [measured(contender, load, number, **{figure: value}) for number, value in enumerate(values, 1)]


RATE = Target("B", "http2", ("plain",), "rate", 2.0)


def test_a_ratio_is_taken_within_each_round_and_its_median_counts() -> None:
    # Of the medians, 20 and 10, it would be 2.
    (ratio,) = ratios(rounds("http2", "B", "rate", 10, 20, 90) + rounds("plain", "B", "rate", 10, 30, 10), [RATE])
    assert (ratio.median, ratio.lowest, ratio.highest) == (1.0, pytest.approx(2 / 3), 9.0)
    assert ratio.verdict == "miss"


@pytest.mark.parametrize(("at_least", "verdict"), [(2.0, "pass"), (2.01, "miss"), (None, "-")])
def test_a_bound_is_met_or_missed(at_least, verdict) -> None:
    target = Target("B", "http2", ("plain",), "rate", at_least)
    (ratio,) = ratios(rounds("http2", "B", "rate", 20) + rounds("plain", "B", "rate", 10), [target])
    assert (ratio.median, ratio.verdict) == (2.0, verdict)


def test_a_latency_is_better_where_it_is_shorter() -> None:
    target = Target("A", "http2", ("plain", "plain-typed"), "p50_us", 2.0)
    (ratio,) = ratios(
        rounds("http2", "A", "p50_us", 100)
        + rounds("plain", "A", "p50_us", 300)
        + rounds("plain-typed", "A", "p50_us", 250),
        [target],
    )
    assert (ratio.median, ratio.verdict) == (2.5, "pass")


def test_the_best_of_several_counts_in_each_round() -> None:
    target = Target("B", "http2", ("plain", "plain-typed"), "rate", 2.0)
    (ratio,) = ratios(
        rounds("http2", "B", "rate", 100, 100)
        + rounds("plain", "B", "rate", 10, 50)
        + rounds("plain-typed", "B", "rate", 20, 40),
        [target],
    )
    assert (ratio.lowest, ratio.highest, ratio.median) == (2.0, 5.0, 3.5)


def test_processor_time_is_compared_beside_it() -> None:
    ours = [measured("http2", "B", number, server_us=us) for number, us in enumerate((10.0, 20.0, 0.0), 1)]
    theirs = [measured(key, "B", n, server_us=us) for n in (1, 2, 3) for key, us in (("plain", 300.0), ("echo", 100.0))]
    (ratio,) = ratios(ours + theirs, [Target("B", "http2", ("plain", "echo"), "rate", None)])
    # Of the third round it is not known.
    assert (ratio.median, ratio.processor) == (1.0, 7.5)


def test_another_load_is_another_matter() -> None:
    found = ratios(rounds("http2", "A", "rate", 20) + rounds("plain", "B", "rate", 10), [RATE])
    assert (found[0].median, found[0].verdict, found[0].why) == (None, "not measured", "http2 absent")


def test_a_round_with_a_wrong_answer_counts_for_nobody() -> None:
    wrong = measured("http2", "B", 1, rate=1000.0, failed=1, problems=("1 x WRONG_ANSWER",))
    plain = rounds("plain", "B", "rate", 10, 10)
    (ratio,) = ratios([wrong, measured("http2", "B", 2, rate=30.0), *plain], [RATE])
    assert ratio.median == 3.0
    (ratio,) = ratios([wrong, *plain], [RATE])
    assert (ratio.median, ratio.verdict, ratio.why) == (None, "not measured", "wrong answers")
    assert median([wrong], "http2", "B", "rate") is None
    assert median([*plain, measured("plain", "B", 3, rate=40.0)], "plain", "B", "rate") == 10


def test_the_promises_are_those_of_the_project_and_name_loads_that_exist() -> None:
    promised = {(t.load, t.ours, t.against, t.figure): t.at_least for t in TARGETS if t.at_least is not None}
    plain = ("plain", "plain-typed")
    assert promised == {
        ("B", "http2", plain, "rate"): 20,
        ("B", "http2", ("echo",), "rate"): 0.9,
        ("T", "http2", plain, "rate"): 15,
        ("A", "http2", plain, "p50_us"): 2,
        ("C", "http2", ("kserve",), "samples_rate"): 3,
        ("C", "http2", ("mlserver",), "samples_rate"): 4,
        ("D", "http2-2", plain, "samples_rate"): 2,
        ("S", "http2", plain, "rate"): 10,
    }
    assert {target.load for target in TARGETS} <= LOADS.keys()
