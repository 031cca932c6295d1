from __future__ import annotations

import os

import pytest

from service.workers import cpus

V1 = "4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n0::/docker/1\n"
V2 = "0::/a/b\n"


def v1(quota: int, period: int = 100_000, group: str = "") -> dict[str, str]:
    return {f"cpu/{group}cpu.cfs_quota_us": f"{quota}\n", f"cpu/{group}cpu.cfs_period_us": f"{period}\n"}


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        # a container sees its own group as the root
        ("0::/\n", {}, 4),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "20000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "900000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "junk"}, 4),
        (None, {"cpu.max": "200000 100000\n"}, 2),
        (V1, v1(-1), 4),
        (V1, v1(300_000), 3),
        (V1, v1(300_000, 0), 4),
        # without a namespace of its own a process has a path, and every group on it counts
        (V2, {"a/b/cpu.max": "300000 100000\n", "a/cpu.max": "max 100000\n"}, 3),
        (V2, {"a/b/cpu.max": "300000 100000\n", "a/cpu.max": "200000 100000\n"}, 2),
        (V2, {"a/b/cpu.max": "max 100000\n", "b/cpu.max": "100000 100000\n"}, 4),
        (V1, {**v1(-1), **v1(200_000, group="docker/1/")}, 2),
        (V1, {**v1(100_000, group="docker/")}, 1),
        (V1, {"unified/docker/1/cpu.max": "200000 100000\n"}, 2),
        (V1, {"memory/cpu.cfs_quota_us": "100000", "memory/cpu.cfs_period_us": "100000"}, 4),
    ],
)
def test_usable_cpus(tmp_path, monkeypatch, membership, files, expected) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    told = tmp_path / "membership"
    if membership is not None:
        told.write_text(membership)
    for name, text in files.items():
        (tmp_path / "mount" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mount" / name).write_text(text)
    assert cpus.usable_cpus(tmp_path / "mount", told) == expected


def test_this_machine_has_some() -> None:
    assert 1 <= cpus.usable_cpus() <= (os.cpu_count() or 1)
