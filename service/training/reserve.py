"""Room on the disk that is kept for the day it is full, so that how a run ended can still be written down."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

RESERVE_BYTES = 256 * 1024
"""The end of a run takes some 10 kB; SQLite writes whole pages, first to its log and then to the file."""


class Reserve:
    """A file that nobody reads. Any process with the same path may keep it or give it up."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self) -> None:
        """Take the room unless it is taken; where there is none, nothing is left behind."""
        try:
            if self._path.stat().st_size == RESERVE_BYTES:
                return
        except OSError:
            pass
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # Blocks of its own: a file that is only said to be so long has none.
                os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
            finally:
                os.close(descriptor)
        except OSError:
            self.give_up()

    def give_up(self) -> None:
        """Let others have the room."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
