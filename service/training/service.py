"""The whole of training as a service: its store, its jobs and its rows of the method table, started and stopped."""

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
"""In the repository, whose readers pass over hidden names: runs and their checkpoints."""
STORE_FILE = "runs.sqlite3"


class TrainingUnavailable(Exception):
    """What has to be kept of runs cannot be kept where it shall be; says why."""


class TrainingService:
    """Belongs to one event loop."""

    services = (TRAINING_SERVICE, OPERATIONS_SERVICE)
    """Their full names."""

    def __init__(
        self, *, repository: Path, directory: Path, serving: Serving, most_queued: int, limits: Limits
    ) -> None:
        """Raises TrainingUnavailable where ``directory`` cannot be used."""
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
        """Begin with what waits, and go on with what was interrupted."""
        self.jobs.start()

    async def stop(self, timeout_s: float) -> None:
        """Take nothing new, let go of watchers, and let what runs leave a checkpoint within ``timeout_s`` seconds."""
        self.runs.stop()
        await self.jobs.stop(timeout_s)

    def close(self) -> None:
        """Let go of the store, once nobody asks any more."""
        self.runs.close()
