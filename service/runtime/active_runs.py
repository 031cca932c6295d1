"""Tracks model runs outside of the event loop, so that all of them can be ended at once."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from models.artifact.onnx_session import RunOptions

if TYPE_CHECKING:
    from collections.abc import Iterator


class ActiveRuns:
    """Hands out the options of each run, and ends the runs when the server stops. For use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: set[RunOptions] = set()
        self._is_ended = False

    @contextmanager
    def options(self) -> Iterator[RunOptions]:
        """Options for the runs inside the block, and for no others. After `end_all` they end every run at once."""
        options = RunOptions()
        with self._lock:
            options.terminate = self._is_ended
            self._active.add(options)
        try:
            yield options
        finally:
            with self._lock:
                self._active.discard(options)

    def end_all(self) -> None:
        """End the runs in progress, and those that begin later."""
        with self._lock:
            self._is_ended = True
            for options in self._active:
                options.terminate = True
