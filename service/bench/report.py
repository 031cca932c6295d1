"""Reports of a load test: the table, the JSON document, and warnings about the measurement."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.bench.histogram import Histogram
    from service.bench.plan import Result

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999, "max": 1.0}

_BUSY = 0.9
"""Share of a core above which the generator itself may be the bottleneck."""
_LATE_SHARE = 0.1
_LATE_S = 0.002
"""Limits on the delay of requests of an open loop; beyond both the load was not as requested."""
_MISSED_RATE = 0.98
_UNCONNECTED_S = 0.1
"""Seconds without a connection that need a warning; reconnecting after a graceful close takes less."""
_NOTHING = "-"


@dataclass(frozen=True)
class Setup:
    """The settings of a load test, for the head of the report."""

    server: str
    model: str
    version: str
    batch: int
    """Number of examples in one request."""
    contents: str
    """Form of the tensor contents, ``raw`` or ``typed``."""
    request_bytes: int
    connections: int
    in_flight: int
    rate: float | None
    workers: int
    streaming: bool = False
    vary_timeouts: bool = False

    @property
    def load(self) -> str:
        """The load in a few words."""
        noun = "stream" if self.streaming else "connection"
        varied = ", a timeout of its own each" if self.vary_timeouts else ""
        if self.rate is None:
            return f"closed loop, {_count(self.connections, noun)} x {self.in_flight} in flight{varied}"
        return f"open loop, {self.rate:,.0f} requests/s on {_count(self.connections, noun)}{varied}"


def to_dict(setup: Setup, result: Result) -> dict[str, Any]:
    """The report for ``--json``: durations in milliseconds, null without right answers; rates per second."""
    return {
        "server": setup.server,
        "model": setup.model,
        "version": setup.version,
        "load": "closed" if setup.rate is None else "open",
        "connections": setup.connections,
        "in_flight": setup.in_flight if setup.rate is None else None,
        "streaming": setup.streaming,
        "vary_timeouts": setup.vary_timeouts,
        "offered_rate": setup.rate,
        "batch": setup.batch,
        "contents": setup.contents,
        "request_bytes": setup.request_bytes,
        "seconds": round(result.seconds, 3),
        "sent": result.sent,
        "done": result.done,
        "failed": result.failed,
        "rate": round(result.rate, 1),
        "samples_rate": round(result.rate * setup.batch, 1),
        "latency_ms": _milliseconds(result.latency),
        "send_lag_ms": _milliseconds(result.lag) if setup.rate is not None else None,
        "errors": [
            {"code": code, "message": message, "count": count} for (code, message), count in result.errors.most_common()
        ],
        "warm_up_errors": result.warm_up_errors,
        "reconnects": result.reconnects,
        "unconnected_s": round(result.unconnected_s, 3),
        "generator_cpu_share": round(result.cpu_share, 3),
        "workers": setup.workers,
        "stopped": result.stopped or None,
        "cautions": cautions(setup, result),
        "intervals": [
            {
                "start_s": round(interval.start_s, 3),
                "seconds": round(interval.seconds, 3),
                "done": interval.done,
                "failed": interval.errors.total(),
                "p50_ms": _quantile_ms(interval.latency, 0.5),
                "p99_ms": _quantile_ms(interval.latency, 0.99),
            }
            for interval in result.intervals
        ],
    }


def rows(setup: Setup, result: Result) -> list[tuple[str, str]]:
    """The rows of the final table."""
    lines = [
        ("requests", f"{result.done:,} right, {result.failed:,} failed, in {result.seconds:.2f} s"),
        ("rate", f"{result.rate:,.0f} requests/s"),
    ]
    if setup.batch != 1:
        lines.append(("samples", f"{result.rate * setup.batch:,.0f} samples/s ({setup.batch} a request)"))
    lines += [(name.replace("_", "."), quantile(result.latency, q)) for name, q in QUANTILES.items()]
    lines.append(("mean", duration(result.latency.mean_s) if result.latency.count else _NOTHING))
    if setup.rate is not None:
        lines.append(("send lag p99", quantile(result.lag, 0.99)))
    lines.append(("generator", f"{100 * result.cpu_share:.0f} % of a core"))
    return lines


def errors(result: Result) -> list[tuple[str, str, str]]:
    """Code, count and message of each kind of error, the most frequent first."""
    return [(code, f"{count:,}", message) for (code, message), count in result.errors.most_common()]


def errors_by_code(result: Result) -> Counter[str]:
    """Number of failed calls by code."""
    counts: Counter[str] = Counter()
    for (code, _), count in result.errors.items():
        counts[code] += count
    return counts


def cautions(setup: Setup, result: Result) -> list[str]:
    """Warnings about why the numbers may be misleading."""
    told = []
    if result.stopped:
        told.append(f"the load ended early: {result.stopped}")
    if result.cpu_share > _BUSY:
        told.append(
            f"the generator used {100 * result.cpu_share:.0f} % of a core and may be what was measured; "
            "give it another core with --workers"
        )
    late_s = result.lag.quantile_s(0.99)
    if setup.rate is not None and late_s > max(_LATE_S, _LATE_SHARE * result.latency.quantile_s(0.99)):
        told.append(
            f"1 % of the requests left {duration(late_s)} late or later: the generator, or the room on the "
            "connections, was short; the wait is part of the latencies"
        )
    if setup.rate is not None and result.seconds and not result.stopped and result.rate < _MISSED_RATE * setup.rate:
        told.append(f"of {setup.rate:,.0f} requests/s offered {result.rate:,.0f} were answered rightly and in time")
    if result.warm_up_errors:
        told.append(f"{result.warm_up_errors:,} calls failed while warming up; they are not counted")
    if result.reconnects:
        told.append(f"connections were lost or closed {_count(result.reconnects, 'time')} and opened again")
    if result.unconnected_s > _UNCONNECTED_S:
        told.append(f"for {duration(result.unconnected_s)} no connection could be had, and nothing was sent")
    return told


def duration(seconds: float) -> str:
    """Format a duration with three digits and a suitable unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:#.3g} {unit}".replace(". ", " ")
    return f"{seconds / 1e-6:.0f} µs"


def quantile(histogram: Histogram, q: float) -> str:
    """The formatted duration that a share ``q`` of all did not exceed; a dash without any."""
    return duration(histogram.quantile_s(q)) if histogram.count else _NOTHING


def _milliseconds(histogram: Histogram) -> dict[str, float | None]:
    quantiles = {name: _quantile_ms(histogram, q) for name, q in QUANTILES.items()}
    return {**quantiles, "mean": round(1e3 * histogram.mean_s, 4) if histogram.count else None}


def _quantile_ms(histogram: Histogram, q: float) -> float | None:
    return round(1e3 * histogram.quantile_s(q), 4) if histogram.count else None


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
