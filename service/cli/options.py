"""The options of a server, made from the settings that `service.config` declares."""

from __future__ import annotations

import difflib
import logging
import os
import re
import sys
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service import logs
from service.cli.display.console import Exit, fail
from service.config import ConfigError, ServerConfig

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)

_TYPES: dict[str, Any] = {"int": int, "float": float, "str": str, "Path | None": click.Path(path_type=Path)}


def server_options(**told: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command every setting of `ServerConfig` as an option; `config_from` reads them.

    ``told`` maps the name of a setting to what its help says of the default, if the command computes it.
    """

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for declared in reversed(_settings()):
            command = _option(declared, told.get(declared.name))(command)
        return command

    return add


def repository_argument(command: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The argument REPOSITORY, which can also be set by an environment variable."""
    return click.argument(
        "repository",
        type=click.Path(path_type=Path),
        default=Path("repository"),
        envvar=environment_variable(command, "repository"),
    )


def config_from(repository: Path, options: dict[str, Any]) -> ServerConfig:
    """Make the configuration and set up logging; exits with code 2 if a setting is invalid."""
    try:
        config = ServerConfig(repository=repository, **options)
    except ConfigError as error:
        fail(as_flags(str(error)), Exit.USAGE)
    set_up_logs(config)
    _warn_of_unknown_variables()
    return config


def set_up_logs(config: ServerConfig) -> None:
    """Set up logging as configured."""
    logs.set_up(
        config.log_level,
        as_json=config.log_format == "json" or (config.log_format == "auto" and not sys.stderr.isatty()),
    )


def as_flags(message: str) -> str:
    """Rewrite a message about settings with the names of command line options.

    ``tls_key: needs tls_cert`` becomes ``--tls-key: needs --tls-cert``. A setting that came from the environment is
    named by its variable. Quoted text is a value and stays.
    """
    context = click.get_current_context(silent=True)
    names = {declared.name for declared in _settings()}

    def named(name: str) -> str:
        is_from_environment = (
            context is not None and context.get_parameter_source(name) is click.core.ParameterSource.ENVIRONMENT
        )
        if is_from_environment and context is not None and context.info_name is not None:
            return environment_variable(context.info_name, name)
        return f"--{name.replace('_', '-')}"

    subject, colon, rest = message.partition(": ")
    # Only names with underscores are replaced, since others, like "port", may be ordinary words.
    rest = re.sub(
        r"(?<![\w'/.-])[a-z]+(?:_[a-z0-9]+)+(?![\w'/.-])",
        lambda found: named(found[0]) if found[0] in names else found[0],
        rest,
    )
    return f"{named(subject) if subject in names else subject}{colon}{rest}"


def _warn_of_unknown_variables() -> None:
    """Warn of unknown environment variables, since a typo in a name would be ignored silently."""
    context = click.get_current_context(silent=True)
    if context is None or context.auto_envvar_prefix is None:
        return
    prefix = f"{context.auto_envvar_prefix}_"
    known = {f"{prefix}{parameter.name}".upper() for parameter in context.command.params if parameter.name}
    for variable in sorted(set(os.environ) - known):
        if variable.startswith(prefix):
            nearest = difflib.get_close_matches(variable, known, n=1, cutoff=0.0)
            _log.warning(
                "environment variable is ignored: no setting has that name",
                extra={"variable": variable, "nearest": nearest[0]},
            )


def environment_variable(command: str, name: str) -> str:
    """The variable that sets an option of a command."""
    return f"MNIST1D_{command.upper()}_{name.upper()}"


def described(config: ServerConfig, command: str) -> list[dict[str, Any]]:
    """List each setting with its value, source, environment variable and help text."""
    defaults = {declared.name: declared.default for declared in _settings()}
    rows = []
    for declared in _settings():
        value = config.to_dict()[declared.name]
        variable = environment_variable(command, declared.name)
        if declared.name in _given_on_command_line():
            source = "flag"
        elif variable in os.environ:
            source = "environment"
        else:
            source = "default" if getattr(config, declared.name) == defaults[declared.name] else "flag"
        rows.append(
            {
                "setting": declared.name,
                "value": value,
                "from": source,
                "flag": f"--{declared.name.replace('_', '-')}",
                "environment": variable,
                "help": declared.metadata["help"],
            }
        )
    return rows


def _given_on_command_line() -> set[str]:
    context = click.get_current_context(silent=True)
    if context is None:
        return set()
    return {
        name for name in context.params if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }


def _settings() -> list[Field[Any]]:
    return [declared for declared in fields(ServerConfig) if declared.metadata]


def _option(declared: Field[Any], told: str | None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    flag, metadata = f"--{declared.name.replace('_', '-')}", declared.metadata
    common: dict[str, Any] = {"default": declared.default, "help": metadata["help"], "show_default": True}
    if told is not None:
        common |= {"help": f"{metadata['help']}  [default: {told}]", "show_default": False}
    if declared.type == "bool":
        return click.option(f"{flag}/--no-{flag[2:]}", **common)
    if metadata["choices"]:
        return click.option(flag, type=click.Choice(metadata["choices"], case_sensitive=False), **common)
    if declared.default is None:
        common["show_default"] = False
    return click.option(flag, type=_TYPES[str(declared.type)], metavar=metadata["metavar"], **common)
