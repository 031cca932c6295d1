"""Timing of repeated calls: to an unavailable server, and to one whose answer is not ready. Independent of channels."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..errors import Code

if TYPE_CHECKING:
    from .errors import ServerError

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0


class Pauses:
    """Growing pauses between tries to reach an unavailable server, for at most ``patience_s`` seconds."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._pause_s = _FIRST_PAUSE_S
        self._began_s: float | None = None

    def may_pass(self, error: ServerError) -> bool:
        """Whether to try again after this error."""
        now_s = time.monotonic()
        self._began_s = now_s if self._began_s is None else self._began_s
        return error.code is Code.UNAVAILABLE and now_s - self._began_s < self._patience_s

    def next_s(self) -> float:
        """The pause before the next try, in seconds."""
        pause_s = self._pause_s
        self._pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return pause_s


class Waiting:
    """Timeouts of successive calls that wait in the server, for ``timeout_s`` seconds in all; None for no limit."""

    def __init__(self, timeout_s: float | None, call_timeout_s: float) -> None:
        self._until_s = None if timeout_s is None else time.monotonic() + timeout_s
        # Half of the call's timeout, so that the answer always arrives in time.
        self._longest_s = call_timeout_s / 2

    def next_s(self) -> float:
        """How long the next call shall wait in the server, in seconds."""
        if self._until_s is None:
            return self._longest_s
        return min(self._longest_s, max(0.0, self._until_s - time.monotonic()))

    @property
    def is_over(self) -> bool:
        """Whether the time is over, so that no further call is made."""
        return self._until_s is not None and time.monotonic() >= self._until_s
