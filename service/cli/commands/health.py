"""``mnist1d health``."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

import click

from service.cli.connection_options import host_and_port, server_address_options
from service.cli.display.console import Exit, FiniteRange, fail, json_option, print_json
from service.health import probe

if TYPE_CHECKING:
    from collections.abc import Mapping


@click.command()
@click.argument("service", default="")
@server_address_options("health")
@click.option(
    "--timeout-s",
    type=FiniteRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="How long to wait for the answer.",
)
@json_option
def command(service: str, *, server: str, timeout_s: float, as_json: bool, **tls: Any) -> None:  # noqa: ANN401 - of many types
    """Ask a server whether SERVICE is SERVING, by gRPC's health protocol: the probe of a container.

    SERVICE is the server as a whole by default, or 'liveness', or 'model/NAME'. Every server that has
    grpc.health.v1.Health can be asked.

    Exit codes: 0 SERVING, 1 not, 2 unusable arguments, 4 no server answered.
    """
    host, port = host_and_port(server)
    asked = probe.ask(host, port, service, timeout_s=timeout_s, tls=_tls_context(tls), tls_name=tls["tls_name"])
    try:
        health = asyncio.run(asked)
    except probe.Unreachable as error:
        fail(f"{server} does not answer: {error}", Exit.UNREACHABLE)
    except probe.Refused as error:
        fail(str(error))
    if as_json:
        print_json({"service": service, "status": health.status, "not_serving": health.not_serving})
    else:
        click.echo(": ".join((health.status, *filter(None, [", ".join(health.not_serving)]))))
    if health.status != "SERVING":
        raise click.exceptions.Exit(int(Exit.FAILED))


def _tls_context(options: Mapping[str, Any]) -> ssl.SSLContext | None:
    """The TLS context for the options, None for plain text; exits with code 2 if they are invalid."""
    ca, certificate, key = (options[name] for name in ("tls_ca", "tls_cert", "tls_key"))
    if not options["use_tls"] and not any((ca, certificate, key)) and not options["tls_name"]:
        return None
    if (certificate is None) != (key is None):
        fail("TLS: give --tls-cert and --tls-key, or neither", Exit.USAGE)
    try:
        context = ssl.create_default_context(cafile=ca)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        fail(f"TLS: {error}", Exit.USAGE)
    context.set_alpn_protocols(["h2"])
    return context
