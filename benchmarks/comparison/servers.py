"""Servers as processes of their own: started, watched, stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

START_S = 90.0
_STOP_S = 15.0
_ASK_S = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")
_PARENT, _SESSION, _USER, _SYSTEM, _STARTED = 1, 3, 11, 12, 19
"""Places in /proc/PID/stat, counted from the field after the command's name."""


class NotStarted(RuntimeError):
    """A server did not begin to answer; the message has the end of its output."""


@dataclass(frozen=True)
class Command:
    """How a server is started."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to this process's."""


class Server:
    """A running server. Use as a context manager; leaving ends it and everything that it started."""

    def __init__(self, command: Command, log: Path) -> None:
        self._log = log
        with log.open("wb") as file:
            # A session of its own: what belongs to it can be told from everything else, and ended with it.
            self._process = subprocess.Popen(
                command.arguments,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=os.environ | dict(command.environment),
                start_new_session=True,
            )

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Taken down while it lives: those with sessions of their own can no longer be told from others afterwards.
        family = self._family()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        left = _processes()
        for pid, fields in (family | self._family()).items():
            if pid in left and left[pid][_STARTED] == fields[_STARTED]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def wait_until(self, answers: Callable[[], str | None]) -> None:
        """Ask until ``answers`` says that nothing is wrong; raises NotStarted after `START_S`."""
        until = time.monotonic() + START_S
        while (wrong := answers()) is not None:
            if self._process.poll() is not None:
                raise NotStarted(f"left with {self._process.returncode}: {self._tail()}")
            if time.monotonic() > until:
                raise NotStarted(f"no right answer within {START_S:g} s ({wrong}): {self._tail()}")
            time.sleep(_ASK_S)

    def cpu_s(self) -> float:
        """Processor time that it has used, with all its processes."""
        return sum((int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS for fields in self._family().values())

    def _family(self) -> dict[int, list[str]]:
        """Itself, its descendants, and whoever else is of its session."""
        every = _processes()
        found: dict[int, list[str]] = {}
        while more := {
            pid: fields
            for pid, fields in every.items()
            if pid not in found and (self._process.pid in (pid, int(fields[_SESSION])) or int(fields[_PARENT]) in found)
        }:
            found |= more
        return found

    def _tail(self) -> str:
        return self._log.read_text(errors="replace").strip()[-600:] or "it said nothing"


def _processes() -> dict[int, list[str]]:
    """Every process's fields in /proc."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
    return found


def free_port() -> int:
    """A port on loopback that nobody has now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def busy_s(cores: Sequence[int]) -> float:
    """Processor time that anybody has used on these cores since the machine started."""
    lines = {line.split()[0]: line.split()[1:] for line in Path("/proc/stat").read_text().splitlines()}
    # user, nice, system; then idle and waiting, which are not; then interrupts and what the hypervisor took.
    counted = (0, 1, 2, 5, 6, 7)
    return sum(int(lines[f"cpu{core}"][column]) for core in cores for column in counted) / _TICKS
