"""What happens by the clock: deadlines of calls, keepalive, idleness and age of connections."""

from __future__ import annotations

import heapq
import random
from typing import TYPE_CHECKING, Final, Protocol

from service.errors import Code, Status
from service.transport.http2 import abuse
from service.wire import frames
from service.wire.errors import ErrorCode

if TYPE_CHECKING:
    import asyncio

    from service.transport.http2.connection import Connection
    from service.transport.http2.shared import Shared


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


_SLOWEST_S: Final = 1.0
_QUICKEST_S: Final = 0.02
_JITTER: Final = random.Random()  # noqa: S311 - no security depends on it
_AGE_JITTER: Final = 0.1
"""Share by which ages vary, so that connections made together do not all reconnect together; as in gRPC."""
_TOO_SLOW: Final = Status(Code.DEADLINE_EXCEEDED, "the request did not come to its end in time")


class Caretaker:
    """Enforces the time limits of every connection from `start` to `stop`."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        limits = shared.limits
        spans = (
            limits.keepalive_time_s,
            limits.keepalive_timeout_s,
            limits.max_connection_age_s,
            limits.max_connection_age_grace_s,
            limits.max_connection_idle_s,
        )
        # With a quarter of the shortest limit as the period, none is exceeded by more than a quarter of that limit.
        shortest = min(span for span in (*spans, _SLOWEST_S * 4) if span)
        self._period_s = min(max(shortest / 4, _QUICKEST_S), _SLOWEST_S)
        self._timer: asyncio.TimerHandle | None = None
        self._ages: dict[Connection, float] = {}

    def start(self) -> None:
        """Start the timer."""
        self._timer = self._shared.loop.call_later(self._period_s, self._look)

    def stop(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = self._shared.loop.call_later(self._period_s, self._look)
        now_s = self._shared.loop.time()
        for connection in list(self._shared.connections):
            self._look_at(connection, now_s)
        self._ages = {each: age for each, age in self._ages.items() if each in self._shared.connections}

    def _look_at(self, connection: Connection, now_s: float) -> None:
        limits = self._shared.limits
        if connection.expects == frames.SETTINGS and now_s - connection.began_s > abuse.PREFACE_TIMEOUT_S:
            connection.give_up(ErrorCode.SETTINGS_TIMEOUT, "no preface and settings in time")
        elif connection.sender.is_paused and now_s - connection.sender.paused_since_s > abuse.WRITE_TIMEOUT_S:
            connection.abort()
        elif (
            connection.control.pinged_s is not None and now_s - connection.control.pinged_s > limits.keepalive_timeout_s
        ):
            # Other frames do not count: gRPC's own servers also wait for the PING's answer. No GOAWAY: it is not read.
            connection.abort()
        elif limits.max_connection_idle_s and self._is_idle(connection, now_s, limits.max_connection_idle_s):
            connection.draining.begin("connection idle")
        else:
            self._look_at_age(connection, now_s)
            if connection.control.pinged_s is None and now_s - connection.heard_s > limits.keepalive_time_s:
                connection.control.ping()
            for stream in list(connection.streams.values()):
                if stream.heard_s and now_s - stream.heard_s > abuse.BODY_TIMEOUT_S:
                    stream.fail(_TOO_SLOW)
                elif stream.stalled_s and now_s - stream.stalled_s > abuse.WRITE_TIMEOUT_S:
                    connection.reset(stream, ErrorCode.CANCEL)
        if connection.draining.is_under_way and now_s - connection.draining.since_s > abuse.DRAIN_TIMEOUT_S:
            connection.draining.refuse_streams()

    def _is_idle(self, connection: Connection, now_s: float, limit_s: float) -> bool:
        return (
            not connection.streams
            and not connection.draining.is_under_way
            and now_s - connection.idle_since_s > limit_s
        )

    def _look_at_age(self, connection: Connection, now_s: float) -> None:
        limits = self._shared.limits
        if not limits.max_connection_age_s:
            return
        most_s = self._ages.setdefault(
            connection, limits.max_connection_age_s * (1 + _JITTER.uniform(-_AGE_JITTER, _AGE_JITTER))
        )
        age_s = now_s - connection.began_s
        if age_s > most_s:
            connection.draining.begin("max_age")
        if limits.max_connection_age_grace_s and age_s > most_s + limits.max_connection_age_grace_s:
            connection.close()
