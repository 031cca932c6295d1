"""The short way for requests that a plan knows: from their bytes into the queue, from the run to the answer's bytes.

One object a call and no closure, task, future or message. Whatever cannot go this way, or goes wrong on it, is done the
general way, which tells it properly: errors, log lines and statistics of failures are made in one place only.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from typing import TYPE_CHECKING

from service.inference.batch import Waiting
from service.inference.batcher import DEFAULT_PRIORITY
from service.inference.statistics import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.inference.admission import Admission
    from service.inference.batch import Answer
    from service.inference.plan import Plan
    from service.inference.reading import RequestReader
    from service.inference.runner import Runner
    from service.transport.methods import Responder


class ExpressLane:
    """A `service.transport.methods.Express` for inference."""

    def __init__(self, reader: RequestReader, admission: Admission) -> None:
        self._reader = reader
        self._admission = admission

    def enter(self, data: bytes, remaining_s: float | None, responder: Responder) -> Callable[[], None] | None:
        """Queue a request; None if it has to go the general way."""
        known = self._reader.known(data)
        if known is None:
            return None
        plan, runner, contents = known
        batcher = runner.batcher
        if batcher.is_full:
            return None
        call = ExpressCall(self._admission, plan, runner, contents, responder)
        if remaining_s is not None:
            call.expires_ns = call.since_ns + int(remaining_s * 1e9)
        if not self._admission.try_begin():
            return None
        batcher.put(asyncio.get_running_loop(), call)
        return call.cancel


class ExpressCall(Waiting):
    """One of them, while it waits and runs."""

    level = DEFAULT_PRIORITY
    form: Plan

    def __init__(
        self,
        admission: Admission,
        plan: Plan,
        runner: Runner,
        contents: bytes | memoryview,
        responder: Responder,
    ) -> None:
        # Not Waiting's own, which is for requests that differ in all that a plan has once for all of them.
        self.form = plan
        self.contents = contents
        self.outputs = plan.outputs
        self.rows = plan.rows
        self.shape_key = plan.key
        self.since_ns = time.perf_counter_ns()
        self._admission: Admission | None = admission
        self._runner: Runner | None = runner
        self._responder = responder

    @property
    def context(self) -> contextvars.Context:
        """An empty one: if it fails, it is run again the general way, and the log tells whose it was then."""
        return contextvars.Context()

    def settle(self, outcome: Answer | Exception) -> None:
        """Answer, unless it was cancelled."""
        runner = self._leave()
        if runner is None:
            return
        if isinstance(outcome, list):  # it ran together with requests that have no plan
            outcome = self.form.response(outcome)
        if isinstance(outcome, bytes) and self.run is not None:
            total_ns = time.perf_counter_ns() - self.since_ns
            runner.statistics.succeeded_as_run(total_ns, self.queue_ns, self.run, self.rows)
            self._responder.answer(outcome)
        else:
            self._responder.retry()

    def delivered(self) -> None:
        """What was answered may go."""
        self._responder.flush()

    def cancel(self) -> None:
        """Its caller has gone."""
        runner = self._leave()
        if runner is not None:
            runner.batcher.withdraw(self)
            runner.statistics.failed(Failure.CANCELED, time.perf_counter_ns() - self.since_ns)

    def _leave(self) -> Runner | None:
        """Whose place it gives back; None if it has left before."""
        runner, self._runner = self._runner, None
        if self._admission is not None:
            self._admission.end()
            self._admission = None
        return runner
