"""Takes down what happens, cheaply: a number appended for each call, folded into histograms now and then."""

from __future__ import annotations

from array import array
from collections import Counter

from service.bench.histogram import Histogram
from service.bench.plan import Interval, Result
from service.errors import Code

_WRONG = "WRONG_ANSWER"
_MAX_MESSAGES = 50
"""Messages may name what differs each time; beyond this many they are counted under their code."""


class Recorder:
    """The measured calls of one generator."""

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
        """``done(latency_s)`` for each right answer; bound once, since it is called for each call."""
        self.sent_late = self._lags_s.append
        """``sent_late(lag_s)``: how late a request left."""

    def failed(self, code: int, message: str) -> None:
        """An error of the server or of the way to it."""
        self._count(Code(code).name if code in Code._value2member_map_ else f"CODE_{code}", message)

    def wrong(self, problem: str) -> None:
        """An answer that is none."""
        self._count(_WRONG, problem)

    def fold(self, now_s: float) -> Interval:
        """End an interval at ``now_s`` after the measured part began."""
        interval = Interval(self._folded_until_s, max(0.0, now_s - self._folded_until_s))
        interval.latency.add(self._latencies_s)
        interval.done = len(self._latencies_s)
        interval.errors = self._interval_errors
        self._latency.merge(interval.latency)
        self._lag.add(self._lags_s)
        # The bound methods stay those of these arrays.
        del self._latencies_s[:], self._lags_s[:]
        self._interval_errors = Counter()
        self._folded_until_s = now_s
        self._intervals.append(interval)
        return interval

    def result(self, now_s: float, seconds: float, in_time: int) -> Result:
        """All of it, ``now_s`` after the measured part began; ``in_time`` answers came in its ``seconds``."""
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
