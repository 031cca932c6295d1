"""What runs the trials of a sweep: the promise that processes of this machine and a Ray cluster both keep."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from models.sweeps.trial import Trial

if TYPE_CHECKING:
    from models.sweeps.outcome import Outcome

ProgressSink: TypeAlias = Callable[[Trial, int], None]
"""Told that a trial has come to a step, now and then; must be quick and must not raise."""

LOOK_UP_EVERY_S = 0.2
"""How often an executor that waits asks whether to stop."""


class Executor(Protocol):
    """Runs trials, as many at once as it has room for."""

    def __call__(
        self, trials: Sequence[Trial], *, on_progress: ProgressSink, stop: Callable[[], bool]
    ) -> Generator[Outcome]:
        """Each outcome as soon as it is there, in any order.

        Ends early when ``stop`` says so. Whether it ends or is closed, nothing that it started is left running.
        """
        ...
