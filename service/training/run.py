"""A run as it is kept: what it shall do, how far it is, how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.training.request import RunSpec


class RunState(StrEnum):
    """Where a run is; the names are those of the contract."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_done(self) -> bool:
        """Whether it stays so for good."""
        return self not in (RunState.QUEUED, RunState.RUNNING)


@dataclass(frozen=True)
class Failure:
    """Why a run ended without a version, as plain values; code is that of a gRPC status."""

    code: int
    message: str
    reason: str
    """UPPER_SNAKE_CASE, for programs."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    parity: Mapping[str, Any] | None = None
    """The report of a proof that failed."""


@dataclass(frozen=True)
class Run:
    """One row of the store."""

    number: int
    """Order of creation."""
    run_id: str
    spec: RunSpec
    state: RunState
    is_cancelling: bool
    """It was asked to stop; once it is done this says no more."""
    created_s: float
    """Seconds since the epoch, as all times of a run."""
    started_s: float | None
    ended_s: float | None
    attempts: int
    last_event: int
    snapshot: Mapping[str, Any]
    """What `service.training.snapshot` makes of the events."""
    result: Mapping[str, Any] | None
    """What `service.training.result` makes of the publication; present exactly when the run has succeeded."""
    failure: Failure | None
    """There is one exactly when the run has failed or was cancelled."""
    ahead: int = 0
    """Other runs that are queued before this one."""


@dataclass(frozen=True)
class StoredEvent:
    """One thing that happened in a run."""

    number: int
    """From 1, without gaps."""
    time_s: float
    body: Mapping[str, Any]
    """``{"event": "progress", ...}``: the events of `models.training.events` and those of the service itself."""


@dataclass(frozen=True)
class Condition:
    """A part of a filter: a column of the store and whether it is to have that value."""

    column: str
    value: str
    is_equal: bool = True
