"""Displays of a local training run: a progress bar on a terminal, plain lines in a log, JSON lines for programs.

Each display is a sink for the events of ``models.training.events`` and independent of the pipeline.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Group
from rich.live import Live as RichLive
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from models.training import events
from service.cli.display.console import stderr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

EVALUATIONS_SHOWN: Final = 10
"""About how many evaluations of a run get a line; JSON output has them all."""
DOING: Final = {
    "load": "loading PyTorch",
    "data": "making the data",
    "prepare": "preparing the engine, which the first time is compiled",
    "evaluate": "evaluating",
    "export": "exporting to ONNX",
    "prove": "proving the export",
    "gate": "comparing at the gate",
    "publish": "writing the report and publishing",
}
"""Description of each stage, shown while it runs; training shows its progress instead."""
_ANNOUNCED: Final = ("load", "prepare", "export")
"""Stages that may take seconds without an event, and therefore get a line in a log when they begin."""


@contextlib.contextmanager
def json_lines() -> Iterator[events.EventSink]:
    """A sink that prints every event as one line of JSON on standard output."""
    yield lambda event: click.echo(events.to_json_line(event))


@contextlib.contextmanager
def silent() -> Iterator[events.EventSink]:
    """A sink that shows nothing."""
    yield events.ignore


@contextlib.contextmanager
def live(console: Console | None = None) -> Iterator[events.EventSink]:
    """A sink with a status and a progress bar with loss, accuracy, steps/s and time left; plain lines in a log.

    Writes to standard error.
    """
    console = stderr() if console is None else console
    status = Progress(TextColumn(" "), SpinnerColumn(), TextColumn("{task.description}"), console=console)
    progress = Progress(
        TextColumn("  [bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        console=console,
    )
    both = RichLive(Group(status, progress), console=console, transient=True, refresh_per_second=10)
    with both if console.is_terminal else contextlib.nullcontext():
        yield _Live(console, status, progress)


class _Live:
    """The sink of `live`."""

    def __init__(self, console: Console, status: Progress, progress: Progress) -> None:
        self._console, self._status, self._progress = console, status, progress
        self._doing = status.add_task("", total=None, visible=False)
        self._task = progress.add_task("train", total=None, figures="", visible=False)
        self._total_steps = self._due_step = 0
        self._shown_step = -1

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.Started():
                self._total_steps = event.total_steps
                self._status.update(self._doing, visible=False)
                self._progress.update(
                    self._task, total=event.total_steps, completed=event.start_step, figures="", visible=True
                )
                self._print(_beginning(event))
            case events.Progress():
                self._progress.update(self._task, completed=event.step, figures=_figures(event))
            case events.Evaluated() if event.split != "train" and self._is_due(event.step):
                self._print(
                    f"step {event.step:,}: {event.split} accuracy {event.accuracy:.2%}, loss {event.loss:.4f}", "dim"
                )
            case events.Finished():
                self._progress.update(self._task, visible=False)
            case events.StageStarted():
                doing = DOING.get(event.stage, "")
                self._status.update(self._doing, description=doing, visible=bool(doing))
                if not self._console.is_terminal and (line := announcement(event.stage)):
                    self._print(line, "dim")
            case events.StageFinished():
                self._status.update(self._doing, visible=False)
                self._print(stage_line(event))
            case _:
                pass

    def _is_due(self, step: int) -> bool:
        """Whether to show the evaluations of this step: about ten in a run, including the first and the last."""
        if step >= self._due_step or step == self._total_steps:
            self._shown_step, self._due_step = step, step + self._total_steps // EVALUATIONS_SHOWN
        return step == self._shown_step

    def _print(self, line: str, style: str = "") -> None:
        self._console.print(Text("  ").append(line, style=style))


def announcement(stage: str) -> str:
    """The log line for a stage that begins; empty for short stages."""
    return f"{DOING[stage]} ..." if stage in _ANNOUNCED else ""


def stage_line(event: events.StageFinished) -> str:
    """The line for a stage that ended: ``prove     all 12 checks passed on 1000 examples (0.6 s)``."""
    return f"{event.stage:<9} {_describe(event.stage, event.detail)} ({event.duration_s:.1f} s)"


def _beginning(event: events.Started) -> str:
    recipe = event.recipe
    where = f", going on from step {event.start_step:,}" if event.start_step else ""
    return f"training {recipe['network']} with recipe {recipe['name']}, {event.total_steps:,} steps{where}"


def _figures(event: events.Progress) -> str:
    return (
        f"loss {event.loss:.3f}  accuracy {event.accuracy:6.1%}  {event.steps_per_s:,.0f} steps/s  "
        f"{duration(event.remaining_s)} left"
    )


def _describe(stage: str, detail: Any) -> str:  # noqa: ANN401 - differs between stages
    match stage:
        case "load":
            return "PyTorch is loaded"
        case "prepare":
            return f"engine {detail['engine']}"
        case "data":
            held_out = f", {detail['validation']:,} held-out" if "validation" in detail else ""
            return f"{detail['train']:,} training{held_out} and {detail['test']:,} test examples"
        case "train":
            return f"{detail['steps']:,} steps, weights {detail['weights_sha256'][:12]}"
        case "evaluate":
            return f"test accuracy {detail['test_accuracy']:.2%}, loss {detail['test_loss']:.4f}"
        case "export":
            return f"{detail['bytes']:,} bytes of ONNX, sha256 {detail['sha256'][:12]}"
        case "prove":
            return str(detail["summary"])
        case "publish":
            return f"{detail['name']} version {detail['version']}: {detail['path']}"
        case _:
            return ", ".join(f"{key} {value}" for key, value in detail.items())


def duration(seconds: float) -> str:
    """Format a duration: ``42 s``, ``3 min 05 s``, ``2 h 07 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
