"""Displays of a watched training run: curves on a terminal, plain lines elsewhere, JSON lines for programs.

Each display gets the events one by one, independently of where they come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from models.training.events import StageFinished
from service.cli.display.console import print_json
from service.cli.display.curves import Curve, drawn
from service.cli.display.message_json import as_json
from service.cli.display.run_display import EVALUATIONS_SHOWN, announcement, duration, stage_line
from service.pb import training_pb2 as pb

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from service.client import ServerError, TrainingRun

_CHART_ROWS = 9
_FEWEST_ROWS = 3
"""Least rows of a chart; with fewer it is left out."""
_ROWS_AROUND = 3
"""Rows that a chart needs for title, axis and legend."""
_WIDEST_CHART = 70
_NARROWEST_PAIR = 90
"""Least columns of a terminal for two charts side by side."""
_BAR_COLUMNS = {_NARROWEST_PAIR: 16, 110: 30}
"""Columns of the progress bar, by the least width of the terminal."""
_SHORTEST_BAR = 8
_FRAMES_PER_S = 8
_UNKNOWN = "UNKNOWN"
"""A value of `pb.Serving.state`."""


class Display(Protocol):
    """A display of the events of a run."""

    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def tell(self, event: pb.TrainingRunEvent) -> None:
        """Show an event."""
        ...

    def gap(self, error: ServerError) -> None:
        """Show that the server is unavailable and the client reconnects."""
        ...


class JsonLines:
    """Prints every event as one line of JSON on standard output."""

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def tell(self, event: pb.TrainingRunEvent) -> None:
        """Show an event."""
        print_json(as_json(event))

    def gap(self, error: ServerError) -> None:
        """Print nothing, since no event is missed."""


class Lines:
    """Prints a line for each stage and attempt, and for about ten evaluations."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total_steps = self._due_step = 0
        self._shown_step = -1
        self._is_away = False

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def tell(self, event: pb.TrainingRunEvent) -> None:
        """Show an event."""
        self._is_away = False
        line = self._line(event)
        if line:
            self._console.print(Text(f"  {line}"))

    def gap(self, error: ServerError) -> None:
        """Print a line, once until the server answers again."""
        if not self._is_away:
            self._is_away = True
            self._console.print(Text(f"  the server is away, looking for it ({error.message})", style="dim"))

    def _line(self, event: pb.TrainingRunEvent) -> str:
        if event.WhichOneof("event") == "training_started":
            self._total_steps, self._due_step = event.training_started.total_steps, 0
        if event.WhichOneof("event") == "evaluated":
            return self._evaluation(event.evaluated)
        if event.WhichOneof("event") == "stage_started":
            return announcement(event.stage_started.stage)
        return line_of(event)

    def _evaluation(self, evaluated: pb.Evaluated) -> str:
        """The line for an evaluation; empty but for about ten in a run, including the first and the last."""
        if evaluated.step >= self._due_step or evaluated.step == self._total_steps:
            self._shown_step = evaluated.step
            self._due_step = evaluated.step + self._total_steps // EVALUATIONS_SHOWN
        if evaluated.split == "train" or evaluated.step != self._shown_step:
            return ""
        figures = f"accuracy {evaluated.accuracy:.2%}, loss {evaluated.loss:.4f}"
        return f"step {evaluated.step:,}: {evaluated.split} {figures}"


class Live:
    """Shows a progress bar with loss and accuracy curves on a terminal, and a line for each stage above them."""

    def __init__(self, run: TrainingRun, console: Console) -> None:
        from rich.live import Live as RichLive

        self._run = run
        self._console = console
        self._lines = Lines(console)
        self._progress = pb.Progress(total_steps=run.snapshot.total_steps)
        self._stage = "queued"
        self._is_away = False
        self.loss, self.accuracy = _curves(), _curves()
        self._live = RichLive(self, console=console, transient=True, refresh_per_second=_FRAMES_PER_S)

    def __enter__(self) -> Live:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()
        if self.loss["batches"].points:
            # The final charts in full height; the terminal can be scrolled.
            self._console.print(self._charts(self._console.width, None))

    def tell(self, event: pb.TrainingRunEvent) -> None:
        """Show an event."""
        self._is_away = False
        match event.WhichOneof("event"):
            case "attempt_started":
                self._stage = "starting"
            case "attempt_ended":
                self._stage = "waiting"
            case "stage_started":
                self._stage = event.stage_started.stage
            case "training_started":
                started = event.training_started
                self._stage = "train"
                self._progress = pb.Progress(step=started.start_step, total_steps=started.total_steps)
            case "progress":
                self._progress = event.progress
                self._add("batches", event.progress.step, event.progress.loss, event.progress.accuracy)
            case "evaluated" if event.evaluated.split != "train":
                self._add(event.evaluated.split, event.evaluated.step, event.evaluated.loss, event.evaluated.accuracy)
        if event.WhichOneof("event") != "evaluated":
            line = line_of(event)
            if line:
                self._console.print(Text(f"  {line}"))

    def gap(self, error: ServerError) -> None:
        """Show that the server is unavailable, with its error."""
        self._is_away = True
        self._stage = f"the server is away, looking for it ({error.code.name})"

    def _add(self, name: str, step: int, loss: float, accuracy: float) -> None:
        self.loss[name].add(step, loss)
        self.accuracy[name].add(step, accuracy)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The live part below the lines, which is drawn again for each frame."""
        width = options.max_width
        head_rows = 3 if width >= _NARROWEST_PAIR else 4  # with an empty line before and after
        # The last row is for the cursor.
        yield Group(Text(), self._head(width), Text(), self._charts(width, options.max_height - head_rows - 1))

    def _head(self, width: int) -> RenderableType:
        progress, snapshot = self._progress, self._run.snapshot
        figures = ""
        if progress.steps_per_second > 0 and self._stage == "train":
            figures = f"{progress.steps_per_second:,.0f} steps/s  {duration(progress.remaining_seconds)} left"
        title = Text(f"  {snapshot.network}, {snapshot.recipe}, seed {snapshot.seed}", style="bold", no_wrap=True)
        bar_columns = max((bar for least, bar in _BAR_COLUMNS.items() if width >= least), default=_SHORTEST_BAR)
        cells: list[RenderableType] = [
            ProgressBar(total=max(progress.total_steps, 1), completed=progress.step, width=bar_columns),
            Text(f"{progress.step:,}/{progress.total_steps:,}", no_wrap=True),
            Text(self._stage, style="bold cyan" if not self._is_away else "bold yellow", no_wrap=True),
            Text(figures, no_wrap=True),
        ]
        if width >= _NARROWEST_PAIR:
            head = Table.grid(padding=(0, 2))
            head.add_row(title, *cells)
            return head
        line = Table.grid(padding=(0, 1))
        line.add_row(Text(" "), *cells)
        return Group(title, line)

    def _charts(self, width: int, height: int | None) -> Table:
        """Both charts; only the loss, or nothing, if ``height`` rows are not enough."""
        is_pair = width >= _NARROWEST_PAIR
        rows, count = _CHART_ROWS, 2
        if height is not None:
            if not is_pair and height < 2 * (_FEWEST_ROWS + _ROWS_AROUND):
                count = 1
            rows = min(height // (1 if is_pair else count) - _ROWS_AROUND, _CHART_ROWS)
        grid = Table.grid(padding=(0, 2))
        if rows < _FEWEST_ROWS:
            return grid
        columns = min((width - 4) // 2 if is_pair else width - 2, _WIDEST_CHART)
        last_x = float(max(self._progress.total_steps, 1))
        losses, accuracies = list(self.loss.values()), list(self.accuracy.values())
        size: dict[str, Any] = {"columns": columns, "rows": rows, "last_x": last_x}
        charts = [
            drawn("loss", losses, is_logarithmic=True, **size),
            drawn("accuracy", accuracies, bounds=(0.0, 1.0), **size),
        ]
        if is_pair:
            grid.add_row(*charts)
        else:
            for chart in charts[:count]:
                grid.add_row(chart)
        return grid


def _curves() -> dict[str, Curve]:
    return {
        "batches": Curve("batches", "blue", short_name="batch"),
        "validation": Curve("validation", "green", short_name="val"),
        "test": Curve("test", "yellow"),
    }


def line_of(event: pb.TrainingRunEvent) -> str:
    """The line for an event; empty for events that are not shown."""
    match event.WhichOneof("event"):
        case "attempt_started" if event.attempt_started.attempt > 1:
            return f"begun again, attempt {event.attempt_started.attempt}"
        case "attempt_ended":
            return f"interrupted: {event.attempt_ended.reason}"
        case "training_started" if event.training_started.start_step:
            return f"going on from step {event.training_started.start_step:,}"
        case "stage_finished":
            return _stage_line(event.stage_finished)
        case "cancel_requested":
            return "asked to stop"
        case _:
            return ""


def _stage_line(finished: pb.StageFinished) -> str:
    detail = as_json(finished).get("detail", {})
    if finished.stage == "gate":
        return f"{'gate':<9} {'met' if detail['is_met'] else 'NOT met'}: {detail['summary']}"
    if finished.stage == "publish":
        return f"{'publish':<9} {detail['name']} version {detail['version']} ({finished.duration_seconds:.1f} s)"
    return stage_line(StageFinished(finished.stage, finished.duration_seconds, detail))


def print_outcome(run: TrainingRun, console: Console, *, has_just_ended: bool = False) -> None:
    """Print how a run ended, and the state of its version now, or at the end of the run if that is unknown."""
    snapshot, result = run.snapshot, run.result
    if result is None:
        reason = run.error.message if run.error is not None else ""
        console.print(
            Text(f"{run.name}: {run.state}", style="bold red").append(f"  {reason}", style="not bold default")
        )
        return
    rows = [
        (f"{split} accuracy", f"{result.metrics[split].accuracy:.2%} of {result.metrics[split].count:,}")
        for split in ("test", "validation", "train")
        if split in result.metrics
    ]
    rows.append(("proof", result.parity.summary))
    if result.HasField("gate"):
        rows.append(("gate", result.gate.summary))
    rows.append(("weights", f"sha256 {result.weights_sha256[:16]}..."))
    rows.append(("served", _served(snapshot.serving, result.serving, has_just_ended=has_just_ended)))
    grid = Table(
        title=f"{result.model_name} version {result.model_version}", title_justify="left", title_style="bold", box=None
    )
    grid.show_header = False
    for row in rows:
        grid.add_row(*map(Text, row))
    console.print(grid)


def _served(now: pb.Serving, at_the_end: pb.Serving, *, has_just_ended: bool) -> str:
    """The state of the version; ``now`` may be UNKNOWN if the worker that answered has not scanned the directory."""
    if now.state != _UNKNOWN or at_the_end.state in ("", _UNKNOWN):
        return _standing(now)
    if has_just_ended:
        return _standing(at_the_end)
    return f"{_standing(at_the_end)} when the run ended; now {_standing(now)}"


def _standing(serving: pb.Serving) -> str:
    return serving.state + (f": {serving.reason}" if serving.reason else "")
