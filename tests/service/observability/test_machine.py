from __future__ import annotations

import os

import pytest

from service.observability.machine import Machine


def values(machine: Machine) -> dict[str, float]:
    return {family.name: family.samples[0][2] for family in machine.families()}


@pytest.fixture
def proc(tmp_path):
    (tmp_path / "stat").write_text("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2\nbtime 1700000000\n")
    (tmp_path / "meminfo").write_text("MemTotal:  1000 kB\nMemFree:  100 kB\nMemAvailable:  400 kB\n")
    (tmp_path / "self" / "fd").mkdir(parents=True)
    (tmp_path / "self" / "fd" / "0").touch()
    fields = ["S"] + ["0"] * 10 + ["150", "50"] + ["0"] * 6 + ["300", "4096", "7"]
    (tmp_path / "self" / "stat").write_text(f"42 (a) name (odd) {' '.join(fields)}")
    return tmp_path


def test_the_figures_come_from_proc(proc) -> None:
    machine = Machine(proc)
    (proc / "stat").write_text("cpu  130 0 130 720 120 0 0 0 0 0\nbtime 1700000000\n")
    found = values(machine)
    assert found["nv_cpu_utilization"] == pytest.approx(0.6)
    assert found["nv_cpu_memory_total_bytes"] == 1000 * 1024
    assert found["nv_cpu_memory_used_bytes"] == 600 * 1024
    ticks = os.sysconf("SC_CLK_TCK")
    assert found["process_cpu_seconds_total"] == 200 / ticks
    assert found["process_start_time_seconds"] == 1700000000 + 300 / ticks
    assert found["process_virtual_memory_bytes"] == 4096
    assert found["process_resident_memory_bytes"] == 7 * os.sysconf("SC_PAGE_SIZE")
    assert found["process_open_fds"] == 1


def test_utilization_is_since_the_last_scrape(proc) -> None:
    machine = Machine(proc)
    assert values(machine)["nv_cpu_utilization"] == 0
    (proc / "stat").write_text("cpu  110 0 100 700 100 0 0 0 0 0\nbtime 1700000000\n")
    assert values(machine)["nv_cpu_utilization"] == 1
    assert values(machine)["nv_cpu_utilization"] == 0


def test_what_cannot_be_read_is_left_out(tmp_path) -> None:
    assert values(Machine(tmp_path)) == {}


def test_this_machine_has_them_all() -> None:
    found = values(Machine())
    assert 0 < found["process_resident_memory_bytes"] < found["nv_cpu_memory_total_bytes"]
    assert 0 <= found["nv_cpu_utilization"] <= 1
    assert found["process_open_fds"] <= found["process_max_fds"]
