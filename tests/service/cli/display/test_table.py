from __future__ import annotations

import io

import pytest
from rich.console import Console

from service.cli.display.table import fitted

COLUMNS = ("network", "parameters", "recipe", "95 % interval", "deviation")
ROWS = [
    ("conv", "2,050", "quick steps=300 learning_rate=0.005", "95.1 to 95.9", "0.27"),
    ("fc-slide", "150,185", "[bold]quick[/] steps=300 validation=500", "-7.4 to 42.1", "12.76"),
]
WORDS = {"conv", "2,050", "fc-slide", "150,185", "quick", "steps=300", "learning_rate=0.005", "validation=500", "12.76"}


def printed(width: int, **how: object) -> tuple[list[str], tuple[str, ...]]:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    shown, left_out = fitted(console, "Title", COLUMNS, ROWS, **how)
    console.print(shown)
    return console.file.getvalue().splitlines(), left_out


def test_where_there_is_room_each_row_is_one_line():
    lines, left_out = printed(100)
    assert left_out == ()
    assert lines[0].strip() == "Title"
    (row,) = (line for line in lines if "conv" in line)
    assert row.split() == " ".join(ROWS[0]).split()


@pytest.mark.parametrize("width", range(34, 101))
@pytest.mark.parametrize("how", [{}, {"dispensable": ("parameters", "deviation"), "wraps": ("recipe",)}])
def test_no_word_is_cut_and_no_line_is_too_long_at_any_width(width, how):
    lines, left_out = printed(width, **how)
    assert all(len(line) <= width for line in lines)
    gone = {row[COLUMNS.index(name)] for name in left_out for row in ROWS}
    assert set(" ".join(lines).split()) >= WORDS - gone


def test_columns_are_left_out_in_their_order_before_the_table_is_given_up():
    how = {"dispensable": ("parameters", "deviation"), "wraps": ("recipe",)}
    left_out = [printed(width, **how)[1] for width in range(100, 33, -1)]
    each_once = [later for earlier, later in zip([None, *left_out], left_out, strict=False) if later != earlier]
    assert each_once == [(), ("parameters",), ("parameters", "deviation"), ()]


def test_only_the_columns_that_may_are_broken_into_lines():
    lines, _ = printed(56, dispensable=("parameters", "deviation"), wraps=("recipe",))
    (interval,) = (line for line in lines if "42.1" in line)
    assert "-7.4 to 42.1" in interval
    assert len([line for line in lines if "steps=300" in line or "validation=500" in line]) >= 2


def test_a_block_for_each_row_has_every_column_with_its_name():
    lines, left_out = printed(34, dispensable=("parameters",), wraps=())
    assert left_out == ()
    assert [line.split()[0] for line in lines if line[:1].strip()] == [
        "Title",
        *2 * ("network", "parameters", "recipe", "95", "deviation"),
    ]
    assert any(line.split() == ["parameters", "150,185"] for line in lines)
