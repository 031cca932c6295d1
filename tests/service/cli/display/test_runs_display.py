from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from service.cli.display.runs_display import Lines, Live, line_of, print_outcome
from service.client import ServerError, TrainingRun
from service.errors import Code
from service.pb import training_pb2 as pb

RUN = TrainingRun(
    "operations/1",
    False,
    pb.TrainingRunMetadata(network="conv", recipe="quick", seed=3, total_steps=1000, state=pb.RUNNING),
    None,
    None,
)


def event(**fields) -> pb.TrainingRunEvent:
    return pb.TrainingRunEvent(number=1, **fields)


def progress(step: int) -> pb.TrainingRunEvent:
    loss = 2.0 / step
    told = pb.Progress(step=step, total_steps=1000, loss=loss, accuracy=1 - loss / 4, steps_per_second=900,
                       remaining_seconds=65)  # fmt: skip
    return event(progress=told)


@pytest.mark.parametrize(
    ("width", "height", "charts"),
    [(120, 30, 2), (100, 30, 2), (90, 11, 2), (90, 9, 0), (60, 30, 2), (60, 17, 2), (60, 16, 1), (60, 9, 0)],
)
def test_a_picture_fits_its_terminal_each_legend_on_a_line(width, height, charts) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)
    live = Live(RUN, console)
    live.tell(event(training_started=pb.TrainingStarted(total_steps=1000)))
    for step in range(10, 500, 10):
        live.tell(progress(step))
    for split in ("validation", "test"):
        live.tell(event(evaluated=pb.Evaluated(step=400, split=split, loss=0.00123, accuracy=0.987)))
    with console.capture() as captured:
        console.print(live)
    lines = captured.get().splitlines()
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    assert "490/1,000" in captured.get()
    legends = [
        part for line in lines for part in re.findall(r"batch(?:es)? [\d.]+  val(?:idation)? [\d.]+  test [\d.]+", line)
    ]
    assert len(legends) == charts
    assert ("accuracy" in captured.get()) == (charts == 2)


@pytest.mark.parametrize("width", [60, 120])
def test_a_terminal_sees_curves_figures_and_the_stage_within_its_width(width) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    live = Live(RUN, console)
    for told in (
        event(attempt_started=pb.AttemptStarted(attempt=1)),
        event(stage_started=pb.StageStarted(stage="train")),
        event(training_started=pb.TrainingStarted(total_steps=1000)),
        *map(progress, range(10, 500, 10)),
        event(evaluated=pb.Evaluated(step=400, split="validation", loss=0.2, accuracy=0.9)),
        event(evaluated=pb.Evaluated(step=400, split="train", loss=0.1, accuracy=0.95)),
    ):
        live.tell(told)
    with console.capture() as captured:
        console.print(live)
    picture = captured.get()
    assert max(map(len, picture.splitlines())) <= width
    for text in ("conv, quick, seed 3", "490/1,000", "900 steps/s  1 min 05 s left", "loss", "accuracy"):
        assert text in picture
    assert "validation 0.2" in picture
    assert "⠤" in picture or any("\u2800" < sign < "\u28ff" for sign in picture)
    live.gap(ServerError(Code.UNAVAILABLE, "gone"))
    with console.capture() as captured:
        console.print(live)
    assert "the server is away" in captured.get()


def test_a_log_gets_about_ten_evaluations_and_hears_once_of_a_server_that_is_away() -> None:
    console = Console(file=io.StringIO(), width=200)
    lines = Lines(console)
    lines.tell(event(training_started=pb.TrainingStarted(total_steps=1000)))
    for step in range(10, 1001, 10):
        for split in ("train", "validation", "test"):
            lines.tell(event(evaluated=pb.Evaluated(step=step, split=split, loss=1, accuracy=0.5)))
    for _ in range(3):
        lines.gap(ServerError(Code.UNAVAILABLE, "gone"))
    printed = console.file.getvalue().splitlines()
    evaluations = [line for line in printed if "accuracy" in line]
    assert 20 <= len(evaluations) <= 24
    assert "step 1,000: test accuracy 50.00%, loss 1.0000" in evaluations[-1]
    assert sum("is away" in line for line in printed) == 1


def test_a_log_and_a_terminal_are_told_of_stages_before_the_first_step() -> None:
    console = Console(file=io.StringIO(), width=200)
    lines, live = Lines(console), Live(RUN, Console(file=io.StringIO(), force_terminal=True, width=120))
    for stage in ("load", "data", "train", "prepare"):
        lines.tell(event(stage_started=pb.StageStarted(stage=stage)))
        live.tell(event(stage_started=pb.StageStarted(stage=stage)))
        assert stage in shown(live)
    assert console.file.getvalue().splitlines() == [
        "  loading PyTorch ...",
        "  preparing the engine, which the first time is compiled ...",
    ]
    live.tell(event(training_started=pb.TrainingStarted(total_steps=1000)))
    live.tell(progress(10))
    assert "train  900 steps/s" in shown(live)


def shown(live: Live) -> str:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(live)
    return console.file.getvalue()


def test_lines_for_what_happens_to_a_run() -> None:
    assert line_of(event(attempt_started=pb.AttemptStarted(attempt=1))) == ""
    assert line_of(event(attempt_started=pb.AttemptStarted(attempt=2))) == "begun again, attempt 2"
    assert line_of(event(training_started=pb.TrainingStarted(start_step=5000))) == "going on from step 5,000"
    assert line_of(event(attempt_ended=pb.AttemptEnded(reason="SIGKILL"))) == "interrupted: SIGKILL"
    assert line_of(event(cancel_requested=pb.CancelRequested())) == "asked to stop"
    finished = pb.StageFinished(stage="gate", duration_seconds=0.1)
    finished.detail.update({"is_met": False, "summary": "90 %, less than 91 %"})
    assert line_of(event(stage_finished=finished)) == "gate      NOT met: 90 %, less than 91 %"
    finished = pb.StageFinished(stage="evaluate", duration_seconds=0.1)
    finished.detail.update({"test_accuracy": 1.0, "test_loss": 0.5})
    assert line_of(event(stage_finished=finished)) == "evaluate  test accuracy 100.00%, loss 0.5000 (0.1 s)"


UNSEEN = pb.Serving(state="UNKNOWN", reason="not among the versions that this server has looked at")
READY = pb.Serving(state="READY")
REFUSED = pb.Serving(state="UNAVAILABLE", reason="goldens differ")


@pytest.mark.parametrize(
    ("at_the_end", "now", "has_just_ended", "says"),
    [
        (READY, READY, True, "READY"),
        (READY, READY, False, "READY"),
        (READY, UNSEEN, True, "READY"),  # another worker answers, which has not looked yet
        (READY, UNSEEN, False, f"READY when the run ended; now UNKNOWN: {UNSEEN.reason}"),
        (READY, REFUSED, True, "UNAVAILABLE: goldens differ"),
        (REFUSED, UNSEEN, True, "UNAVAILABLE: goldens differ"),
        (UNSEEN, READY, True, "READY"),
        (UNSEEN, UNSEEN, True, f"UNKNOWN: {UNSEEN.reason}"),
        (None, UNSEEN, False, f"UNKNOWN: {UNSEEN.reason}"),
    ],
)
def test_how_a_version_is_served_is_told_by_whoever_knows(at_the_end, now, has_just_ended, says) -> None:
    result = pb.TrainingRunResult(model_name="m", model_version=1, serving=at_the_end)
    run = TrainingRun("operations/1", True, pb.TrainingRunMetadata(state=pb.SUCCEEDED, serving=now), result, None)
    console = Console(file=io.StringIO(), width=200, color_system=None)
    print_outcome(run, console, has_just_ended=has_just_ended)
    (line,) = [line for line in console.file.getvalue().splitlines() if "served" in line]
    assert line.split("served")[1].strip() == says
