"""Accepts connections for workers that do not listen themselves, and hands each to the worker with the fewest.

The kernel would spread connections by hashing their addresses, so that one worker may get two while another one has
none; and it would give some to a worker that is not ready yet.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import TYPE_CHECKING

from service.workers.child import Phase

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Sequence

    from service.workers.child import Child

_log = logging.getLogger(__name__)

BACKLOG = 1024
"""Connections that the kernel queues until they are accepted."""
_AT_ONCE = 128
"""Connections that are accepted in one go before other work runs."""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_RECOVER_S = 1.0
"""Pause of accepting when there are no descriptors or no memory for a connection."""
_FULL_S = 0.005
"""Pause before a connection is offered again when the queues of all workers were full."""


class Dealer:
    """Accepts and hands over connections from `start` to `stop`. Belongs to one event loop."""

    def __init__(self, children: Callable[[], Iterable[Child]]) -> None:
        """``children()`` returns the present workers."""
        self._children = children
        self._loop = asyncio.get_running_loop()
        self._listening: list[tuple[socket.socket, bool]] = []
        self._held: tuple[socket.socket, bool] | None = None
        """An accepted connection that no worker had room for; until it is handed over, no other is accepted."""
        self._accepting = False

    def start(self, listening: Sequence[tuple[socket.socket, bool]]) -> None:
        """Accept connections from these sockets, each paired with whether it is for control, once a worker takes
        them.
        """
        self._listening = list(listening)
        self.look()

    def look(self) -> None:
        """Accept connections if any worker takes them now; otherwise leave them in the kernel's queue. Call it when the
        workers have changed.
        """
        somebody = self._held is None and any(child.takes_connections for child in self._children())
        if somebody and not self._accepting:
            for sock, is_control in self._listening:
                self._loop.add_reader(sock, self._accept, sock, is_control)
        elif not somebody and self._accepting:
            self._pause()
        self._accepting = somebody

    def stop(self) -> None:
        """Stop accepting, and close a connection that was not handed over."""
        self._pause()
        self._listening = []
        if self._held is not None:
            self._held[0].close()
            self._held = None

    def _pause(self) -> None:
        for sock, _ in self._listening:
            self._loop.remove_reader(sock)
        self._accepting = False

    def _accept(self, sock: socket.socket, is_control: bool) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _address = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                _log.error("connections cannot be accepted for now", extra={"reason": error.strerror})
                self._pause()
                self._loop.call_later(_RECOVER_S, self.look)
                return
            if not self._deal(connection, is_control=is_control):
                self._held = connection, is_control
                self._pause()
                self._loop.call_later(_FULL_S, self._deal_held)
                return

    def _deal_held(self) -> None:
        if self._held is None:
            return
        connection, is_control = self._held
        if self._deal(connection, is_control=is_control):
            self._held = None
            self.look()
        else:
            self._loop.call_later(_FULL_S, self._deal_held)

    def _deal(self, connection: socket.socket, *, is_control: bool) -> bool:
        """Hand over the connection and close this process's copy of it; return False if no worker takes it."""
        for child in sorted(self._children(), key=_preference):
            if child.takes_connections and child.hand_over(connection, is_control=is_control):
                connection.close()
                return True
        return False


def _preference(child: Child) -> tuple[int, int]:
    """Sort key: ready workers first, then those that serve, then the rest; among equals the fewest connections."""
    ranks = {Phase.SERVING: 0 if child.is_ready else 1, Phase.STARTING: 2}
    return ranks.get(child.phase, 3), child.connections
