"""Statistics of a model version: counts and nanoseconds, as ModelStatistics and the metrics report them.

They may be read from any thread: a lock makes each snapshot consistent.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Failure(Enum):
    """Why a request failed, in the words of Triton's metrics."""

    REJECTED = "REJECTED"
    """The request was not run: the queue was full, or it waited too long."""
    CANCELED = "CANCELED"
    """The caller went away."""
    BACKEND = "BACKEND"
    """The model failed on the request."""
    OTHER = "OTHER"
    """Everything else: above all, a request that did not fit the model."""


@dataclass(frozen=True, slots=True)
class Duration:
    """A number of events and their total time in nanoseconds."""

    count: int = 0
    ns: int = 0


@dataclass(slots=True)
class Timing:
    """Where the time of one request went, in nanoseconds."""

    queue_ns: int = 0
    """Waiting for a run."""
    input_ns: int = 0
    """Reading the request and putting it into a batch."""
    infer_ns: int = 0
    """The run itself, the same for all requests of a batch."""
    output_ns: int = 0
    """Taking the answer out of the batch and writing the response."""


@dataclass(frozen=True)
class BatchCounts:
    """The runs with the same number of rows, by phase."""

    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


@dataclass(frozen=True)
class Snapshot:
    """All counters of a model version at one moment."""

    success: Duration
    failures: Mapping[Failure, Duration]
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    inference_count: int
    """Rows: a request with a batch of 64 adds 64."""
    execution_count: int
    """Runs: requests that ran together add 1."""
    last_inference_ms: int
    """Milliseconds since the epoch; 0 if there was none."""
    batches: Mapping[int, BatchCounts] = field(default_factory=dict)
    """Runs by the number of rows they had, ascending."""
    pending: int = 0
    """Requests that wait for a run now."""

    @property
    def fail(self) -> Duration:
        """Failures of every kind."""
        return Duration(sum(f.count for f in self.failures.values()), sum(f.ns for f in self.failures.values()))


class Statistics:
    """The counters of one model version."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = 0
        self._total_ns = 0
        self._timing = Timing()
        self._rows = 0
        self._runs = 0
        self._last_ns = 0
        self._failures: dict[Failure, list[int]] = {}
        self._batches: dict[int, list[int]] = {}
        self.pending = 0
        """Requests that wait for a run; set by the queue."""

    def succeeded(self, total_ns: int, timing: Timing, rows: int) -> None:
        """Count an answered request of ``rows`` rows that took ``total_ns`` nanoseconds."""
        with self._lock:
            self._requests += 1
            self._total_ns += total_ns
            self._timing.queue_ns += timing.queue_ns
            self._timing.input_ns += timing.input_ns
            self._timing.infer_ns += timing.infer_ns
            self._timing.output_ns += timing.output_ns
            self._rows += rows
            self._last_ns = time.time_ns()

    def succeeded_together(self, requests: int, total_ns: int, queue_ns: int, run: Timing, rows: int) -> None:
        """Count ``requests`` requests of one run, each with the timing of the run; ``total_ns``, ``queue_ns`` and
        ``rows`` are sums over all of them.
        """
        with self._lock:
            self._requests += requests
            self._total_ns += total_ns
            timing = self._timing
            timing.queue_ns += queue_ns
            timing.input_ns += requests * run.input_ns
            timing.infer_ns += requests * run.infer_ns
            timing.output_ns += requests * run.output_ns
            self._rows += rows
            self._last_ns = time.time_ns()

    def failed(self, why: Failure, total_ns: int) -> None:
        """Count a request that was not answered."""
        with self._lock:
            counted = self._failures.setdefault(why, [0, 0])
            counted[0] += 1
            counted[1] += total_ns

    def ran(self, rows: int, timing: Timing) -> None:
        """Count one run of the model; ``timing.queue_ns`` is ignored."""
        with self._lock:
            self._runs += 1
            counted = self._batches.setdefault(rows, [0, 0, 0, 0])
            counted[0] += 1
            counted[1] += timing.input_ns
            counted[2] += timing.infer_ns
            counted[3] += timing.output_ns

    def snapshot(self) -> Snapshot:
        """A consistent copy of all counters."""
        with self._lock:
            requests = self._requests
            return Snapshot(
                success=Duration(requests, self._total_ns),
                failures={why: Duration(count, ns) for why, (count, ns) in self._failures.items()},
                queue=Duration(requests, self._timing.queue_ns),
                compute_input=Duration(requests, self._timing.input_ns),
                compute_infer=Duration(requests, self._timing.infer_ns),
                compute_output=Duration(requests, self._timing.output_ns),
                inference_count=self._rows,
                execution_count=self._runs,
                last_inference_ms=self._last_ns // 1_000_000,
                batches={
                    rows: BatchCounts(Duration(count, input_ns), Duration(count, infer_ns), Duration(count, output_ns))
                    for rows, (count, input_ns, infer_ns, output_ns) in sorted(self._batches.items())
                },
                pending=self.pending,
            )
