"""Connections for workers that do not listen themselves: accepted here, each handed to the one with the fewest.

The kernel would spread connections by hashing their addresses, so that two may meet in one worker while another one
has none; and it would give some to a worker that is not ready yet.
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
"""Connections that the kernel keeps while nobody takes them."""
_AT_ONCE = 128
"""Connections that are taken before anything else gets its turn."""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_RECOVER_S = 1.0
"""How long no connection is accepted when there are no descriptors or no memory for it."""
_FULL_S = 0.005
"""Until workers are asked again whose queues of connections were all full."""


class Dealer:
    """Accepts from `start` to `stop`. Belongs to one event loop."""

    def __init__(self, children: Callable[[], Iterable[Child]]) -> None:
        """``children()`` are those that there are now."""
        self._children = children
        self._loop = asyncio.get_running_loop()
        self._listening: list[tuple[socket.socket, bool]] = []
        self._held: tuple[socket.socket, bool] | None = None
        """Accepted, and nobody had room for it; as long as there is one, no other is accepted."""
        self._accepting = False

    def start(self, listening: Sequence[tuple[socket.socket, bool]]) -> None:
        """Take connections from these sockets, each with whether it is that of control, as soon as somebody can have
        them.
        """
        self._listening = list(listening)
        self.look()

    def look(self) -> None:
        """Something has changed with the workers: take connections if one of them does, and otherwise leave them in
        the kernel's queue, where they wait.
        """
        somebody = self._held is None and any(child.takes_connections for child in self._children())
        if somebody and not self._accepting:
            for sock, is_control in self._listening:
                self._loop.add_reader(sock, self._accept, sock, is_control)
        elif not somebody and self._accepting:
            self._pause()
        self._accepting = somebody

    def stop(self) -> None:
        """Take no more."""
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
        """Whether somebody took it; then it is closed here, since the worker has one of its own."""
        for child in sorted(self._children(), key=_preference):
            if child.takes_connections and child.hand_over(connection, is_control=is_control):
                connection.close()
                return True
        return False


def _preference(child: Child) -> tuple[int, int]:
    """Who is ready first, then who serves; among those, who has the fewest."""
    ranks = {Phase.SERVING: 0 if child.is_ready else 1, Phase.STARTING: 2}
    return ranks.get(child.phase, 3), child.connections
