"""``GET /metrics`` on a separate port: the subset of HTTP/1.1 that a scrape needs.

Pages are rendered in a thread, one at a time, so that a large one does not block the event loop; requests are limited
in bytes, in time and in connections.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from service.config import join_address
from service.errors import BindError
from service.observability import exposition
from service.transport.sockets import EVERY, close_server, listening

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from service.observability.exposition import Family

_log = logging.getLogger(__name__)

PATH = "/metrics"
_PLAIN = "text/plain; charset=utf-8"
_MAX_HEADER_BYTES = 16 * 1024
_TIMEOUT_S = 10.0
"""Time for a client to send its request, and again to read the response."""
_MAX_CONNECTIONS = 32


class MetricsEndpoint:
    """Serves the text of ``families()``. Belongs to the event loop on which `start` is called."""

    def __init__(self, families: Callable[[], Iterable[Family]], host: str, port: int) -> None:
        self._families = families
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._is_stopped = False
        # A separate thread: pages are rendered one at a time, and do not wait for other work in threads.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="metrics")

    @property
    def url(self) -> str:
        """The URL of the page, with the port that is really listened on."""
        port = self._server.sockets[0].getsockname()[1] if self._server is not None else self._port
        return f"http://{join_address(self._host, port)}{PATH}"

    async def start(self) -> None:
        """Listen; raises BindError if that is impossible."""
        try:
            if self._host == EVERY:
                bound = listening(self._port, _MAX_CONNECTIONS)
                self._server = await asyncio.start_server(self._connected, sock=bound, limit=_MAX_HEADER_BYTES)
            else:
                self._server = await asyncio.start_server(
                    self._connected, self._host, self._port, limit=_MAX_HEADER_BYTES
                )
        except OSError as error:
            raise BindError(
                f"cannot listen on {join_address(self._host, self._port)} for metrics: {error.strerror or error}; "
                "choose another --metrics-port, or --no-metrics"
            ) from error

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._server is None:
            return
        self._is_stopped = True
        await close_server(self._server)
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_stopped or len(self._connections) >= _MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections.add(task)
        # Not in the task itself: a task that is cancelled before it has begun runs none of its code.
        task.add_done_callback(lambda _: self._gone(task, writer))

    def _gone(self, task: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        self._connections.discard(task)
        writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
            writer.write(await self._answer(head.decode("latin-1")))
            writer.close()
            async with asyncio.timeout(_TIMEOUT_S):
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            # The client is gone, too slow, or does not speak HTTP: no response is possible.
            _log.debug("scrape cut off", extra={"reason": repr(error)})

    async def _answer(self, head: str) -> bytes:
        """The whole response to a request's head. Each connection serves one request: scrapes are seconds apart."""
        first, *lines = head.split("\r\n")
        method, _, rest = first.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if path != PATH:
            return _response("404 Not Found", f"there is only {PATH}\n")
        if method not in ("GET", "HEAD"):
            return _response("405 Method Not Allowed", "GET or HEAD\n", "Allow: GET, HEAD\r\n")
        accept = ",".join(
            value for name, _, value in (line.partition(":") for line in lines) if name.strip().lower() == "accept"
        )
        render, content_type = (
            (exposition.openmetrics, exposition.OPENMETRICS_TYPE)
            if exposition.wants_openmetrics(accept)
            else (exposition.text, exposition.TEXT_TYPE)
        )
        try:
            body = await asyncio.get_running_loop().run_in_executor(self._executor, lambda: render(self._families()))
        except Exception:  # noqa: BLE001 - a defect here must be visible as a failed scrape
            _log.exception("the metrics cannot be read")
            return _response("500 Internal Server Error", "the server's log has the reason\n")
        return _response("200 OK", body, content_type=content_type, with_body=method == "GET")


def _response(
    status: str, body: str, headers: str = "", *, content_type: str = _PLAIN, with_body: bool = True
) -> bytes:
    data = body.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(data)}\r\n"
        f"{headers}Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (data if with_body else b"")
