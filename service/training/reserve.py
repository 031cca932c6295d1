"""Disk space held in reserve, so that the end of a run can be stored even if the disk is full."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

RESERVE_BYTES = 256 * 1024
"""Size of the reserve. The end of a run takes some 10 kB, which SQLite writes to its log and then to the file."""


class Reserve:
    """A file that only takes up space. Any process with the same path may create or remove it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self) -> None:
        """Create the file unless it exists; if the disk is full, no partial file is left."""
        try:
            if self._path.stat().st_size == RESERVE_BYTES:
                return
        except OSError:
            pass
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # Allocates blocks, while setting the length would make a sparse file.
                os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
            finally:
                os.close(descriptor)
        except OSError:
            self.give_up()

    def give_up(self) -> None:
        """Remove the file to free its space."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
