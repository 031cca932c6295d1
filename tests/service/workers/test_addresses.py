from __future__ import annotations

import socket

import pytest

from service.errors import BindError
from service.workers.addresses import Reservation


def bound(port: int, *options: int) -> socket.socket:
    made = socket.socket()
    for option in options:
        made.setsockopt(socket.SOL_SOCKET, option, 1)
    try:
        made.bind(("127.0.0.1", port))
    except OSError:
        made.close()
        raise
    return made


def test_workers_listen_on_a_shared_reservation_and_nobody_else_does() -> None:
    with Reservation("127.0.0.1", 0) as reservation:
        reservation.share()
        workers = [bound(reservation.port, socket.SO_REUSEPORT, socket.SO_REUSEADDR) for _ in range(2)]
        for worker in workers:
            worker.listen()
        with pytest.raises(OSError, match="in use"):
            bound(reservation.port, socket.SO_REUSEADDR)
        for worker in workers:
            worker.close()


def test_a_second_reservation_is_refused_before_and_after_sharing() -> None:
    with Reservation("127.0.0.1", 0) as first:
        for prepare in (first.share, lambda: None):
            prepare()
            with pytest.raises(BindError, match=rf"cannot listen on 127.0.0.1:{first.port}: .*in use; choose another"):
                Reservation("127.0.0.1", first.port, hint="choose another --port")
        port = first.port
    Reservation("127.0.0.1", port).close()


def test_a_port_that_somebody_listens_on_is_refused() -> None:
    with bound(0) as other:
        other.listen()
        with pytest.raises(BindError, match="in use"):
            Reservation("127.0.0.1", other.getsockname()[1])


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0", "::1", "::"])  # noqa: S104 - bound for a moment, and not listened on
def test_a_free_port_is_the_same_on_every_address_of_a_name(host) -> None:
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)}
        reservation = Reservation(host, 0)
    except (OSError, BindError):
        pytest.skip(f"this machine has no {host}")
    with reservation:
        assert {kept.getsockname()[0] for kept in reservation._sockets} == addresses
        assert {kept.getsockname()[1] for kept in reservation._sockets} == {reservation.port}


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(BindError, match=r"cannot listen on 192.0.2.1:0: "):
        Reservation("192.0.2.1", 0)
