"""Resource use of this process and its machine, from Linux' /proc; no metrics if there is none."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

from service.observability.exposition import Across, Family, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = Path("/proc")
_IDLE = slice(3, 5)
"""Positions of the idle and the I/O wait time of all cores in /proc/stat."""


class Machine:
    """Reads /proc at each scrape."""

    def __init__(self, proc: Path = _PROC) -> None:
        self._proc = proc
        self._cpu_times = self._read_cpu_times()

    def families(self) -> Iterator[Family]:
        """Triton's three metrics of the machine, and Prometheus' usual metrics of the process."""
        yield from self._cpu()
        yield from self._memory()
        yield from self._process()

    def _cpu(self) -> Iterator[Family]:
        before, now = self._cpu_times, self._read_cpu_times()
        if now is None:
            return
        self._cpu_times = now
        busy, total = (now[0] - before[0], now[1] - before[1]) if before is not None else (0, 0)
        family = Family(
            "nv_cpu_utilization",
            Kind.GAUGE,
            "CPU utilization of the machine since the last scrape, 0 to 1.",
            across=Across.SAME,
        )
        family.add(min(1.0, max(0.0, busy / total)) if total > 0 else 0.0)
        yield family

    def _read_cpu_times(self) -> tuple[int, int] | None:
        """Busy and total time of all cores since the machine started, in clock ticks."""
        try:
            first = (self._proc / "stat").read_text().splitlines()[0]
            times = [int(field) for field in first.split()[1:9]]
        except (OSError, ValueError, IndexError):
            return None
        return sum(times) - sum(times[_IDLE]), sum(times)

    def _memory(self) -> Iterator[Family]:
        try:
            rows = (line.split() for line in (self._proc / "meminfo").read_text().splitlines())
            kibibytes = {row[0].removesuffix(":"): int(row[1]) for row in rows}
            total, available = kibibytes["MemTotal"] * 1024, kibibytes["MemAvailable"] * 1024
        except (OSError, ValueError, KeyError, IndexError):
            return
        whole = Family("nv_cpu_memory_total_bytes", Kind.GAUGE, "Memory of the machine, in bytes.", across=Across.SAME)
        whole.add(total)
        yield whole
        used = Family(
            "nv_cpu_memory_used_bytes",
            Kind.GAUGE,
            "Memory of the machine that is in use, in bytes.",
            across=Across.SAME,
        )
        used.add(total - available)
        yield used

    def _process(self) -> Iterator[Family]:
        own = self._proc / "self"
        try:
            # The second field is the program's name in parentheses, which may itself contain spaces and parentheses.
            fields = (own / "stat").read_text().rpartition(")")[2].split()
            booted = next(line for line in (self._proc / "stat").read_text().splitlines() if line.startswith("btime"))
            open_files = len(list((own / "fd").iterdir()))
        except (OSError, StopIteration):
            return
        ticks = os.sysconf("SC_CLK_TCK")
        values = (
            ("process_cpu_seconds_total", Kind.COUNTER, "Processor time of the server, in seconds.",
             (int(fields[11]) + int(fields[12])) / ticks),
            ("process_resident_memory_bytes", Kind.GAUGE, "Resident memory of the server, in bytes.",
             int(fields[21]) * os.sysconf("SC_PAGE_SIZE")),
            ("process_virtual_memory_bytes", Kind.GAUGE, "Virtual memory of the server, in bytes.", int(fields[20])),
            ("process_start_time_seconds", Kind.GAUGE, "When the server started, in seconds since the epoch.",
             int(booted.split()[1]) + int(fields[19]) / ticks),
            ("process_open_fds", Kind.GAUGE, "Open file descriptors.", open_files),
            ("process_max_fds", Kind.GAUGE, "How many may be open.", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        )  # fmt: skip
        for name, kind, help_text, value in values:
            family = Family(name, kind, help_text, across=Across.EACH)
            family.add(value)
            yield family
