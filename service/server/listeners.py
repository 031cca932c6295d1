"""The addresses a server listens on: the main port and the control port, both with all methods but different rights.

Control (loading models, changing settings) listens on loopback by default, because clients that can reach the main port
usually must not be able to change what the server serves.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import TYPE_CHECKING

from service.config import CONTROL_HINT, MAIN_HINT, join_address
from service.security.access import Guard
from service.security.credentials import certificates_of, tokens_of
from service.transport.engine import engine_class
from service.transport.limits import ConnectionLimits

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from service.config import ServerConfig
    from service.rpc.calls import Observer
    from service.rpc.methods import Method
    from service.transport.engine import Engine

_log = logging.getLogger(__name__)


class Listeners:
    """The engines of a server, started and stopped together."""

    def __init__(
        self,
        config: ServerConfig,
        methods: Sequence[Method],
        observer: Observer | None = None,
        *,
        are_shared: bool = False,
        warns: bool = True,
    ) -> None:
        """Read certificates and tokens; raises ConfigError for files that cannot be used.

        ``are_shared``: other processes serve the same ports. ``warns``: whether this one logs warnings about settings.
        """
        self._warns = warns
        self._config = config
        certificates = certificates_of(config)
        tokens = tokens_of(config)
        names = [limit.name for limit in dataclasses.fields(ConnectionLimits)]
        limits = ConnectionLimits(**{name: getattr(config, name) for name in names})
        engine = engine_class(config.transport)
        self._main = engine(
            methods,
            address=config.address,
            bind_hint=MAIN_HINT,
            limits=limits,
            certificates=certificates,
            observer=observer,
            check_access=Guard(tokens, control_refusal=self._control_refusal).check,
            is_shared=are_shared,
        )
        self._control: Engine | None = None
        if config.control and not config.control_on_main_port:
            self._control = engine(
                methods,
                address=config.control_address,
                bind_hint=CONTROL_HINT,
                limits=limits,
                certificates=certificates,
                observer=observer,
                check_access=Guard(tokens).check,
                is_shared=are_shared,
            )

    @property
    def port(self) -> int:
        """The main port that is really listened on."""
        return self._main.port

    @property
    def control_port(self) -> int | None:
        """The control port that is really listened on; None if there is none."""
        return self._control.port if self._control is not None else None

    @property
    def control_address(self) -> str | None:
        """``host:port`` of control; None if control is turned off."""
        if self._control is not None:
            return join_address(self._config.control_host, self._control.port)
        return join_address(self._config.host, self.port) if self._config.control else None

    @property
    def adopt_connections(self) -> bool:
        """Whether the engines can serve connections that another process has accepted."""
        return self._main.adopts

    async def start(self) -> None:
        """Listen on all addresses. After a BindError it may listen on some of them, until `stop`."""
        await self._main.start()
        if self._control is not None:
            await self._control.start()
        if self._warns:
            self._warn()

    async def adopt(self, connection: socket.socket, *, is_control: bool, on_gone: Callable[[], None]) -> None:
        """Serve a connection that another process has accepted, as described for `Engine.adopt`."""
        engine = self._control if is_control and self._control is not None else self._main
        await engine.adopt(connection, on_gone)

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, let the running ones finish within ``grace_s`` seconds, cancel what is left."""
        await asyncio.gather(*(engine.stop(grace_s) for engine in self._engines()))

    async def drain(self, timeout_s: float) -> bool:
        """Tell clients to use other connections (`Engine.drain`); return whether all of them have acknowledged it."""
        return all(await asyncio.gather(*(engine.drain(timeout_s) for engine in self._engines())))

    def _engines(self) -> list[Engine]:
        return [self._main] if self._control is None else [self._main, self._control]

    def _control_refusal(self) -> str:
        """Why the main port serves no control calls; empty if it does."""
        if not self._config.control:
            return "control is turned off (--no-control)"
        if self._control is None:
            return ""
        return f"it is served on {self.control_address} only (--control-on-main-port allows it here)"

    def _warn(self) -> None:
        """Log warnings about insecure settings."""
        config = self._config
        control_host = config.host if self._control is None else config.control_host
        if config.control and config.control_tokens is None and not _is_loopback(control_host):
            _log.warning(
                "control without tokens: whoever reaches this address can change what is served",
                extra={"address": self.control_address, "setting": "control_tokens"},
            )
        open_hosts = {config.host, control_host} if config.control else {config.host}
        has_tokens = config.inference_tokens is not None or config.control_tokens is not None
        if has_tokens and config.tls_cert is None and not all(_is_loopback(host) for host in open_hosts):
            _log.warning("tokens without TLS: they can be read on the way", extra={"setting": "tls_cert"})


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
