from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from models.sweeps import pictures, tables
from models.sweeps.summary import cells, choice
from models.training.history import Curve, History

SVG = "{http://www.w3.org/2000/svg}"


def corners(path: ET.Element) -> list[tuple[float, ...]]:
    return [tuple(map(float, point.split())) for point in path.get("d").strip("MZ").split("L")]


@pytest.fixture
def results(result_of):
    return [
        *(result_of("lecture", network="fc", seed=seed, test=test) for seed, test in ((2, 0.58), (0, 0.56), (1, 0.57))),
        *(result_of("lecture", seed=seed, test=test) for seed, test in ((0, 0.85), (1, 0.86), (2, 0.84))),
        result_of("best", test=0.97),
    ]


def test_cells_are_in_order_of_appearance_and_their_seeds_ascend(results):
    found = cells(results)
    assert [(cell.network, cell.label, cell.seeds) for cell in found] == [
        ("fc", "lecture", (0, 1, 2)),
        ("conv", "lecture", (0, 1, 2)),
        ("conv", "best", (0,)),
    ]
    assert found[0].accuracies("test") == (0.56, 0.57, 0.58)
    assert found[0].spread("validation") is None
    described = found[1].to_dict()
    assert described["accuracy"]["test"]["mean"] == pytest.approx(0.85)
    assert described["trials"][0].startswith("conv-seed0-")


def test_the_choice_is_made_on_held_out_examples_and_never_on_the_test_set(result_of):
    good = [result_of("quick", seed=seed, test=0.5, validation=0.9) for seed in (0, 1)]
    bad = [result_of("lecture", seed=seed, test=0.99, validation=0.8) for seed in (0, 1)]
    chosen = choice(cells([*bad, *good]))
    assert chosen is not None
    assert chosen.label == "quick validation=500"
    assert choice(cells(good)) is None
    assert choice([]) is None
    assert choice(cells([*good, result_of("plain", test=0.99)])) is None


def test_rows(results, result_of):
    rows = tables.rows(cells(results))
    assert rows[1] == ("conv", "2,050", "lecture", "3", "85.00", "82.5 to 87.5", "1.00", "84.0 to 86.0", "–", "100.00")
    assert rows[2][3:] == ("1", "97.00", "–", "–", "–", "–", "100.00")
    chosen = tables.rows(cells([result_of("quick", test=0.5, validation=0.9), result_of(test=0.9, validation=0.8)]))
    assert [row[8] for row in chosen] == ["90.00 *", "80.00"]
    assert all(len(row) == len(tables.COLUMNS) for row in rows)


def test_a_table_in_markdown():
    text = tables.markdown(("a", "b"), [("1", "x|y")])
    assert text == "| a | b |\n| --- | --- |\n| 1 | x\\|y |\n"


def test_the_picture_of_spreads_has_a_dot_for_each_seed_where_it_belongs(results):
    root = ET.fromstring(pictures.spreads(cells(results)))  # noqa: S314 - our own
    dots = [float(circle.get("cx")) for circle in root.iter(f"{SVG}circle")]
    assert len(dots) == 7
    assert dots[0] < dots[1] < dots[2]
    assert dots[5] < dots[3] < dots[4] < dots[6]
    assert len(list(root.iter(f"{SVG}rect"))) == 1 + 2  # the paper, and an interval where there are several seeds
    labels = [text.text for text in root.iter(f"{SVG}text")]
    assert {"fc  lecture", "conv  lecture", "conv  best"} <= set(labels)
    assert all(0 <= x <= float(root.get("width")) for x in dots)


def test_the_picture_of_spreads_has_room_for_long_names(result_of):
    fields = {"validation": 0.8, "early_stopping_patience": 10, "learning_rate": 0.002, "steps": 12345}
    (cell,) = cells([result_of(test=0.9, **fields)])
    root = ET.fromstring(pictures.spreads([cell]))  # noqa: S314 - our own
    (label,) = [text for text in root.iter(f"{SVG}text") if text.text == f"conv  {cell.label}"]
    assert label.get("text-anchor") == "end"
    assert float(label.get("x")) > 6.5 * len(label.text) > 300


@pytest.mark.parametrize("accuracies", [(0.0,), (1.0,), (0.5, 0.5), (0.999, 1.0), (0.0, 1.0)])
def test_the_picture_of_spreads_for_extreme_figures(result_of, accuracies):
    found = cells([result_of(seed=seed, test=test) for seed, test in enumerate(accuracies)])
    root = ET.fromstring(pictures.spreads(found))  # noqa: S314 - our own
    assert len(list(root.iter(f"{SVG}circle"))) == len(accuracies)
    assert "nan" not in ET.tostring(root, encoding="unicode")


def test_the_picture_of_errors_shows_the_seeds_as_a_band_about_their_mean(results):
    fc, conv, _ = cells(results)
    panels = [pictures.Panel("conv", [conv], ["He"]), pictures.Panel("fc", [fc], ["He"])]
    root = ET.fromstring(pictures.error_curves("Errors", "below", panels))  # noqa: S314 - our own
    bands = [corners(area) for area in root.iter(f"{SVG}path") if area.get("class") == "band"]
    assert len(bands) == 4  # training and test, on either side
    upper, lower = bands[1][:2], bands[1][2:][::-1]
    assert all(above[0] == below[0] and above[1] < below[1] for above, below in zip(upper, lower, strict=True))
    (line,) = [
        each for each in root.iter(f"{SVG}path") if each.get("class") == "line" and corners(each)[0][0] == upper[0][0]
    ]
    assert all(above[1] < at[1] < below[1] for above, at, below in zip(upper, corners(line), lower, strict=True))
    assert {"conv", "fc", "Errors", "below", "training steps"} <= {text.text for text in root.iter(f"{SVG}text")}


def test_only_steps_at_which_every_seed_was_evaluated_are_drawn(result_of):
    first, second = result_of(seed=0, test=0.8), result_of(seed=1, test=0.9)
    longer = History({split: Curve((10, 50_000, 100_000), (1, 1, 1), (0.1, 0.4, 0.8)) for split in ("train", "test")})
    object.__setattr__(first, "history", longer)
    (cell,) = cells([first, second])
    root = ET.fromstring(pictures.error_curves("", "", [pictures.Panel("", [cell], [""])]))  # noqa: S314 - our own
    assert [len(corners(area)) for area in root.iter(f"{SVG}path") if area.get("class") == "band"] == [4, 4]


def test_a_panel_has_room_for_two(results):
    with pytest.raises(ValueError, match="room for 2 cells, got 3"):
        pictures.error_curves("", "", [pictures.Panel("", cells(results), ["a", "b", "c"])])
