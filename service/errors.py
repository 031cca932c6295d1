"""What a client can be told, and the one place where an exception becomes a status.

    ServiceError                expected: a status and its message for the client, a debug line in the log
    ├── InvalidRequest          INVALID_ARGUMENT     the request can never be answered as it is
    ├── ModelNotFound           NOT_FOUND            no such model, or no such version of it
    ├── ModelNotReady           UNAVAILABLE          it exists and may become ready: try again
    ├── ServerStopping          UNAVAILABLE          try another server, or later
    ├── ServiceUnknown          NOT_FOUND            a health check for a name nobody registered
    ├── QueueFull               UNAVAILABLE          too many requests wait for the model: try again
    ├── QueueTimeout            UNAVAILABLE          its own timeout passed in the queue: try again
    ├── DeadlineExceeded        DEADLINE_EXCEEDED    the caller's deadline passed in the queue
    ├── ControlNotAllowed       UNAVAILABLE          models are not loaded by request here; Triton's code and words
    ├── LoadFailed              INTERNAL             a model that was to be loaded is not there, or cannot be opened
    ├── LoadRefused             FAILED_PRECONDITION  the same, since its proof failed
    ├── OperationNotFound       NOT_FOUND            no training run of that name, or none any more
    ├── OperationNotDone        FAILED_PRECONDITION  it runs, and what was asked is for those that are done
    ├── RequestIdReused         ALREADY_EXISTS       the same request_id came with another request before
    ├── TrainingQueueFull       RESOURCE_EXHAUSTED   as many training runs wait as may
    ├── TrainingStoreFull       RESOURCE_EXHAUSTED   the disk has no room for what has to be kept of a run
    ├── TrainingStoreBusy       UNAVAILABLE          another process keeps the file of runs locked: try again
    ├── Unauthenticated         UNAUTHENTICATED      no token, or one that is not known
    ├── PermissionDenied        PERMISSION_DENIED    the caller is known, and may not do this, or not on this port
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
"""A message may quote the request, and travels in the trailers, whose size clients limit to 8 KiB: percent-encoded, so
three times as long at worst, and again in the details, once or twice."""
MAX_DETAIL_BYTES = 256
"""Largest size of each value among the details."""
MAX_VIOLATIONS = 10
"""So many fields at fault are named at most, for the same reason."""


class Code(IntEnum):
    """gRPC status codes. Our own, so that only the transport knows grpcio."""

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
    """How a call ends."""

    code: Code
    message: str = ""
    details: Details | None = None


@dataclass(frozen=True, slots=True)
class Details:
    """What a program may want to know of an error beyond its code."""

    reason: str
    """UPPER_SNAKE_CASE, one for each kind of error."""
    field: str = ""
    """Path of the request's field at fault, for example ``inputs[0].shape``; empty if it is none, or several."""
    retry_after_s: float | None = None
    """When to try again, in seconds; None where that does not help."""
    metadata: tuple[tuple[str, str], ...] = ()
    violations: tuple[tuple[str, str], ...] = ()
    """Where several fields are at fault: the path of each and what is wrong with it."""


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
        """``field`` is the path of the request's field at fault; ``metadata`` goes into the error's details.

        ``violations`` are for requests with several fields at fault: each path, and what is wrong. ``reason`` says more
        than the class does; ``may_pass`` is false where trying again does not help for all that.
        """
        retry_after_s = self.retry_after_s if may_pass else None
        about = tuple((key, _cut(value, MAX_DETAIL_BYTES)) for key, value in metadata.items())
        wrong = tuple((_cut(path, MAX_DETAIL_BYTES), _cut(what, MAX_DETAIL_BYTES)) for path, what in violations)
        self.details = Details(
            reason or self.reason, _cut(field, MAX_DETAIL_BYTES), retry_after_s, about, wrong[:MAX_VIOLATIONS]
        )
        super().__init__(message)


class InvalidRequest(ServiceError):
    """The message names the tensor or field, what was expected and what came."""

    code = Code.INVALID_ARGUMENT
    reason = "INVALID_REQUEST"


class ModelNotFound(ServiceError):
    """Unknown model, or unknown version of a known one."""

    code = Code.NOT_FOUND
    reason = "MODEL_NOT_FOUND"


class ModelNotReady(ServiceError):
    """Known, but not (or no longer) ready. UNAVAILABLE is the code that clients retry."""

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
    """UNAVAILABLE as Triton answers it, not RESOURCE_EXHAUSTED: trying again helps, and clients retry this code."""

    code = Code.UNAVAILABLE
    reason = "QUEUE_FULL"
    retry_after_s = 0.05


class QueueTimeout(ServiceError):
    """The request's ``timeout`` parameter; the caller may still be waiting."""

    code = Code.UNAVAILABLE
    reason = "QUEUE_TIMEOUT"
    retry_after_s = 0.05


class DeadlineExceeded(ServiceError):
    """The deadline of the call; most callers have given up by now."""

    code = Code.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class ControlNotAllowed(ServiceError):
    """The control mode is not ``explicit``. Triton's code, which tools compare, though trying again does not help."""

    code = Code.UNAVAILABLE
    reason = "CONTROL_NOT_ALLOWED"


class LoadFailed(ServiceError):
    """No such model, or no version of it can be opened. INTERNAL as Triton answers it; what was ready goes on."""

    code = Code.INTERNAL
    reason = "LOAD_FAILED"


class LoadRefused(ServiceError):
    """The parity gate: its goldens do not replay here, or it has none and must. What was ready goes on."""

    code = Code.FAILED_PRECONDITION
    reason = "GOLDEN_MISMATCH"


class OperationNotFound(ServiceError):
    """Never there, deleted, or forgotten since so many others came after it."""

    code = Code.NOT_FOUND
    reason = "OPERATION_NOT_FOUND"


class OperationNotDone(ServiceError):
    """Cancel it first, or wait."""

    code = Code.FAILED_PRECONDITION
    reason = "OPERATION_NOT_DONE"


class RequestIdReused(ServiceError):
    """A request_id stands for one request, which can be repeated and not replaced."""

    code = Code.ALREADY_EXISTS
    reason = "REQUEST_ID_REUSED"


class TrainingQueueFull(ServiceError):
    """Not UNAVAILABLE, which clients retry in moments: runs take minutes."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "TRAINING_QUEUE_FULL"


class TrainingStoreFull(ServiceError):
    """What cannot be kept is not begun."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "DISK_FULL"


class TrainingStoreBusy(ServiceError):
    """SQLite waits for some seconds first."""

    code = Code.UNAVAILABLE
    reason = "TRAINING_STORE_BUSY"
    retry_after_s = 1.0


class Unauthenticated(ServiceError):
    """The message says which kind of token is wanted, and nothing of the one that came."""

    code = Code.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class PermissionDenied(ServiceError):
    """The message says what would be needed."""

    code = Code.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class Unsupported(ServiceError):
    """Answering as if the part were not there would be a wrong answer."""

    code = Code.UNIMPLEMENTED
    reason = "UNSUPPORTED"


class WorkerSilent(ServiceError):
    """What concerns all workers was not answered by all of them in time; what they were asked to do may be done."""

    code = Code.UNAVAILABLE
    reason = "WORKER_SILENT"
    retry_after_s = 1.0


class WorkerFailed(ServiceError):
    """A defect in another worker; its own log has the traceback."""

    code = Code.INTERNAL
    reason = "WORKER_FAILED"


class InferenceFailed(ServiceError):
    """The runtime refused or failed; its own words are in the log, since they may name files of this machine."""

    code = Code.INTERNAL
    reason = "INFERENCE_FAILED"


class BindError(Exception):
    """An address that cannot be listened on. Not for clients: there are none yet."""


class WorkersFailed(Exception):
    """The processes of a server cannot go on, or have not ended well. Not for clients."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        self.exit_code = exit_code
        super().__init__(message)


def status_of(error: BaseException) -> Status:
    """The status for whatever a handler raised."""
    if isinstance(error, ServiceError):
        return Status(error.code, _cut(str(error), MAX_MESSAGE_BYTES), error.details)
    return Status(Code.INTERNAL, "internal error; the server's log has the details")


def release(error: BaseException) -> None:
    """Let go of what a handled error saw: its frames hold whatever the failed call worked on, a model's runner too.

    Transports keep the last error of a call in reference cycles, and what is in those lives until the collector comes
    by: a version that nobody uses any more would stay in memory as long.
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
    # Both ends, since what was expected often stands behind what came.
    start, end = encoded[:half].decode(errors="ignore"), encoded[-half:].decode(errors="ignore")
    return f"{start} ... ({len(text) - len(start) - len(end)} characters left out) ... {end}"
