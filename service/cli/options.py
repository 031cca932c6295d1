"""The options of a server, made from the settings that `service.config` declares."""

from __future__ import annotations

import os
import sys
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service import logs
from service.cli.console import Exit, fail
from service.config import ConfigError, ServerConfig

if TYPE_CHECKING:
    from collections.abc import Callable

_TYPES: dict[str, Any] = {"int": int, "float": float, "str": str, "Path | None": click.Path(path_type=Path)}


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command every setting of `ServerConfig` as an option; `config_from` reads them."""
    for declared in reversed(_settings()):
        command = _option(declared)(command)
    return command


def config_from(repository: Path, options: dict[str, Any]) -> ServerConfig:
    """A checked configuration, and logging set up as asked; leaves with exit code 2 if a setting is unusable."""
    try:
        config = ServerConfig(repository=repository, **options)
    except ConfigError as error:
        fail(str(error), Exit.USAGE)
    set_up_logs(config)
    return config


def set_up_logs(config: ServerConfig) -> None:
    """Log as the settings ask for it."""
    logs.set_up(
        config.log_level,
        as_json=config.log_format == "json" or (config.log_format == "auto" and not sys.stderr.isatty()),
    )


def environment_variable(command: str, name: str) -> str:
    """The variable that sets an option of a command."""
    return f"MNIST1D_{command.upper()}_{name.upper()}"


def described(config: ServerConfig, command: str) -> list[dict[str, Any]]:
    """Each setting with its value, where it came from, its environment variable and its meaning."""
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


def _option(declared: Field[Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    flag, metadata = f"--{declared.name.replace('_', '-')}", declared.metadata
    common: dict[str, Any] = {"default": declared.default, "help": metadata["help"], "show_default": True}
    if declared.type == "bool":
        return click.option(f"{flag}/--no-{flag[2:]}", **common)
    if metadata["choices"]:
        return click.option(flag, type=click.Choice(metadata["choices"], case_sensitive=False), **common)
    if declared.default is None:
        common["show_default"] = False
    return click.option(flag, type=_TYPES[str(declared.type)], metavar=metadata["metavar"], **common)
