from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from benchmarks.comparison import servers
from benchmarks.comparison.servers import Command, NotStarted, Server


def python(code: str, **environment: str) -> Command:
    return Command([sys.executable, "-c", code], environment)


def state(pid: int) -> str:
    """A letter of ps, or gone. Whoever inherits a dead child may take its time to look at it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"


@pytest.mark.parametrize("session", [False, True])
def test_leaving_ends_it_and_what_it_started(tmp_path, session) -> None:
    code = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(0))\n"
        "sleeper = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        f"child = subprocess.Popen(sleeper, start_new_session={session})\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    log = tmp_path / "log"
    with Server(python(code), log) as server:
        server.wait_until(lambda: None if log.read_text().endswith("\n") else "no line")
        child = int(log.read_text())
        assert state(child) not in ("gone", "Z")
    until = time.monotonic() + 20
    while state(child) not in ("gone", "Z"):
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("session", [False, True])
def test_processor_time_is_counted_with_that_of_its_processes(tmp_path, session) -> None:
    spin = "import time\nwhile time.process_time() < 0.3: pass\nprint('done', flush=True)\ntime.sleep(600)"
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {spin!r}], start_new_session={session})"
    log = tmp_path / "log"
    with Server(python(code), log) as server:
        server.wait_until(lambda: None if "done" in log.read_text() else "spinning")
        assert 0.25 < server.cpu_s() < 5
    assert servers.busy_s(sorted(os.sched_getaffinity(0))) > 0.3


def test_a_server_that_leaves_did_not_start(tmp_path) -> None:
    command = python("import os, sys; sys.exit(os.environ['WHY'])", WHY="no such model")
    with Server(command, tmp_path / "log") as server, pytest.raises(NotStarted, match=r"left with 1: no such model"):
        server.wait_until(lambda: "refused")


def test_a_server_that_gives_no_right_answer_did_not_start(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(servers, "START_S", 0.2)
    command = python("import time; time.sleep(600)")
    with (
        Server(command, tmp_path / "log") as server,
        pytest.raises(NotStarted, match=r"within 0.2 s \(wrong\): it said"),
    ):
        server.wait_until(lambda: "wrong")
