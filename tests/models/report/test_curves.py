from __future__ import annotations

import pytest

from models.history import Curve, History
from models.report.curves import curve_charts, overfitting, section, tell_steps
from tests.models.report.subjects import history, pair, parsed


def drawn(svg: str) -> list[tuple[float, float]]:
    """The points of the line that is drawn through: the test set's."""
    (path,) = (m for m in parsed(svg).iter("path") if "dashed" not in m.get("class"))
    return [tuple(map(float, point.split())) for point in path.get("d")[1:].split("L")]


def labels(svg: str) -> list[str]:
    return [mark.text for mark in parsed(svg).iter("text")]


def test_panels_share_their_axes():
    short, long = history(1_000), history(2_000)
    first, second = curve_charts([("conv", "conv", short), ("fc", "fc", long)], "error")
    assert {"500", "1k", "1.5k", "2k"} < set(labels(first))
    assert [x for x in labels(first) if not x.startswith(("test", "train"))] == [
        x for x in labels(second) if not x.startswith(("test", "train"))
    ]
    (x_first, _), (x_second, _) = drawn(first)[-1], drawn(second)[-1]
    left = 46
    assert (x_first - left) == pytest.approx((x_second - left) / 2, abs=0.02)


def test_error_is_told_at_the_end_of_each_line():
    (svg,) = curve_charts([("conv", "conv", history())], "error")
    assert "test 20.0 %" in labels(svg)
    assert "train 0.0 %" in labels(svg)
    assert "test error 20.0 %" in svg


def test_one_evaluation_is_drawn_too():
    one = History({"test": Curve((100,), (1.0,), (0.5,))})
    (svg,) = curve_charts([("conv", "conv", one)], "loss")
    assert "test 1.00" in labels(svg)


def test_overfitting_is_told_where_it_is_seen():
    (sentence,) = overfitting("convolutional", history())
    assert "grows surer of its mistakes" in sentence
    level = Curve((1, 2), (1.0, 1.05), (0.5, 0.5))
    assert overfitting("convolutional", History({"test": level})) == []
    assert overfitting("convolutional", History({})) == []


@pytest.mark.parametrize(
    ("step", "text"), [(0, "0"), (500, "500"), (2_500, "2.5k"), (100_000, "100k"), (3_000_000, "3M")]
)
def test_steps_are_told_briefly(step, text):
    assert tell_steps(step) == text


def test_a_version_without_a_history_says_so():
    assert "kept no history" in section(pair("conv", None, kept=False)).body
    both = section(pair("conv", "fc", kept=False)).body
    assert "The convolutional one kept no history" in both
    assert both.count("<svg") == 2
