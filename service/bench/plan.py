"""What is to be measured, and what came of it. Plain values that travel between processes."""

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
    """The caller's header fields; gRPC's own are added."""
    messages: tuple[bytes, ...]
    """Serialised requests, sent in turn."""
    expected: Shapes
    """The outputs of an answer."""
    connections: int
    in_flight: int
    """Closed loop: calls at a time on each connection."""
    rate: float | None
    """Open loop: arrivals a second. None: closed loop."""
    duration_s: float | None
    requests: int | None
    """The measured part ends with whichever comes first; one of them is given."""
    warm_up_s: float
    deadline_s: float
    check: bool
    """Answers to the same input must have the same bits."""
    interval_s: float = 0.5
    streaming: bool = False
    """Each connection has one ModelStreamInfer, and the requests are its messages."""
    vary_timeouts: bool = False
    """Each request has a grpc-timeout of its own. Not with ``streaming``, whose one call lasts."""
    right: Right | None = None
    """What the answers must be, where that is known beforehand."""


@dataclass
class Interval:
    """A stretch of the measured part."""

    start_s: float
    """Since the measured part began."""
    seconds: float
    done: int = 0
    """Answers that were right."""
    errors: Counter[str] = field(default_factory=Counter)
    """By code."""
    latency: Histogram = field(default_factory=Histogram)


@dataclass
class Result:
    """What one or several generators have seen."""

    seconds: float = 0.0
    """How long the measured part was."""
    sent: int = 0
    done: int = 0
    """Right answers, however late."""
    in_time: int = 0
    """Right answers that came within the measured part; the rate counts these."""
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By code and message."""
    warm_up_errors: int = 0
    latency: Histogram = field(default_factory=Histogram)
    lag: Histogram = field(default_factory=Histogram)
    """Open loop: how long after its scheduled time each request was sent. Part of the latency."""
    intervals: list[Interval] = field(default_factory=list)
    cpu_share: float = 0.0
    """Share of one core that the busiest generator process used."""
    reconnects: int = 0
    """Connections that were opened in the place of others."""
    unconnected_s: float = 0.0
    """Seconds of the measured part in which a generator had no connection at all."""
    stopped: str = ""
    """Why the load ended early, if it did."""

    def merge(self, other: Result) -> None:
        """Count what another generator has seen at the same time."""
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
        """Right answers a second."""
        return self.in_time / self.seconds if self.seconds else 0.0
