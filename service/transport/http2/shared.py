"""State that the connections of one engine share."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from service.transport.http2 import abuse
from service.transport.http2.sending import Flushing, Unread
from service.transport.http2.timers import Deadlines

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from service.rpc.methods import Method
    from service.transport.http2.call_runner import CallRunner
    from service.transport.http2.connection import Connection
    from service.transport.limits import ConnectionLimits
    from service.wire.errors import ErrorCode

_log = logging.getLogger(__name__)


class Shared:
    """State that all connections of an engine share. Belongs to one event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        methods: Iterable[Method],
        limits: ConnectionLimits,
        runner: CallRunner,
        *,
        checks_callers: bool = False,
        max_buffered_bytes: int = abuse.MAX_BUFFERED_BYTES,
    ) -> None:
        self.loop = loop
        self.methods = {method.path.encode("ascii"): method for method in methods}
        self.limits = limits
        self.checks_callers = checks_callers
        """Whether callers must show a certificate."""
        self.runner = runner
        self.deadlines = Deadlines(loop)
        self.flushing = Flushing(loop)
        self.unread = Unread()
        self.connections: dict[Connection, None] = {}
        self.max_buffered_bytes = max_buffered_bytes
        self.buffered_bytes = 0
        """Bytes of requests that are not complete, or not yet read by their handlers."""
        self.on_connection_gone: Callable[[], None] | None = None
        self.is_stopping = False
        """Whether new connections are aborted: a TLS handshake may end long after its connection was accepted."""

    def connection_gone(self) -> None:
        """Call ``on_connection_gone``, if it is set."""
        if self.on_connection_gone is not None:
            self.on_connection_gone()

    def note_failure(self, peer: str, code: ErrorCode, reason: str) -> None:
        """Log that a connection was given up; at info level, since any client can cause it."""
        _log.info("connection given up", extra={"peer": peer, "code": code.name, "reason": reason})
