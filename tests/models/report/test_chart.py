from __future__ import annotations

import pytest

from models.report.chart import Axis, Line, chart, label_room, picture, spread, standalone, ticks
from models.report.markup import element
from tests.models.report.subjects import parsed

X = Axis("steps", 0, 100, (0, 50, 100), lambda value: f"{value:g}")
Y = Axis("% wrong", 0, 100, (0, 100), lambda value: f"{value:g}")


def test_a_line_goes_from_corner_to_corner():
    svg = parsed(chart("error", [Line("test 0 %", "conv", [(0, 100), (100, 0)])], X, Y))
    (path,) = (mark for mark in svg.iter("path") if "line" in mark.get("class"))
    grid = [mark for mark in svg.iter("line") if mark.get("class") == "grid"]
    top, bottom = (min(float(m.get("y1")) for m in grid), max(float(m.get("y1")) for m in grid))
    left, right = float(grid[0].get("x1")), float(grid[0].get("x2"))
    assert path.get("d") == f"M{left:g} {top:g}L{right:g} {bottom:g}"
    assert svg.find("title").text == "error"
    assert [mark.text for mark in svg.iter("text")][-1] == "test 0 %"


def test_labels_within_the_axes_stand_above_the_lower_one():
    def label_y(end: float) -> float:
        (*_, label) = parsed(chart("error", [Line("train 0 %", "conv", [(0, 100), (end, 0)])], X, Y)).iter("text")
        return float(label.get("y"))

    assert label_y(100) - label_y(50) == pytest.approx(9)


def test_labels_get_the_room_that_they_need():
    assert label_room([]) == label_room(["test 0 %"]) == 100
    assert label_room(["validation 100.0 %"]) > 18 * 7
    svg = parsed(chart("error", [Line("a", "conv", [(0, 0), (100, 0)])], X, Y, room=150))
    (path,) = (mark for mark in svg.iter("path") if "line" in mark.get("class"))
    assert path.get("d").endswith("L290 256")


def test_values_outside_are_drawn_at_the_edge():
    assert Y.place(-5, 10, 20) == 10
    assert Y.place(500, 10, 20) == 20


def test_a_line_has_points():
    with pytest.raises(ValueError, match="'test' has no points"):
        Line("test", "conv", [])


@pytest.mark.parametrize(
    ("high", "expected"),
    [
        (1, (0, 0.2, 0.4, 0.6, 0.8, 1)),
        (2.55, (0, 1, 2)),
        (100_000, (0, 20_000, 40_000, 60_000, 80_000, 100_000)),
        (10_000, (0, 2_000, 4_000, 6_000, 8_000, 10_000)),
        (3, (0, 1, 2, 3)),
        (1_500, (0, 500, 1_000, 1_500)),
    ],
)
def test_ticks_are_round_numbers(high, expected):
    assert ticks(high) == pytest.approx(expected)
    with pytest.raises(ValueError, match="above 0"):
        ticks(0)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([10, 50], [10, 50]),
        ([50, 52], [50, 66]),
        ([52, 50], [66, 50]),
        ([98, 99], [84, 100]),
        ([0, 0, 0], [0, 16, 32]),
    ],
)
def test_labels_keep_their_distance_and_their_order(wanted, expected):
    assert spread(wanted, 16, 0, 100) == expected


def test_a_picture_that_stands_alone_has_its_colours_with_it():
    svg = standalone(10, 20, [element("title", "alone")])
    root = parsed(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme:dark" in svg
    assert root.get("viewBox") == "0 0 10 20"
    assert "style" not in picture(10, 20, [])
