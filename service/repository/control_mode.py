"""Who decides what is loaded: nobody after the start, the directory, or requests. Triton's three control modes.

The default is ``poll``, while Triton's is ``none``. Triton advises against polling since it can see a version while it
is copied; here a version appears by a rename, is proven before it serves, and is refused without harm if it is not
whole. What training publishes is therefore served without anybody's doing.
"""

from __future__ import annotations

from enum import Enum

EVERY_MODEL = "*"


class Mode(Enum):
    """When the models are looked at."""

    NONE = "none"
    """Once, at the start."""
    POLL = "poll"
    """At the start, and again every few seconds: the directory decides."""
    EXPLICIT = "explicit"
    """Named ones at the start, and then each by request."""


def start_names(text: str) -> list[str]:
    """The models that ``load_model`` names; raises ValueError for ``*`` beside others."""
    names = [name for part in text.split(",") if (name := part.strip())]
    if EVERY_MODEL in names and len(names) > 1:
        raise ValueError(f"got {text!r}, expected {EVERY_MODEL!r} alone or names separated by commas")
    return names
