"""Execute training runs in the leader of all processes with the same store, each in one of its slots.

An attempt is one process (`service.training.process`). It may end, or be killed, at any moment: the next one resumes
from the checkpoint and reaches the same weights. When a process has ended, the repository is first searched for the
version of the run, so that none is published twice and no published one is reported as failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from models.artifact.published_run import find
from models.training.process import LOCK_FILE, Job
from service.errors import Code, OperationNotFound, ServiceError, TrainingStoreBusy
from service.training import failures
from service.training.leader_lock import Lock
from service.training.messages import KINDS, name_of
from service.training.metrics import UnderWay
from service.training.process import Child
from service.training.result import result_of
from service.training.run import Failure, Run, RunState
from service.training.runs import LOOK_EVERY_S, set_within
from service.training.store import Store, cancelled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from models.artifact.artifact import Manifest
    from service.training.metrics import Tally
    from service.training.runs import Runs
    from service.training.serving import Serving

_log = logging.getLogger(__name__)

TRIES = 3
"""Number of processes of one run that may die in a row without progress before the run fails."""
NICENESS = 10
"""Niceness of training processes, so that serving takes precedence on a busy core."""
_CHECKPOINTS = 50
_FEWEST_STEPS = 1000
_CANCEL_GRACE_S = 10.0
"""Seconds that a process has to exit after it was asked to; then it is killed."""
_LOCK_WAIT_S = 30.0
_LOCK_LOOK_S = 0.02
_PROVE_S = 60.0
"""Longest wait in seconds for the inference side to load a published version."""
_RETRY_S = 1.0
"""Seconds between tries to store the end of a run on a full disk, and before a process is restarted."""


@dataclass(frozen=True)
class Limits:
    """Limits on concurrent runs and their memory."""

    slots: int
    """Number of concurrent runs."""
    memory_bytes: int
    """Memory of each process in bytes; 0 for no limit."""


class Jobs:
    """Executes the runs of a store while this process is the leader. Belongs to one event loop."""

    def __init__(
        self,
        runs: Runs,
        serving: Serving,
        *,
        repository: Path,
        directory: Path,
        limits: Limits,
        command: Sequence[str],
        tally: Tally,
    ) -> None:
        """``directory`` holds the leader's lock and the runs' working files; ``command`` starts a `Child`."""
        self._tally = tally
        self._runs = runs
        self._serving = serving
        self._repository = repository
        self._directory = directory
        self._limits = limits
        self._command = command
        self._lock = Lock(directory / "leader.lock")
        self._leading: asyncio.Task[None] | None = None
        self._running: dict[str, asyncio.Task[None]] = {}
        self._children: dict[str, Child] = {}
        self._cancelling: set[str] = set()
        self._stopping = asyncio.Event()

    @property
    def is_leader(self) -> bool:
        """Whether this process executes the runs."""
        return self._lock.is_held

    def start(self) -> None:
        """Become the leader as soon as no other process is."""
        self._leading = asyncio.create_task(self._lead(), name="training")

    async def stop(self, timeout_s: float) -> None:
        """Stop every run with a checkpoint within ``timeout_s`` seconds, from which the next leader resumes."""
        self._stopping.set()
        if self._leading is not None:
            self._leading.cancel()
            await asyncio.gather(self._leading, return_exceptions=True)
        for child in self._children.values():
            child.stop()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=timeout_s)
        for child in self._children.values():
            child.kill()
        if self._running:
            # Each only has to store that it was interrupted.
            await asyncio.wait(self._running.values(), timeout=_CANCEL_GRACE_S)
        self._tally.see(UnderWay())
        self._lock.release()

    # ---- the leader ----------------------------------------------------------------------------------------------

    async def _lead(self) -> None:
        while not self._lock.take():  # noqa: ASYNC110 - a file lock has no event to wait for
            await asyncio.sleep(LOOK_EVERY_S)
        _log.info("this process runs the training runs", extra={"slots": self._limits.slots})
        is_recovered = False
        while True:
            changed = self._runs.since_now()
            try:
                if not is_recovered:
                    await self._runs.change(Store.recover)
                    await asyncio.to_thread(self._sweep, {run.run_id for run in await self._runs.look(Store.active)})
                    is_recovered = True
                await self._look()
            except Exception:  # noqa: BLE001 - the leader must survive, or no run would begin
                _log.exception("the training runs could not be looked at, it will be tried again")
            await set_within(changed, LOOK_EVERY_S)

    async def _look(self) -> None:
        """Start queued runs while slots are free, and stop cancelled ones."""
        active = await self._runs.look(Store.active)
        self._tally.see(UnderWay.of(active, self._limits.slots))
        for run in active:
            child = self._children.get(run.run_id)
            if run.is_cancelling and child is not None:
                self._cancel(run.run_id, child)
        for run in active:
            if len(self._running) >= self._limits.slots:
                break
            if run.run_id not in self._running:
                self._running[run.run_id] = asyncio.create_task(self._keep(run), name=f"training run {run.run_id}")

    def _cancel(self, run_id: str, child: Child) -> None:
        if run_id not in self._cancelling:
            self._cancelling.add(run_id)
            child.stop()
            asyncio.get_running_loop().call_later(_CANCEL_GRACE_S, child.kill)

    async def _keep(self, run: Run) -> None:
        """Execute one run to its end, or until the server stops; never raises."""
        try:
            await self._run(run)
        except TrainingStoreBusy as error:
            _log.warning("a training run has to wait", extra={"run": run.run_id, "reason": str(error)})
        except ServiceError as error:
            await self._end(run, failure=Failure(int(error.code), str(error), error.details.reason))
        except Exception:  # noqa: BLE001 - logged, and stored as the failure of the run
            _log.exception("a training run failed in the server itself", extra={"run": run.run_id})
            message = "internal error; the server's log has the details"
            await self._end(run, failure=Failure(int(Code.INTERNAL), message, failures.INTERNAL))
        finally:
            del self._running[run.run_id]
            self._cancelling.discard(run.run_id)
            self._runs.tell()

    # ---- one run -------------------------------------------------------------------------------------------------

    async def _run(self, run: Run) -> None:
        deaths, furthest = 0, 0
        while not self._stopping.is_set():
            if run.attempts:
                await self._outlive_former(run)
                if await self._is_over(run):
                    return
            attempt = _Attempt(furthest)
            run = await self._runs.change(Store.begin, run.run_id)
            if run.state.is_done:
                return
            _log.info("training run begins", extra={"run": run.run_id, "attempt": run.attempts})
            reason = await self._attempt(run, attempt)
            if await self._is_over(run, attempt.failure):
                return
            if self._stopping.is_set():
                await self._runs.change(Store.requeue, run.run_id, "the server stops")
                return
            deaths = 1 if attempt.furthest > furthest else deaths + 1
            furthest = attempt.furthest
            _log.warning("training process ended", extra={"run": run.run_id, "reason": reason, "deaths": deaths})
            if deaths >= TRIES:
                await self._end(run, failure=failures.gave_up(deaths, reason))
                return
            await self._runs.change(Store.requeue, run.run_id, reason)
            await set_within(self._stopping, _RETRY_S)

    async def _attempt(self, run: Run, attempt: _Attempt) -> str:
        """Run one process from start to end; returns why it ended, for the case that it reported no failure."""
        try:
            child = await Child.start(self._job(run), self._command)
        except OSError as error:
            return f"no process could be started: {error}"
        self._children[run.run_id] = child
        if self._stopping.is_set():
            child.stop()  # it was starting while the others were stopped
        try:
            await self._listen(run, child, attempt)
        except ServiceError as error:
            # Events that cannot be stored must not happen: end the process; its last checkpoint remains.
            child.kill()
            if isinstance(error, TrainingStoreBusy):
                return str(error)
            attempt.failure = Failure(int(error.code), str(error), error.details.reason)
        except BaseException:
            child.kill()
            raise
        finally:
            code = await child.wait()
            del self._children[run.run_id]
        return failures.died(code, child.last_words, self._limits.memory_bytes)

    async def _listen(self, run: Run, child: Child, attempt: _Attempt) -> None:
        if (await self._runs.get(name_of(run.run_id))).is_cancelling:
            self._cancel(run.run_id, child)
        async for bodies in child.events():
            kept: list[dict[str, Any]] = []
            for body in bodies:
                match body["event"]:
                    case "asks_what_serves":
                        await child.tell(json.dumps(self._serving.version(run.spec.publish_name)))
                    case "failed":
                        attempt.failure = failures.failure_of(body)
                    case "checkpoint_saved":
                        attempt.furthest = max(attempt.furthest, body["step"])
                if body["event"] in KINDS:
                    kept.append(_public(body))
                if body["event"] == "stage_finished" and body["stage"] == "gate":
                    kept.append({"event": "gate_decided", **body["detail"]})
            if kept:
                await self._runs.change(Store.add_events, run.run_id, kept)

    def _job(self, run: Run) -> Job:
        spec = run.spec
        return Job(
            run_id=run.run_id,
            recipe=spec.recipe,
            repository=str(self._repository),
            publish_as=spec.publish_name,
            work_dir=str(self._work_dir(run)),
            checkpoint_every=max(_FEWEST_STEPS, spec.recipe["steps"] // _CHECKPOINTS),
            engine=spec.engine,  # type: ignore[arg-type]  # checked when the run was created
            gate=spec.gate,
            parent_pid=os.getpid(),
            niceness=NICENESS,
            memory_bytes=self._limits.memory_bytes,
        )

    async def _is_over(self, run: Run, failure: Failure | None = None) -> bool:
        """Whether a run whose process has ended is done; if so, store its end.

        A published version decides first: a late cancellation, or a death after the last rename, changes nothing.
        """
        manifest = await asyncio.to_thread(find, self._repository, run.spec.publish_name, run.run_id)
        if manifest is not None:
            await self._succeed(run, manifest)
            return True
        is_cancelling = (await self._runs.get(name_of(run.run_id))).is_cancelling
        if is_cancelling or failure is not None:
            await self._end(run, failure=cancelled() if is_cancelling or failure is None else failure)
            return True
        return False

    async def _succeed(self, run: Run, manifest: Manifest) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PROVE_S):
                await self._serving.look()
        version_status = self._serving.version_status(manifest.name, manifest.version)
        await self._end(run, result={**result_of(manifest), "serving": asdict(version_status)})

    async def _end(self, run: Run, *, result: dict[str, Any] | None = None, failure: Failure | None = None) -> None:
        """Store the end of a run, retrying while the disk is full, unless the server stops meanwhile."""
        # First, since it frees space on the disk.
        await asyncio.to_thread(shutil.rmtree, self._work_dir(run), ignore_errors=True)
        state = RunState.SUCCEEDED
        if failure is not None:
            state = RunState.CANCELLED if failure.code == Code.CANCELLED else RunState.FAILED
        told = ""
        while True:
            try:
                await self._runs.change(Store.end, run.run_id, state, result=result, failure=failure)
            except OperationNotFound:
                return  # it was done already and deleted
            except ServiceError as error:
                if str(error) != told:  # logged once, not at each try
                    told = str(error)
                    _log.error(
                        "the end of a training run cannot be written down yet, it is tried until it can",
                        extra={"run": run.run_id, "state": state.value, "reason": told},
                    )
                if self._stopping.is_set():
                    return  # the next leader ends it the same way
                await asyncio.sleep(_RETRY_S)
            else:
                break
        _log.info(
            "training run is done",
            extra={"run": run.run_id, "state": state.value, "detail": failure.message if failure else None},
        )

    async def _outlive_former(self, run: Run) -> None:
        """Wait for the former process of a run to end, which Linux kills together with its server."""
        path = self._work_dir(run) / LOCK_FILE
        if not path.exists():
            return
        lock = Lock(path)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOCK_WAIT_S):
                while not lock.take():  # noqa: ASYNC110 - as above
                    await asyncio.sleep(_LOCK_LOOK_S)
        lock.release()

    def _sweep(self, active: set[str]) -> None:
        """Remove the working directories of runs that are done."""
        for left in (self._directory / "runs").glob("*"):
            if left.name not in active:
                shutil.rmtree(left, ignore_errors=True)

    def _work_dir(self, run: Run) -> Path:
        return self._directory / "runs" / run.run_id


@dataclass
class _Attempt:
    """State of one attempt: what its process has reported."""

    furthest: int
    """The latest step with a checkpoint, from this process or an earlier one."""
    failure: Failure | None = None


def _public(body: dict[str, Any]) -> dict[str, Any]:
    """The event without paths of this machine."""
    detail = body.get("detail")
    if not isinstance(detail, dict) or "path" not in detail:
        return body
    return {**body, "detail": {name: value for name, value in detail.items() if name != "path"}}
