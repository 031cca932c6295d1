"""When a worker that died is started again: at once after a good life, then after longer and longer pauses."""

from __future__ import annotations

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_GOOD_LIFE_S = 60.0
"""A worker that has served for so long did not die of what its start has done."""
STARTS = 3
"""How often in a row a worker may die during its start where no other one serves; then the server gives up."""


class Restarts:
    """What became of one worker's processes so far."""

    def __init__(self) -> None:
        self.count = 0
        """Processes that were started to take the place of another."""
        self.failed_starts = 0
        """How often in a row it has died before it was up."""
        self.was_up = False
        """Whether it ever was."""
        self._deaths = 0

    def came_up(self) -> None:
        """It is up."""
        self.failed_starts = 0
        self.was_up = True

    def pause_s(self, up_for_s: float | None) -> float:
        """It died, ``up_for_s`` seconds after it was up, or None if it never was: seconds until the next start."""
        if up_for_s is None:
            self.failed_starts += 1
        elif up_for_s >= _GOOD_LIFE_S:
            self._deaths = 0
        self._deaths += 1
        before = self._deaths - (up_for_s is not None)
        return 0.0 if before == 0 else min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(before - 1, 10))
