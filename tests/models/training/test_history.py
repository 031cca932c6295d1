"""The history of a run: which steps are looked at, what is kept, what is refused when it is read."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from models.artifact.artifact import HISTORY_FILE
from models.errors import ArtifactError
from models.training.events import Evaluated
from models.training.history import CURVE_POINTS, Curve, History, curve_steps


@pytest.mark.parametrize("steps", [1, 2, 10, 60, 200, 4_000, 10_000, 100_000, 100_000_000])
def test_the_curve_of_a_run_has_about_as_many_points_whatever_its_length(steps):
    points = curve_steps(steps)

    assert points == tuple(sorted(set(points)))
    assert points[0] >= 1
    assert points[-1] == steps
    assert len(points) == CURVE_POINTS if steps >= 4_000 else len(points) <= min(steps, CURVE_POINTS)


def test_points_are_closest_at_the_start_and_never_far_apart():
    points = (0, *curve_steps(100_000))
    gaps = [later - earlier for earlier, later in pairwise(points)]

    assert gaps == sorted(gaps)
    assert gaps[0] < 250
    assert gaps[-1] == pytest.approx(2_500, rel=0.02)


@pytest.mark.parametrize(("steps", "points"), [(0, 5), (5, 0), (-1, 5)])
def test_a_run_has_steps_and_a_curve_points(steps, points):
    with pytest.raises(ValueError, match="must be at least 1"):
        curve_steps(steps, points)


def evaluations() -> list[Evaluated]:
    return [
        Evaluated(10, "train", 2.0, 0.25),
        Evaluated(10, "test", 2.1, 0.2),
        Evaluated(20, "train", 1.0, 0.5),
        Evaluated(20, "test", 1.5, 0.375),
    ]


def test_a_history_is_the_evaluations_by_split(tmp_path):
    history = History.of(evaluations())

    assert list(history.curves) == ["train", "test"]
    assert history.curves["test"] == Curve((10, 20), (2.1, 1.5), (0.2, 0.375))
    assert history.curves["train"].error_N == (0.75, 0.5)
    assert History.of([*evaluations(), *evaluations()]) == history
    (tmp_path / HISTORY_FILE).write_text(history.to_json())
    assert History.read(tmp_path) == history


def test_a_version_may_have_kept_none(tmp_path):
    assert History.read(tmp_path) is None
    assert History.of([]).curves == {}


def damaged(**changes) -> str:
    curve = {"step": [10, 20], "loss": [2.0, 1.0], "accuracy": [0.25, 0.5], **changes}
    return json.dumps({"format_version": 1, "splits": {"train": curve}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ("{}", "'format_version' is missing"),
        ('{"format_version": 2}', "got 2, this program reads 1"),
        ('{"format_version": 1}', "'splits' is missing"),
        ('{"format_version": 1, "splits": []}', "cannot be read"),
        ('{"format_version": 1, "splits": {"train": {}}}', "'step' is missing"),
        ("[" * 100_000, "cannot be read"),
        (damaged(step=[10]), "one value for each"),
        (damaged(step=[20, 10]), "must ascend"),
        (damaged(step=[0, 10]), "must ascend from 1"),
        (damaged(step=[1.5, 10]), "not a whole number"),
        (damaged(step=[True, 10]), "not a whole number"),
        (damaged(loss=[float("nan"), 1.0]), "finite"),
        (damaged(loss=["<b>", 1.0]), "no number"),
        (damaged(loss=[-1.0, 1.0]), "at least 0"),
        (damaged(accuracy=[0.5, 1.5]), "between 0 and 1"),
        (damaged(accuracy=[0.5, True]), "no number"),
    ],
)
def test_what_cannot_be_a_history_is_refused(text, message, tmp_path):
    (tmp_path / HISTORY_FILE).write_text(text)
    with pytest.raises(ArtifactError, match=message):
        History.read(tmp_path)


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / HISTORY_FILE).mkdir()
    with pytest.raises(ArtifactError, match="no regular file"):
        History.read(tmp_path)
