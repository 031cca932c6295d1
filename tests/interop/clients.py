"""Clients of other people, each in a process of its own, driven call by call."""

from __future__ import annotations

import json
import queue
import subprocess
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.interop.drivers.wire import decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DRIVERS = Path(__file__).with_name("drivers")
ANSWER_TIMEOUT_S = 60.0
"""Far beyond what any call takes; only a hang reaches it."""


@dataclass(frozen=True)
class Failure:
    """A call that ended with a status."""

    code: str
    """``NOT_FOUND`` and its kind."""
    message: str
    details: list[dict[str, Any]] = field(default_factory=list)
    """google.rpc details, from clients that read them."""


class ClientCrash(Exception):
    """The client's library raised something that is no status, or its process ended."""


class ClientProcess:
    """A driver process of `tests/interop/drivers` or `tests/interop/node`."""

    def __init__(self, command: Sequence[str | Path]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def ask(self, method: str, **arguments: Any) -> Any:
        """What the call returned, or its `Failure`. Raises ClientCrash."""
        assert self._process.stdin is not None
        line = json.dumps({"method": method, "arguments": encode(arguments)})
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
            answered = self._answers.get(timeout=ANSWER_TIMEOUT_S)
        except (BrokenPipeError, queue.Empty) as error:
            raise ClientCrash(f"no answer to {method}: {self._said()}") from error
        if not answered:
            raise ClientCrash(f"the client ended during {method}: {self._said()}")
        answer = json.loads(answered)
        if "crash" in answer:
            raise ClientCrash(answer["crash"])
        if "failure" in answer:
            return Failure(**decode(answer["failure"]))
        return decode(answer["result"])

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._errors.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                self._answers.put(line)
        except ValueError:  # closed while waiting for a line
            pass
        self._answers.put(b"")

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-4000:].decode(errors="replace")


@contextmanager
def client_process(*command: str | Path) -> Iterator[ClientProcess]:
    """Start a driver; ended on leaving."""
    client = ClientProcess(command)
    try:
        yield client
    finally:
        client.close()
