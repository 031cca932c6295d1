from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from models.errors import TrialFileError
from models.sweeps.folder import ResultsFolder
from models.sweeps.outcome import TrialFailure
from models.sweeps.trial import Trial
from models.training.recipes import recipe


@pytest.fixture
def folder(tmp_path) -> ResultsFolder:
    return ResultsFolder(tmp_path / "deep" / "results")


def test_a_result_comes_back_as_it_was_kept(folder, result_of):
    for result in (result_of(test=0.9), result_of("best", seed=3, test=0.8, validation=0.7)):
        path = folder.keep(result)
        assert path == folder.path / result.trial.file_name
        assert folder.results([result.trial]) == {result.trial.digest: result}
    assert len(folder.all_results()) == 2
    assert [path.name for path in folder.path.iterdir() if path.suffix != ".json"] == []


def test_a_result_is_called_as_it_was_asked_for(folder, result_of):
    folder.keep(result_of("quick", test=0.9))
    asked = Trial(recipe("best", steps=10_000))
    assert folder.results([asked])[asked.digest].trial.label == "best steps=10000"


def test_an_empty_folder_and_none_have_no_results(folder):
    assert folder.all_results() == []
    assert folder.results([Trial(recipe("best"))]) == {}
    folder.path.mkdir(parents=True)
    assert folder.all_results() == []


def test_failures_are_kept_apart_until_the_trial_is_done(folder, result_of):
    result = result_of(test=0.9)
    path = folder.keep(TrialFailure(result.trial, "TrainingDiverged", "the loss is not finite"))
    assert path == folder.path / "failed" / result.trial.file_name
    assert json.loads(path.read_text())["message"] == "the loss is not finite"
    assert Trial.from_dict(json.loads(path.read_text())["trial"]) == result.trial
    assert folder.all_results() == []
    folder.keep(result)
    assert [path.name for path in folder.path.iterdir()] == [result.trial.file_name]


def test_a_curve_is_a_line_of_its_file(folder, result_of):
    lines = folder.keep(result_of(test=0.9)).read_text().splitlines()
    assert len(lines) == 14
    assert sum("accuracy" in line and "step" in line for line in lines) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:100], "is not the result of a trial: "),
        (lambda text: "", "is not the result of a trial: "),
        (lambda text: "[]", "is not the result of a trial: "),
        (lambda text: text.replace('"format": 1', '"format": 9'), "format 9, this version reads 1"),
        (lambda text: text.replace('"scores"', '"score"'), "'scores' is missing"),
        (lambda text: text.replace('"seed": 0', '"seed": 1'), "holds another trial (conv lecture seed 1)"),
        (lambda text: text.replace('"seed": 0', '"seed": -1'), "'seed': got -1"),
        (lambda text: text.replace('"engine": "auto"', '"engine": "steam"'), "(conv lecture engine=steam seed 0)"),
        (lambda text: text.replace('"accuracy": [', '"accuracy": [7, '), "must have one value for each"),
    ],
)
def test_a_file_that_is_no_result_is_told_and_not_overwritten(folder, result_of, change, message):
    result = result_of(test=0.9)
    path = folder.keep(result)
    text = change(path.read_text())
    assert text != path.read_text()
    path.write_text(text)
    with pytest.raises(TrialFileError) as caught:
        folder.results([result.trial])
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert path.read_text() == text


def test_a_full_disk_leaves_nothing_partial(folder, result_of, monkeypatch):
    result = result_of(test=0.9)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrialFileError, match="cannot be written: No space left on device"):
        folder.keep(result)
    assert list(folder.path.iterdir()) == []


def test_whoever_looks_sees_a_whole_file_or_none(folder, result_of, monkeypatch):
    seen = []
    real = Path.replace

    def replace(self, target):
        seen.append((folder.all_results(), Path(target).exists()))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    folder.keep(result_of(test=0.9))
    assert seen == [([], False)]


def test_a_folder_that_takes_nothing_is_noticed_beforehand(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrialFileError, match=r"no result could be kept in .* is not a directory"):
        ResultsFolder(tmp_path / "file").check_writable()
    ResultsFolder(tmp_path / "new").check_writable()
    assert not (tmp_path / "new").exists()
