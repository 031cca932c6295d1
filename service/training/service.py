"""The training service: its store, its jobs and its rows of the method table, with start and stop."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from service.errors import ServiceError
from service.training import process
from service.training.metrics import Tally
from service.training.operations_servicer import OPERATIONS_SERVICE, OperationsServicer
from service.training.runs import Runs
from service.training.scheduler import Jobs
from service.training.servicer import TRAINING_SERVICE, TrainingServicer
from service.training.store import Store, StoreFormatError

if TYPE_CHECKING:
    from pathlib import Path

    from service.rpc.methods import Method
    from service.training.scheduler import Limits
    from service.training.serving import Serving

DIRECTORY = ".training"
"""Directory of runs and checkpoints in the repository, whose readers skip hidden names."""
STORE_FILE = "runs.sqlite3"


class TrainingUnavailable(Exception):
    """The directory for runs cannot be used; the message says why."""


class TrainingService:
    """The training service of one process. Belongs to one event loop."""

    services = (TRAINING_SERVICE, OPERATIONS_SERVICE)
    """Full names of the gRPC services."""

    def __init__(
        self, *, repository: Path, directory: Path, serving: Serving, most_queued: int, limits: Limits
    ) -> None:
        """Open the store in ``directory``; raises TrainingUnavailable if that is impossible."""
        tally = Tally()
        try:
            store = Store(directory / STORE_FILE, on_end=tally.ended)
        except (OSError, sqlite3.Error, StoreFormatError, ServiceError) as error:
            raise TrainingUnavailable(f"{directory} cannot keep training runs: {error}") from error
        self.runs = Runs(store, repository, most_queued=most_queued)
        self.jobs = Jobs(
            self.runs,
            serving,
            repository=repository,
            directory=directory,
            limits=limits,
            command=process.COMMAND,
            tally=tally,
        )
        self.families = tally.families
        self.methods: tuple[Method, ...] = (
            *TrainingServicer(self.runs).methods(),
            *OperationsServicer(self.runs, serving).methods(),
        )

    def start(self) -> None:
        """Begin to execute queued runs, and resume interrupted ones."""
        self.jobs.start()

    async def stop(self, timeout_s: float) -> None:
        """Take no new runs, end watching calls, and stop runs with a checkpoint within ``timeout_s`` seconds."""
        self.runs.stop()
        await self.jobs.stop(timeout_s)

    def close(self) -> None:
        """Close the store; call this when no calls are left."""
        self.runs.close()
