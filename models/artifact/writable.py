"""Check that a directory can be written to, before minutes of work whose result would go there."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def why_not_writable(directory: Path) -> str | None:
    """Why nothing can be written into a directory that exists or would have to be made; None if it is writable.

    Tries it in the deepest directory of the path that exists, and leaves nothing behind. Permissions alone do not say:
    root has them in /proc too, and they do not show a full or read-only disk.
    """
    existing = directory.absolute()
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        return f"{existing} is not a directory"
    try:
        with tempfile.TemporaryDirectory(prefix=".writable-", dir=existing):
            return None
    except OSError as error:
        return f"nothing can be made in {existing}: {error.strerror}"
