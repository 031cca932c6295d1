"""Progress of a load test: rate, percentiles and errors on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from service.bench.histogram import Histogram
from service.bench.report import quantile

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console, RenderableType

    from service.bench.plan import Interval, Plan
    from service.bench.report import Setup

_LINE_EVERY_S = 10.0
_BARS = " ▁▂▃▄▅▆▇█"
_COLUMNS = 40


class Progress:
    """Collects the intervals of all generators and shows them; drawing does not delay the load's processes."""

    def __init__(self, setup: Setup, plan: Plan, console: Console) -> None:
        from rich.live import Live

        self._setup = setup
        self._plan = plan
        self._console = console
        self._intervals: dict[int, list[Interval]] = {}
        self._all = Histogram()
        self._errors = 0
        self._began = self._line_at = time.monotonic()
        self._live = Live(self._drawn(), console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def add(self, interval: Interval) -> None:
        """Add an interval that has ended."""
        self._intervals.setdefault(round(interval.start_s / self._plan.interval_s), []).append(interval)
        self._all.merge(interval.latency)
        self._errors += interval.errors.total()
        if self._console.is_terminal:
            self._live.update(self._drawn(), refresh=True)
        elif time.monotonic() - self._line_at >= _LINE_EVERY_S:
            self._line_at = time.monotonic()
            self._console.print(self._line())

    def _rates(self) -> list[float]:
        return [
            sum(each.done / each.seconds for each in intervals if each.seconds)
            for _, intervals in sorted(self._intervals.items())
        ]

    def _line(self) -> str:
        rates = self._rates()
        if not rates:
            return f"{self._setup.model}: {self._setup.load}, warming up"
        done_s = max(each.start_s + each.seconds for intervals in self._intervals.values() for each in intervals)
        errors = f"[red]{self._errors:,} errors[/]" if self._errors else "no errors"
        return (
            f"{self._gone(done_s)}  {rates[-1]:,.0f} requests/s  p50 {quantile(self._all, 0.5)}  "
            f"p99 {quantile(self._all, 0.99)}  {errors}"
        )

    def _gone(self, done_s: float) -> str:
        whole_s = self._plan.duration_s
        if whole_s is None:
            return f"{done_s:.0f} s"
        if done_s > whole_s + self._plan.interval_s:
            return f"{whole_s:g} s are over, waiting for the last answers since {done_s - whole_s:.0f} s"
        return f"{min(done_s, whole_s):.0f} s of {whole_s:g} s"

    def _drawn(self) -> RenderableType:
        rates = self._rates()[-_COLUMNS:]
        highest = max(rates, default=0.0)
        bars = "".join(_BARS[round(rate / highest * (len(_BARS) - 1))] if highest else " " for rate in rates)
        return f"{self._line()}\n[green]{bars}[/]"
