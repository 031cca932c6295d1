from __future__ import annotations

import dataclasses

import pytest

from models.report.curves import curve_charts, overfitting, section, tell_steps
from models.training.history import Curve, History
from tests.models.report.subjects import history, pair, parsed


def drawn(svg: str) -> list[tuple[float, float]]:
    """The points of the line that is drawn through: the test set's."""
    (path,) = (m for m in parsed(svg).iter("path") if m.get("class").split()[1:] in (["conv"], ["fc"]))
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


def test_a_short_curve_has_its_labels_where_it_ends():
    short, long = curve_charts([("conv", "conv", history(400)), ("fc", "fc", history(2_000))], "error")
    for svg in (short, long):
        (label,) = (mark for mark in parsed(svg).iter("text") if mark.text == "test 20.0 %")
        assert float(label.get("x")) == pytest.approx(drawn(svg)[-1][0] + 6, abs=0.02)


def test_each_split_has_a_stroke_of_its_own_and_the_text_names_those_there_are():
    (svg,) = curve_charts([("conv", "conv", history(held_out=True))], "error")
    strokes = [path.get("class") for path in parsed(svg).iter("path")]
    assert strokes == ["line conv dashed", "line conv dotted", "line conv"]
    both = pair("conv", "fc")
    assert "dotted" not in section(both).body
    own = dataclasses.replace(both.own, history=history(held_out=True))
    assert "held out of these to choose by (dotted)" in section(dataclasses.replace(both, own=own)).body


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
