from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.training.events import (
    CheckpointSaved,
    Evaluated,
    Finished,
    Progress,
    StageFinished,
    StageStarted,
    Started,
    ignore,
    to_json_line,
)
from models.training.recipes import recipe


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            Progress(10, 100, 0.5, 0.25, 200.0, 0.45),
            {
                "event": "progress",
                "step": 10,
                "total_steps": 100,
                "loss": 0.5,
                "accuracy": 0.25,
                "steps_per_s": 200.0,
                "remaining_s": 0.45,
            },
        ),
        (
            Evaluated(10, "validation", 0.1, 0.9),
            {"event": "evaluated", "step": 10, "split": "validation", "loss": 0.1, "accuracy": 0.9},
        ),
        (CheckpointSaved(5, Path("/a/b.npz")), {"event": "checkpoint_saved", "step": 5, "path": "/a/b.npz"}),
        (
            Finished(100, 1.5, "abc"),
            {"event": "finished", "step": 100, "duration_s": 1.5, "weights_sha256": "abc"},
        ),
        (StageStarted("export"), {"event": "stage_started", "stage": "export"}),
        (
            StageFinished("export", 0.5, {"bytes": 9, "nested": {"paths": [Path("/x")]}}),
            {
                "event": "stage_finished",
                "stage": "export",
                "duration_s": 0.5,
                "detail": {"bytes": 9, "nested": {"paths": ["/x"]}},
            },
        ),
    ],
)
def test_every_event_is_one_line_of_json(event, expected):
    line = to_json_line(event)

    assert "\n" not in line
    assert json.loads(line) == expected


def test_the_recipe_travels_with_the_start():
    chosen = recipe("best")
    line = json.loads(to_json_line(Started(100, 0, chosen.to_dict())))

    assert line["event"] == "started"
    assert line["recipe"] == chosen.to_dict()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_cannot_hold_become_null(value):
    line = to_json_line(StageFinished("train", 1.0, {"loss": value, "all": [value, 1.0]}))

    assert json.loads(line)["detail"] == {"loss": None, "all": [None, 1.0]}
    assert json.loads(to_json_line(Evaluated(1, "test", value, 0.1)))["loss"] is None


def test_line_breaks_in_values_stay_inside_the_line():
    assert "\n" not in to_json_line(StageFinished("a\nb", 0.0))


def test_ignore_takes_any_event():
    assert ignore(StageStarted("data")) is None
