"""Every call of the training service: its method, its request, and how its response is read.

Each function raises ValueError for an argument of a wrong type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from ..pb import training_pb2 as pb
from .operations import Operation
from .training_run import TrainingRun, create_request, read_run
from .typed_fields import put

if TYPE_CHECKING:
    from typing import Unpack

    from google.protobuf.message import Message

    from .training_run import RunFields

M = TypeVar("M", bound="Message")

_OPERATIONS = "/google.longrunning.Operations"
_TRAINING = "/mnist1d.training.v1.Training"
WATCH = f"{_TRAINING}/WatchTrainingRun"
PAGE = 100
"""Number of runs that one call lists."""


def create(**fields: Unpack[RunFields]) -> Operation[TrainingRun]:
    """Queue a run; raises ValueError as `create_request` does."""
    return Operation(f"{_TRAINING}/CreateTrainingRun", create_request(**fields), operations_pb2.Operation, read_run)


def get(name: str) -> Operation[TrainingRun]:
    """Ask for the current state of a run."""
    return Operation(
        f"{_OPERATIONS}/GetOperation",
        _named(operations_pb2.GetOperationRequest(), name),
        operations_pb2.Operation,
        read_run,
    )


def page(filter_text: str, token: str) -> Operation[tuple[tuple[TrainingRun, ...], str]]:
    """Ask for a page of runs, newest first, and the token of the next page, which is empty on the last one."""
    request = operations_pb2.ListOperationsRequest(page_size=PAGE, page_token=token)
    put(request, "filter", filter_text, "filter_text")
    return Operation(
        f"{_OPERATIONS}/ListOperations",
        request,
        operations_pb2.ListOperationsResponse,
        lambda r: (tuple(map(read_run, r.operations)), r.next_page_token),
    )


def wait(name: str, timeout_s: float) -> Operation[TrainingRun]:
    """Ask for a run when it is done, or after ``timeout_s`` seconds."""
    request = _named(operations_pb2.WaitOperationRequest(), name)
    request.timeout.FromNanoseconds(round(1e9 * timeout_s))
    return Operation(f"{_OPERATIONS}/WaitOperation", request, operations_pb2.Operation, read_run)


def cancel(name: str) -> Operation[None]:
    """Ask a run to stop."""
    return Operation(
        f"{_OPERATIONS}/CancelOperation",
        _named(operations_pb2.CancelOperationRequest(), name),
        empty_pb2.Empty,
        _nothing,
    )


def delete(name: str) -> Operation[None]:
    """Delete a run that is done."""
    return Operation(
        f"{_OPERATIONS}/DeleteOperation",
        _named(operations_pb2.DeleteOperationRequest(), name),
        empty_pb2.Empty,
        _nothing,
    )


def watch(name: str, from_event: int) -> pb.WatchTrainingRunRequest:
    """The request for a run's events from number ``from_event`` on."""
    request = _named(pb.WatchTrainingRunRequest(), name)
    put(request, "from_event", from_event)
    return request


def _named(request: M, name: str) -> M:
    put(request, "name", name)
    return request


def _nothing(_response: object) -> None:
    return None
