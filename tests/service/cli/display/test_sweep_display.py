from __future__ import annotations

import io

import pytest
from rich.console import Console

from models.sweeps.outcome import Score, TrialFailure, TrialResult
from models.sweeps.trial import Trial
from models.training.history import Curve, History
from models.training.recipes import recipe
from service.cli.display import sweep_display

FIRST, SECOND = (Trial(recipe("quick", steps=100, seed=seed)) for seed in (0, 1))
CURVE = Curve((100,), (0.5,), (0.75,))
DONE = TrialResult(
    FIRST, 100, {"train": Score(0.9, 0.3), "test": Score(0.75, 0.5)}, History({"test": CURVE}), "ab" * 32, "torch", 61.2
)
FAILED = TrialFailure(SECOND, "TrainingDiverged", "the loss is not finite")


@pytest.fixture
def screen() -> io.StringIO:
    return io.StringIO()


def play(watcher, present: int = 0) -> None:
    watcher.begins([FIRST, SECOND], present)
    watcher.progresses(FIRST, 50)
    watcher.progresses(SECOND, 25)
    watcher.ends(DONE)
    watcher.ends(FAILED)


def test_a_line_a_trial_in_a_log(screen):
    with sweep_display.live(Console(file=screen, width=120)) as watcher:
        play(watcher, present=1234)
    assert screen.getvalue().splitlines() == [
        "  2 trials to run, 1,234 more are there already",
        "  conv quick steps=100 seed 0: test 75.00%, train 90.00% (1 min 01 s)",
        "  conv quick steps=100 seed 1: failed: the loss is not finite",
    ]


def test_a_bar_over_the_steps_of_all_trials_on_a_terminal(screen):
    console = Console(file=screen, width=120, force_terminal=True, color_system=None)
    with sweep_display.live(console) as watcher:
        play(watcher)
        (task,) = watcher._progress.tasks
        assert (task.completed, task.total) == (200, 200)
        assert task.fields["figures"] == "2 of 2 trials"
    assert "failed: the loss is not finite" in screen.getvalue()


def test_the_bar_counts_steps_before_a_trial_has_ended(screen):
    with sweep_display.live(Console(file=screen, width=120, force_terminal=True)) as watcher:
        watcher.begins([FIRST, SECOND], 0)
        watcher.progresses(FIRST, 50)
        watcher.progresses(SECOND, 25)
        watcher.progresses(FIRST, 60)
        (task,) = watcher._progress.tasks
        assert (task.completed, task.fields["figures"]) == (85, "0 of 2 trials")


def test_a_sweep_with_nothing_to_do(screen):
    with sweep_display.live(Console(file=screen, width=120, highlight=False)) as watcher:
        watcher.begins([], 7)
    assert screen.getvalue() == "  nothing to run: all 7 results are there already\n"


def test_silence(capsys):
    with sweep_display.silent() as watcher:
        play(watcher)
    assert capsys.readouterr() == ("", "")
