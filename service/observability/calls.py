"""How long calls take, by method and status code."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from service.observability.exposition import Family, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.errors import Code

BOUNDS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds of the buckets, in seconds."""


class CallDurations:
    """Histograms of call durations. Written by the event loop only, so that it needs no lock; read from any thread."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, Code], list[int]] = {}
        self._sums_s: dict[tuple[str, Code], float] = {}
        self._in_flight = 0

    def began(self) -> None:
        """A call is under way."""
        self._in_flight += 1

    def ended(self, path: str, code: Code, took_s: float) -> None:
        """A call that began is over; ``path`` is that of the method table, so that their number is bounded."""
        self._in_flight -= 1
        key = path, code
        counts = self._counts.get(key)
        if counts is None:
            self._sums_s[key] = 0.0
            counts = self._counts[key] = [0] * (len(BOUNDS_S) + 1)
        counts[bisect_left(BOUNDS_S, took_s)] += 1
        self._sums_s[key] += took_s

    def families(self) -> Iterator[Family]:
        """As they are now."""
        running = Family("mnist1d_requests_in_flight", Kind.GAUGE, "Calls that are under way, streams among them.")
        running.add(self._in_flight)
        yield running
        durations = Family(
            "mnist1d_request_duration_seconds",
            Kind.HISTOGRAM,
            "Time from the parsed headers of a call to its status, by method and gRPC status code; "
            "a stream is one call.",
        )
        # A list of the items is one step for the interpreter; iterating over the dict would not be.
        for (path, code), counts in list(self._counts.items()):
            durations.add_histogram(
                BOUNDS_S, counts.copy(), self._sums_s[path, code], method=path.removeprefix("/"), code=code.name
            )
        yield durations
