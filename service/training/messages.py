"""Convert runs, events and results to messages of the training API."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from service.pb import message_class
from service.pb import training_pb2 as pb
from service.training.run import Failure, Run, RunState, StoredEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.message import Message

    from service.training.serving import VersionStatus

Operation = message_class("google.longrunning.Operation")
RpcStatus = message_class("google.rpc.Status")
DOMAIN = "mnist1d-service"


def name_of(run_id: str) -> str:
    """The operation's name for a run id."""
    return f"operations/{run_id}"


def operation(run: Run, version_status: VersionStatus | None = None) -> Any:  # noqa: ANN401 - a class generated at run time
    """The run as a ``google.longrunning.Operation``; ``version_status`` is the published version's state."""
    message = Operation(name=name_of(run.run_id), done=run.state.is_done)
    message.metadata.Pack(metadata(run, version_status))
    if run.failure is not None:
        message.error.CopyFrom(status(run.failure))
    elif run.result is not None:
        message.response.Pack(result(run.result))
    return message


def metadata(run: Run, version_status: VersionStatus | None = None) -> pb.TrainingRunMetadata:
    """The metadata of a run's operation: its state and its latest snapshot."""
    snapshot, recipe = run.snapshot, run.spec.recipe
    message = pb.TrainingRunMetadata(
        state=pb.RunState.Value(run.state.value),
        is_cancelling=run.is_cancelling,
        network=run.spec.network,
        recipe=run.spec.recipe_name,
        publish_name=run.spec.publish_name,
        seed=recipe["seed"],
        engine=run.spec.engine,
        attempt=run.attempts,
        stage=snapshot.get("stage", ""),
        step=snapshot.get("step", 0),
        total_steps=snapshot.get("total_steps", recipe["steps"]),
        loss=_number(snapshot.get("loss", 0.0)),
        accuracy=_number(snapshot.get("accuracy", 0.0)),
        steps_per_second=_number(snapshot.get("steps_per_s", 0.0)),
        remaining_seconds=_number(snapshot.get("remaining_s", 0.0)),
        evaluations=[_evaluated(figures) for figures in snapshot.get("evaluations", {}).values()],
        last_event=run.last_event,
        ahead_in_queue=run.ahead,
    )
    message.recipe_fields.update(recipe)
    for field, time_s in (
        (message.create_time, run.created_s),
        (message.start_time, run.started_s),
        (message.end_time, run.ended_s),
    ):
        if time_s is not None:
            field.FromMicroseconds(round(1e6 * time_s))
    if version_status is not None:
        message.serving.CopyFrom(pb.Serving(state=version_status.state, reason=version_status.reason))
    return message


def result(plain: Mapping[str, Any]) -> pb.TrainingRunResult:
    """The message for a result that `service.training.result` made."""
    parity = plain["parity"]
    message = pb.TrainingRunResult(
        model_name=plain["model_name"],
        model_version=plain["model_version"],
        steps=plain["steps"],
        metrics={split: pb.Metrics(**figures) for split, figures in plain["metrics"].items()},
        parity=parity_report(parity),
        model_sha256=plain["model_sha256"],
        weights_sha256=plain["weights_sha256"],
    )
    if plain.get("gate") is not None:
        message.gate.CopyFrom(gate_decision(plain["gate"]))
    if plain.get("serving") is not None:
        message.serving.CopyFrom(pb.Serving(**plain["serving"]))
    return message


def parity_report(report: Mapping[str, Any]) -> pb.ParityReport:
    """The message for a complete parity report."""
    message = pb.ParityReport(passed=bool(report.get("passed")), summary=str(report.get("summary", "")))
    message.report.update(report)
    return message


def gate_decision(plain: Mapping[str, Any]) -> pb.GateDecision:
    """The message for the result of ``models.gate.GateDecision.to_dict()``."""
    return pb.GateDecision(
        met=plain["is_met"],
        baseline=plain["baseline"],
        candidate_accuracy=plain["candidate_accuracy"],
        baseline_accuracy=plain["baseline_accuracy"],
        summary=plain["summary"],
    )


def status(failure: Failure) -> Any:  # noqa: ANN401 - as above
    """A failure as ``google.rpc.Status`` with an ErrorInfo, and with the parity report if a proof failed."""
    from google.rpc.error_details_pb2 import ErrorInfo

    message = RpcStatus(code=failure.code, message=failure.message)
    message.details.add().Pack(ErrorInfo(reason=failure.reason, domain=DOMAIN, metadata=dict(failure.metadata)))
    if failure.parity is not None:
        message.details.add().Pack(parity_report(failure.parity))
    return message


def event(stored: StoredEvent) -> pb.TrainingRunEvent:
    """The message for one stored event."""
    message = pb.TrainingRunEvent(number=stored.number)
    message.time.FromMicroseconds(round(1e6 * stored.time_s))
    field, convert = _EVENTS[stored.body["event"]]
    getattr(message, field).CopyFrom(convert(stored.body))
    return message


def _number(value: float | None) -> float:
    """Return a number, or NaN for None, since stored JSON has no NaN."""
    return math.nan if value is None else value


def _evaluated(body: Mapping[str, Any]) -> pb.Evaluated:
    return pb.Evaluated(
        step=body["step"], split=body["split"], loss=_number(body["loss"]), accuracy=_number(body["accuracy"])
    )


def _stage_finished(body: Mapping[str, Any]) -> pb.StageFinished:
    message = pb.StageFinished(stage=body["stage"], duration_seconds=body["duration_s"])
    message.detail.update(body["detail"])
    return message


def _progress(body: Mapping[str, Any]) -> pb.Progress:
    return pb.Progress(
        step=body["step"],
        total_steps=body["total_steps"],
        loss=_number(body["loss"]),
        accuracy=_number(body["accuracy"]),
        steps_per_second=_number(body["steps_per_s"]),
        remaining_seconds=_number(body["remaining_s"]),
    )


def _done(body: Mapping[str, Any]) -> pb.Done:
    message = pb.Done(state=pb.RunState.Value(RunState(body["state"]).value))
    if body["failure"] is not None:
        message.error.CopyFrom(status(Failure(**body["failure"])))
    elif body["result"] is not None:
        message.response.CopyFrom(result(body["result"]))
    return message


_EVENTS: dict[str, tuple[str, Callable[[Mapping[str, Any]], Message]]] = {
    "queued": ("queued", lambda _: pb.Queued()),
    "attempt_started": ("attempt_started", lambda body: pb.AttemptStarted(attempt=body["attempt"])),
    "attempt_ended": ("attempt_ended", lambda body: pb.AttemptEnded(reason=body["reason"])),
    "stage_started": ("stage_started", lambda body: pb.StageStarted(stage=body["stage"])),
    "stage_finished": ("stage_finished", _stage_finished),
    "started": (
        "training_started",
        lambda body: pb.TrainingStarted(start_step=body["start_step"], total_steps=body["total_steps"]),
    ),
    "progress": ("progress", _progress),
    "evaluated": ("evaluated", _evaluated),
    "checkpoint_saved": ("checkpoint_saved", lambda body: pb.CheckpointSaved(step=body["step"])),
    "finished": (
        "training_finished",
        lambda body: pb.TrainingFinished(
            step=body["step"], duration_seconds=body["duration_s"], weights_sha256=body["weights_sha256"]
        ),
    ),
    "gate_decided": ("gate_decided", gate_decision),
    "cancel_requested": ("cancel_requested", lambda _: pb.CancelRequested()),
    "done": ("done", _done),
}
"""For each kind of stored event: its field in TrainingRunEvent, and the function that fills it."""
KINDS = frozenset(_EVENTS)
