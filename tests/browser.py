"""A real browser without a window, spoken to over a pipe: loads a page, notes what goes wrong, runs expressions in it.

Chromium's own protocol, as JSON messages that end in a zero byte (``--remote-debugging-pipe``), so that no driver and
no client library is needed. Debian has it as ``chromium-headless-shell`` and as ``chromium``.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE_S = 60
"""For any one answer; a loaded machine takes seconds to start a browser."""


def executable() -> str | None:
    """Where Chromium is; None where it is not installed."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@dataclass
class Page:
    """One page of the browser, and everything that it complained of or asked for."""

    pipe: _Pipe
    session: str
    complaints: list[str] = field(default_factory=list)
    """Errors, warnings and everything else that was written to the console."""
    requests: list[str] = field(default_factory=list)
    """URLs that were asked for, that of the page itself first; not those that are their own content (``data:``)."""

    def open(self, path: Path) -> None:
        """Load a file, and wait until it and its scripts are done."""
        self._call("Page.navigate", url=path.as_uri())
        self.pipe.wait_for(self, "Page.loadEventFired")

    def run(self, expression: str) -> Any:
        """The value of an expression in the page; AssertionError if it raises."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def show_as(self, *, width: int, height: int, scheme: str = "light", scale: float = 1) -> None:
        """The size of the screen, and whether its reader prefers light or dark."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, *, top: float, height: float, left: float = 0, width: float | None = None) -> bytes:
        """A PNG of a part of the page."""
        width = self.run("innerWidth") if width is None else width
        clip = {"x": left, "y": top, "width": width, "height": height, "scale": 1}
        answer = self._call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(answer["data"])

    def printed(self) -> bytes:
        """The page as a PDF."""
        return base64.b64decode(self._call("Page.printToPDF", printBackground=True)["data"])

    def note(self, event: Mapping[str, Any]) -> None:
        """Remember what an event complains of."""
        method, of = event["method"], event["params"]
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(of["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(f"{of['type']}: {of['args']}")
        elif method == "Log.entryAdded":
            self.complaints.append(f"{of['entry']['level']}: {of['entry']['text']}")
        elif method == "Network.requestWillBeSent":
            self.requests += [url for url in (of["request"]["url"],) if not url.startswith("data:")]

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.pipe.call(self, method, parameters)


class _Pipe:
    """Messages to and from the browser."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer = reader, writer
        self._buffer = b""
        self._number = 0

    def call(self, page: Page | None, method: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if page is not None:
            message["sessionId"] = page.session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(page)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def wait_for(self, page: Page, event: str) -> None:
        while self._next(page).get("method") != event:
            pass

    def _next(self, page: Page | None) -> dict[str, Any]:
        until_s = time.monotonic() + PATIENCE_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._reader], [], [], max(0, until_s - time.monotonic()))
            assert ready, f"the browser said nothing for {PATIENCE_S} s"
            got = os.read(self._reader, 1 << 20)
            assert got, "the browser is gone"
            self._buffer += got
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(text)
        if page is not None and message.get("sessionId") == page.session and "method" in message:
            page.note(message)
        return message


@contextlib.contextmanager
def browser() -> Iterator[Page]:
    """A browser with an empty profile and one empty page; gone afterwards."""
    program = executable()
    assert program is not None, "there is no Chromium here"
    profile = tempfile.mkdtemp(prefix="browser-")
    commands_in, commands_out = os.pipe()
    answers_in, answers_out = os.pipe()
    quiet = os.open(os.devnull, os.O_RDWR)
    process = os.posix_spawn(
        program,
        [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        os.environ,
        file_actions=[
            # First out of the way of each other: the pipes may have the numbers 3 and 4 themselves.
            (os.POSIX_SPAWN_DUP2, commands_in, 100),
            (os.POSIX_SPAWN_DUP2, answers_out, 101),
            (os.POSIX_SPAWN_DUP2, 100, 3),
            (os.POSIX_SPAWN_DUP2, 101, 4),
            (os.POSIX_SPAWN_CLOSE, 100),
            (os.POSIX_SPAWN_CLOSE, 101),
            *((os.POSIX_SPAWN_DUP2, quiet, stream) for stream in (0, 1, 2)),
        ],
        setpgroup=0,
    )
    for descriptor in (commands_in, answers_out, quiet):
        os.close(descriptor)
    try:
        pipe = _Pipe(answers_in, commands_out)
        target = pipe.call(None, "Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = pipe.call(None, "Target.attachToTarget", {"targetId": target, "flatten": True})
        page = Page(pipe, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            pipe.call(page, f"{domain}.enable", {})
        yield page
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(commands_out)
        os.close(answers_in)
        shutil.rmtree(profile, ignore_errors=True)
