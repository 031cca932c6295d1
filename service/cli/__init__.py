"""The command line, ``mnist1d``. Each command has its file, which is imported on use.

Lazy imports keep ``mnist1d --help`` and ``mnist1d serve`` free of the dependencies of training.
"""

from __future__ import annotations

import importlib
from typing import Any

import click

from models import __version__
from service.cli.display.output import guarded

# Name -> (module, one line of help). The help is here so that `mnist1d --help` need not import anything.
COMMANDS = {
    "up": ("service.cli.commands.up", "Train what is missing with a quick recipe, then serve."),
    "train": ("service.cli.commands.train", "Train a network, export it, prove the export, publish it."),
    "sweep": ("service.cli.commands.sweep", "Train many: seeds and grids of recipes, with mean and spread."),
    "prove": ("service.cli.commands.prove", "Prove a published model again, or any ONNX file against goldens."),
    "report": ("service.cli.commands.report", "Write the report of a published version again."),
    "serve": ("service.cli.commands.serve", "Serve a model repository over gRPC."),
    "runs": ("service.cli.commands.runs", "Create, watch, list and cancel a server's training runs."),
    "predict": ("service.cli.commands.predict", "Send examples to a running server."),
    "health": ("service.cli.commands.health", "Ask a server whether it serves, as a container's probe does."),
    "bench": ("service.cli.commands.bench", "Measure how fast a server answers."),
    "models": ("service.cli.commands.models", "List what lies in a model repository."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported on use."""

    def main(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as click.Group.main
        """Run the command line with `guarded` standard streams."""
        with guarded():
            return super().main(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click calls it so
        """Command names in the order of the table, which is that of first use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click calls it so
        """Import the module of a command and return its ``command``."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name][0]).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{COMMANDS[cmd_name][0]}.command is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click calls it so
        """Write the names and summaries of all commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "MNIST1D"},
    epilog="Exit codes: 0 done, 1 failed, 2 unusable arguments, 3 a proof was refuted, 4 no server answered, 130 "
    "interrupted.",
)
@click.version_option(__version__, prog_name="mnist1d")
def main() -> None:
    """Train, export, prove and serve small ONNX models over gRPC."""
