"""Every call of training once, as `service.client.operations` has those of inference. Knows no channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.longrunning import operations_pb2

from service.client.operations import Operation
from service.client.training_run import TrainingRun, create_request, read_run

if TYPE_CHECKING:
    from typing import Unpack

    from service.client.training_run import RunFields

PAGE = 100
"""Runs that are listed with one call."""


def create(**fields: Unpack[RunFields]) -> Operation[TrainingRun]:
    """Queue a run; raises ValueError as `create_request` does."""
    return Operation("CreateTrainingRun", create_request(**fields), read_run)


def get(name: str) -> Operation[TrainingRun]:
    """A run as it is now."""
    return Operation("GetOperation", operations_pb2.GetOperationRequest(name=name), read_run)


def page(filter_text: str, token: str) -> Operation[tuple[tuple[TrainingRun, ...], str]]:
    """Runs, newest first, and the token of the next page, empty on the last one."""
    request = operations_pb2.ListOperationsRequest(filter=filter_text, page_size=PAGE, page_token=token)
    return Operation("ListOperations", request, lambda r: (tuple(map(read_run, r.operations)), r.next_page_token))


def wait(name: str, timeout_s: float) -> Operation[TrainingRun]:
    """The run when it is done, or as it is after ``timeout_s`` seconds."""
    request = operations_pb2.WaitOperationRequest(name=name)
    request.timeout.FromNanoseconds(round(1e9 * timeout_s))
    return Operation("WaitOperation", request, read_run)


def cancel(name: str) -> Operation[None]:
    """Ask a run to stop."""
    return Operation("CancelOperation", operations_pb2.CancelOperationRequest(name=name), _nothing)


def delete(name: str) -> Operation[None]:
    """Forget a run that is done."""
    return Operation("DeleteOperation", operations_pb2.DeleteOperationRequest(name=name), _nothing)


def _nothing(_response: object) -> None:
    return None
