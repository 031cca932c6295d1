"""The short way for requests that a plan knows: from their bytes into the queue, from the run to the answer's bytes.

One object a call and no closure, task, future or message. Whatever cannot go this way, or goes wrong on it, is done the
general way, which tells it properly: errors, log lines and statistics of failures are made in one place only.
"""

from __future__ import annotations

import contextvars
import time
from typing import TYPE_CHECKING

from service.runtime.batch import Waiting
from service.runtime.batcher import DEFAULT_PRIORITY
from service.runtime.statistics import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.inference.admission import Admission
    from service.inference.request import RequestReader
    from service.inference.request_plan import Plan
    from service.rpc.methods import Responder
    from service.runtime.batch import Answer
    from service.runtime.runner import Runner


class ExpressLane:
    """A `service.rpc.methods.Express` for inference."""

    def __init__(self, reader: RequestReader, admission: Admission) -> None:
        self._reader = reader
        self._admission = admission

    def enter(self, data: bytes, remaining_s: float | None, responder: Responder) -> ExpressCall | None:
        """Queue a request; None if it has to go the general way."""
        known = self._reader.known(data)
        if known is None:
            return None
        plan, runner, contents = known
        call = ExpressCall(self._admission, plan, runner, contents, responder)
        if remaining_s is not None:
            call.expires_ns = call.since_ns + int(remaining_s * 1e9)
        if not self._admission.try_begin():
            return None
        if not runner.batcher.offer(call):
            self._admission.end()
            return None
        return call


class ExpressCall(Waiting):
    """One of them, while it waits and runs; a `service.rpc.methods.Entered`."""

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
        self.elements = plan.input_elements
        self.since_ns = time.perf_counter_ns()
        self.admission = admission
        self.runner: Runner | None = runner
        """Until it is settled or cancelled."""
        self.responder = responder

    @property
    def context(self) -> contextvars.Context:
        """An empty one: if it fails, it is run again the general way, and the log tells whose it was then."""
        return contextvars.Context()

    def settle(self, outcome: Answer | Exception) -> None:
        """Answer, unless it was cancelled."""
        self.settle_all((self,), (outcome,))

    @staticmethod
    def settle_all(batch: Sequence[ExpressCall], outcomes: Sequence[Answer | Exception]) -> None:
        """Answer those that were not cancelled. What is the same for all of them is counted once. Never raises."""
        run = batch[0].run
        if len(batch) > 1 and (run is None or batch[-1].run is not run):  # they ran one by one, since some failed
            for call, outcome in zip(batch, outcomes, strict=True):
                call.settle(outcome)
            return
        runner = None
        answers: list[tuple[Responder, bytes]] = []
        retried: list[Responder] = []
        now_ns = time.perf_counter_ns()
        total_ns = queue_ns = rows = 0
        for call, outcome in zip(batch, outcomes, strict=True):
            if call.runner is None:
                continue
            runner, call.runner = call.runner, None
            if isinstance(outcome, list):  # it ran together with requests that have no plan
                outcome = call.form.response_or_error(outcome)
            if not isinstance(outcome, bytes):
                retried.append(call.responder)
                continue
            answers.append((call.responder, outcome))
            total_ns += now_ns - call.since_ns
            queue_ns += call.queue_ns
            rows += call.rows
        if runner is None:
            return
        batch[0].admission.end(len(answers) + len(retried))
        failed = _answer(answers)
        for call in batch if failed else ():
            if id(call.responder) in failed:
                total_ns -= now_ns - call.since_ns
                queue_ns -= call.queue_ns
                rows -= call.rows
                runner.statistics.failed(Failure.OTHER, now_ns - call.since_ns)
        succeeded = len(answers) - len(failed)
        if succeeded and run is not None:
            runner.statistics.succeeded_together(succeeded, total_ns, queue_ns, run, rows)
        for responder in retried:
            responder.retry()

    def cancel(self) -> None:
        """The caller has cancelled the call or has gone."""
        runner, self.runner = self.runner, None
        if runner is not None:
            self.admission.end()
            runner.batcher.withdraw(self)
            runner.statistics.failed(Failure.CANCELED, time.perf_counter_ns() - self.since_ns)


def _answer(answers: list[tuple[Responder, bytes]]) -> set[int]:
    """Send the answers; returns the identities of the responders whose calls failed by that."""
    failed: set[int] = set()
    kinds = dict.fromkeys([type(responder) for responder, _ in answers])
    for kind in kinds:
        mine = answers if len(kinds) == 1 else [each for each in answers if type(each[0]) is kind]
        failed.update(map(id, mine[0][0].answer_all(mine)))
    return failed
