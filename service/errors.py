"""Errors that are reported to clients, and the one place where an exception becomes a status.

    ServiceError                expected: a status and its message for the client, a debug line in the log
    ├── InvalidRequest          INVALID_ARGUMENT     the request can never be answered as it is
    ├── ModelNotFound           NOT_FOUND            no such model, or no such version of it
    ├── ModelNotReady           UNAVAILABLE          it exists and may become ready: try again
    ├── ServerStopping          UNAVAILABLE          try another server, or later
    ├── ServiceUnknown          NOT_FOUND            a health check for a name that is not registered
    ├── QueueFull               UNAVAILABLE          too many requests wait for the model: try again
    ├── QueueTimeout            UNAVAILABLE          its own timeout passed in the queue: try again
    ├── DeadlineExceeded        DEADLINE_EXCEEDED    the caller's deadline passed in the queue
    ├── ControlNotAllowed       UNAVAILABLE          models are not loaded by request here; Triton's code and words
    ├── LoadFailed              INTERNAL             a model that was to be loaded is not there, or cannot be opened
    ├── LoadRefused             FAILED_PRECONDITION  a model that was to be loaded failed its proof
    ├── OperationNotFound       NOT_FOUND            no training run of that name, or it was deleted
    ├── OperationNotDone        FAILED_PRECONDITION  the call is only for runs that are done
    ├── RequestIdReused         ALREADY_EXISTS       the same request_id came with another request before
    ├── TrainingQueueFull       RESOURCE_EXHAUSTED   the queue of training runs is full
    ├── TrainingStoreFull       RESOURCE_EXHAUSTED   the disk has no room for the data of a run
    ├── TrainingStoreBusy       UNAVAILABLE          another process keeps the file of runs locked: try again
    ├── Unauthenticated         UNAUTHENTICATED      no token, or an unknown one
    ├── PermissionDenied        PERMISSION_DENIED    the caller is known, but may not do this, or not on this port
    ├── Unsupported             UNIMPLEMENTED        a part of the protocol that this server does not have
    ├── WorkerSilent            UNAVAILABLE          another process of this server did not answer in time: try again
    ├── WorkerFailed            INTERNAL             another process of this server could not do what this one could
    └── InferenceFailed         INTERNAL             the model itself failed on inputs that fit its declaration

Anything else is a defect: INTERNAL, the traceback in the log, no detail to the client.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_MESSAGE_BYTES = 1024
"""Longest message in bytes. It may quote the request and travels in the trailers, which clients limit to 8 KiB:
percent-encoded, up to three times as long, and once or twice more in the details."""
MAX_DETAIL_BYTES = 256
"""Longest value in the details, in bytes."""
MAX_VIOLATIONS = 10
"""The most invalid fields that the details name, also because of the limit on trailers."""


class Code(IntEnum):
    """gRPC status codes, defined here so that only the transport depends on grpcio."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Status:
    """The status with which a call ends."""

    code: Code
    message: str = ""
    details: Details | None = None


@dataclass(frozen=True, slots=True)
class Details:
    """Machine-readable details of an error beyond its code."""

    reason: str
    """UPPER_SNAKE_CASE, one for each kind of error."""
    field: str = ""
    """Path of the invalid field of the request, such as ``inputs[0].shape``; empty for none or several."""
    retry_after_s: float | None = None
    """When to retry, in seconds; None where a retry does not help."""
    metadata: tuple[tuple[str, str], ...] = ()
    violations: tuple[tuple[str, str], ...] = ()
    """If several fields are invalid: the path of each and its problem."""


class ServiceError(Exception):
    """An expected failure; the message is for the client."""

    code: ClassVar[Code]
    reason: ClassVar[str]
    retry_after_s: ClassVar[float | None] = None

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        violations: Iterable[tuple[str, str]] = (),
        reason: str = "",
        may_pass: bool = True,
        **metadata: str,
    ) -> None:
        """``field`` is the path of the invalid field of the request; ``metadata`` goes into the error's details.

        ``violations`` lists several invalid fields: the path of each and its problem. ``reason`` replaces the one of
        the class; ``may_pass`` is false where a retry does not help although the class suggests one.
        """
        retry_after_s = self.retry_after_s if may_pass else None
        about = tuple((key, _cut(value, MAX_DETAIL_BYTES)) for key, value in metadata.items())
        wrong = tuple((_cut(path, MAX_DETAIL_BYTES), _cut(what, MAX_DETAIL_BYTES)) for path, what in violations)
        self.details = Details(
            reason or self.reason, _cut(field, MAX_DETAIL_BYTES), retry_after_s, about, wrong[:MAX_VIOLATIONS]
        )
        super().__init__(message)


class InvalidRequest(ServiceError):
    """The request is invalid; the message names the tensor or field, the expected value and the actual one."""

    code = Code.INVALID_ARGUMENT
    reason = "INVALID_REQUEST"


class ModelNotFound(ServiceError):
    """The model is unknown, or has no such version."""

    code = Code.NOT_FOUND
    reason = "MODEL_NOT_FOUND"


class ModelNotReady(ServiceError):
    """The model is not (or no longer) ready. UNAVAILABLE is the code that clients retry."""

    code = Code.UNAVAILABLE
    reason = "MODEL_NOT_READY"
    retry_after_s = 1.0


class ServerStopping(ServiceError):
    """The server drains and takes no new work."""

    code = Code.UNAVAILABLE
    reason = "SERVER_STOPPING"
    retry_after_s = 0.1


class ServiceUnknown(ServiceError):
    """No service of that name has a health status."""

    code = Code.NOT_FOUND
    reason = "SERVICE_UNKNOWN"


class QueueFull(ServiceError):
    """The model's queue is full: UNAVAILABLE as in Triton, since a retry helps and clients retry this code."""

    code = Code.UNAVAILABLE
    reason = "QUEUE_FULL"
    retry_after_s = 0.05


class QueueTimeout(ServiceError):
    """The request's ``timeout`` parameter passed in the queue; the caller may still be waiting."""

    code = Code.UNAVAILABLE
    reason = "QUEUE_TIMEOUT"
    retry_after_s = 0.05


class DeadlineExceeded(ServiceError):
    """The deadline of the call passed in the queue; most callers have given up by then."""

    code = Code.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class ControlNotAllowed(ServiceError):
    """The control mode is not ``explicit``. The code is Triton's, which tools check, though a retry does not help."""

    code = Code.UNAVAILABLE
    reason = "CONTROL_NOT_ALLOWED"


class LoadFailed(ServiceError):
    """There is no such model, or no version of it opens. INTERNAL as in Triton; ready versions keep serving."""

    code = Code.INTERNAL
    reason = "LOAD_FAILED"


class LoadRefused(ServiceError):
    """The proof failed: goldens do not replay here, or required ones are missing. Ready versions keep serving."""

    code = Code.FAILED_PRECONDITION
    reason = "GOLDEN_MISMATCH"


class OperationNotFound(ServiceError):
    """The training run never existed, was deleted, or was dropped as one of the oldest."""

    code = Code.NOT_FOUND
    reason = "OPERATION_NOT_FOUND"


class OperationNotDone(ServiceError):
    """The training run is not done: cancel it first, or wait."""

    code = Code.FAILED_PRECONDITION
    reason = "OPERATION_NOT_DONE"


class RequestIdReused(ServiceError):
    """The request_id was used for a different request; only the same request may be repeated with it."""

    code = Code.ALREADY_EXISTS
    reason = "REQUEST_ID_REUSED"


class TrainingQueueFull(ServiceError):
    """The queue of training runs is full. Not UNAVAILABLE, which clients retry at once: runs take minutes."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "TRAINING_QUEUE_FULL"


class TrainingStoreFull(ServiceError):
    """The disk has no room for the data of a run, so it is not begun."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "DISK_FULL"


class TrainingStoreBusy(ServiceError):
    """The file of runs stayed locked, although SQLite waits for some seconds first."""

    code = Code.UNAVAILABLE
    reason = "TRAINING_STORE_BUSY"
    retry_after_s = 1.0


class Unauthenticated(ServiceError):
    """There is no valid token; the message says which kind is expected, and nothing about the one received."""

    code = Code.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class PermissionDenied(ServiceError):
    """The caller lacks a permission; the message names it."""

    code = Code.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class Unsupported(ServiceError):
    """The request needs a part of the protocol that is not supported, so that ignoring it would be wrong."""

    code = Code.UNIMPLEMENTED
    reason = "UNSUPPORTED"


class WorkerSilent(ServiceError):
    """Not all workers answered in time; the requested change may have been made."""

    code = Code.UNAVAILABLE
    reason = "WORKER_SILENT"
    retry_after_s = 1.0


class WorkerFailed(ServiceError):
    """Another worker has a defect; its log has the traceback."""

    code = Code.INTERNAL
    reason = "WORKER_FAILED"


class InferenceFailed(ServiceError):
    """The runtime refused or failed; its message is only in the log, since it may name files of this machine."""

    code = Code.INTERNAL
    reason = "INFERENCE_FAILED"


class BindError(Exception):
    """An address cannot be listened on. Never sent to clients, since there are none yet."""


class WorkersFailed(Exception):
    """The processes of a server cannot go on, or have failed. Never sent to clients."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        self.exit_code = exit_code
        super().__init__(message)


def status_of(error: BaseException) -> Status:
    """The status for an exception that a handler raised."""
    if isinstance(error, ServiceError):
        return Status(error.code, _cut(str(error), MAX_MESSAGE_BYTES), error.details)
    return Status(Code.INTERNAL, "internal error; the server's log has the details")


def release(error: BaseException) -> None:
    """Drop the traceback of a handled error: its frames hold the objects of the failed call, a model's runner included.

    Transports keep the last error of a call in reference cycles, which live until the garbage collector runs: an unused
    version would stay in memory until then.
    """
    chain: BaseException | None = error
    while chain is not None and chain.__traceback__ is not None:
        chain.__traceback__ = None
        chain = chain.__cause__ or chain.__context__


def _cut(text: str, most_bytes: int) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) <= most_bytes:
        return text
    half = most_bytes // 2
    # Keep both ends, since the expected value often follows the actual one.
    start, end = encoded[:half].decode(errors="ignore"), encoded[-half:].decode(errors="ignore")
    return f"{start} ... ({len(text) - len(start) - len(end)} characters left out) ... {end}"
