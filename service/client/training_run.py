"""Training runs for clients: make the request for a run, and read a run from its operation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from ..errors import Code
from ..pb import training_pb2 as pb
from .connection import NONE
from .errors import ServerError, read_details
from .typed_fields import put

if TYPE_CHECKING:
    from google.longrunning import operations_pb2
    from google.protobuf.message import Message

SERVING = "serving"
"""Gate that compares the new version with the one that serves."""
_AUGMENTATION = "augmentation"


class RunFields(TypedDict, total=False):
    """Fields of a request for a run; the server has defaults for those left out."""

    network: str
    recipe: str
    overrides: Mapping[str, Any]
    """Changed fields of the recipe, including nested ones like ``augmentation.noise``; ``augmentation`` itself is true
    or false."""
    seed: int
    publish_name: str
    engine: str
    gate: str
    """The version to compare with: ``serving``, ``NAME`` or ``NAME/VERSION``."""
    request_id: str
    """An id with which the call can be repeated and still creates only one run."""


@dataclass(frozen=True)
class TrainingRun:
    """The state of a run at the time of the server's answer."""

    name: str
    """Name of the operation, ``operations/ID``."""
    is_done: bool
    snapshot: pb.TrainingRunMetadata
    result: pb.TrainingRunResult | None
    """The published version; None unless the run has succeeded."""
    error: ServerError | None
    """Why the run ended without a version; None unless it has failed or was cancelled."""

    @property
    def state(self) -> str:
        """The state: QUEUED, RUNNING, SUCCEEDED, FAILED or CANCELLED."""
        return pb.RunState.Name(self.snapshot.state)


def create_request(
    *,
    network: str = "",
    recipe: str = "",
    overrides: Mapping[str, Any] = NONE,
    seed: int = 0,
    publish_name: str = "",
    engine: str = "",
    gate: str = "",
    request_id: str = "",
) -> pb.CreateTrainingRunRequest:
    """The request for `RunFields`; raises ValueError for a field that no recipe has, or a value of a wrong type."""
    request = pb.CreateTrainingRunRequest()
    put(request, "network", network)
    put(request, "recipe", recipe)
    put(request, "seed", seed)
    put(request, "publish_name", publish_name)
    put(request, "engine", engine)
    put(request, "request_id", request_id)
    _put_overrides(request.overrides, overrides)
    if gate == SERVING:
        request.gate.serving = True
    elif gate != "":
        put(request.gate, "model", gate, "gate")
    return request


def _put_overrides(message: pb.RecipeOverrides, overrides: object) -> None:
    if not isinstance(overrides, Mapping):
        what = "expected fields of a recipe and their values"
        raise ValueError(f"overrides: got {overrides!r}, {what}")  # noqa: TRY004 - as every other wrong field
    for field, value in overrides.items():
        target: Message = message
        group, _, name = str(field).rpartition(".")
        if field == _AUGMENTATION:
            target, name = message.augmentation, "enabled"
        elif group == _AUGMENTATION:
            target = message.augmentation
        elif group:
            name = ""
        if not isinstance(field, str) or name not in target.DESCRIPTOR.fields_by_name:
            raise ValueError(f"overrides: no recipe has a field {field!r}")
        put(target, name, value, f"overrides.{field}")


def read_run(operation: operations_pb2.Operation) -> TrainingRun:
    """Read a run from its operation."""
    snapshot, result, error = pb.TrainingRunMetadata(), None, None
    operation.metadata.Unpack(snapshot)
    match operation.WhichOneof("result"):
        case "response":
            result = pb.TrainingRunResult()
            operation.response.Unpack(result)
        case "error":
            status = operation.error
            error = ServerError(Code(status.code), status.message, read_details(status.SerializeToString()))
    return TrainingRun(operation.name, operation.done, snapshot, result, error)
