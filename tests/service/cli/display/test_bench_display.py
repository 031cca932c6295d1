from __future__ import annotations

import io

import pytest
from rich.console import Console

from service.bench.histogram import Histogram
from service.bench.plan import Interval
from service.cli.display.bench_display import Progress
from tests.service.bench.test_load import plan
from tests.service.bench.test_report import SETUP, latencies


def line(*intervals: Interval, **changes) -> str:
    progress = Progress(SETUP, plan(1, **changes), Console(file=io.StringIO()))
    for interval in intervals:
        progress.add(interval)
    return progress._line()


@pytest.mark.parametrize(
    ("end_s", "duration_s", "says"),
    [
        (2.0, 3.0, "2 s of 3 s  "),
        (3.04, 3.0, "3 s of 3 s  "),
        (9.0, 3.0, "3 s are over, waiting for the last answers since 6 s  "),
        (9.0, None, "9 s  "),
    ],
)
def test_the_line_says_how_far_it_is_and_when_only_answers_are_missing(end_s, duration_s, says) -> None:
    interval = Interval(end_s - 0.5, 0.5, 10, latency=latencies(0.002))
    told = line(interval, duration_s=duration_s)
    assert told.startswith(says)
    assert "p50 2.00 ms" in told


def test_without_a_right_answer_there_is_no_latency() -> None:
    assert "p50 -  p99 -" in line(Interval(0.0, 0.5, 0, latency=Histogram()), duration_s=3.0)
