"""Fast path for requests that have a plan: the request's bytes are queued, and the run yields the response's bytes.

It makes one object per call and no closure, task, future or message. Requests that cannot take this path, or fail on
it, take the general path, so that errors, log lines and failure statistics are made in one place only.
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
    """The fast path for inference calls; its `enter` is a `service.rpc.methods.Express`."""

    def __init__(self, reader: RequestReader, admission: Admission) -> None:
        self._reader = reader
        self._admission = admission

    def enter(self, data: bytes, remaining_s: float | None, responder: Responder) -> ExpressCall | None:
        """Queue a request; returns None if it has to take the general path."""
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
    """A call on the fast path while it waits and runs; a `service.rpc.methods.Entered`."""

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
        # Waiting.__init__ is not called: it computes for each request what a plan holds for all of them.
        self.form = plan
        self.contents = contents
        self.outputs = plan.outputs
        self.rows = plan.rows
        self.shape_key = plan.key
        self.elements = plan.input_elements
        self.since_ns = time.perf_counter_ns()
        self.admission = admission
        self.runner: Runner | None = runner
        """The runner, until the call is settled or cancelled; None afterwards."""
        self.responder = responder

    @property
    def context(self) -> contextvars.Context:
        """An empty context: a failed call is run again on the general path, whose log lines name the caller."""
        return contextvars.Context()

    def settle(self, outcome: Answer | Exception) -> None:
        """Send the answer, unless the call was cancelled."""
        self.settle_all((self,), (outcome,))

    @staticmethod
    def settle_all(batch: Sequence[ExpressCall], outcomes: Sequence[Answer | Exception]) -> None:
        """Answer the calls that were not cancelled, and count them in one step. Never raises."""
        run = batch[0].run
        if len(batch) > 1 and (run is None or batch[-1].run is not run):  # the joint run failed, so they ran alone
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
        """Withdraw the call: the caller cancelled it or disconnected."""
        runner, self.runner = self.runner, None
        if runner is not None:
            self.admission.end()
            runner.batcher.withdraw(self)
            runner.statistics.failed(Failure.CANCELED, time.perf_counter_ns() - self.since_ns)


def _answer(answers: list[tuple[Responder, bytes]]) -> set[int]:
    """Send the answers; returns the ``id`` of each responder that could not send its answer."""
    failed: set[int] = set()
    kinds = dict.fromkeys([type(responder) for responder, _ in answers])
    for kind in kinds:
        mine = answers if len(kinds) == 1 else [each for each in answers if type(each[0]) is kind]
        failed.update(map(id, mine[0][0].answer_all(mine)))
    return failed
