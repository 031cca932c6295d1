"""Output and exit codes that all commands share."""

from __future__ import annotations

import json
import math
import sys
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NoReturn

import click

from service.cli.display.output import can_write

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence

    from rich.console import Console


_PIPE_COLUMNS = 200


class FiniteRange(click.FloatRange):
    """A finite number within bounds; rejects infinity and NaN, which passes click's own check of bounds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 - click's
        """Convert to a finite number; anything else is a usage error."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class Exit(IntEnum):
    """Exit codes, the same for every command."""

    OK = 0
    FAILED = 1
    """An expected failure, described by the message."""
    USAGE = 2
    """The command line or a setting is invalid; nothing was done."""
    REFUTED = 3
    """A proof was carried out and failed."""
    UNREACHABLE = 4
    """No server answered."""
    INTERRUPTED = 130
    """The command was interrupted by Ctrl-C."""


def stdout() -> Console:
    """The console for results; it has colours only on a terminal."""
    from rich.console import Console

    # In a pipe or a file a table keeps its full width.
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)


def stderr() -> Console:
    """The console for progress and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True, width=None if sys.stderr.isatty() else _PIPE_COLUMNS)


def fail(message: str, code: Exit = Exit.FAILED) -> NoReturn:
    """Print ``error: message`` to standard error and exit with ``code``."""
    print_error(message)
    raise click.exceptions.Exit(int(code))


def print_error(message: str) -> None:
    """Print ``error: message`` to standard error."""
    from rich.text import Text

    stderr().print(Text("error: ", style="bold red").append(message, style="not bold default"))


def print_json(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Print one JSON document on one line of standard output."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    click.echo(text if can_write(text) else json.dumps(value, allow_nan=False, default=str))


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    dispensable: Sequence[str] = (),
    wraps: Container[str] | None = None,
) -> tuple[str, ...]:
    """Print a table on standard output; cells are formatted by the caller.

    A table that is too wide is changed as `service.cli.display.table.fitted` describes. Returns the names of the
    columns that were left out.
    """
    from service.cli.display.table import fitted

    console = stdout()
    cells = [[str(cell) for cell in row] for row in rows]
    shown, left_out = fitted(console, title, columns, cells, dispensable=dispensable, wraps=wraps)
    console.print(shown)
    return left_out


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option ``--json`` to a command, passed as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables and colours.")(command)
