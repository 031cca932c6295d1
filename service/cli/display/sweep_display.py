"""Displays of a sweep: a progress bar on a terminal, a line per trial, JSON lines for programs."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from models.sweeps.outcome import TrialFailure, TrialResult
from models.sweeps.sweep import Nobody
from service.cli.display.console import print_json, stderr
from service.cli.display.run_display import duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from models.sweeps.outcome import Outcome
    from models.sweeps.sweep import Watcher
    from models.sweeps.trial import Trial


@contextlib.contextmanager
def silent() -> Iterator[Watcher]:
    """A watcher that shows nothing."""
    yield Nobody()


@contextlib.contextmanager
def json_lines() -> Iterator[Watcher]:
    """A watcher that prints a line of JSON on standard output for each trial that ends."""
    yield _JsonLines()


@contextlib.contextmanager
def live(console: Console | None = None) -> Iterator[Watcher]:
    """A watcher that prints a line per finished trial, and on a terminal a progress bar, to standard error."""
    console = stderr() if console is None else console
    progress = Progress(
        TextColumn("  [bold]{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with progress:
        yield _Live(console, progress)


class _JsonLines(Nobody):
    def begins(self, missing: Sequence[Trial], present: int) -> None:
        print_json({"event": "started", "missing": len(missing), "present": present})

    def ends(self, outcome: Outcome) -> None:
        described = {"trial": str(outcome.trial), "file": outcome.trial.file_name}
        if isinstance(outcome, TrialFailure):
            print_json({"event": "failed", **described, "error": outcome.error, "message": outcome.message})
        else:
            accuracy = {split: score.accuracy for split, score in outcome.scores.items()}
            print_json({"event": "finished", **described, "accuracy": accuracy, "duration_s": outcome.duration_s})


class _Live:
    def __init__(self, console: Console, progress: Progress) -> None:
        self._console, self._progress = console, progress
        self._bar = progress.add_task("sweep", total=None, figures="", visible=False)
        self._steps: dict[str, int] = {}
        """Steps done by each trial, by digest; all of its steps for a trial that ended."""
        self._ended = self._count = 0

    def begins(self, missing: Sequence[Trial], present: int) -> None:
        self._count = len(missing)
        if missing:
            there = f", {present:,} more are there already" if present else ""
            self._console.print(f"  {len(missing):,} trial{'s' if len(missing) != 1 else ''} to run{there}")
        else:
            self._console.print(f"  nothing to run: all {present:,} results are there already")
        self._progress.update(self._bar, total=sum(trial.recipe.steps for trial in missing), visible=bool(missing))
        self._show()

    def progresses(self, trial: Trial, step: int) -> None:
        self._steps[trial.digest] = step
        self._show()

    def ends(self, outcome: Outcome) -> None:
        self._ended += 1
        self._steps[outcome.trial.digest] = outcome.trial.recipe.steps
        self._show()
        line = Text("  ").append(f"{outcome.trial}: ")
        self._console.print(line.append(*_in_words(outcome)))

    def _show(self) -> None:
        figures = f"{self._ended:,} of {self._count:,} trials"
        self._progress.update(self._bar, completed=sum(self._steps.values()), figures=figures)


def _in_words(outcome: Outcome) -> tuple[str, str]:
    """The outcome of a trial in words, and the style to print it."""
    if not isinstance(outcome, TrialResult):
        return f"failed: {outcome.message}", "red"
    scores = ", ".join(
        f"{split} {outcome.scores[split].accuracy:.2%}"
        for split in ("test", "validation", "train")
        if split in outcome.scores
    )
    return f"{scores} ({duration(outcome.duration_s)})", ""
