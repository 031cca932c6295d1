"""How events become lines, with and without a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from models.training import events
from service.cli.display.run_display import DOING, duration, live, silent, stage_line

RECIPE = {"network": "conv", "recipe": "", "name": "quick"}
RUN = [
    events.StageStarted("train"),
    events.Started(200, 0, RECIPE),
    events.Progress(100, 200, 0.5, 0.875, 1234.5, 65.0),
    events.Evaluated(200, "train", 0.5, 0.9),
    events.Evaluated(200, "test", 0.25, 0.8125),
    events.Finished(200, 1.0, "ab" * 32),
    events.StageFinished("train", 1.25, {"steps": 200, "weights_sha256": "ab" * 32}),
]


def show(*run: events.Event, terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None, legacy_windows=False)
    with live(console) as on_event:
        for event in run:
            on_event(event)
    return console.file.getvalue()


def test_in_a_log_there_are_lines_and_no_bar():
    assert show(*RUN, terminal=False).splitlines() == [
        "  training conv with recipe quick, 200 steps",
        "  step 200: test accuracy 81.25%, loss 0.2500",
        "  train     200 steps, weights abababababab (1.2 s)",
    ]


def test_on_a_terminal_there_is_a_bar_with_figures():
    text = show(*RUN[:3], terminal=True)
    assert "100/200" in text
    assert "loss 0.500  accuracy  87.5%  1,234 steps/s  1 min 05 s left" in text


@pytest.mark.parametrize("stage", DOING)
def test_on_a_terminal_every_stage_says_what_it_does_until_it_is_done(stage):
    assert DOING[stage] in show(events.StageStarted(stage), terminal=True)
    over = show(events.StageStarted(stage), events.Started(200, 0, RECIPE), terminal=True)
    assert DOING[stage] not in over.rpartition("training conv")[2]


def test_a_log_is_told_of_what_takes_long():
    stages = [events.StageStarted(stage) for stage in DOING]
    assert show(*stages, terminal=False).splitlines() == [
        "  loading PyTorch ...",
        "  preparing the engine, which the first time is compiled ...",
        "  exporting to ONNX ...",
    ]


def test_a_long_run_shows_about_ten_evaluations_and_the_last():
    steps = [*range(1000, 100_000, 1000), 100_000]
    evaluations = [events.Evaluated(step, split, 0.5, 0.9) for step in steps for split in ("validation", "test")]
    lines = show(events.Started(100_000, 0, RECIPE), *evaluations, terminal=False).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines[::2]] == [
        *(f"step {step:,}" for step in range(1000, 100_000, 10_000)),
        "step 100,000",
    ]
    assert [("validation" in line, "test" in line) for line in lines] == [(True, False), (False, True)] * 11


def test_a_resumed_run_says_so():
    assert "200 steps, going on from step 120" in show(events.Started(200, 120, RECIPE), terminal=False)


def test_silence(capsys):
    with silent() as on_event:
        for event in RUN:
            on_event(event)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("stage", "detail", "line"),
    [
        ("load", {}, "load      PyTorch is loaded (0.5 s)"),
        ("prepare", {"engine": "fused"}, "prepare   engine fused (0.5 s)"),
        ("data", {"train": 4000, "test": 1000}, "data      4,000 training and 1,000 test examples (0.5 s)"),
        (
            "data",
            {"train": 3500, "validation": 500, "test": 1000},
            "data      3,500 training, 500 held-out and 1,000 test examples (0.5 s)",
        ),
        ("evaluate", {"test_accuracy": 0.956, "test_loss": 0.1}, "evaluate  test accuracy 95.60%, loss 0.1000 (0.5 s)"),
        ("export", {"bytes": 9473, "sha256": "cd" * 32}, "export    9,473 bytes of ONNX, sha256 cdcdcdcdcdcd (0.5 s)"),
        ("prove", {"passed": True, "summary": "all passed"}, "prove     all passed (0.5 s)"),
        ("publish", {"name": "m", "version": 3, "path": "r/m/3"}, "publish   m version 3: r/m/3 (0.5 s)"),
        ("report", {"figures": 2}, "report    figures 2 (0.5 s)"),
    ],
)
def test_every_stage_has_a_line(stage, detail, line):
    assert stage_line(events.StageFinished(stage, 0.5, detail)) == line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (-1, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3599.4, "59 min 59 s"), (7620, "2 h 07 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
