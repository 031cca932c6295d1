"""What every command shares: where output goes, how it looks, and what exit codes mean."""

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
    """A number within bounds; not NaN, which is within all of them, and not infinite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 - click's
        """The number; a usage error otherwise."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class Exit(IntEnum):
    """Exit codes, the same for every command."""

    OK = 0
    FAILED = 1
    """An expected failure; the message says which."""
    USAGE = 2
    """The command line or a setting cannot be used; nothing was done."""
    REFUTED = 3
    """A proof was carried out and failed."""
    UNREACHABLE = 4
    """No server answered."""
    INTERRUPTED = 130
    """Ctrl-C."""


def stdout() -> Console:
    """Results. Colours only on a terminal."""
    from rich.console import Console

    # Where nobody looks at columns, in a pipe or a file, a table keeps its full width.
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)


def stderr() -> Console:
    """Progress and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True, width=None if sys.stderr.isatty() else _PIPE_COLUMNS)


def fail(message: str, code: Exit = Exit.FAILED) -> NoReturn:
    """Print ``error: message`` to standard error and leave with ``code``."""
    print_error(message)
    raise click.exceptions.Exit(int(code))


def print_error(message: str) -> None:
    """``error: message`` on standard error."""
    from rich.text import Text

    stderr().print(Text("error: ", style="bold red").append(message, style="not bold default"))


def print_json(value: Any) -> None:  # noqa: ANN401 - whatever json can write
    """One JSON document on one line of standard output, for programs."""
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
    """A table on standard output. Columns whose title ends in a unit or count are the caller's to format.

    `service.cli.display.table.fitted` says what happens where it is too wide. Returns the names of the columns that
    were left out.
    """
    from service.cli.display.table import fitted

    console = stdout()
    cells = [[str(cell) for cell in row] for row in rows]
    shown, left_out = fitted(console, title, columns, cells, dispensable=dispensable, wraps=wraps)
    console.print(shown)
    return left_out


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--json``, passed on as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables and colours.")(command)
