"""The plan of a measurement and its result, as plain values that are sent between processes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.bench.histogram import Histogram

if TYPE_CHECKING:
    from service.bench.answers import Right, Shapes
    from service.client.connection import Tls


@dataclass(frozen=True)
class Plan:
    """The load of one generator process."""

    host: str
    port: int
    tls: Tls | None
    headers: tuple[tuple[bytes, bytes], ...]
    """Additional header fields of each call."""
    messages: tuple[bytes, ...]
    """Serialised requests, sent in turn."""
    expected: Shapes
    """The expected outputs of an answer."""
    connections: int
    in_flight: int
    """Closed loop: concurrent calls on each connection."""
    rate: float | None
    """Open loop: requests per second. None: closed loop."""
    duration_s: float | None
    requests: int | None
    """Number of requests. The measured part ends with this or ``duration_s``, whichever comes first; one is set."""
    warm_up_s: float
    deadline_s: float
    check: bool
    """Whether answers to the same input must have the same bits."""
    interval_s: float = 0.5
    streaming: bool = False
    """Whether each connection has one ModelStreamInfer, with the requests as its messages."""
    vary_timeouts: bool = False
    """Whether the grpc-timeout differs between requests. Not with ``streaming``, which has a single call."""
    right: Right | None = None
    """The expected answers, if they are known in advance."""


@dataclass
class Interval:
    """The results of one interval of the measured part."""

    start_s: float
    """Begin in seconds after the measured part began."""
    seconds: float
    done: int = 0
    """Number of right answers."""
    errors: Counter[str] = field(default_factory=Counter)
    """Number of errors by code."""
    latency: Histogram = field(default_factory=Histogram)


@dataclass
class Result:
    """The results of one or several generators."""

    seconds: float = 0.0
    """Length of the measured part."""
    sent: int = 0
    done: int = 0
    """Right answers, including late ones."""
    in_time: int = 0
    """Right answers that came within the measured part; the rate counts these."""
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Number of errors by code and message."""
    warm_up_errors: int = 0
    latency: Histogram = field(default_factory=Histogram)
    lag: Histogram = field(default_factory=Histogram)
    """Open loop: delay of each request after its scheduled time, which is part of the latency."""
    intervals: list[Interval] = field(default_factory=list)
    cpu_share: float = 0.0
    """Share of one core that the busiest generator process used."""
    reconnects: int = 0
    """Number of connections that replaced others."""
    unconnected_s: float = 0.0
    """Seconds of the measured part in which a generator had no connection at all."""
    stopped: str = ""
    """Why the load ended early, if it did."""

    def merge(self, other: Result) -> None:
        """Add the results of another generator that ran at the same time."""
        self.seconds = max(self.seconds, other.seconds)
        self.sent += other.sent
        self.done += other.done
        self.in_time += other.in_time
        self.errors += other.errors
        self.warm_up_errors += other.warm_up_errors
        self.latency.merge(other.latency)
        self.lag.merge(other.lag)
        self.cpu_share = max(self.cpu_share, other.cpu_share)
        self.reconnects += other.reconnects
        self.unconnected_s = max(self.unconnected_s, other.unconnected_s)
        self.stopped = self.stopped or other.stopped
        for index, interval in enumerate(other.intervals):
            if index == len(self.intervals):
                self.intervals.append(Interval(interval.start_s, interval.seconds))
            merged = self.intervals[index]
            merged.done += interval.done
            merged.errors += interval.errors
            merged.latency.merge(interval.latency)

    @property
    def failed(self) -> int:
        """Calls that ended with an error or a wrong answer."""
        return self.errors.total()

    @property
    def rate(self) -> float:
        """Right answers per second."""
        return self.in_time / self.seconds if self.seconds else 0.0
