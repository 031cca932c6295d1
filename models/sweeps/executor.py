"""The protocol for running the trials of a sweep, in processes of this machine or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from models.sweeps.trial import Trial

if TYPE_CHECKING:
    from models.sweeps.outcome import Outcome

ProgressSink: TypeAlias = Callable[[Trial, int], None]
"""Called now and then with a trial and the step that it has reached; must be quick and must not raise."""

LOOK_UP_EVERY_S = 0.2
"""Interval at which a waiting executor checks whether to stop."""


class Executor(Protocol):
    """Runs trials, as many at once as it has room for."""

    def __call__(
        self, trials: Sequence[Trial], *, on_progress: ProgressSink, stop: Callable[[], bool]
    ) -> Generator[Outcome]:
        """Yield each outcome as soon as it is known, in any order.

        Ends early if ``stop`` returns True. When it ends or is closed, nothing that it started is left running.
        """
        ...
