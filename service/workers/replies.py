"""The workers' answers to a call that was sent to all of them: bytes or an error from each, in one message."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from service.errors import Details, ServiceError, WorkerFailed, status_of
from service.workers.backplane import BackplaneFailed, Message

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_KINDS = {kind.__name__: kind for kind in ServiceError.__subclasses__()}


@dataclass(frozen=True)
class Answer:
    """The answer of one worker."""

    worker: int
    body: bytes = b""
    """The serialised response; empty if there is an error."""
    error: ServiceError | None = None


def pack(answers: Iterable[Answer]) -> Message:
    """Pack answers into one message."""
    given = list(answers)
    rows = [[a.worker, len(a.body), error_fields(a.error) if a.error is not None else None] for a in given]
    return Message({"answers": rows}, b"".join(a.body for a in given))


def unpack(message: Message) -> list[Answer]:
    """Unpack the message that `pack` made; raises BackplaneFailed for any other message."""
    found, at = [], 0
    try:
        for worker, length, error in message.fields["answers"]:
            body = message.body[at : at + length]
            found.append(Answer(worker, body, error_of(error) if error is not None else None))
            at += length
    except (KeyError, TypeError, ValueError) as error:
        raise BackplaneFailed(f"no answers: {error!r}") from error
    if at != len(message.body):
        raise BackplaneFailed(f"no answers: {len(message.body)} bytes, expected {at}")
    return found


def error_fields(error: ServiceError) -> dict[str, Any]:
    """Represent an expected error as JSON values."""
    return {"kind": type(error).__name__, "message": status_of(error).message, "details": asdict(error.details)}


def error_of(fields: Mapping[str, Any]) -> ServiceError:
    """The ServiceError that ``fields`` describe, as made by `error_fields`."""
    details = fields["details"]
    error = _KINDS.get(fields["kind"], WorkerFailed)(fields["message"])
    pairs = {name: tuple((key, value) for key, value in details[name]) for name in ("metadata", "violations")}
    error.details = Details(**{**details, **pairs})
    return error


def reworded(error: ServiceError, message: str) -> ServiceError:
    """A copy of the error with another message."""
    again = type(error)(message)
    again.details = error.details
    return again
