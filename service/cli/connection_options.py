"""Options of the commands that are clients: the server's address, TLS, token and metadata."""

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
"""Default addresses of a server for inference and for control."""
_RESERVED = ("grpc-", ":", "te", "content-type", "host", "connection")


def server_address_options(command_name: str, server: str = MAIN) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add ``--server`` and the options of TLS to a command.

    Environment variables are named after ``command_name``, in its subcommands too; ``server`` is the default.
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
    """Add ``--server`` and options for TLS, token and metadata, which `tls_from` and `headers_from` read."""
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
    """Exit with code 2 if ``server`` is not an address."""
    from service.client.connection import check_address  # this imports grpcio

    try:
        check_address(server, usual_port)
    except ValueError as error:
        fail(f"--server: {str(error).removeprefix('target: ')}", Exit.USAGE)


def host_and_port(server: str) -> tuple[str, int]:
    """Host and port of a server, for commands that connect without grpcio; exits with code 2 for other targets."""
    try:
        return split_address(server)
    except ValueError as error:
        fail(f"--server: {error}", Exit.USAGE)


def tls_from(options: Mapping[str, Any]) -> Tls | None:
    """The TLS settings in the options, None for plain text; exits with code 2 if they are invalid."""
    ca, certificate, key = (options[name] for name in ("tls_ca", "tls_cert", "tls_key"))
    if not options["use_tls"] and not any((ca, certificate, key)) and not options["tls_name"]:
        return None
    from service.client import Tls

    try:
        return Tls.from_files(ca, certificate, key, options["tls_name"])
    except (OSError, ValueError) as error:
        fail(f"TLS: {error}", Exit.USAGE)


def headers_from(options: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of each request, including the token; exits with code 2 if it cannot be sent."""
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
