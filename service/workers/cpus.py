"""How many CPUs this process may use: those of its affinity, and no more than its control groups' quota."""

from __future__ import annotations

import math
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOUNT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cpus(mount: Path = _MOUNT, membership: Path = _MEMBERSHIP) -> int:
    """At least 1. A quota of one and a half CPUs counts as two: the second worker has the half."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for group in _groups(mount, membership) if (quota := _quota(group)) is not None]
    return max(1, min([count, *map(math.ceil, quotas)]))


def _groups(mount: Path, membership: Path) -> Iterator[Path]:
    """The directories of this process's control groups that may hold a quota, its own first.

    Each is bound by those above it. A container sees its own group as the root, whatever path it is told.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = ["0::/"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 has one tree. Where version 1 is in use as well, it is mounted beside the controllers' own.
        for tree in (mount / "cpu",) if controllers else (mount, mount / "unified"):
            for group in (PurePosixPath(path), *PurePosixPath(path).parents):
                yield tree / group.relative_to("/")


def _quota(group: Path) -> float | None:
    """CPUs that a control group allows; None without a limit."""
    try:
        allowed, period = (group / "cpu.max").read_text().split()  # version 2
    except (OSError, ValueError):
        try:
            allowed = (group / "cpu.cfs_quota_us").read_text()  # version 1, where -1 is no limit
            period = (group / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        quota = int(allowed) / int(period)
    except (ValueError, ZeroDivisionError):  # "max": no limit
        return None
    return quota if quota > 0 else None
