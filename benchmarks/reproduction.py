"""The lecture's figure and tables again, and what a better recipe reaches: trains what is missing, writes docs/results.

    python -m benchmarks.reproduction               # what `make results` calls
    python -m benchmarks.reproduction --tables      # trains nothing, writes tables and pictures anew

Every trial has a file in docs/results, kept with the project; the tables of docs/results.md are made of them, between
marks, and so are the pictures. A test compares all of them with the files.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.networks.architectures import architecture
from models.sweeps import plan, sweep
from models.sweeps.folder import ResultsFolder
from models.sweeps.pictures import Panel, error_curves, spreads
from models.sweeps.processes import Processes
from models.sweeps.summary import Cell, cells
from models.sweeps.tables import NONE, markdown, mean_in_words, spread_in_words
from models.training.interruption import interruptible
from service.cli.display import sweep_display
from service.workers.cpus import usable_cpus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from models.sweeps.outcome import TrialResult
    from models.sweeps.trial import Trial

ROOT: Final = Path(__file__).parent.parent
FOLDER: Final = ROOT / "docs" / "results"
DOCUMENT: Final = ROOT / "docs" / "results.md"
THREE: Final = range(3)
STOPPED_EARLY: Final = {"validation": 500, "early_stopping_patience": 10}


@dataclass(frozen=True)
class Row:
    """A network with a recipe, some seeds of it, and what others reached."""

    network: str
    recipe: str
    seeds: range = THREE
    overrides: Mapping[str, Any] = field(default_factory=dict)
    expected: str = NONE
    """Test accuracy in percent that was published, or seen when the recipe was found."""

    def trials(self) -> tuple[Trial, ...]:
        return plan.trials(
            networks=[self.network], recipes=[self.recipe], seeds=self.seeds, overrides=dict(self.overrides)
        )


LECTURE: Final = (
    Row("conv", "lecture", expected="85.3 (83.7 to 86.2)"),
    Row("fc", "lecture", expected="57.5 (56.3 to 58.4); the book: about 60"),
    Row("conv25", "lecture", expected="84.8"),
    Row("fc-slide", "lecture", expected="about 59.5"),
    Row("conv", "lecture", overrides={"init": "pytorch"}, expected="83.6 (80.8 to 84.5); the book: 86 to 87"),
)
BEST: Final = (
    Row("conv", "best", overrides={"steps": 10_000}, expected="95.6"),
    Row("conv", "best", expected="97.1 (96.8 to 97.4)"),
    Row("conv25", "best", overrides={"steps": 20_000}, expected="97.5 to 97.8"),
    Row("fc", "best", overrides={"steps": 10_000}),
)
PLAIN: Final = (Row("conv", "plain"), Row("fc", "plain"))
HELD_OUT: Final = (
    Row("conv", "quick", overrides={"validation": 500}),
    Row("conv", "plain", overrides={"validation": 500}),
    Row("conv", "lecture", overrides=STOPPED_EARLY),
    Row("fc", "quick", overrides={"validation": 500}),
    Row("fc", "plain", overrides={"validation": 500}),
    Row("fc", "lecture", overrides=STOPPED_EARLY),
)
# In order of importance, for whoever has to stop it.
ROWS: Final = (*BEST[:2], *LECTURE[:4], *BEST[2:], *PLAIN, *HELD_OUT, *LECTURE[4:])

# Test accuracy in percent as published with the data and by its readers; parameters where they are told.
PUBLISHED: Final = (
    ("logistic regression", None, 32.0),
    ("multilayer perceptron", None, 68.0),
    ("GRU", None, 91.0),
    ("convolutional net", 5_210, 94.0),
    ("people", None, 96.0),
    ("one-dimensional ResNet", 26_250, 98.6),
    ("temporal convolutional net", 104_406, 98.9),
)
BOOK_CONV_ERROR: Final = {10_000: 41, 20_000: 28, 50_000: 15, 100_000: 13.5}
"""Test error of the convolutional net in the book's corrected figure 10.8, read off it, in percent."""
STEPS: Final = (5_000, 10_000, 20_000, 30_000, 50_000, 70_000, 100_000)


class Results:
    """What there is of the rows in a folder."""

    def __init__(self, folder: Path) -> None:
        self._results = ResultsFolder(folder).results(trials())

    def cell(self, row: Row) -> Cell | None:
        """None if no seed of it was run."""
        found: list[TrialResult] = [
            self._results[trial.digest] for trial in row.trials() if trial.digest in self._results
        ]
        return cells(found)[0] if found else None


def trials() -> tuple[Trial, ...]:
    """All trials, those of more important rows first."""
    return tuple({trial.digest: trial for row in ROWS for trial in row.trials()}.values())


# ---- tables --------------------------------------------------------------------------------------------------------


def accuracies(results: Results, rows: Sequence[Row]) -> str:
    columns = ["network", "parameters", "recipe", "seeds", "test %", "95 % interval", "deviation", "range", "train %"]
    has_others = any(row.expected != NONE for row in rows)
    lines = []
    for row in rows:
        cell = results.cell(row)
        others = (row.expected,) if has_others else ()
        lines.append((*_head(row, cell), *_test(cell), _mean(cell, "train"), *others))
    return markdown([*columns, *(["published or expected"] if has_others else [])], lines)


def held_out(results: Results) -> str:
    """Of recipes that hold examples out: what they would be chosen by."""
    columns = ("network", "parameters", "recipe", "seeds", "validation %", "95 % interval", "test %", "weights of step")
    rows = []
    for row in HELD_OUT:
        cell = results.cell(row)
        spread = spread_in_words(None if cell is None else cell.spread("validation"))
        steps = NONE if cell is None else ", ".join(f"{result.steps:,}" for result in cell.results)
        rows.append((*_head(row, cell), *spread[:2], _mean(cell, "test"), steps))
    return markdown(columns, rows)


def on_the_way(results: Results) -> str:
    """Mean test accuracy and loss over seeds while the lecture's recipe runs."""
    rows = []
    conv, fc, _, _, conv_pytorch = LECTURE
    for row, name in ((conv, "`conv`, He"), (conv_pytorch, "`conv`, PyTorch"), (fc, "`fc`, He")):
        cell = results.cell(row)
        rows.append((f"{name}: test %", *(_at(cell, step, lambda curve: curve.accuracy_N, 100, 1) for step in STEPS)))
        rows.append((f"{name}: test loss", *(_at(cell, step, lambda curve: curve.loss_N, 1, 2) for step in STEPS)))
    book = (f"{100 - BOOK_CONV_ERROR[step]:g}" if step in BOOK_CONV_ERROR else "" for step in STEPS)
    rows.insert(4, ("the book, convolutional: test %", *book))
    return markdown(("steps", *(f"{step // 1000}k" for step in STEPS)), rows)


def beside_the_published(results: Results) -> str:
    rows: list[tuple[float, tuple[str, ...]]] = [
        (accuracy, (name, NONE if parameters is None else f"{parameters:,}", f"{accuracy:g}", "published"))
        for name, parameters, accuracy in PUBLISHED
    ]
    for row in BEST:
        cell = results.cell(row)
        if cell is not None and (spread := cell.spread("test")) is not None:
            ours = (f"**`{row.network}`**, {cell.steps:,} steps", f"{architecture(row.network).parameters:,}",
                    f"**{100 * spread.mean:.1f}**", f"`{cell.label}`, mean of {spread.count} seeds")  # fmt: skip
            rows.append((100 * spread.mean, ours))
    return markdown(
        ("network", "parameters", "test %", "how"), [cells for _, cells in sorted(rows, key=lambda r: r[0])]
    )


def _head(row: Row, cell: Cell | None) -> tuple[str, ...]:
    trial = row.trials()[0]
    seeds = "0" if cell is None else str(len(cell.results))
    return f"`{row.network}`", f"{architecture(row.network).parameters:,}", f"`{trial.label}`", seeds


def _test(cell: Cell | None) -> tuple[str, ...]:
    mean, *others = spread_in_words(None if cell is None else cell.spread("test"))
    return f"**{mean}**", *others


def _mean(cell: Cell | None, split: str) -> str:
    return mean_in_words(None if cell is None else cell.spread(split))


def _at(cell: Cell | None, step: int, values: Callable[[Any], Sequence[float]], times: float, digits: int) -> str:
    """Mean over the seeds of a value of the test curve at a step."""
    if cell is None:
        return NONE
    curves = [result.history.curves["test"] for result in cell.results]
    found = [values(curve)[curve.steps_N.index(step)] for curve in curves]
    return f"{times * sum(found) / len(found):.{digits}f}"


TABLES: Final[Mapping[str, Callable[[Results], str]]] = {
    "lecture": lambda results: accuracies(results, LECTURE),
    "on the way": on_the_way,
    "best": lambda results: accuracies(results, BEST),
    "published": beside_the_published,
    "plain": lambda results: accuracies(results, PLAIN),
    "held out": held_out,
}


# ---- pictures ------------------------------------------------------------------------------------------------------

_CAPTION: Final = "Lines are means over seeds, bands go from the lowest to the highest. 100,000 steps of plain SGD."


def figure(results: Results, title: str, pair: Sequence[tuple[Row, Row | None]]) -> str | None:
    """A panel for each network, with a second row in grey where there is one; None if a row has no results."""
    panels = []
    for row, other in pair:
        found = [cell for each in (row, other) if each is not None and (cell := results.cell(each)) is not None]
        if not found or results.cell(row) is None:
            return None
        spec = architecture(row.network)
        kind = "Convolutional" if spec.kind == "conv" else "Fully connected"
        panels.append(Panel(f"{kind}, {spec.parameters:,} parameters", found, ("He", "PyTorch's own")[: len(found)]))
    return error_curves(title, _CAPTION, panels)


def all_spreads(results: Results) -> str | None:
    """Every row; None without any results."""
    found = [cell for row in (*LECTURE, *BEST, *PLAIN, *HELD_OUT) if (cell := results.cell(row)) is not None]
    return spreads(found) if found else None


PICTURES: Final[Mapping[str, Callable[[Results], str | None]]] = {
    "spreads.svg": all_spreads,
    "error_curves.svg": lambda results: figure(
        results,
        "Test and training error, as in the book's figure 10.8",
        [(LECTURE[0], LECTURE[4]), (LECTURE[1], None)],
    ),
    "error_curves_25_channels.svg": lambda results: figure(
        results, "The same with 25 channels: the slide's 150,185", [(LECTURE[2], None), (LECTURE[3], None)]
    ),
}


# ---- writing -------------------------------------------------------------------------------------------------------


def with_tables(document: str, results: Results) -> str:
    """The document with the text between each pair of marks made anew. ValueError if a table has no marks."""
    for name, table in TABLES.items():
        pattern = re.compile(rf"(<!-- made by make results: {name} -->\n).*?(<!-- end -->\n)", re.DOTALL)
        if not pattern.search(document):
            raise ValueError(f"{DOCUMENT.name} has no marks for the table {name!r}")
        made = table(results)
        document = pattern.sub(lambda found, made=made: f"{found[1]}\n{made}\n{found[2]}", document)
    return document


def write(results: Results) -> None:
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text(encoding="utf-8"), results), encoding="utf-8")
    for name, draw in PICTURES.items():
        picture = draw(results)
        if picture is not None:
            (FOLDER / name).write_text(picture, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", action="store_true", help="train nothing")
    parser.add_argument("--jobs", type=int, default=usable_cpus(), help="trials at a time")
    arguments = parser.parse_args()
    code = 0
    if not arguments.tables:
        with interruptible() as stop, sweep_display.live() as watcher:
            outcome = sweep.run(trials(), ResultsFolder(FOLDER), Processes(arguments.jobs), watcher=watcher, stop=stop)
        code = 1 if outcome.stopped or outcome.failures else 0
    write(Results(FOLDER))
    return code


if __name__ == "__main__":
    sys.exit(main())
