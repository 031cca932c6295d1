"""``mnist1d runs``: manage a server's training runs through its control port."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from models.errors import InvalidRecipe
from models.networks.architectures import ARCHITECTURES
from models.training.recipes import RECIPES
from service.address import CONTROL_PORT
from service.cli.commands.train import engine_option
from service.cli.connection_options import CONTROL, check_server, connection_options, headers_from, tls_from
from service.cli.display.console import Exit, fail, json_option, print_json, print_table, stderr, stdout
from service.cli.overrides import overrides_from
from service.client.errors import ServerError
from service.client.training_client import TrainingClient
from service.errors import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from service.cli.display.runs_display import Display
    from service.client.training_run import TrainingRun

_MOST_LISTED = 50
_PATIENCE_S = 300.0
"""Seconds to wait for an unavailable server while its run is watched."""
_REFUSED_RUN = "INVALID_RECIPE"
"""Reason of the error for an invalid request for a run."""


def _connected(command: Callable[..., Any]) -> Callable[..., Any]:
    return connection_options("runs", CONTROL)(command)


@click.group()
def command() -> None:
    """Create, watch, list and cancel the training runs of a server (`mnist1d serve --training-slots 1`).

    A run lives in the server: it goes on when this command ends, and after a restart of the server. NAME is
    operations/ID, or the ID alone.

    \b
    mnist1d runs create --network conv --recipe quick --watch
    mnist1d runs create --set validation=500 --name mnist1d-gated --gate serving
    mnist1d runs list
    """


@command.command()
@click.option("--network", type=click.Choice(list(ARCHITECTURES)), help="What to train.  [default: conv]")
@click.option("--recipe", type=click.Choice(list(RECIPES)), help="How to train it.  [default: best]")
@click.option(
    "--set", "overrides", multiple=True, metavar="FIELD=VALUE", help="Change a field of the recipe; may be repeated."
)
@click.option("--seed", type=int, help="Decides weights, order and augmentation.  [default: 0]")
@click.option("--steps", type=int, help="Short for --set steps=N.")
@click.option("--name", "publish_name", default="", help="Publish it under this name.  [default: mnist1d-NETWORK]")
@engine_option
@click.option(
    "--gate",
    default="",
    metavar="serving|NAME[/VERSION]",
    help="Publish only if at least as good on the held-out examples as what serves, or as that model. Needs --set "
    "validation=N.",
)
@click.option("--request-id", default="", help="Your own id: the same one again gives the same run.")
@click.option("--watch", "is_watched", is_flag=True, help="Watch it until it is done.")
@_connected
@json_option
def create(
    network: str | None,
    recipe: str | None,
    overrides: tuple[str, ...],
    seed: int | None,
    steps: int | None,
    publish_name: str,
    engine: str,
    gate: str,
    request_id: str,
    *,
    is_watched: bool,
    as_json: bool,
    **connection: Any,  # noqa: ANN401 - of many types
) -> None:
    """Queue a training run and print its name."""
    try:
        changes = overrides_from(overrides, {"network": network, "seed": seed, "steps": steps})
    except InvalidRecipe as error:
        fail(str(error), Exit.USAGE)
    if "augmentation" in changes:
        changes["augmentation"] = changes["augmentation"] is not None
    with _client(connection) as client, _failures_told(connection["server"]):
        try:
            run = client.create(
                network=changes.pop("network", ""),
                recipe=recipe or "",
                seed=changes.pop("seed", 0),
                overrides=changes,
                publish_name=publish_name,
                engine=engine,
                gate=gate,
                request_id=request_id,
            )
        except ValueError as error:
            fail(str(error), Exit.USAGE)
        if is_watched:
            _watch(client, run, 1, as_json=as_json)
            return
    if as_json:
        print_json(_plain(run))
        return
    stdout().print(f"{run.name}", markup=False)
    stderr().print(f"  watch it: mnist1d runs watch {_id(run.name)}{_elsewhere(connection)}", style="dim", markup=False)


@command.command()
@click.argument("name", required=False)
@click.option(
    "--from-event", type=click.IntRange(min=1), default=1, show_default=True, help="Number of the first event."
)
@_connected
@json_option
def watch(name: str | None, from_event: int, *, as_json: bool, **connection: Any) -> None:  # noqa: ANN401 - of many types
    """Watch a run until it is done: what has happened and what happens. Default: the newest run that is not done.

    The server may restart meanwhile; nothing is missed. Exit code 0 if it succeeds, 3 if its proof was refuted, 1 if it
    fails otherwise or was cancelled.
    """
    with _client(connection) as client, _failures_told(connection["server"]):
        if name is None:
            run = next(iter(client.list("done = false")), None)
            if run is None:
                fail("no run is under way; name one: `mnist1d runs list` has them", Exit.USAGE)
        else:
            run = client.get(_name(name))
        _watch(client, run, from_event, as_json=as_json)


@command.command(name="list")
@click.option("--filter", "filter_text", default="", help="For example: state = RUNNING AND network = conv.")
@click.option("--limit", type=click.IntRange(min=1), default=_MOST_LISTED, show_default=True, help="At most so many.")
@_connected
@json_option
def list_runs(filter_text: str, limit: int, *, as_json: bool, **connection: Any) -> None:  # noqa: ANN401 - of many types
    """List runs, newest first."""
    with _client(connection) as client, _failures_told(connection["server"]):
        runs = [run for run, _ in zip(client.list(filter_text), range(limit), strict=False)]
    if as_json:
        print_json([_plain(run) for run in runs])
        return
    if not runs:
        stdout().print("No training runs: `mnist1d runs create` makes one.")
        return
    print_table(
        f"Training runs of {connection['server']}",
        ("run", "state", "network", "recipe", "seed", "progress", "result", "created"),
        [_row(run) for run in runs],
        dispensable=("created",),
        wraps=(),
    )


@command.command()
@click.argument("name")
@_connected
@json_option
def get(name: str, *, as_json: bool, **connection: Any) -> None:  # noqa: ANN401 - of many types
    """Show a run as it is now."""
    from service.cli.display.runs_display import print_outcome

    with _client(connection) as client, _failures_told(connection["server"]):
        run = client.get(_name(name))
    if as_json:
        print_json(_plain(run))
    elif run.is_done:
        print_outcome(run, stdout())
    else:
        print_table(
            run.name, ("run", "state", "network", "recipe", "seed", "progress", "result", "created"), [_row(run)]
        )


@command.command()
@click.argument("name")
@_connected
def cancel(name: str, **connection: Any) -> None:  # noqa: ANN401 - of many types
    """Ask a run to stop. One that is done stays as it is."""
    with _client(connection) as client, _failures_told(connection["server"]):
        client.cancel(_name(name))
        run = client.get(_name(name))
    stdout().print(f"{run.name}: {'asked to stop' if not run.is_done else run.state}", markup=False)


@command.command()
@click.argument("name")
@_connected
def delete(name: str, **connection: Any) -> None:  # noqa: ANN401 - of many types
    """Forget a run that is done; what it published stays."""
    with _client(connection) as client, _failures_told(connection["server"]):
        client.delete(_name(name))
    stdout().print(f"{_name(name)}: forgotten", markup=False)


# ---- shared by the commands --------------------------------------------------------------------------------------


def _client(connection: dict[str, Any]) -> TrainingClient:
    check_server(connection["server"], CONTROL_PORT)
    tls, headers = tls_from(connection), headers_from(connection)
    return TrainingClient(connection["server"], tls=tls, metadata=headers)


def _failures_told(server: str) -> AbstractContextManager[None]:
    from contextlib import contextmanager

    @contextmanager
    def told() -> Iterator[None]:
        try:
            yield
        except ServerError as error:
            _leave(error, server)

    return told()


def _leave(error: ServerError, server: str) -> None:
    if error.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED):
        fail(f"{server} does not answer ({error}); start one with `mnist1d serve --training-slots 1`", Exit.UNREACHABLE)
    if error.code is Code.UNIMPLEMENTED:
        fail(f"{server} offers no training: start it with --training-slots 1")
    if error.code is Code.INVALID_ARGUMENT and error.details.reason == _REFUSED_RUN:
        for violation in error.details.violations:
            stderr().print(f"  {violation.field}: {violation.description}", markup=False)
        fail("the run cannot be as it was asked for", Exit.USAGE)
    if error.code is Code.INVALID_ARGUMENT:
        fail(error.message, Exit.USAGE)
    fail(str(error))


def _watch(client: TrainingClient, run: TrainingRun, from_event: int, *, as_json: bool) -> None:
    from service.cli.display import runs_display

    console = stderr()
    display: Display
    if as_json:
        display = runs_display.JsonLines()
    elif console.is_terminal:
        display = runs_display.Live(run, console)
    else:
        display = runs_display.Lines(console)
    try:
        with display:
            for event in client.watch(run.name, from_event, patience_s=_PATIENCE_S, on_gap=display.gap):
                display.tell(event)
    except KeyboardInterrupt:
        fail(
            f"no longer watched; the run goes on in the server. `mnist1d runs watch {_id(run.name)}` watches it again, "
            f"`mnist1d runs cancel {_id(run.name)}` stops it",
            Exit.INTERRUPTED,
        )
    run = client.get(run.name, patience_s=_PATIENCE_S)
    if as_json:
        print_json(_plain(run))
    else:
        runs_display.print_outcome(run, stdout(), has_just_ended=True)
    if run.error is not None:
        raise click.exceptions.Exit(int(Exit.REFUTED if run.error.details.reason == "PROOF_FAILED" else Exit.FAILED))


def _name(text: str) -> str:
    return text if "/" in text else f"operations/{text}"


def _id(name: str) -> str:
    return name.rpartition("/")[2]


def _elsewhere(connection: dict[str, Any]) -> str:
    return "" if connection["server"] == CONTROL else f" --server {connection['server']}"


def _plain(run: TrainingRun) -> dict[str, Any]:
    from service.cli.display.message_json import as_json

    plain: dict[str, Any] = {"name": run.name, "done": run.is_done, "metadata": as_json(run.snapshot)}
    if run.result is not None:
        plain["response"] = as_json(run.result)
    if run.error is not None:
        details = run.error.details
        plain["error"] = {
            "code": run.error.code.name,
            "message": run.error.message,
            "reason": details.reason,
            "metadata": dict(details.metadata),
        }
    return plain


def _row(run: TrainingRun) -> tuple[str, ...]:
    snapshot = run.snapshot
    if run.state == "QUEUED":
        progress = f"{snapshot.ahead_in_queue} before it"
    else:
        share = snapshot.step / max(snapshot.total_steps, 1)
        progress = f"{snapshot.step:,}/{snapshot.total_steps:,} ({share:.0%})"
    result = snapshot.stage
    if run.result is not None:
        result = f"{run.result.model_name} {run.result.model_version}, {run.result.metrics['test'].accuracy:.1%}"
    elif run.error is not None:
        result = run.error.details.reason
    created = datetime.fromtimestamp(snapshot.create_time.seconds, UTC).strftime("%Y-%m-%d %H:%M")
    state = "CANCELLING" if snapshot.is_cancelling else run.state
    return (
        *(_id(run.name), state, snapshot.network, snapshot.recipe, str(snapshot.seed), progress, escape(result)),
        created,
    )
