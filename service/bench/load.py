"""Schedule requests, as a closed or an open loop.

A closed loop keeps a fixed number of calls running and sends the next when one is answered; a slow server gets fewer
requests. An open loop sends by the clock, regardless of the server, and counts each latency from the time at which the
request was due: waiting for a connection or for this generator is included in the latency.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from service.bench.answers import AnswerCheck
from service.bench.call_headers import call_headers, varying_timeouts
from service.bench.http2_client import Http2Connection
from service.bench.http2_stream import StreamConnection
from service.bench.prepared import Prepared
from service.bench.recorder import Recorder
from service.bench.timer import Timer
from service.errors import Code
from service.wire import hpack

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.bench.plan import Interval, Plan, Result

_SWEEP_S = 0.05
_TICK_S = 0.0001
"""Requests that are due within this time, a tenth of a millisecond, are sent together."""
_RECONNECT_S = (0.02, 1.0)
_CONNECT_TIMEOUT_S = 10.0

Token = tuple[float, float, int, bool]
"""The time when a call was due, when it was sent, the index of its message, and whether it is measured."""


class Unreachable(ConnectionError):
    """No connection to the server could be made."""


class Load:
    """One generator. Call `connect`, then `run` once, within one event loop."""

    def __init__(self, plan: Plan, on_interval: Callable[[Interval], None] = lambda _: None) -> None:
        self._plan = plan
        self._on_interval = on_interval
        self._loop = asyncio.get_running_loop()
        block = hpack.encode(call_headers(plan))
        self._prepared: Final = [Prepared(block, message) for message in plan.messages]
        self._timeouts = varying_timeouts(plan.deadline_s) if plan.vary_timeouts else None
        self._check = AnswerCheck(
            plan.expected, len(plan.messages), contents=plan.check, streamed=plan.streaming, right=plan.right
        )
        self._recorder = Recorder()
        self._connections: list[Http2Connection] = []
        self._leaving: set[Http2Connection] = set()
        """Connections that finish their calls and take no new ones."""
        self._connecting: set[asyncio.Task[None]] = set()
        self._again: deque[Token] = deque()
        """Calls that the server refused without processing them, to be sent again."""
        self._issued = 0
        self._next_connection = 0
        self._open = 0
        self._running = False
        self._stopping = False
        self._drained = asyncio.Event()
        self._begin = self._measure = self._end = 0.0
        self._in_time = 0
        self._alone_since: float | None = None
        self._alone_s = 0.0
        """Seconds of the measured part without any connection."""
        self._failing = False
        """Whether the last try to connect failed. As in gRPC, calls wait while connecting and fail after a failure."""
        self._reconnects = 0
        self._stopped = ""

    async def connect(self) -> None:
        """Open every connection; raises Unreachable."""
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await asyncio.gather(*(self._connect() for _ in range(self._plan.connections)))
        except (OSError, TimeoutError) as error:
            for connection in self._connections:
                connection.close()
            raise Unreachable(str(error) or f"no answer within {_CONNECT_TIMEOUT_S:g} s") from error

    async def run(self) -> Result:
        """Warm up, measure, wait for open calls, and return the result."""
        plan = self._plan
        self._begin = time.monotonic()
        self._measure = self._begin + plan.warm_up_s
        self._end = self._measure + plan.duration_s if plan.duration_s is not None else float("inf")
        self._running = True
        timer = Timer(self._tick)
        sweeper = self._loop.create_task(self._sweep())
        cpu_before = time.process_time()
        try:
            self._timer = timer
            self._tick()
            await self._drained.wait()
        finally:
            self._running = False
            cpu_s = time.process_time() - cpu_before
            wall_s = time.monotonic() - self._begin
            timer.close()
            sweeper.cancel()
            for task in self._connecting:
                task.cancel()
            for connection in (*self._connections, *self._leaving):
                connection.close()
        now = time.monotonic()
        # Answers after the end count in the latencies, but not in the rate.
        result = self._recorder.result(now - self._measure, min(self._end, now) - self._measure, self._in_time)
        result.cpu_share = cpu_s / wall_s if wall_s else 0.0
        result.reconnects = self._reconnects
        self._end_loneliness(now)
        result.unconnected_s = self._alone_s
        result.stopped = self._stopped
        return result

    def stop(self, why: str = "interrupted") -> None:
        """Send no more requests; `run` returns when the open calls are answered."""
        self._stopped = self._stopped or why
        self._finish()

    # Callbacks of a connection, as http2_client.Caller describes them.

    def replied(self, token: Token, code: int, message: str, body: bytes) -> None:
        """Record a call that has ended."""
        now = time.monotonic()
        self._open -= 1
        due, _, index, measured = token
        problem = self._check.problem(index, body) if code == 0 else None
        if not measured:
            if code or problem:
                self._recorder.warm_up_errors += 1
        elif code:
            self._recorder.failed(code, message)
        elif problem:
            self._recorder.wrong(problem)
        else:
            self._recorder.done(now - due)
            self._in_time += now <= self._end
        if self._stopping and not self._open:
            self._drained.set()

    def refused(self, token: Token) -> None:
        """Queue a call to be sent again that the server has not processed."""
        self._open -= 1
        self._again.append(token)

    def woken(self, connection: Http2Connection) -> None:
        """Send more calls after a connection has received data."""
        if not self._running:
            return
        if connection.is_leaving:
            self._replace(connection)
        if self._again:
            self._send_again()
        if self._stopping:
            return
        if self._plan.rate is None:
            self._fill(connection)
        elif self._due() > self._issued:
            self._send_due()

    def lost(self, connection: Http2Connection) -> None:
        """Replace a connection that was closed."""
        self._leaving.discard(connection)
        if self._running:
            self._replace(connection)

    # Sending.

    def _tick(self) -> None:
        """Send the requests that are due, and set the timer for the next one."""
        if self._stopping:
            return
        if self._plan.rate is None:
            for connection in self._connections:
                self._fill(connection)
                connection.flush()
            if self._end < float("inf"):
                self._finish_at(self._end)
            return
        self._send_due()
        for connection in self._connections:
            connection.flush()
        if not self._stopping:
            self._timer.set(max(self._due_time(self._due()), time.monotonic() + _TICK_S))

    def _finish_at(self, when: float) -> None:
        self._loop.call_later(max(0.0, when - time.monotonic()), self._finish)

    def _fill(self, connection: Http2Connection) -> None:
        """Closed loop: send calls until ``in_flight`` are open on the connection."""
        for _ in range(min(self._plan.in_flight - connection.open_calls, connection.room)):
            now = time.monotonic()
            measured = now >= self._measure
            if now >= self._end or not self._may_send(measured):
                self._finish()
                return
            self._send(connection, now, now, measured)

    def _send_due(self) -> None:
        """Open loop: send all due requests, on the connections in turn; those without room stay due."""
        due = self._due()
        while self._issued < due:
            when = self._due_time(self._issued)
            measured = when >= self._measure
            if when >= self._end or not self._may_send(measured):
                self._finish()
                return
            now = time.monotonic()
            connection = self._take_turn()
            if connection is not None:
                if measured:
                    self._recorder.sent_late(now - when)
                self._send(connection, when, now, measured)
            elif self._failing and not self._connections:
                self._give_up(when, measured, Code.UNAVAILABLE, "no connection")
            elif now - when > self._plan.deadline_s:
                self._give_up(when, measured, Code.DEADLINE_EXCEEDED, "found no room on a connection, never sent")
            else:
                return

    def _due(self) -> int:
        """Open loop: number of requests that should have been sent by now."""
        return int((time.monotonic() - self._begin) * (self._plan.rate or 0.0)) + 1

    def _due_time(self, number: int) -> float:
        return self._begin + number / (self._plan.rate or 1.0)

    def _may_send(self, measured: bool) -> bool:
        return not measured or self._plan.requests is None or self._recorder.sent < self._plan.requests

    def _take_turn(self) -> Http2Connection | None:
        connections = self._connections
        for _ in range(len(connections)):
            self._next_connection = (self._next_connection + 1) % len(connections)
            if connections[self._next_connection].room:
                return connections[self._next_connection]
        return None

    def _send(self, connection: Http2Connection, due: float, now: float, measured: bool) -> None:
        index = self._issued % len(self._prepared)
        self._issued += 1
        self._open += 1
        self._recorder.sent += measured
        prepared = self._prepared[index]
        if self._timeouts is not None:
            prepared = prepared.with_field(next(self._timeouts))
        connection.request(prepared, (due, now, index, measured))

    def _send_again(self) -> None:
        while self._again and (connection := self._take_turn()) is not None:
            due, _, index, measured = self._again.popleft()
            self._open += 1
            connection.request(self._prepared[index], (due, time.monotonic(), index, measured))
            connection.flush()

    def _give_up(self, due: float, measured: bool, code: Code, message: str) -> None:
        self._issued += 1
        self._recorder.sent += measured
        self._open += 1
        self.replied((due, due, 0, measured), code, message, b"")

    def _finish(self) -> None:
        self._stopping = True
        if not self._open and not self._again:
            self._drained.set()

    # Connections.

    async def _connect(self) -> None:
        tls = _tls_context(self._plan)
        _, connection = await self._loop.create_connection(
            lambda: (StreamConnection if self._plan.streaming else Http2Connection)(self),
            self._plan.host,
            self._plan.port,
            ssl=tls,
            server_hostname=_server_name(self._plan) if tls is not None else None,
        )
        try:
            await connection.ready
        except BaseException:
            connection.close()
            raise
        self._connections.append(connection)
        self._end_loneliness(time.monotonic())
        self._failing = False

    def _end_loneliness(self, now: float) -> None:
        if self._alone_since is not None:
            self._alone_s += max(0.0, min(now, self._end) - max(self._alone_since, self._measure))
            self._alone_since = None

    def _replace(self, connection: Http2Connection) -> None:
        """Drop a connection that takes no more calls and open another in its place."""
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        if connection.open_calls:
            self._leaving.add(connection)
        if not self._connections:
            self._alone_since = time.monotonic()
        task = self._loop.create_task(self._reconnect())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _reconnect(self) -> None:
        pause_s, longest_s = _RECONNECT_S
        while self._running:
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                    await self._connect()
            except (OSError, TimeoutError):
                self._failing = True
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, longest_s)
            else:
                self._reconnects += 1
                connection = self._connections[-1]
                self.woken(connection)
                connection.flush()
                return

    async def _sweep(self) -> None:
        """End calls that exceed the deadline, and intervals that are over."""
        fold_at = self._measure + self._plan.interval_s
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = time.monotonic()
            limit = now - self._plan.deadline_s
            for connection in (*self._connections, *self._leaving):
                while (oldest := connection.oldest) is not None and oldest[1][1] < limit:
                    connection.cancel(oldest[0])
                    self.replied(oldest[1], Code.DEADLINE_EXCEEDED, "no answer within the deadline", b"")
                self.woken(connection)
                connection.flush()
            while self._again and self._again[0][1] < limit:
                self._open += 1
                self.replied(self._again.popleft(), Code.UNAVAILABLE, "refused by the server until the deadline", b"")
            if self._alone_since is not None and self._alone_since < limit:
                self.stop(f"no connection for {self._plan.deadline_s:g} s")
                self._again.clear()
            if self._stopping and not self._open and not self._again:
                self._drained.set()
            if now >= fold_at and now >= self._measure:
                self._on_interval(self._recorder.fold(now - self._measure))
                fold_at = now + self._plan.interval_s


def _server_name(plan: Plan) -> str:
    return (plan.tls.server_name if plan.tls is not None else None) or plan.host


def _tls_context(plan: Plan) -> ssl.SSLContext | None:
    if plan.tls is None:
        return None
    roots = plan.tls.root_certificates
    context = ssl.create_default_context(cadata=roots.decode() if roots is not None else None)
    context.set_alpn_protocols(["h2"])
    if plan.tls.certificate is not None and plan.tls.private_key is not None:
        # Python's ssl reads them only from files; this one is private and removed after reading.
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(plan.tls.private_key + b"\n" + plan.tls.certificate)
            file.flush()
            context.load_cert_chain(file.name)
    return context
