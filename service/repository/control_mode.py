"""Triton's three control modes: models are loaded only at the start, as the directory changes, or by request.

The default is ``poll``, while Triton's is ``none``. Triton advises against polling since it can see a version while it
is copied; here a version appears by a rename, is proven before it serves, and is refused without harm if it is
incomplete. Versions that training publishes are therefore served automatically.
"""

from __future__ import annotations

from enum import Enum

EVERY_MODEL = "*"


class Mode(Enum):
    """When the repository is scanned for models."""

    NONE = "none"
    """The repository is scanned once, at the start."""
    POLL = "poll"
    """The repository is scanned at the start and again every few seconds."""
    EXPLICIT = "explicit"
    """Listed models are loaded at the start, others only by request."""


def start_names(text: str) -> list[str]:
    """The model names in a ``load_model`` setting; raises ValueError for ``*`` beside other names."""
    names = [name for part in text.split(",") if (name := part.strip())]
    if EVERY_MODEL in names and len(names) > 1:
        raise ValueError(f"got {text!r}, expected {EVERY_MODEL!r} alone or names separated by commas")
    return names
