"""Dynamic batching: requests that wait at the same time run together.

By default there is no delay: a batch holds the requests of one tick of the event loop, or of the time of the last run.
The queue is bounded, expired and cancelled requests are not run, and a run in a thread is ended when no caller wants
its answer any more. Requests are joined only where the model's rows are known to be independent
(`service.repository.row_independence`), and the rows of a joint answer are counted before it is split.

This module handles arrays and callers, not models, messages or transports. A `Batcher` belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from service.errors import DeadlineExceeded, QueueFull, QueueTimeout, ServerStopping, ServiceError
from service.runtime.batch import ARRAYS, Question
from service.runtime.statistics import Timing
from service.runtime.thread_run import ThreadRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor

    import numpy as np

    from models.artifact.onnx_session import RunOptions
    from service.runtime.active_runs import ActiveRuns
    from service.runtime.batch import Answer, Form, Waiting
    from service.runtime.statistics import Statistics

    Run = Callable[[Mapping[str, np.ndarray], Sequence[str], "RunOptions | None"], list[np.ndarray]]

_log = logging.getLogger(__name__)

PRIORITY_LEVELS = 3
"""Number of priority levels; level 1 is served first."""
DEFAULT_PRIORITY = 2
"""Priority of a request that names none or an unknown one, as in Triton."""
_JOINT_ANSWER_BYTES = 16 * 1024 * 1024
"""Approximate limit of the answers of one joint run, in bytes, since they are all in memory until the clients have
read them. The answer to a single request may be larger."""
CONCURRENT_RUNS = 2
"""Runs of one model that may go on in threads at the same time."""


@dataclass(frozen=True)
class Batching:
    """Limits of the queue and of a batch."""

    max_batch_size: int = 4096
    """Most rows of one run."""
    max_queue_size: int = 1024
    """Requests that may wait; further ones fail with QueueFull."""
    max_queue_delay_us: int = 0
    """How long the first waiting request may be held back, in microseconds, for others to join it."""


class Patience(NamedTuple):
    """How long a request may wait, and its priority."""

    deadline_ns: int | None = None
    """The caller's deadline, on the clock of ``time.perf_counter_ns``."""
    timeout_us: int = 0
    """Longest wait in the queue, in microseconds; 0 for no limit."""
    priority: int = DEFAULT_PRIORITY


PATIENT = Patience()


class RunEnded(Exception):
    """A run was ended through its options before it was over."""


class _RowsLost(Exception):
    """A joint answer cannot be split: its number of rows is not that of its requests."""


class Batcher:
    """The queue of one model."""

    def __init__(
        self,
        run: Run,
        statistics: Statistics,
        batching: Batching,
        *,
        why_not_batched: str | None,
        stays_on_loop: Callable[[int], bool],
        executor: Executor | None,
        active_runs: ActiveRuns,
        about: Mapping[str, str],
    ) -> None:
        """``why_not_batched``: the reason why every request runs alone; None if they may be joined.
        ``stays_on_loop(elements)``: whether a run on that many input elements is short enough for the event loop.
        ``about``: log fields that name the model of this queue.
        """
        self._run = run
        self._statistics = statistics
        self._batching = batching
        self._most_waiting = batching.max_queue_size
        self._most_rows = batching.max_batch_size
        """Most rows of a joint run; lowered where the answers of earlier runs were large."""
        self.why_not_batched = why_not_batched
        """None while requests are joined. A joint answer with lost rows sets it for good, from the run's thread."""
        self._stopping = threading.Lock()
        self._stays_on_loop = stays_on_loop
        self._executor = executor
        self._active_runs = active_runs
        self._about = about
        # A dict keeps the order of arrival and removes any member in constant time.
        self._queues: dict[int, dict[Waiting, None]] = {level: {} for level in range(1, PRIORITY_LEVELS + 1)}
        self._count = 0
        self._running = 0
        self._timer: asyncio.Handle | None = None
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._expiry_ns = 0

    async def submit(
        self, feeds: Mapping[str, np.ndarray], outputs: tuple[str, ...], rows: int, patience: Patience
    ) -> tuple[list[np.ndarray], Timing]:
        """Wait for a run; returns the answers in the order of ``outputs``, and where the time went.

        Raises:
            QueueFull: ``max_queue_size`` requests wait already.
            DeadlineExceeded, QueueTimeout: it waited too long and was not run.
            InferenceFailed: the model failed on this very request.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[list[np.ndarray], Timing]] = loop.create_future()
        waiting = self.enqueue(loop, ARRAYS, feeds, outputs, rows, patience, partial(_hand_over, answer))
        try:
            return await answer
        finally:
            waiting.done = None
            self.withdraw(waiting)
            # Break the reference cycle of the exception, this frame and the future that holds the exception: it would
            # keep alive all that the caller held, a replaced model included, until the garbage collector runs.
            del waiting, answer

    def enqueue(
        self,
        loop: asyncio.AbstractEventLoop,
        form: Form,
        contents: object,
        outputs: tuple[str, ...],
        rows: int,
        patience: Patience,
        done: Callable[[Answer | Exception, Timing], None],
    ) -> Question:
        """Queue a request and return; ``done`` is called later with the answer or the exception.

        Raises:
            QueueFull: ``max_queue_size`` requests wait already.
        """
        now_ns = time.perf_counter_ns()
        level = patience.priority if 1 <= patience.priority <= PRIORITY_LEVELS else DEFAULT_PRIORITY
        question = Question(form, contents, outputs, rows, done, now_ns, level)
        question.expires_ns = patience.deadline_ns
        if patience.timeout_us:
            timeout_ns = now_ns + 1000 * patience.timeout_us
            if question.expires_ns is None or timeout_ns < question.expires_ns:
                question.expires_ns, question.is_deadline = timeout_ns, False
        if not self.offer(question, loop):
            raise QueueFull(
                f"Exceeds maximum queue size: {self._count} requests wait, at most {self._batching.max_queue_size} may"
            )
        return question

    def offer(self, waiting: Waiting, loop: asyncio.AbstractEventLoop | None = None) -> bool:
        """Queue a request; returns False if the queue is full."""
        if self._count >= self._most_waiting and self.is_full:
            return False
        self._queues[waiting.level][waiting] = None
        self._statistics.pending = self._count = self._count + 1
        if waiting.expires_ns is not None and (self._running >= CONCURRENT_RUNS or self._delay_us):
            self._arm_expiry(loop or asyncio.get_running_loop(), waiting.expires_ns)
        if self._timer is None or self._batching.max_queue_delay_us:
            self._schedule(loop or asyncio.get_running_loop(), waiting)
        return True

    @property
    def is_full(self) -> bool:
        """Whether the queue is full after expired requests were dropped and a run that was already scheduled for this
        tick of the loop was begun.
        """
        if self._count >= self._most_waiting:
            self._drop_expired()
            if self._timer is not None and self._count >= self._most_waiting:
                self._timer.cancel()
                self._tick(asyncio.get_running_loop())
        return self._count >= self._most_waiting

    def withdraw(self, waiting: Waiting) -> None:
        """The caller does not want the answer any more: free the place, and end a run that has no other caller."""
        self._remove(waiting)
        if waiting.thread_run is not None:
            waiting.thread_run.withdraw(waiting)

    def _schedule(self, loop: asyncio.AbstractEventLoop, newest: Waiting | None = None) -> None:
        if self._running >= CONCURRENT_RUNS or not self._count:
            return
        delay_us = self._delay_us
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

    @property
    def _delay_us(self) -> int:
        return self._batching.max_queue_delay_us if self.why_not_batched is None else 0

    def _rows_waiting(self) -> int:
        return sum(waiting.rows for queue in self._queues.values() for waiting in queue)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take the next batch and run it, here or in a thread."""
        self._timer = None
        batch = self._take_all() or self._take()
        if not batch:
            return
        if self._stays_on_loop(sum([waiting.elements for waiting in batch])):
            self._deliver(batch, self._compute(batch))
            self._schedule(loop)
            return
        self._running += 1
        run = ThreadRun(batch, self._active_runs)
        for waiting in batch:
            waiting.thread_run = run
        computing = loop.run_in_executor(self._executor, self._compute, batch, run)
        computing.add_done_callback(lambda done: self._finished(loop, batch, done))
        # Requests behind it may start in another thread.
        self._schedule(loop)
        if self._running >= CONCURRENT_RUNS and self._count:
            self._arm_earliest(loop)  # no timer was set for requests that came while a run could begin

    def _finished(
        self, loop: asyncio.AbstractEventLoop, batch: list[Waiting], done: asyncio.Future[list[Answer | Exception]]
    ) -> None:
        self._running -= 1
        for waiting in batch:
            waiting.thread_run = None
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or error is not None:
            # Only a defect or a stopped executor leads here: a failure of the model is an outcome.
            defect = error if isinstance(error, Exception) else RuntimeError("the run was cancelled")
            self._deliver(batch, [defect] * len(batch))
        else:
            self._deliver(batch, done.result())
        self._schedule(loop)

    def _take_all(self) -> list[Waiting]:
        """Take all waiting requests if they fit into one run as they are, the common case; otherwise take none."""
        waits = [queue for queue in self._queues.values() if queue]
        if len(waits) != 1 or self.why_not_batched is not None:
            return []
        now_ns = time.perf_counter_ns()
        batch = list(waits[0])
        shape_key = batch[0].shape_key
        rows = 0
        for waiting in batch:
            if waiting.shape_key is not shape_key or (waiting.expires_ns is not None and now_ns >= waiting.expires_ns):
                return []
            waiting.queue_ns = now_ns - waiting.since_ns
            rows += waiting.rows
        if rows > self._most_rows:
            return []
        waits[0].clear()
        self._statistics.pending = self._count = 0
        return batch

    def _take(self) -> list[Waiting]:
        """Take the next requests that fit into one run, by priority and arrival; expired ones are answered."""
        now_ns = time.perf_counter_ns()
        batch: list[Waiting] = []
        rows = 0
        most = self._most_rows
        for waiting in self._in_order():
            if waiting.expires_ns is not None and now_ns >= waiting.expires_ns:
                self._expire(waiting)
                continue
            if batch and (rows + waiting.rows > most or waiting.shape_key != batch[0].shape_key):
                continue
            self._remove(waiting)
            waiting.queue_ns = now_ns - waiting.since_ns
            batch.append(waiting)
            rows += waiting.rows
            if self.why_not_batched is not None or rows >= most:
                break
        return batch

    def _compute(self, batch: list[Waiting], run: ThreadRun | None = None) -> list[Answer | Exception]:
        """Run all requests together; if that fails, each alone, so that only the request at fault fails."""
        try:
            return self._compute_together(batch, run)
        except Exception as error:  # noqa: BLE001 - a defect, too, must be the outcome of these requests
            if len(batch) == 1 or isinstance(error, RunEnded):
                return [_outcome(error)] * len(batch)
        outcomes: list[Answer | Exception] = []
        for waiting in batch:
            try:
                outcomes += self._compute_together([waiting], run)
            except Exception as error:  # noqa: BLE001 - as above
                outcomes.append(_outcome(error))
        return outcomes

    def _compute_together(self, batch: list[Waiting], run: ThreadRun | None) -> list[Answer | Exception]:
        began_ns = time.perf_counter_ns()
        first = batch[0]
        form = first.form
        for waiting in batch:
            if waiting.form is not form:
                form = ARRAYS
                break
        feeds = form.gather(batch)
        put_together_ns = time.perf_counter_ns()
        # A joint run gets an empty context: the current one is of the caller that happened to start the queue.
        context = first.context if len(batch) == 1 else contextvars.Context()
        if run is None:
            answers = context.run(self._run, feeds, first.outputs, None)
        else:
            with run.options(batch) as options:
                answers = context.run(self._run, feeds, first.outputs, options)
        ran_ns = time.perf_counter_ns()
        rows = sum([waiting.rows for waiting in batch])
        if len(batch) > 1:
            self._count_rows(answers, rows, first.outputs)
        answer_bytes = sum([answer.nbytes for answer in answers]) or 1
        self._most_rows = min(self._batching.max_batch_size, max(1, _JOINT_ANSWER_BYTES * rows // answer_bytes))
        outcomes = form.scatter(batch, answers)
        timing = Timing(0, put_together_ns - began_ns, ran_ns - put_together_ns, time.perf_counter_ns() - ran_ns)
        for waiting in batch:
            waiting.run = timing
        self._statistics.ran(rows, timing)
        return outcomes

    def _count_rows(self, answers: list[np.ndarray], rows: int, outputs: tuple[str, ...]) -> None:
        """Raise _RowsLost and stop batching unless every output has ``rows`` rows."""
        for answer, name in zip(answers, outputs, strict=True):
            if not answer.ndim or answer.shape[0] != rows:
                shape = list(answer.shape)
                self._stop_batching(f"{rows} rows of requests that ran together gave output {name!r} of shape {shape}")
                raise _RowsLost(name)

    def _stop_batching(self, reason: str) -> None:
        with self._stopping:
            if self.why_not_batched is None:
                self.why_not_batched = reason
                _log.error("requests are not batched any more", extra={**self._about, "reason": reason})

    def _deliver(self, batch: list[Waiting], outcomes: Sequence[Answer | Exception]) -> None:
        classes: dict[type[Waiting], None] = dict.fromkeys(map(type, batch))
        for each in classes:
            if len(classes) == 1:
                each.settle_all(batch, outcomes)
            else:
                mine = [pair for pair in zip(batch, outcomes, strict=True) if type(pair[0]) is each]
                each.settle_all([waiting for waiting, _ in mine], [outcome for _, outcome in mine])

    def _arm_expiry(self, loop: asyncio.AbstractEventLoop, at_ns: int) -> None:
        """Set a timer for the next expiry: nothing is dequeued while threads are busy or a batch is held back."""
        if self._expiry_timer is not None:
            if self._expiry_ns <= at_ns:
                return
            self._expiry_timer.cancel()
        self._expiry_ns = at_ns
        delay_s = max(0, at_ns - time.perf_counter_ns()) / 1e9
        self._expiry_timer = loop.call_later(delay_s, self._expiry_tick, loop)

    def _expiry_tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._expiry_timer = None
        self._drop_expired()
        self._arm_earliest(loop)

    def _arm_earliest(self, loop: asyncio.AbstractEventLoop) -> None:
        next_ns = min((w.expires_ns for w in self._in_order() if w.expires_ns is not None), default=None)
        if next_ns is not None:
            self._arm_expiry(loop, next_ns)

    def _drop_expired(self) -> None:
        now_ns = time.perf_counter_ns()
        for waiting in self._in_order():
            if waiting.expires_ns is not None and now_ns >= waiting.expires_ns:
                self._expire(waiting)

    def _expire(self, waiting: Waiting) -> None:
        self._remove(waiting)
        if waiting.is_deadline:
            waiting.settle(DeadlineExceeded("the deadline passed while the request waited for a run"))
        else:
            waiting.settle(QueueTimeout("Request timeout expired"))

    def _in_order(self) -> Iterator[Waiting]:
        for queue in self._queues.values():
            if queue:
                yield from list(queue)

    def _remove(self, waiting: Waiting) -> None:
        if self._queues[waiting.level].pop(waiting, waiting) is None:
            self._count -= 1
            self._statistics.pending = self._count


def _hand_over(
    answer: asyncio.Future[tuple[list[np.ndarray], Timing]], outcome: Answer | Exception, timing: Timing
) -> None:
    if answer.done():
        return
    if isinstance(outcome, list):
        answer.set_result((outcome, timing))
    else:
        answer.set_exception(outcome if isinstance(outcome, Exception) else TypeError("expected arrays, got bytes"))


def _outcome(error: Exception) -> Exception:
    """The exception that is reported to the caller of a request that failed with ``error``."""
    if isinstance(error, RunEnded):
        return ServerStopping("Server exiting")  # discarded where the caller has withdrawn
    if not isinstance(error, ServiceError):
        return error
    # Break the reference cycle with the frames of the traceback, see `Batcher.submit`. The cause is in the log already.
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
