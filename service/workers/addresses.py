"""Addresses shared by several processes: the supervisor binds them, and listens itself or lets its workers listen.

If the kernel spreads connections (``SO_REUSEPORT``), each worker binds the same address. The supervisor binds it first,
alone, so that an address in use is noticed, a free port is the same one for all workers, and no unrelated server can
join them by chance; it does not listen then, hence it gets no connections.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from service.config import CONTROL_HINT, MAIN_HINT, join_address
from service.errors import BindError

if TYPE_CHECKING:
    from types import TracebackType

    from service.config import ServerConfig

_ATTEMPTS = 8
"""Attempts to find a port that is free on every address of a name: ``localhost`` has two."""


class Reservation:
    """One host and port, bound so that no other server can use it until `close`."""

    def __init__(self, host: str, port: int, *, hint: str = "") -> None:
        """Bind the address; raises BindError on failure, with ``hint`` saying how to choose another one."""
        self._sockets: list[socket.socket] = []
        try:
            self.port = self._bind(host, port)
        except OSError as error:
            self.close()
            raise BindError(
                f"cannot listen on {join_address(host, port)}: {error.strerror or error}"
                + (f"; {hint}" if hint else "")
            ) from error

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def share(self) -> None:
        """Let other processes of this user bind the address too, if they set SO_REUSEPORT."""
        for bound in self._sockets:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            # With SO_REUSEADDR a second supervisor could bind the address while no worker listens on it.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)

    def listen(self, backlog: int) -> list[socket.socket]:
        """Listen, and return the non-blocking sockets to accept from, which still belong to the reservation."""
        for bound in self._sockets:
            bound.setblocking(False)
            bound.listen(backlog)
        return list(self._sockets)

    def close(self) -> None:
        """Release the address."""
        for bound in self._sockets:
            bound.close()
        self._sockets.clear()

    def _bind(self, host: str, port: int) -> int:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
        for attempt in range(_ATTEMPTS):
            chosen = port
            try:
                for family, address in addresses:
                    chosen = self._bind_one(family, (address[0], chosen, *address[2:]))
            except OSError:
                if port or attempt == _ATTEMPTS - 1:
                    raise
                self.close()
            else:
                break
        return chosen

    def _bind_one(self, family: socket.AddressFamily, address: tuple[str | int, ...]) -> int:
        bound = socket.socket(family, socket.SOCK_STREAM)
        self._sockets.append(bound)
        # Bind also while connections of an earlier server on the address are in TIME_WAIT.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            with contextlib.suppress(OSError):
                # "::" stands for every interface in IPv4 and IPv6, as in grpcio.
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(address)
        port: int = bound.getsockname()[1]
        return port


class Addresses:
    """The main address of a server and its control address, if it has one, for all of its workers."""

    def __init__(self, config: ServerConfig) -> None:
        """Bind the addresses; raises BindError if one cannot be bound."""
        self._held: list[Reservation] = []
        try:
            self.port = self._hold(config.host, config.port, MAIN_HINT)
            self.control_port: int | None = None
            if config.control and not config.control_on_main_port:
                self.control_port = self._hold(config.control_host, config.control_port, CONTROL_HINT)
        except BindError:
            self.close()
            raise

    def __enter__(self) -> Addresses:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def share(self) -> None:
        """Let the workers bind and listen on the addresses themselves."""
        for reservation in self._held:
            reservation.share()

    def listen(self, backlog: int) -> list[tuple[socket.socket, bool]]:
        """Listen in this process; return pairs of a socket and whether it is for control."""
        return [(sock, bool(number)) for number, held in enumerate(self._held) for sock in held.listen(backlog)]

    def close(self) -> None:
        """Release the addresses."""
        for reservation in self._held:
            reservation.close()

    def _hold(self, host: str, port: int, hint: str) -> int:
        reservation = Reservation(host, port, hint=hint)
        self._held.append(reservation)
        return reservation.port
