from __future__ import annotations

import math

from service.cli.display.curves import Curve, drawn

SIZE = {"columns": 24, "rows": 4, "last_x": 30.0}


def rows_of(text) -> list[str]:
    return text.plain.splitlines()


def test_a_falling_line_falls_from_corner_to_corner() -> None:
    curve = Curve("loss", "blue", [(0, 1.0), (30, 0.0)])
    title, *rows, axis, legend = rows_of(drawn("title", [curve], **SIZE))
    assert title.strip() == "title"
    assert len(rows) == 4
    dots = [[column for column, sign in enumerate(row.partition("│")[2]) if sign != " "] for row in rows]
    assert dots[0][0] == 0
    assert dots[-1][-1] == 24 - 9 - 1
    assert [min(row) for row in dots] == sorted(min(row) for row in dots)
    assert rows[0].strip().startswith("1 ")
    assert rows[-1].strip().startswith("0 ")
    assert axis.endswith("30 steps")
    assert legend.strip() == "loss 0"


def test_a_logarithmic_scale_shows_the_numbers_and_leaves_out_what_has_no_place() -> None:
    curve = Curve("loss", "blue", [(0, 10.0), (10, 1.0), (20, 0.0), (25, math.nan), (30, 0.1)])
    _, *rows, _, legend = rows_of(drawn("", [curve], is_logarithmic=True, **SIZE))
    assert rows[0].split()[0] == "10"
    assert rows[3].split()[0] == "0.1"
    assert legend.strip() == "loss 0.1"


def test_bounds_cut_off_what_lies_beyond() -> None:
    _, *rows, _, _ = rows_of(drawn("", [Curve("a", "", [(0, -5.0), (30, 5.0)])], bounds=(0.0, 1.0), **SIZE))
    assert rows[0].split()[0] == "1"
    assert rows[3].split()[0] == "0"


def test_nothing_to_draw_is_an_empty_chart() -> None:
    _, *rows, _, legend = rows_of(drawn("", [Curve("a", "")], **SIZE))
    assert {row.strip() for row in rows} == {"│"}
    assert legend.strip() == ""


def test_steps_that_come_again_replace_what_was_told_of_them() -> None:
    curve = Curve("a", "")
    for x in (1, 2, 3, 2, 4):
        curve.add(x, float(x))
    assert [x for x, _ in curve.points] == [1, 2, 4]


def test_a_terminal_without_braille_gets_plain_signs(monkeypatch) -> None:
    monkeypatch.setattr("service.cli.display.curves.can_write", lambda _: False)
    text = drawn("", [Curve("a", "", [(0, 1.0), (30, 0.0)])], **SIZE).plain
    assert text.isascii()
    assert "." in text
