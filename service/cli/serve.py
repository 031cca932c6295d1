"""``mnist1d serve``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service import logs
from service.cli.console import Exit, fail
from service.config import ConfigError, ServerConfig
from service.inference.version_policy import PolicyError, VersionPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.server import Server

DEFAULT_REPOSITORY = Path("repository")


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a server, shared by ``serve`` and ``up``; `config_from` reads them."""
    defaults = ServerConfig.__dataclass_fields__
    options = (
        click.option("--host", default=defaults["host"].default, show_default=True, help="Address to listen on."),
        click.option(
            "--port", default=defaults["port"].default, show_default=True, help="TCP port; 0 takes a free one."
        ),
        click.option(
            "--version-policy",
            default="latest:1",
            show_default=True,
            metavar="POLICY",
            help="Versions to serve: latest:N (the newest N that prove themselves), all, or specific:N,N.",
        ),
        click.option("--require-proof", is_flag=True, help="Refuse models that carry no goldens."),
        click.option(
            "--strict-readiness/--no-strict-readiness",
            default=True,
            show_default=True,
            help="Ready when every model has a ready version, or when one has.",
        ),
        click.option("--allow-non-finite", is_flag=True, help="Accept NaN and Inf in inputs."),
        click.option(
            "--max-message-bytes",
            default=defaults["max_message_bytes"].default,
            show_default=True,
            help="Largest request.",
        ),
        click.option(
            "--max-metadata-bytes",
            default=defaults["max_metadata_bytes"].default,
            show_default=True,
            help="Largest set of request headers.",
        ),
        click.option(
            "--keepalive-min-ping-s",
            default=defaults["keepalive_min_ping_s"].default,
            show_default=True,
            help="How often clients may ping.",
        ),
        click.option(
            "--lame-duck-s",
            default=defaults["lame_duck_s"].default,
            show_default=True,
            help="After SIGTERM, how long to serve on while saying NOT_SERVING.",
        ),
        click.option(
            "--grace-s",
            default=defaults["grace_s"].default,
            show_default=True,
            help="How long running calls may take to finish after that.",
        ),
        click.option(
            "--log-level",
            type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
            default="info",
            show_default=True,
            help="At debug, one line a request.",
        ),
        click.option(
            "--log-format",
            type=click.Choice(["auto", "json", "text"], case_sensitive=False),
            default="auto",
            show_default=True,
            help="auto: text on a terminal, JSON elsewhere.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def config_from(repository: Path, options: dict[str, Any]) -> ServerConfig:
    """A checked configuration, and logging set up as asked; leaves with exit code 2 if a setting is unusable."""
    settings = dict(options)
    level, log_format = settings.pop("log_level"), settings.pop("log_format").lower()
    logs.set_up(level, as_json=log_format == "json" or (log_format == "auto" and not sys.stderr.isatty()))
    try:
        settings["version_policy"] = VersionPolicy.parse(settings["version_policy"])
        return ServerConfig(repository=repository, **settings)
    except (ConfigError, PolicyError) as error:
        fail(str(error), Exit.USAGE)


def run_server(config: ServerConfig, on_ready: Callable[[Server], None] = lambda _: None) -> None:
    """Serve until a signal; returns when drained, leaves with exit code 1 if the address cannot be had."""
    from service.server import serve
    from service.transport.grpcio_engine import BindError

    try:
        asyncio.run(serve(config, on_ready))
    except BindError as error:
        fail(str(error))
    except asyncio.CancelledError:
        fail("stopped by a second signal, running calls were cancelled", Exit.INTERRUPTED)


@click.command()
@click.argument("repository", type=click.Path(path_type=Path), default=DEFAULT_REPOSITORY)
@server_options
def command(repository: Path, **options: Any) -> None:  # noqa: ANN401 - click passes each option by name
    """Serve the models in REPOSITORY (default: ./repository) with the Open Inference Protocol over gRPC.

    Every option can also be set by an environment variable: MNIST1D_SERVE_PORT for --port, and so on.
    """
    run_server(config_from(repository, options))
