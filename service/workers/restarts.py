"""When a worker that died is restarted: at once if it had served for long, else after increasing pauses."""

from __future__ import annotations

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_GOOD_LIFE_S = 60.0
"""A worker that has served for this long did not die of a problem of its start."""
STARTS = 3
"""How often in a row a worker may die during its start while no other one serves; then the server gives up."""


class Restarts:
    """The history of one worker's processes."""

    def __init__(self) -> None:
        self.count = 0
        """How many processes were started to replace another one."""
        self.failed_starts = 0
        """How often in a row the worker has died before it was up."""
        self.was_up = False
        """Whether the worker has ever been up."""
        self._deaths = 0

    def came_up(self) -> None:
        """Record that the worker is up."""
        self.failed_starts = 0
        self.was_up = True

    def pause_s(self, up_for_s: float | None) -> float:
        """Record that the process died ``up_for_s`` seconds after it was up, or None if it never was; return the
        seconds until the next start.
        """
        if up_for_s is None:
            self.failed_starts += 1
        elif up_for_s >= _GOOD_LIFE_S:
            self._deaths = 0
        self._deaths += 1
        before = self._deaths - (up_for_s is not None)
        return 0.0 if before == 0 else min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(before - 1, 10))
