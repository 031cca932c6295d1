"""A batch that runs in a thread, and which of its requests are still wanted."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from models.artifact.onnx_session import RunOptions
    from service.runtime.active_runs import ActiveRuns
    from service.runtime.batch import Waiting


class ThreadRun:
    """Ends the run of a batch when none of its requests is wanted any more.

    A request is withdrawn when its caller cancels it or its deadline passes. `withdraw` is called on the event loop,
    `options` in the thread.
    """

    def __init__(self, batch: Sequence[Waiting], active_runs: ActiveRuns) -> None:
        self._active_runs = active_runs
        self._lock = threading.Lock()
        self._wanted = set(batch)
        self._running: set[Waiting] = set()
        """Wanted requests that the current run computes."""
        self._options: RunOptions | None = None

    @contextmanager
    def options(self, requests: Sequence[Waiting]) -> Iterator[RunOptions]:
        """Options for one run of these requests, which are all or a part of the batch."""
        with self._active_runs.options() as options:
            with self._lock:
                self._running, self._options = self._wanted.intersection(requests), options
                self._end_if_unwanted()
            try:
                yield options
            finally:
                with self._lock:
                    self._running, self._options = set(), None

    def withdraw(self, request: Waiting) -> None:
        """Mark a request as unwanted, and end the run if no wanted request is left in it."""
        with self._lock:
            self._wanted.discard(request)
            self._running.discard(request)
            self._end_if_unwanted()

    def _end_if_unwanted(self) -> None:
        if self._options is not None and not self._running:
            self._options.terminate = True
