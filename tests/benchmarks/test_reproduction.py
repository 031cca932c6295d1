"""docs/results.md says what the files in docs/results say, and the reproduction is what it claims to be."""

from __future__ import annotations

import re
import shutil

import pytest

from benchmarks import reproduction
from benchmarks.reproduction import (
    BEST,
    DOCUMENT,
    FOLDER,
    LECTURE,
    PICTURES,
    PLAIN,
    ROWS,
    TABLES,
    Results,
    Row,
    with_tables,
)
from models.errors import TrialFileError


@pytest.fixture(scope="module")
def results() -> Results:
    return Results(FOLDER)


def test_the_tables_of_the_document_are_those_of_the_files(results):
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_tables(text, results) == text, "run make results"


def test_the_pictures_are_those_of_the_files(results):
    for name, draw in PICTURES.items():
        picture = draw(results)
        assert picture is not None, name
        assert (FOLDER / name).read_text(encoding="utf-8") == picture, f"{name}: run make results"


def test_every_row_has_three_seeds_or_more_and_no_file_is_without_a_row(results):
    for row in ROWS:
        cell = results.cell(row)
        assert cell is not None, row
        assert len(cell.results) == len(row.seeds) >= 3, row
    asked = {trial.file_name for trial in reproduction.trials()}
    assert {path.name for path in FOLDER.glob("*.json")} == asked
    assert not (FOLDER / "failed").exists()


def test_the_figures_of_the_documentation_are_those_of_the_files(results):
    text = (DOCUMENT.parent / "performance.md").read_text(encoding="utf-8")
    (conv, fc), (quick, best, _, fc_quick) = LECTURE[:2], BEST
    assert f"| conv {mean(results, conv)} %, fully connected {mean(results, fc)} % | the same |" in text
    assert f"mean of 3 seeds | {mean(results, quick)} and {mean(results, best)} % |" in text
    assert f"({mean(results, fc_quick)} % against {mean(results, quick)} %)" in text
    behind = [float(mean(results, a)) - float(mean(results, b)) for a, b in (PLAIN, LECTURE[:2])]
    assert f"it is {behind[0]:.0f} to {behind[1]:.0f} points behind" in text


def mean(results: Results, row: Row) -> str:
    cell = results.cell(row)
    assert cell is not None
    return f"{100 * cell.spread('test').mean:.1f}"


def test_the_tables_change_with_a_file(results, tmp_path):
    """The comparison above can fail."""
    row = ROWS[0]
    copy = tmp_path / "results"
    shutil.copytree(FOLDER, copy)
    path = copy / row.trials()[0].file_name
    text = path.read_text()
    path.write_text(re.sub(r'("test": \{"accuracy": )[\d.]+', r"\g<1>0.5", text))
    document = DOCUMENT.read_text(encoding="utf-8")
    changed = with_tables(document, Results(copy))
    assert changed != document
    assert len(changed.splitlines()) == len(document.splitlines())
    path.write_text(text[:50])
    with pytest.raises(TrialFileError):
        Results(copy)


def test_tables_of_an_empty_folder_have_no_figures(tmp_path):
    empty = Results(tmp_path)
    for name, table in TABLES.items():
        if name not in ("published", "on the way"):
            assert all(row.count("–") >= 3 for row in table(empty).splitlines()[2:]), name
    assert all(draw(empty) is None for draw in PICTURES.values())


def test_a_document_without_marks_is_told(results):
    with pytest.raises(ValueError, match="has no marks for the table 'lecture'"):
        with_tables("# Nothing", results)


def test_the_rows_are_the_four_networks_of_the_lecture_and_the_best_recipe():
    lecture = {(row.network, row.recipe, tuple(row.overrides)) for row in ROWS}
    assert {(name, "lecture", ()) for name in ("conv", "fc", "conv25", "fc-slide")} <= lecture
    best = [row.trials()[0].recipe for row in ROWS if (row.network, row.recipe) == ("conv", "best")]
    assert sorted(recipe.steps for recipe in best) == [10_000, 100_000]
    assert all(
        recipe.steps == 100_000 for row in ROWS if row.recipe == "lecture" for recipe in [row.trials()[0].recipe]
    )


def test_the_best_recipe_reaches_what_it_is_known_for(results):
    cell = results.cell(Row("conv", "best", range(3)))
    assert cell is not None
    assert cell.spread("test").mean >= 0.968
