from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest

from service.bench import report
from service.bench.histogram import Histogram
from service.bench.plan import Interval, Result
from service.bench.report import Setup

SETUP = Setup("h:1", "m", "", 4, "raw", 184, 2, 8, None, 1)


def latencies(*values_s: float) -> Histogram:
    made = Histogram()
    made.add(values_s)
    return made


def result(**changes) -> Result:
    seen = latencies(*[0.001] * 98, 0.01, 0.5)
    interval = Interval(0.0, 2.0, 100, Counter({"UNAVAILABLE": 3}), latencies(*[0.001] * 98, 0.01, 0.5))
    errors = Counter({("UNAVAILABLE", "full"): 2, ("UNAVAILABLE", "gone"): 1})
    made = Result(2.0, 103, 100, 100, errors, 0, seen, Histogram(), [interval], 0.3)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_the_document_has_every_number() -> None:
    told = json.loads(json.dumps(report.to_dict(SETUP, result())))
    assert (told["rate"], told["samples_rate"], told["done"], told["failed"], told["sent"]) == (50, 200, 100, 3, 103)
    assert told["latency_ms"]["p50"] == pytest.approx(1, rel=0.002)
    assert told["latency_ms"]["p99"] == pytest.approx(10, rel=0.002)
    assert told["latency_ms"]["max"] == 500
    assert told["errors"][0] == {"code": "UNAVAILABLE", "message": "full", "count": 2}
    assert told["intervals"][0]["failed"] == 3
    assert told["send_lag_ms"] is None
    assert (told["load"], told["offered_rate"], told["cautions"]) == ("closed", None, [])


def test_the_table_says_it_in_units() -> None:
    rows = dict(report.rows(SETUP, result()))
    assert rows["requests"] == "100 right, 3 failed, in 2.00 s"
    assert rows["rate"] == "50 requests/s"
    assert rows["samples"] == "200 samples/s (4 a request)"
    assert (rows["p50"], rows["max"], rows["generator"]) == ("1.00 ms", "500 ms", "30 % of a core")
    assert "send lag p99" in dict(report.rows(replace(SETUP, rate=50.0), result()))
    assert report.errors_by_code(result()) == {"UNAVAILABLE": 3}


@pytest.mark.parametrize(
    ("setup", "changes", "says"),
    [
        (SETUP, {"stopped": "no connection for 5 s"}, "ended early: no connection for 5 s"),
        (SETUP, {"cpu_share": 0.97}, "97 % of a core"),
        (SETUP, {"warm_up_errors": 2}, "2 calls failed while warming up"),
        (SETUP, {"reconnects": 1}, "closed 1 time and"),
        (SETUP, {"unconnected_s": 3.0}, "for 3.00 s no connection could be had"),
        (replace(SETUP, rate=50.0), {"lag": latencies(0.02)}, "20.0 ms late or later"),
        (replace(SETUP, rate=100.0), {}, "of 100 requests/s offered 50 were answered"),
    ],
)
def test_what_to_be_careful_about_is_said(setup, changes, says) -> None:
    (caution,) = report.cautions(setup, result(**changes))
    assert says in caution


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 µs"), (0.000123, "123 µs"), (0.0012345, "1.23 ms"), (0.1, "100 ms"), (1.5, "1.50 s"), (12.34, "12.3 s")],
)
def test_durations_have_three_digits(seconds, text) -> None:
    assert report.duration(seconds) == text


def test_results_of_several_generators_are_one() -> None:
    both = result()
    both.merge(result(cpu_share=0.9, seconds=2.5))
    assert (both.done, both.failed, both.latency.count, both.cpu_share, both.seconds) == (200, 6, 200, 0.9, 2.5)
    (interval,) = both.intervals
    assert (interval.done, interval.errors, interval.latency.count) == (200, {"UNAVAILABLE": 6}, 200)
    assert both.errors["UNAVAILABLE", "full"] == 4
