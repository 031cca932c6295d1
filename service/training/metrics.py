"""Metrics of training runs, split between processes so that the sum over all of them is right.

Only the leader reports queued and running runs; the end of a run is counted by the process that stored it.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.observability.exposition import Family, Kind
from service.training import failures
from service.training.run import RunState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from service.training.run import Run

BOUNDS_S = (1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600)
"""Upper bounds of the buckets of durations, in seconds."""
_NO_REASON = "NONE"
_ENDS = (
    (RunState.SUCCEEDED, _NO_REASON),
    (RunState.CANCELLED, failures.CANCELLED),
    *((RunState.FAILED, reason) for reason in failures.REASONS),
)
"""Counters that exist from the start with 0, since Prometheus sees no increase when a counter first appears."""


@dataclass(frozen=True)
class UnderWay:
    """Queued and running runs as the leader sees them; all 0 in other processes."""

    slots: int = 0
    queued: int = 0
    running: int = 0

    @classmethod
    def of(cls, active: Iterable[Run], slots: int) -> UnderWay:
        """Count the states of all runs that are not done."""
        states = [run.state for run in active]
        return cls(slots, states.count(RunState.QUEUED), states.count(RunState.RUNNING))


class _Durations:
    """The duration histogram of runs that ended in one state."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0

    def add(self, took_s: float) -> None:
        self.counts[bisect_left(BOUNDS_S, took_s)] += 1
        self.sum_s += took_s


class Tally:
    """The metrics of training runs in this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way = UnderWay()
        self._ends = dict.fromkeys(_ENDS, 0)
        self._durations = {state: _Durations() for state in RunState if state.is_done}

    def see(self, under_way: UnderWay) -> None:
        """Set the numbers of queued and running runs; a process that stops leading sets them to 0."""
        with self._lock:
            self._under_way = under_way

    def ended(self, run: Run) -> None:
        """Count the end of a run that this process stored."""
        end = run.state, _NO_REASON if run.failure is None else run.failure.reason
        with self._lock:
            self._ends[end] = self._ends.get(end, 0) + 1
            if run.started_s is not None and run.ended_s is not None:
                # The clock may have been set back meanwhile.
                self._durations[run.state].add(max(0.0, run.ended_s - run.started_s))

    def families(self) -> Iterator[Family]:
        """The metric families with their current values."""
        slots = Family(
            "mnist1d_training_slots", Kind.GAUGE, "Training runs at a time; 0 while another server runs them."
        )
        runs = Family(
            "mnist1d_training_runs", Kind.GAUGE, "Training runs that are not done, by state; 0 as the slots are."
        )
        finished = Family(
            "mnist1d_training_runs_finished_total", Kind.COUNTER, "Training runs that ended, by outcome and reason."
        )
        durations = Family(
            "mnist1d_training_run_duration_seconds",
            Kind.HISTOGRAM,
            "Time from the first start of a training run to its end, by outcome; one that never began has none.",
        )
        with self._lock:
            slots.add(self._under_way.slots)
            runs.add(self._under_way.queued, state=RunState.QUEUED.value)
            runs.add(self._under_way.running, state=RunState.RUNNING.value)
            for (state, reason), count in self._ends.items():
                finished.add(count, outcome=state.value, reason=reason)
            for state, seen in self._durations.items():
                durations.add_histogram(BOUNDS_S, seen.counts, seen.sum_s, outcome=state.value)
        yield from (slots, runs, finished, durations)
