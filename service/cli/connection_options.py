"""Where a server is and who asks: the options of every command that is a client."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.address import CONTROL_PORT, MAIN_PORT, split_address
from service.cli.display.console import Exit, fail
from service.cli.options import environment_variable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from service.client import Tls

MAIN, CONTROL = f"127.0.0.1:{MAIN_PORT}", f"127.0.0.1:{CONTROL_PORT}"
"""Where a server with default settings answers, and where it is controlled."""
_RESERVED = ("grpc-", ":", "te", "content-type", "host", "connection")


def server_address_options(command_name: str, server: str = MAIN) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--server`` and the options of TLS.

    The variables of the environment are named for ``command_name``, in its subcommands too; ``server`` is the default.
    """
    return _adding(*_server_options(command_name, server))


def _server_options(command_name: str, server: str) -> tuple[Callable[[Any], Any], ...]:
    return (
        click.option(
            "--server",
            default=server,
            envvar=environment_variable(command_name, "server"),
            show_default=True,
            help="Address of the server, host:port.",
        ),
        click.option("--tls/--no-tls", "use_tls", default=False, help="Encrypt; implied by the options below."),
        click.option(
            "--tls-ca", type=click.Path(path_type=Path), help="Who may have signed the server's certificate, PEM."
        ),
        click.option("--tls-cert", type=click.Path(path_type=Path), help="The client's certificate, PEM."),
        click.option("--tls-key", type=click.Path(path_type=Path), help="Its private key, PEM."),
        click.option("--tls-name", help="The name in the server's certificate, if it is not that of --server."),
    )


def connection_options(command_name: str, server: str = MAIN) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options for TLS, and for the token and metadata of each request; `tls_from` and `headers_from` read them."""
    return _adding(
        *_server_options(command_name, server),
        click.option(
            "--token",
            envvar=environment_variable(command_name, "token"),
            help=f"Bearer token. Better in MNIST1D_{command_name.upper()}_TOKEN than on a command line.",
        ),
        click.option(
            "--header", "headers", multiple=True, metavar="NAME:VALUE", help="Metadata to send with each request."
        ),
    )


def _adding(*options: Callable[[Any], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def check_server(server: str, usual_port: int = MAIN_PORT) -> None:
    """Leave with exit code 2 where it is no address."""
    from service.client.connection import check_address  # and with it grpcio

    try:
        check_address(server, usual_port)
    except ValueError as error:
        fail(f"--server: {str(error).removeprefix('target: ')}", Exit.USAGE)


def host_and_port(server: str) -> tuple[str, int]:
    """Host and port for commands that open connections themselves and know none of gRPC's other targets."""
    try:
        return split_address(server)
    except ValueError as error:
        fail(f"--server: {error}", Exit.USAGE)


def tls_from(options: Mapping[str, Any]) -> Tls | None:
    """What the options of TLS ask for, None for plain text; leaves with exit code 2 where they cannot be used."""
    ca, certificate, key = (options[name] for name in ("tls_ca", "tls_cert", "tls_key"))
    if not options["use_tls"] and not any((ca, certificate, key)) and not options["tls_name"]:
        return None
    from service.client import Tls

    try:
        return Tls.from_files(ca, certificate, key, options["tls_name"])
    except (OSError, ValueError) as error:
        fail(f"TLS: {error}", Exit.USAGE)


def headers_from(options: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of each request, the token included; leaves with exit code 2 where it cannot be sent."""
    headers: dict[str, str] = {}
    for entry in options["headers"]:
        name, colon, value = (part.strip() for part in entry.partition(":"))
        fits = name.isascii() and name.replace("-", "").replace("_", "").replace(".", "").isalnum()
        if not colon or not fits or not value.isascii() or name.lower().startswith(_RESERVED):
            fail(f"--header: got {entry!r}, expected NAME:VALUE in ASCII, and none of gRPC's own", Exit.USAGE)
        headers[name.lower()] = value
    token = options["token"]
    if token:
        if not token.isascii() or not token.isprintable():
            fail("--token: expected printable ASCII", Exit.USAGE)
        headers["authorization"] = f"Bearer {token}"
    return headers
