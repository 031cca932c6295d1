"""The process of one attempt at a run: start it, read its output, stop it.

It runs `models.training.process` in a new session, so that a Ctrl-C on the server's terminal does not reach it.
`service.training.scheduler` interprets its output.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from models.training.process import Job

_log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-P", "-m", "models.training.process")
_CHUNK_BYTES = 64 * 1024
_LONGEST_LINE_BYTES = 4 * 1024 * 1024
_TAIL_BYTES = 2000
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")}


class Child:
    """The process of one attempt at a run. Its methods belong to one event loop."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._tail = b""
        self._reading = asyncio.create_task(self._read_errors(), name=f"standard error of {process.pid}")

    @classmethod
    async def start(cls, job: Job, command: Sequence[str] = COMMAND) -> Child:
        """Start the process and send it its job; raises OSError."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, **_ONE_THREAD},
        )
        child = cls(process)
        await child.tell(job.to_json())
        return child

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    async def tell(self, line: str) -> None:
        """Write a line to its standard input; errors are ignored, since `wait` reports a process that has ended."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(f"{line}\n".encode())
                await self._process.stdin.drain()

    async def events(self) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield the process's events in lists of those available at a time, until it ends."""
        rest = b""
        while chunk := await _read(self._process.stdout):
            *lines, rest = (rest + chunk).split(b"\n")
            if bodies := [body for body in map(self._body, lines) if body is not None]:
                yield bodies
            if len(rest) > _LONGEST_LINE_BYTES:
                rest = b""

    async def wait(self) -> int:
        """Wait for its end; returns the exit code, or the signal that ended it as a negative number."""
        code = await self._process.wait()
        # A process that it left behind may keep standard error open, so do not wait for the end of it.
        await asyncio.wait([self._reading], timeout=1.0)
        self._reading.cancel()
        return code

    @property
    def last_words(self) -> str:
        """The end of the process's standard error."""
        return self._tail.decode(errors="replace").strip()

    def stop(self) -> None:
        """Ask the process to save a checkpoint and exit."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process and its children."""
        self._signal(signal.SIGKILL)

    def _signal(self, signum: int) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signum)

    def _body(self, line: bytes) -> dict[str, Any] | None:
        try:
            body = json.loads(line)
            if isinstance(body, dict) and isinstance(body.get("event"), str):
                return body
        except ValueError:
            pass
        _log.error("a training process wrote what is no event", extra={"pid": self.pid, "line": repr(line[:200])})
        return None

    async def _read_errors(self) -> None:
        while chunk := await _read(self._process.stderr):
            self._tail = (self._tail + chunk)[-_TAIL_BYTES:]


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    return await stream.read(_CHUNK_BYTES) if stream is not None else b""
