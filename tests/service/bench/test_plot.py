from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from service.bench.histogram import Histogram
from service.bench.plan import Interval, Result
from service.bench.plot import svg
from tests.service.bench.test_report import SETUP, result


def many(count: int, scale: float = 1e-3) -> Result:
    made = Result(seconds=count / 100, sent=count, done=count, in_time=count)
    values = np.random.default_rng(0).lognormal(0, 1, count) * scale
    for at in range(0, count, 100):
        latency = Histogram()
        latency.add(values[at : at + 100])
        made.latency.merge(latency)
        made.intervals.append(Interval(at / 100, 1.0, 100, latency=latency))
    return made


@pytest.mark.parametrize(
    "seen",
    [
        Result(),
        result(),
        many(1),
        many(2),
        many(100),
        many(5000),
        many(1000, 1e-6),
        many(1000, 10.0),
        result(intervals=[]),
    ],
    ids=["nothing", "errors", "one answer", "two", "one interval", "many", "fast", "slow", "no intervals"],
)
def test_the_picture_is_one_svg_whose_marks_lie_within_it(seen) -> None:
    picture = svg(SETUP, seen)
    root = ET.fromstring(picture)  # noqa: S314 - our own
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    width, height = float(root.get("width")), float(root.get("height"))
    numbers = re.findall(r'd="M([^"]*)"', picture)
    for x, y in re.findall(r"([\d.-]+) ([\d.-]+)", " ".join(numbers)):
        assert 0 <= float(x) <= width
        assert 0 <= float(y) <= height
    assert "nan" not in picture
    assert "href" not in picture


def test_it_says_what_was_measured_and_shows_errors_where_there_were_some() -> None:
    picture = svg(SETUP, result())
    assert "50 requests/s, 100 answers in 2.0 s, 3 failed" in picture
    assert ">failed</text>" in picture
    assert ">failed</text>" not in svg(SETUP, many(1000))


def test_names_cannot_break_the_picture() -> None:
    from dataclasses import replace

    assert "<script" not in svg(replace(SETUP, model="<script>&"), result())
