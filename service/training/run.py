"""Training runs as they are stored: settings, state, progress and outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.training.request import RunSpec


class RunState(StrEnum):
    """The state of a run, with the names of the API."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_done(self) -> bool:
        """Whether this state is final."""
        return self not in (RunState.QUEUED, RunState.RUNNING)


@dataclass(frozen=True)
class Failure:
    """Why a run ended without a version; ``code`` is a gRPC status code."""

    code: int
    message: str
    reason: str
    """The kind of failure in UPPER_SNAKE_CASE, for programs."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    parity: Mapping[str, Any] | None = None
    """The parity report, if a proof failed."""


@dataclass(frozen=True)
class Run:
    """One training run as stored."""

    number: int
    """Number of the run in the order of creation."""
    run_id: str
    spec: RunSpec
    state: RunState
    is_cancelling: bool
    """Whether the run was asked to stop; without meaning once it is done."""
    created_s: float
    """Time of creation in seconds since the epoch, as all times of a run."""
    started_s: float | None
    ended_s: float | None
    attempts: int
    last_event: int
    snapshot: Mapping[str, Any]
    """Progress of the run, which `service.training.snapshot` makes from the events."""
    result: Mapping[str, Any] | None
    """The result from `service.training.result`; present exactly when the run has succeeded."""
    failure: Failure | None
    """Why the run ended; present exactly when it has failed or was cancelled."""
    ahead: int = 0
    """Number of runs that are queued before this one."""


@dataclass(frozen=True)
class StoredEvent:
    """One event of a run."""

    number: int
    """Number of the event in its run, from 1 without gaps."""
    time_s: float
    body: Mapping[str, Any]
    """``{"event": "progress", ...}``: the events of `models.training.events` and those of the service itself."""


@dataclass(frozen=True)
class Condition:
    """One condition of a filter: a column of the store and the value that it must or must not have."""

    column: str
    value: str
    is_equal: bool = True
