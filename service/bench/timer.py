"""A precise timer for event loops.

Event loops sleep in whole milliseconds. An open-loop load at thousands of requests a second would be sent in bursts,
and half a millisecond of each latency would be due to the generator. Linux has timerfd with nanoseconds; elsewhere the
loop's timer is used, and the report's send lag shows the difference.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_SPEC = struct.Struct("qqqq")
"""``struct itimerspec``: seconds and nanoseconds of the interval (none) and of the first expiry."""


class Timer:
    """Calls ``on_time`` once for each `set`. Times are those of ``time.monotonic``."""

    def __init__(self, on_time: Callable[[], None]) -> None:
        self._on_time = on_time
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        self._file = -1
        if self._libc is not None:
            self._file = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
            if self._file < 0:
                raise OSError(ctypes.get_errno(), "timerfd_create failed")
            self._loop.add_reader(self._file, self._expired)

    def set(self, when: float) -> None:
        """Fire at ``when``, or at once if that is past; replaces an earlier time."""
        if self._libc is None:
            if self._handle is not None:
                self._handle.cancel()
            self._handle = self._loop.call_later(max(0.0, when - time.monotonic()), self._on_time)
            return
        # An expiry of 0 would turn the timer off.
        seconds, nanoseconds = divmod(max(1, int(when * 1e9)), 1_000_000_000)
        if self._libc.timerfd_settime(self._file, _ABSOLUTE, _SPEC.pack(0, 0, seconds, nanoseconds), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def close(self) -> None:
        """Release the timer; it does not fire any more."""
        if self._handle is not None:
            self._handle.cancel()
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1

    def _expired(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:
            # It was set again between the expiry and this call.
            return
        self._on_time()
