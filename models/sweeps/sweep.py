"""A sweep: run the trials that have no result yet, and write each outcome at once. No torch.

Running a sweep again runs the missing trials, including those that failed before. A sweep that is stopped or killed
loses only the trials that were running.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from models.sweeps.outcome import TrialFailure, TrialResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from models.sweeps.executor import Executor
    from models.sweeps.folder import ResultsFolder
    from models.sweeps.outcome import Outcome
    from models.sweeps.trial import Trial


class Watcher(Protocol):
    """Is notified of the progress of a sweep."""

    def begins(self, missing: Sequence[Trial], present: int) -> None:
        """The trials ``missing`` will be run; ``present`` trials have a result already."""
        ...

    def progresses(self, trial: Trial, step: int) -> None:
        """A trial has reached a step."""
        ...

    def ends(self, outcome: Outcome) -> None:
        """A trial is done, and its file is written."""
        ...


class Nobody:
    """A watcher that ignores everything."""

    def begins(self, missing: Sequence[Trial], present: int) -> None:
        """Ignore the notification."""

    def progresses(self, trial: Trial, step: int) -> None:
        """Ignore the notification."""

    def ends(self, outcome: Outcome) -> None:
        """Ignore the notification."""


@dataclass(frozen=True)
class SweepOutcome:
    """The outcome of a sweep."""

    trials: tuple[Trial, ...]
    results: Mapping[str, TrialResult]
    """Results by digest: those that were there before and those that this sweep added."""
    added: int
    """Number of results that this sweep added."""
    failures: tuple[TrialFailure, ...]
    stopped: bool
    """Whether it ended before every trial was run."""

    @property
    def found(self) -> list[TrialResult]:
        """The results in the order of the trials."""
        return [self.results[trial.digest] for trial in self.trials if trial.digest in self.results]


def run(
    trials: Sequence[Trial],
    folder: ResultsFolder,
    executor: Executor,
    *,
    watcher: Watcher | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> SweepOutcome:
    """Run those of ``trials`` that have no result in ``folder``.

    A failure is written to a subfolder, and the other trials go on. Raises TrialFileError if the folder cannot be read
    or written, and the exceptions of the executor if it cannot begin.
    """
    watcher = Nobody() if watcher is None else watcher
    results = folder.results(trials)
    missing = [trial for trial in trials if trial.digest not in results]
    watcher.begins(missing, len(results))
    failures: list[TrialFailure] = []
    added = 0
    if missing:
        folder.check_writable()
        with contextlib.closing(executor(missing, on_progress=watcher.progresses, stop=stop)) as outcomes:
            for outcome in outcomes:
                folder.keep(outcome)
                if isinstance(outcome, TrialResult):
                    results[outcome.trial.digest] = outcome
                    added += 1
                else:
                    failures.append(outcome)
                watcher.ends(outcome)
    stopped = added + len(failures) < len(missing)
    return SweepOutcome(tuple(trials), results, added, tuple(failures), stopped)
