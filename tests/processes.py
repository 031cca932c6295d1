"""Servers as processes of their own, as a user starts them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

START_TIMEOUT_S = 60.0
"""Far beyond what a start takes; only a hang reaches it."""


PROGRAM = (sys.executable, "-m", "service.cli", "serve")


class ServerProcess:
    """``mnist1d serve`` with its log going to a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self.port = 0

    def lines(self) -> list[dict[str, object]]:
        """The log so far."""
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]

    def wait_until_up(self) -> None:
        """Wait for the line that names the port."""
        until = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < until:
            for line in self.lines():
                if line["message"] in ("server ready", "server is up and not ready"):
                    self.port = int(re.sub(r".*:", "", str(line["address"])))
                    return
            if self.process.poll() is not None:
                raise RuntimeError(f"the server left with {self.process.returncode}: {self._log.read_text()}")
            time.sleep(0.02)
        raise TimeoutError(self._log.read_text())

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(signum)
        return self.process.wait(START_TIMEOUT_S)

    def resident_bytes(self) -> int:
        """Resident memory now."""
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def serve(
    repository: Path, log: Path, *options: str, detached: bool = False, program: Sequence[str] = PROGRAM
) -> Iterator[ServerProcess]:
    """Start ``mnist1d serve`` on a free port and wait until it is up; killed on leaving if it still runs.

    ``detached`` from any terminal, and from a nohup of the tests: a hang-up means what it means to daemons.
    """
    command = [*program, str(repository), "--log-format", "json"]
    command += ["--port", "0", "--metrics-port", "0", "--control-on-main-port"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, *options],
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            start_new_session=detached,
            preexec_fn=(lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)) if detached else None,
        )
    server = ServerProcess(process, log)
    try:
        server.wait_until_up()
        yield server
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
