"""A sweep: run the trials that have no result yet, and keep each as soon as it is there. No torch.

Running a sweep again adds what is missing. What failed before is missing. A sweep that is stopped, or killed, has lost
the trials that were running and no others.
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
    """Told of a sweep as it goes on."""

    def begins(self, missing: Sequence[Trial], present: int) -> None:
        """So many trials will be run, and so many have a result already."""
        ...

    def progresses(self, trial: Trial, step: int) -> None:
        """A trial has come to a step."""
        ...

    def ends(self, outcome: Outcome) -> None:
        """A trial is done, and its file written."""
        ...


class Nobody:
    """The watcher for those who do not look."""

    def begins(self, missing: Sequence[Trial], present: int) -> None:
        """Nothing."""

    def progresses(self, trial: Trial, step: int) -> None:
        """Nothing."""

    def ends(self, outcome: Outcome) -> None:
        """Nothing."""


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep has come to."""

    trials: tuple[Trial, ...]
    results: Mapping[str, TrialResult]
    """By digest: those that were there before and those that this sweep added."""
    added: int
    """Trials that were done now."""
    failures: tuple[TrialFailure, ...]
    stopped: bool
    """Whether it ended before every trial was tried."""

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

    A trial that fails is a file in a folder of its own, and the others go on. TrialFileError if the folder cannot be
    read or written; what the executor raises if it cannot begin.
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
