"""Histograms of call durations, by method and status code."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from service.errors import Code
from service.observability.exposition import Family, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BOUNDS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds of the buckets, in seconds."""


class _Histogram:
    """Durations of the calls of one method that ended with one code."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0


class CallDurations:
    """Histograms of call durations. Only the event loop writes, so that no lock is needed; all threads may read."""

    def __init__(self) -> None:
        # By path, then in a list by code, which is a small number: the lookup happens with every call.
        self._histograms: dict[str, list[_Histogram | None]] = {}
        self._in_flight = 0

    def began(self, count: int = 1) -> None:
        """Count ``count`` calls that began."""
        self._in_flight += count

    def forget(self) -> None:
        """Uncount a call that began, since it will be counted again."""
        self._in_flight -= 1

    def ended(self, path: str, code: Code, took_s: Sequence[float]) -> None:
        """Record calls that ended; ``took_s`` has the seconds that each took. ``path`` is from the method table, which
        bounds the number of histograms.
        """
        self._in_flight -= len(took_s)
        by_code = self._histograms.get(path)
        if by_code is None:
            by_code = self._histograms[path] = [None] * len(Code)
        histogram = by_code[code]
        if histogram is None:
            histogram = by_code[code] = _Histogram()
        histogram.sum_s += sum(took_s)
        # Calls that ran together mostly fall into the same bucket.
        shortest, longest = bisect_left(BOUNDS_S, min(took_s)), bisect_left(BOUNDS_S, max(took_s))
        if shortest == longest:
            histogram.counts[shortest] += len(took_s)
            return
        for each_s in took_s:
            histogram.counts[bisect_left(BOUNDS_S, each_s)] += 1

    def families(self) -> Iterator[Family]:
        """The metric families with their present values."""
        running = Family("mnist1d_requests_in_flight", Kind.GAUGE, "Calls that are under way, streams among them.")
        running.add(self._in_flight)
        yield running
        durations = Family(
            "mnist1d_request_duration_seconds",
            Kind.HISTOGRAM,
            "Time from the parsed headers of a call to its status, by method and gRPC status code; "
            "a stream is one call.",
        )
        # Making a list of the items is atomic under the GIL; iterating over the dict would not be.
        for path, by_code in list(self._histograms.items()):
            for code, histogram in zip(Code, list(by_code), strict=True):
                if histogram is not None:
                    labels = {"method": path.removeprefix("/"), "code": code.name}
                    durations.add_histogram(BOUNDS_S, histogram.counts.copy(), histogram.sum_s, **labels)
        yield durations
