"""How many CPUs this process may use: those of its affinity, but no more than its control groups' quota."""

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
    """The number of usable CPUs, at least 1. Quotas are rounded up: one and a half CPUs count as two."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for group in _groups(mount, membership) if (quota := _quota(group)) is not None]
    return max(1, min([count, *map(math.ceil, quotas)]))


def _groups(mount: Path, membership: Path) -> Iterator[Path]:
    """The directories that may hold a quota of this process: its control groups, then their parents.

    The quota of a group also binds the groups below it. A container sees its group as the root, even if the membership
    file has another path.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = ["0::/"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 has one tree. If version 1 is in use as well, it is mounted beside the trees of the controllers.
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
