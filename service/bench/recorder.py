"""Record calls cheaply: append a number per call, and fold the numbers into histograms per interval."""

from __future__ import annotations

from array import array
from collections import Counter

from service.bench.histogram import Histogram
from service.bench.plan import Interval, Result
from service.errors import Code

_WRONG = "WRONG_ANSWER"
_MAX_MESSAGES = 50
"""Most distinct error messages, since they may differ each time; further ones are counted only by code."""


class Recorder:
    """Records the measured calls of one generator."""

    def __init__(self) -> None:
        self._latencies_s = array("d")
        self._lags_s = array("d")
        self._interval_errors: Counter[str] = Counter()
        self._errors: Counter[tuple[str, str]] = Counter()
        self._latency = Histogram()
        self._lag = Histogram()
        self._intervals: list[Interval] = []
        self._folded_until_s = 0.0
        self.sent = 0
        self.warm_up_errors = 0
        self.done = self._latencies_s.append
        """Call ``done(latency_s)`` for each right answer; a bound method, to be cheap."""
        self.sent_late = self._lags_s.append
        """Call ``sent_late(lag_s)`` with the delay of each request."""

    def failed(self, code: int, message: str) -> None:
        """Count an error of the server or of the connection."""
        self._count(Code(code).name if code in Code._value2member_map_ else f"CODE_{code}", message)

    def wrong(self, problem: str) -> None:
        """Count a wrong answer."""
        self._count(_WRONG, problem)

    def fold(self, now_s: float) -> Interval:
        """End an interval at ``now_s`` after the measured part began."""
        interval = Interval(self._folded_until_s, max(0.0, now_s - self._folded_until_s))
        interval.latency.add(self._latencies_s)
        interval.done = len(self._latencies_s)
        interval.errors = self._interval_errors
        self._latency.merge(interval.latency)
        self._lag.add(self._lags_s)
        # Emptied in place, since `done` and `sent_late` are bound to these arrays.
        del self._latencies_s[:], self._lags_s[:]
        self._interval_errors = Counter()
        self._folded_until_s = now_s
        self._intervals.append(interval)
        return interval

    def result(self, now_s: float, seconds: float, in_time: int) -> Result:
        """The result at ``now_s`` after the measured part began; ``in_time`` answers came in its ``seconds``."""
        self.fold(now_s)
        return Result(
            seconds=seconds,
            sent=self.sent,
            done=self._latency.count,
            in_time=in_time,
            errors=self._errors,
            warm_up_errors=self.warm_up_errors,
            latency=self._latency,
            lag=self._lag,
            intervals=[interval for interval in self._intervals if interval.done or interval.errors],
        )

    def _count(self, code: str, message: str) -> None:
        self._interval_errors[code] += 1
        key = (code, message)
        self._errors[key if key in self._errors or len(self._errors) < _MAX_MESSAGES else (code, "...")] += 1
