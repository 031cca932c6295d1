"""The supervisor of several workers: starts them, restarts those that die, stops them, and serves their metrics.

It imports neither gRPC nor onnxruntime: it stays small, and requests are not processed in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from typing import TYPE_CHECKING

from service import logs
from service.config import join_address
from service.errors import WorkersFailed
from service.observability.endpoint import MetricsEndpoint
from service.observability.exposition import Across, Family, Kind
from service.observability.machine import Machine
from service.security.credentials import certificates_of, tokens_of
from service.signals import Stopping, rescan_on_hangup
from service.status import ServerStatus
from service.workers import totals
from service.workers.addresses import Addresses
from service.workers.backplane import BackplaneClosed, BackplaneFailed, Message
from service.workers.child import Child, Phase
from service.workers.connection_passing import BACKLOG, Dealer
from service.workers.ordered_changes import Agreement
from service.workers.restarts import STARTS, Restarts
from service.workers.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from service.config import ServerConfig

_log = logging.getLogger(__name__)

_USAGE = 2
"""The exit code of a worker whose settings cannot be used: a restart does not help."""
_METRICS_S = 2.0
"""Timeout for a worker's metrics; after it, the last ones are shown."""
_SLACK_S = 15.0
"""Time beyond lame duck and grace for a worker to exit: it may be loading a version, or exporting its last spans."""
_ABORT_S = 2.0
"""Time for workers to exit at once; then they are killed."""
_ROOM_BYTES = 16 * 1024 * 1024
"""Bytes by which a message between processes may exceed the largest request: metrics, statistics of all workers."""


async def supervise(
    config: ServerConfig, count: int, on_ready: Callable[[ServerStatus], None] = lambda _: None
) -> None:
    """Serve with ``count`` workers until SIGTERM or SIGINT, then let them drain and return.

    Raises:
        service.config.ConfigError: a file with certificates or tokens cannot be used.
        service.errors.BindError: an address cannot be listened on.
        WorkersFailed: no worker could be started, or one has not left with exit code 0.
    """
    certificates_of(config)
    tokens_of(config)
    with Addresses(config) as addresses:
        stopping = Stopping(on_hurried=lambda: supervisor.hurry())
        supervisor = Supervisor(config, addresses, count, stopping)
        with stopping.on_signals():
            async with rescan_on_hangup(supervisor.agreement.rescan):
                await supervisor.run(on_ready)


async def check_addresses(config: ServerConfig) -> None:
    """Bind every address that a server would bind, and release it; raises as `supervise` does."""
    certificates_of(config)
    tokens_of(config)
    with Addresses(config):
        if config.metrics:
            endpoint = MetricsEndpoint(tuple, config.metrics_host, config.metrics_port)
            await endpoint.start()
            await endpoint.stop()


class Supervisor:
    """Keeps workers running. Belongs to one event loop."""

    def __init__(self, config: ServerConfig, addresses: Addresses, count: int, stopping: Stopping) -> None:
        self._config = config
        self._addresses = addresses
        self._stopping = stopping
        self._children: list[Child | None] = [None] * count
        self._restarts = [Restarts() for _ in range(count)]
        self._settled = [asyncio.Event() for _ in range(count)]
        """Set for each worker once its first start has succeeded or failed."""
        self._standings: dict[int, ServerStatus] = {}
        """How each worker stood when it last came up."""
        self._came_up = asyncio.Event()
        self._failure: WorkersFailed | None = None
        self._totals = Totals()
        self._machine = Machine()
        self._loop = asyncio.get_running_loop()
        self._log_lock_fd = os.memfd_create("log lines")
        self.agreement = Agreement(self._living)
        self._dealer = Dealer(self._living)

    async def run(self, on_ready: Callable[[ServerStatus], None]) -> None:
        """Run the workers until a stop is requested; raises as `supervise` does."""
        config = self._config
        metrics = MetricsEndpoint(self._families, config.metrics_host, config.metrics_port) if config.metrics else None
        output = logs.current_output()
        keepers: list[asyncio.Task[None]] = []
        announcing: asyncio.Task[None] | None = None
        try:
            if metrics is not None:
                await metrics.start()
            if output is not None:
                output.lock_fd = self._log_lock_fd
            if config.transport == "http2":
                self._dealer.start(self._addresses.listen(BACKLOG))
            else:
                self._addresses.share()
            keepers = [asyncio.create_task(self._keep(number)) for number in range(len(self._children))]
            announcing = asyncio.create_task(self._announce(metrics, on_ready))
            await self._stopping.wait()
            announcing.cancel()
            await self._drain(keepers)
        except asyncio.CancelledError:
            for child in self._living():
                child.abort()
            if keepers:
                await asyncio.wait(keepers, timeout=_ABORT_S)
            raise
        finally:
            self._dealer.stop()
            for child in self._living():
                child.kill()
            await asyncio.gather(*keepers, *([announcing] if announcing is not None else []), return_exceptions=True)
            if metrics is not None:
                await metrics.stop()
            if output is not None:
                output.lock_fd = None
            os.close(self._log_lock_fd)
        _log.info("server stopped")
        if self._failure is not None:
            raise self._failure

    # ---- workers ------------------------------------------------------------------------------------------------

    def _living(self) -> list[Child]:
        return [child for child in self._children if child is not None and child.phase is not Phase.GONE]

    async def _keep(self, number: int) -> None:
        """Run the worker with this number, and restart it whenever it exits, until the server stops."""
        restarts = self._restarts[number]
        while True:
            child = self._children[number] = self._make(number)
            up_at_s: float | None = None
            try:
                await child.start(
                    self._config_of_workers(),
                    listens_at_once=not any(other.listens for other in self._living() if other is not child),
                    log_lock_fd=self._log_lock_fd,
                )
            except OSError as error:
                _log.error("worker cannot be started", extra={"worker": number, "reason": str(error)})
                code = 1
            else:
                _log.info("worker started", extra={"worker": number, "pid": child.pid})
                code = await child.wait()
                up_at_s = child.up_at_s
            self._dealer.look()
            self._totals.retire(str(number))
            self._settled[number].set()
            if self._stopping.is_asked:
                self._left_while_stopping(child, code)
                return
            pause_s = 0.0 if code == 0 else restarts.pause_s(None if up_at_s is None else self._loop.time() - up_at_s)
            if self._gives_up(number, code):
                return
            _log.log(
                logging.INFO if code == 0 else logging.ERROR,
                "worker left, another one takes its place",
                extra={"worker": number, "pid": child.pid, "exit": _exit_name(code), "pause_s": pause_s},
            )
            restarts.count += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()
                return

    def _make(self, number: int) -> Child:
        child = Child(number, max_body_bytes=self._config.max_message_bytes + _ROOM_BYTES)

        async def began(_: Message) -> None:
            child.began()
            if self._stopping.is_asked:
                child.stop()

        async def ready(message: Message) -> None:
            child.is_ready = bool(message.fields["ready"])

        async def join(_: Message) -> None:
            await self.agreement.admit(child, child.serves)

        async def up(message: Message) -> None:
            self._standings[number] = ServerStatus.from_dict(message.fields)
            child.is_up()
            self._came_up.set()
            self._restarts[number].came_up()
            self._settled[number].set()

        async def takes_connections(_: Message) -> None:
            child.takes_connections = True
            self._dealer.look()

        async def takes_no_connections(_: Message) -> None:
            child.takes_connections = False
            self._dealer.look()
            if self._stopping.is_asked and not any(other.takes_connections for other in self._living()):
                self._stop_listening()

        async def connection_gone(_: Message) -> None:
            child.connections -= 1

        async def leaving(_: Message) -> None:
            child.phase = Phase.LEAVING

        async def final_metrics(message: Message) -> None:
            self._totals.update(str(number), totals.load(message.body))

        async def ask_all(message: Message) -> Message:
            return await self.agreement.ask_all(child, message)

        handlers = (began, ready, join, up, takes_connections, takes_no_connections, connection_gone, leaving,
                    final_metrics, ask_all)  # fmt: skip
        for handler in handlers:
            child.on(handler.__name__.replace("_", " "), handler)
        return child

    def _config_of_workers(self) -> dict[str, object]:
        ports = {"port": self._addresses.port}
        if self._addresses.control_port is not None:
            ports["control_port"] = self._addresses.control_port
        return {**self._config.to_dict(), **ports}

    def _gives_up(self, number: int, code: int) -> bool:
        """Stop the server and return True if no worker can be started. While one serves, others are retried."""
        failed = self._restarts[number].failed_starts
        has_served = any(child.phase is Phase.SERVING for child in self._living())
        if not failed or has_served or self._failure is not None:
            return False
        is_usage = code == _USAGE and not any(restarts.was_up for restarts in self._restarts)
        if not is_usage and failed < STARTS:
            return False
        times = "" if is_usage else f" {failed} times in a row"
        self._failure = WorkersFailed(
            f"worker {number} left with {_exit_name(code)} before it served{times}, and no other one serves: see above",
            _USAGE if is_usage else 1,
        )
        self._stopping.ask()
        return True

    async def _announce(self, metrics: MetricsEndpoint | None, on_ready: Callable[[ServerStatus], None]) -> None:
        """Log how the server stands and call ``on_ready``, once each worker's first start has succeeded or failed."""
        began_s = time.perf_counter()
        for settled in self._settled:
            await settled.wait()
        await self._came_up.wait()
        config, first = self._config, min(self._standings.items())[1]
        is_ready = all(child is not None and child.is_ready for child in self._children)
        control_port = self._addresses.control_port if self._addresses.control_port is not None else first.port
        control_host = config.host if self._addresses.control_port is None else config.control_host
        _log.log(
            logging.INFO if is_ready else logging.WARNING,
            "server ready" if is_ready else "server is up and not ready",
            extra={
                "address": join_address(config.host, first.port),
                "control": join_address(control_host, control_port) if config.control else None,
                "metrics": metrics.url if metrics is not None else None,
                "models": first.models,
                "workers": len(self._standings),
                "took_ms": round(1e3 * (time.perf_counter() - began_s)),
            },
        )
        on_ready(ServerStatus(**{**vars(first), "is_ready": is_ready}))

    # ---- the end ------------------------------------------------------------------------------------------------

    async def _drain(self, keepers: Iterable[asyncio.Task[None]]) -> None:
        limit_s = self._config.lame_duck_s + self._config.grace_s + _SLACK_S
        _log.info(
            "signal received, draining",
            extra={"lame_duck_s": self._config.lame_duck_s, "grace_s": self._config.grace_s},
        )
        for child in self._living():
            child.stop()
        _, late = await asyncio.wait(keepers, timeout=limit_s)
        if late:
            numbers = [child.number for child in self._living()]
            _log.error("workers did not leave in time, they are killed", extra={"workers": numbers, "after_s": limit_s})

    def hurry(self) -> None:
        """End the lame-duck time of all workers, so that they drain now."""
        for child in self._living():
            child.hurry()

    def _stop_listening(self) -> None:
        """Close the addresses, so that new connections are refused."""
        self._dealer.stop()
        self._addresses.close()

    def _left_while_stopping(self, child: Child, code: int) -> None:
        # A service manager may send SIGTERM to every process; one that has only just started dies of it.
        if code in (0, -signal.SIGTERM) or self._failure is not None:
            return
        _log.error("worker left badly", extra={"worker": child.number, "pid": child.pid, "exit": _exit_name(code)})
        self._failure = WorkersFailed(f"worker {child.number} left with {_exit_name(code)} instead of draining")

    # ---- metrics ------------------------------------------------------------------------------------------------

    def _families(self) -> Iterable[Family]:
        """Metric families of the whole server. Called in the endpoint's thread."""
        asyncio.run_coroutine_threadsafe(self._gather(), self._loop).result(2 * _METRICS_S)
        serving = [str(child.number) for child in self._living() if child.phase is Phase.SERVING]
        return self._totals.families(self._own_families(), serving)

    async def _gather(self) -> None:
        async def ask(child: Child) -> None:
            with contextlib.suppress(BackplaneClosed, BackplaneFailed, TimeoutError):
                answer = await child.backplane.call("families", timeout_s=_METRICS_S)
                self._totals.update(str(child.number), totals.load(answer.body))

        await asyncio.gather(*(ask(child) for child in self._living() if child.is_connected))

    def _own_families(self) -> Iterable[Family]:
        configured = Family("mnist1d_workers", Kind.GAUGE, "Workers that there shall be.", across=Across.SAME)
        configured.add(len(self._children))
        up = Family(
            "mnist1d_worker_up", Kind.GAUGE, "1 if this worker takes requests, 0 otherwise.", across=Across.SAME
        )
        count = Family(
            "mnist1d_worker_restarts_total",
            Kind.COUNTER,
            "How often another process has taken the place of this worker's.",
            across=Across.SAME,
        )
        for number, (child, restarts) in enumerate(zip(self._children, self._restarts, strict=True)):
            up.add(int(child is not None and child.phase is Phase.SERVING), worker=str(number))
            count.add(restarts.count, worker=str(number))
        yield from (configured, up, count)
        yield from self._machine.families()


def _exit_name(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
