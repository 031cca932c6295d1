"""Requests that wait together run together.

There is no fixed delay: a batch is what has arrived in one tick of the event loop, or while the last run went on. The
queue is bounded, nothing that has expired or been cancelled is run, and a caller's answer holds the same bits whoever
shared the batch, since only models whose rows were seen to be independent are batched (`service.inference.runner`).

Knows arrays and callers; not models, messages or transports. Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from service.errors import DeadlineExceeded, QueueFull, QueueTimeout, ServiceError
from service.inference.statistics import Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor

    from service.inference.statistics import Statistics

    Run = Callable[[Mapping[str, np.ndarray], Sequence[str]], list[np.ndarray]]

PRIORITY_LEVELS = 3
"""1 goes first."""
DEFAULT_PRIORITY = 2
"""Of a request that names none, or one that there is not; as Triton treats both."""
CONCURRENT_RUNS = 2
"""Runs of one model that may go on in threads at the same time."""


@dataclass(frozen=True)
class Batching:
    """How requests are put together."""

    max_batch_size: int = 4096
    """Rows of one run."""
    max_queue_size: int = 1024
    """Requests that may wait; one more is told to come back."""
    max_queue_delay_us: int = 0
    """How long the first waiting request may be held back, in microseconds, for others to join it."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a request may wait, and before whom it goes."""

    deadline_ns: int | None = None
    """On the clock of ``time.perf_counter_ns``: the caller's own deadline."""
    timeout_us: int = 0
    """Microseconds in the queue; 0 for no limit."""
    priority: int = DEFAULT_PRIORITY


@dataclass(slots=True, eq=False)
class _Waiting:
    feeds: Mapping[str, np.ndarray]
    outputs: tuple[str, ...]
    rows: int
    answer: asyncio.Future[tuple[list[np.ndarray], Timing]]
    since_ns: int
    patience: Patience
    shape_key: tuple[object, ...] = ()
    timing: Timing = field(default_factory=Timing)
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    """What is logged while it runs alone is logged about its caller."""

    def expiry(self, now_ns: int) -> ServiceError | None:
        """Why it must not be run any more, if so."""
        patience = self.patience
        if patience.deadline_ns is not None and now_ns >= patience.deadline_ns:
            return DeadlineExceeded("the deadline passed while the request waited for a run")
        if patience.timeout_us and now_ns >= self.since_ns + 1000 * patience.timeout_us:
            return QueueTimeout("Request timeout expired")
        return None


class Batcher:
    """The queue in front of one model."""

    def __init__(
        self,
        run: Run,
        statistics: Statistics,
        batching: Batching,
        *,
        is_batchable: bool,
        stays_on_loop: Callable[[int], bool],
        executor: Executor | None,
    ) -> None:
        """``stays_on_loop(elements)``: whether a run on so many input elements is short enough for the event loop."""
        self._run = run
        self._statistics = statistics
        self._batching = batching
        self._is_batchable = is_batchable
        self._stays_on_loop = stays_on_loop
        self._executor = executor
        # A dict keeps the order of arrival and lets go of any member at once.
        self._queues: dict[int, dict[_Waiting, None]] = {level: {} for level in range(1, PRIORITY_LEVELS + 1)}
        self._count = 0
        self._running = 0
        self._timer: asyncio.Handle | None = None

    async def submit(
        self, feeds: Mapping[str, np.ndarray], outputs: tuple[str, ...], rows: int, patience: Patience
    ) -> tuple[list[np.ndarray], Timing]:
        """Wait for a run; returns the answers in the order of ``outputs``, and where the time went.

        Raises:
            QueueFull: ``max_queue_size`` requests wait already.
            DeadlineExceeded, QueueTimeout: it waited too long and was not run.
            InferenceFailed: the model failed on this very request.
        """
        if self._count >= self._batching.max_queue_size:
            self._drop_expired()
            if self._count >= self._batching.max_queue_size:
                raise QueueFull(
                    f"Exceeds maximum queue size: {self._count} requests wait, at most "
                    f"{self._batching.max_queue_size} may"
                )
        loop = asyncio.get_running_loop()
        waiting = _Waiting(feeds, outputs, rows, loop.create_future(), time.perf_counter_ns(), patience)
        waiting.shape_key = (outputs, tuple(array.shape[1:] for array in feeds.values()), tuple(feeds))
        level = patience.priority if 1 <= patience.priority <= PRIORITY_LEVELS else DEFAULT_PRIORITY
        self._queues[level][waiting] = None
        self._set_count(self._count + 1)
        self._schedule(loop, waiting)
        try:
            return await waiting.answer
        finally:
            # Cancelled while it waited: its place is free at once. Otherwise it is gone already.
            self._remove(level, waiting)
            # An exception holds this frame, and the frame would hold the future that holds the exception: a ring that
            # only the garbage collector opens, and with it everything the caller held, a replaced model included.
            del waiting

    def _schedule(self, loop: asyncio.AbstractEventLoop, newest: _Waiting | None = None) -> None:
        if self._running >= CONCURRENT_RUNS or not self._count:
            return
        delay_us = self._batching.max_queue_delay_us if self._is_batchable else 0
        is_full = newest is not None and newest.rows >= self._batching.max_batch_size
        if self._timer is not None:
            if not (delay_us and self._rows_waiting() >= self._batching.max_batch_size):
                return
            self._timer.cancel()
            delay_us = 0
        if delay_us and not is_full and newest is not None:
            self._timer = loop.call_later(delay_us / 1e6, self._tick, loop)
        else:
            self._timer = loop.call_soon(self._tick, loop)

    def _rows_waiting(self) -> int:
        return sum(waiting.rows for queue in self._queues.values() for waiting in queue)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take the next batch and run it, here or in a thread."""
        self._timer = None
        batch = self._take()
        if not batch:
            return
        if self._stays_on_loop(sum(elements_of(waiting.feeds) for waiting in batch)):
            self._deliver(batch, self._compute(batch))
            self._schedule(loop)
            return
        self._running += 1
        computing = loop.run_in_executor(self._executor, self._compute, batch)
        computing.add_done_callback(lambda done: self._finished(loop, batch, done))
        # What waits behind it may start in another thread.
        self._schedule(loop)

    def _finished(
        self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting], done: asyncio.Future[list[_Outcome]]
    ) -> None:
        self._running -= 1
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or error is not None:
            # Only a defect or the end of the executor comes here: a model's failure is an outcome.
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error or RuntimeError("the run was cancelled"))
        else:
            self._deliver(batch, done.result())
        self._schedule(loop)

    def _take(self) -> list[_Waiting]:
        """The next requests that fit into one run, in order of priority and arrival; the expired are told so."""
        now_ns = time.perf_counter_ns()
        batch: list[_Waiting] = []
        rows = 0
        for level, waiting in self._in_order():
            expired = waiting.expiry(now_ns)
            if expired is not None:
                self._refuse(level, waiting, expired)
                continue
            if batch and (
                waiting.shape_key != batch[0].shape_key or rows + waiting.rows > self._batching.max_batch_size
            ):
                continue
            self._remove(level, waiting)
            waiting.timing.queue_ns = now_ns - waiting.since_ns
            batch.append(waiting)
            rows += waiting.rows
            if not self._is_batchable or rows >= self._batching.max_batch_size:
                break
        return batch

    def _compute(self, batch: list[_Waiting]) -> list[_Outcome]:
        """One run for all of them. If it fails, one run for each: whoever is at fault harms nobody else."""
        try:
            return self._compute_together(batch)
        except ServiceError as error:
            if len(batch) == 1:
                return [_bare(error)]
        outcomes: list[_Outcome] = []
        for waiting in batch:
            try:
                outcomes += self._compute_together([waiting])
            except ServiceError as error:
                outcomes.append(_bare(error))
        return outcomes

    def _compute_together(self, batch: list[_Waiting]) -> list[_Outcome]:
        began_ns = time.perf_counter_ns()
        first = batch[0]
        feeds = (
            first.feeds
            if len(batch) == 1
            else {name: np.concatenate([waiting.feeds[name] for waiting in batch]) for name in first.feeds}
        )
        put_together_ns = time.perf_counter_ns()
        # Not the context of whoever happened to wake the queue: a shared run is nobody's in particular.
        context = first.context if len(batch) == 1 else contextvars.Context()
        answers = context.run(self._run, feeds, first.outputs)
        ran_ns = time.perf_counter_ns()
        outcomes: list[_Outcome] = []
        start = 0
        for waiting in batch:
            stop = start + waiting.rows
            outcomes.append(answers if len(batch) == 1 else [array[start:stop] for array in answers])
            start = stop
        run = Timing(0, put_together_ns - began_ns, ran_ns - put_together_ns, time.perf_counter_ns() - ran_ns)
        for waiting in batch:
            waiting.timing = Timing(waiting.timing.queue_ns, run.input_ns, run.infer_ns, run.output_ns)
        self._statistics.ran(start, run)
        return outcomes

    def _deliver(self, batch: list[_Waiting], outcomes: list[_Outcome]) -> None:
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if waiting.answer.done():  # cancelled while it ran
                continue
            if isinstance(outcome, ServiceError):
                waiting.answer.set_exception(outcome)
            else:
                waiting.answer.set_result((outcome, waiting.timing))

    def _drop_expired(self) -> None:
        now_ns = time.perf_counter_ns()
        for level, waiting in self._in_order():
            expired = waiting.expiry(now_ns)
            if expired is not None:
                self._refuse(level, waiting, expired)

    def _in_order(self) -> Iterator[tuple[int, _Waiting]]:
        for level, queue in self._queues.items():
            for waiting in list(queue):
                yield level, waiting

    def _refuse(self, level: int, waiting: _Waiting, error: ServiceError) -> None:
        self._remove(level, waiting)
        if not waiting.answer.done():
            waiting.answer.set_exception(error)

    def _remove(self, level: int, waiting: _Waiting) -> None:
        if self._queues[level].pop(waiting, waiting) is None:
            self._set_count(self._count - 1)

    def _set_count(self, count: int) -> None:
        self._count = count
        self._statistics.set_pending(count)


def _bare(error: ServiceError) -> ServiceError:
    """Without the frames that it came through: they hold the list that will hold it, see `Batcher.submit`. Its cause
    is in the log already.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


_Outcome = list[np.ndarray] | ServiceError


def elements_of(feeds: Mapping[str, np.ndarray]) -> int:
    """How large a question is; at least 1."""
    return sum(array.size for array in feeds.values()) or 1
