"""Deadlines of many calls with one timer: a call that ends in time costs two dict operations instead of a timer."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import asyncio

GRAIN_S: Final = 0.005
"""Width of a bucket of deadlines. None expires early, or late by more than this; those ten or more seconds away may be
late by a tenth of a second, so that hours of deadlines are not millions of buckets.
"""
_FAR_S: Final = 10.0
_FAR_GRAINS: Final = 20
_TIDY_KEYS: Final = 256


class Expires(Protocol):
    """An object with a deadline."""

    def expire(self) -> None:
        """Handle the passed deadline. May remove entries of `Deadlines`, including this one."""
        ...


class Deadlines:
    """All deadlines of one engine. Belongs to one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._buckets: dict[int, dict[Expires, None]] = {}
        self._order: list[int] = []
        self._most_keys = _TIDY_KEYS
        self._timer: asyncio.TimerHandle | None = None
        self._timer_for = 0

    def add(self, entry: Expires, now_s: float, timeout_s: float) -> int:
        """Call ``entry.expire()`` at ``now_s + timeout_s`` on the loop's clock; return the key for `remove`."""
        key = int((now_s + timeout_s) / GRAIN_S) + 1
        if timeout_s >= _FAR_S:
            key += -key % _FAR_GRAINS
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._order) >= self._most_keys:
                self._tidy()
            bucket = self._buckets[key] = {}
            heapq.heappush(self._order, key)
            if self._timer is None or key < self._timer_for:
                self._arm()
        bucket[entry] = None
        return key

    def remove(self, entry: Expires, key: int) -> None:
        """Forget an entry; do nothing if it has expired."""
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.pop(entry, None)  # An empty bucket stays until it is due or `_tidy` drops it.

    def stop(self) -> None:
        """Forget all deadlines."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._buckets.clear()
        self._order.clear()

    def _tidy(self) -> None:
        """Drop empty buckets, which far deadlines of calls that have ended leave behind."""
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if bucket}
        self._order = sorted(self._buckets)  # a sorted list is a heap
        self._most_keys = max(_TIDY_KEYS, 2 * len(self._order))

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_for = self._order[0]
        self._timer = self._loop.call_at(self._timer_for * GRAIN_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._order and self._order[0] * GRAIN_S <= now:
            for entry in list(self._buckets.pop(heapq.heappop(self._order), ())):
                entry.expire()
        if self._order and self._timer is None:
            self._arm()
