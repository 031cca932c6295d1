from __future__ import annotations

import pytest

from models.errors import TrialFileError
from models.sweeps import sweep
from models.sweeps.folder import ResultsFolder
from models.sweeps.outcome import TrialFailure
from models.sweeps.trial import Trial
from models.training.recipes import recipe

TRIALS = tuple(Trial(recipe("lecture", seed=seed)) for seed in range(4))


class Instant:
    """An executor that has every outcome at once; seeds of ``fails`` fail."""

    def __init__(self, result_of, fails=()):
        self._result_of, self._fails = result_of, fails
        self.began: list[int] = []
        self.closed = False

    def __call__(self, trials, *, on_progress, stop):
        try:
            for trial in trials:
                if stop():
                    return
                seed = trial.recipe.seed
                self.began.append(seed)
                on_progress(trial, 500)
                if seed in self._fails:
                    yield TrialFailure(trial, "TrainingDiverged", "not finite")
                else:
                    yield self._result_of(test=0.9, seed=seed)
        finally:
            self.closed = True


class Told:
    def __init__(self):
        self.events: list[object] = []

    def begins(self, missing, present):
        self.events.append(("begins", len(missing), present))

    def progresses(self, trial, step):
        self.events.append(("progresses", trial.recipe.seed, step))

    def ends(self, outcome):
        self.events.append(("ends", outcome.trial.recipe.seed))


@pytest.fixture
def folder(tmp_path) -> ResultsFolder:
    return ResultsFolder(tmp_path / "results")


def test_running_again_adds_what_is_missing(folder, result_of):
    executor = Instant(result_of)
    first = sweep.run(TRIALS[:2], folder, executor)
    assert (first.added, first.stopped, first.failures) == (2, False, ())
    files = {path: path.read_bytes() for path in folder.path.iterdir()}
    second = sweep.run(TRIALS, folder, executor)
    assert executor.began == [0, 1, 2, 3]
    assert second.added == 2
    assert [result.trial for result in second.found] == list(TRIALS)
    assert {path: path.read_bytes() for path in files} == files
    third = sweep.run(TRIALS, folder, executor)
    assert executor.began == [0, 1, 2, 3]
    assert (third.added, len(third.results)) == (0, 4)


def test_failures_are_told_kept_apart_and_tried_again(folder, result_of):
    outcome = sweep.run(TRIALS, folder, Instant(result_of, fails=(1,)))
    assert [failure.trial for failure in outcome.failures] == [TRIALS[1]]
    assert [result.trial.recipe.seed for result in outcome.found] == [0, 2, 3]
    assert not outcome.stopped
    assert [path.name for path in (folder.path / "failed").iterdir()] == [TRIALS[1].file_name]
    again = Instant(result_of)
    assert sweep.run(TRIALS, folder, again).failures == ()
    assert again.began == [1]
    assert not (folder.path / "failed").exists()


def test_a_sweep_that_is_stopped_has_kept_what_was_done(folder, result_of):
    answers = iter([False, False, True])
    executor = Instant(result_of)
    outcome = sweep.run(TRIALS, folder, executor, stop=lambda: next(answers))
    assert outcome.stopped
    assert (outcome.added, executor.began, executor.closed) == (2, [0, 1], True)
    assert len(folder.all_results()) == 2


def test_whoever_watches_is_told_after_the_file_is_there(folder, result_of):
    told = Told()
    there = []
    told.ends = lambda outcome: there.append((folder.path / outcome.trial.file_name).exists())
    sweep.run(TRIALS[:2], folder, Instant(result_of), watcher=told)
    assert told.events == [("begins", 2, 0), ("progresses", 0, 500), ("progresses", 1, 500)]
    assert there == [True, True]


def test_an_executor_is_closed_if_the_watcher_raises(folder, result_of):
    told, executor = Told(), Instant(result_of)

    def leave(outcome):
        raise BrokenPipeError

    told.ends = leave
    with pytest.raises(BrokenPipeError):
        sweep.run(TRIALS, folder, executor, watcher=told)
    assert executor.closed
    assert executor.began == [0]
    assert len(folder.all_results()) == 1


def test_an_unusable_folder_is_noticed_before_the_first_trial(tmp_path, result_of):
    (tmp_path / "file").write_text("")
    executor = Instant(result_of)
    with pytest.raises(TrialFileError):
        sweep.run(TRIALS, ResultsFolder(tmp_path / "file" / "below"), executor)
    assert executor.began == []
