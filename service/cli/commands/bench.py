"""``mnist1d bench``."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from models.artifact.writable import why_not_writable
from service.bench import generators, inputs, plot, report
from service.bench.inputs import InputsError
from service.bench.load import Unreachable
from service.bench.plan import Plan
from service.cli.connection_options import connection_options, headers_from, host_and_port, tls_from
from service.cli.display.bench_display import Progress
from service.cli.display.console import Exit, fail, json_option, print_json, print_table, stderr
from service.client import InferenceClient, ModelInfo, ServerError
from service.errors import Code
from service.wire.raw_contents import ContentsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.bench.plan import Result
    from service.client import Tls

_ONE_PRESS_S = 0.5
"""Signals within this many seconds count as one Ctrl-C: the terminal and a parent process may both send it."""


@click.command()
@connection_options("bench")
@click.option("--model", default="mnist1d-conv", show_default=True, help="Model to ask.")
@click.option("--version", default="", help="Version to ask; default: the server's choice.")
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="Open loop: so many requests a second, by the clock. Default: a closed loop.",
)
@click.option("--connections", default=4, show_default=True, type=click.IntRange(1, 4096), help="HTTP/2 connections.")
@click.option(
    "--in-flight",
    default=4,
    show_default=True,
    type=click.IntRange(1, 65536),
    help="Closed loop: calls at a time on each connection.",
)
@click.option(
    "--duration-s",
    type=click.FloatRange(0, min_open=True),
    help="How long to measure. Default: 10, or until --requests are answered.",
)
@click.option("--requests", type=click.IntRange(1), help="Measure so many requests at most.")
@click.option("--warm-up-s", default=1.0, show_default=True, type=click.FloatRange(0), help="Load before measuring.")
@click.option(
    "--deadline-s",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0.001, 3600),
    help="Deadline of each request.",
)
@click.option("--vary-timeouts", is_flag=True, help="Send a grpc-timeout of its own with each request, as clients do.")
@click.option("--streaming", is_flag=True, help="Send the requests on ModelStreamInfer, one stream a connection.")
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1), help="Examples in each request.")
@click.option("--typed", is_flag=True, help="Send typed contents instead of raw ones.")
@click.option("--distinct", default=16, show_default=True, type=click.IntRange(1, 4096), help="Different requests.")
@click.option("--seed", default=0, show_default=True, help="Of the random inputs.")
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="INPUT:N,N",
    help="Axes that the model leaves free, batch axis excluded.",
)
@click.option(
    "--input",
    "files",
    multiple=True,
    metavar="INPUT=FILE.npy",
    help="Rows for an input from a file, instead of random numbers.",
)
@click.option("--examples", is_flag=True, help="Send examples of the MNIST-1D test set.")
@click.option("--check", is_flag=True, help="Answers to the same input must have the same bits.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Generator processes.")
@click.option("--plot", "picture", type=click.Path(path_type=Path, dir_okay=False), help="Write a picture, as SVG.")
@json_option
def command(
    *,
    server: str,
    model: str,
    version: str,
    picture: Path | None,
    workers: int,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - of many types
) -> None:
    """Measure how fast a server of the Open Inference Protocol answers.

    A closed loop (the default) keeps --connections times --in-flight calls under way and finds out how many answers a
    second that gives. An open loop (--rate) sends by the clock and counts each latency from the time at which the
    request was due, as a user would. docs/bench.md says how to read the results.

    Exit codes: 0 every answer was right, 1 some were not, 2 unusable arguments, 4 no server answered, 130 interrupted.
    """
    host, port = host_and_port(server)
    tls, headers = tls_from(options), headers_from(options)
    if picture is not None:
        _check_writable(picture)
    info, max_batch_size = _model(server, model, version, tls, headers)
    arrays = _inputs(info, options)
    samples = inputs.samples_of(info, arrays[0])
    if samples > max_batch_size > 0:
        fail(
            f"--batch: got {samples}, model {model!r} takes at most {max_batch_size}, the max_batch_size of its "
            "ModelConfig",
            Exit.USAGE,
        )
    try:
        messages = inputs.messages(model, version, arrays, typed=options["typed"])
    except (ContentsError, TypeError) as error:
        fail(f"model {model!r}: {error}", Exit.USAGE)
    if workers > options["connections"]:
        fail(f"{workers} workers need at least as many --connections, got {options['connections']}", Exit.USAGE)
    if options["streaming"] and options["vary_timeouts"]:
        fail("--vary-timeouts: the requests of --streaming share one call and its timeout", Exit.USAGE)
    requests, duration_s = options["requests"], options["duration_s"]
    plan = Plan(
        host=host,
        port=port,
        tls=tls,
        headers=tuple((name.encode(), value.encode()) for name, value in headers.items()),
        messages=messages,
        expected=tuple((tensor.name, tensor.datatype, tensor.shape) for tensor in info.outputs),
        connections=options["connections"],
        in_flight=options["in_flight"],
        rate=options["rate"],
        duration_s=10.0 if duration_s is None and requests is None else duration_s,
        requests=requests,
        warm_up_s=options["warm_up_s"],
        deadline_s=options["deadline_s"],
        check=options["check"],
        streaming=options["streaming"],
        vary_timeouts=options["vary_timeouts"],
    )
    setup = report.Setup(
        server=server,
        model=info.name,
        version=version,
        batch=samples,
        contents="typed" if options["typed"] else "raw",
        request_bytes=len(messages[0]),
        connections=plan.connections,
        in_flight=plan.in_flight,
        rate=plan.rate,
        workers=workers,
        streaming=plan.streaming,
        vary_timeouts=plan.vary_timeouts,
    )
    result, interrupted = _run(plan, setup)
    if as_json:
        print_json(report.to_dict(setup, result))
    else:
        _print(setup, result)
    if picture is not None:
        _write(picture, plot.svg(setup, result))
    if interrupted:
        raise click.exceptions.Exit(int(Exit.INTERRUPTED))
    if result.failed or result.stopped or not result.done:
        raise click.exceptions.Exit(int(Exit.FAILED))


def _run(plan: Plan, setup: report.Setup) -> tuple[Result, bool]:
    interrupted_at: float | None = None

    def interrupt(_signum: int, _frame: object) -> None:
        nonlocal interrupted_at
        if interrupted_at is None:
            interrupted_at = time.monotonic()
        elif time.monotonic() - interrupted_at > _ONE_PRESS_S:
            # A second Ctrl-C stops at once.
            os._exit(Exit.INTERRUPTED)

    # After Ctrl-C the results so far are shown. Handlers can only be set in the main thread.
    try:
        before = signal.signal(signal.SIGINT, interrupt)
    except ValueError:
        before = None
    try:
        with Progress(setup, plan, stderr()) as progress:
            result = generators.run(plan, setup.workers, progress.add, lambda: interrupted_at is not None)
    except Unreachable as error:
        fail(f"{setup.server} does not answer ({error})", Exit.UNREACHABLE)
    except generators.GeneratorFailed as error:
        fail(str(error))
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
    return result, interrupted_at is not None


def _model(server: str, model: str, version: str, tls: Tls | None, headers: Mapping[str, str]) -> tuple[ModelInfo, int]:
    """The server's description of a model, and the most examples of one request; 0 if unknown."""
    try:
        with InferenceClient(server, timeout_s=10, tls=tls, metadata=headers) as client:
            info = client.model(model, version)
            try:
                return info, client.config(model, version).max_batch_size
            except ServerError:  # most servers have no ModelConfig, and some restrict it
                return info, 0
    except ServerError as error:
        if error.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED):
            fail(f"{server} does not answer ({error}); start one with `mnist1d serve`", Exit.UNREACHABLE)
        fail(str(error))


def _inputs(info: ModelInfo, options: Mapping[str, Any]) -> list[dict[str, np.ndarray]]:
    batch, count = options["batch"], options["distinct"]
    try:
        if options["examples"] or options["files"]:
            return inputs.given_inputs(info, _arrays(info, options), batch=batch, count=count)
        shapes = {name: _lengths(text) for name, _, text in (entry.rpartition(":") for entry in options["shapes"])}
        return inputs.made_inputs(info, batch=batch, count=count, shapes=shapes, seed=options["seed"])
    except InputsError as error:
        fail(str(error), Exit.USAGE)


def _arrays(info: ModelInfo, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if options["examples"] and options["files"]:
        raise InputsError("give --examples or --input, not both")
    if options["examples"]:
        from models.data.dataset import canonical

        if len(info.inputs) != 1:
            raise InputsError(f"model {info.name!r} has {len(info.inputs)} inputs; --examples fills one")
        return {info.inputs[0].name: canonical().test.x_BL}
    arrays = {}
    for entry in options["files"]:
        name, separator, path = entry.partition("=")
        if not separator:
            raise InputsError(f"--input: got {entry!r}, expected INPUT=FILE.npy")
        try:
            arrays[name] = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputsError(f"{path}: {error}") from error
    return arrays


def _lengths(text: str) -> list[int]:
    try:
        return [int(length) for length in text.replace("x", ",").split(",")]
    except ValueError:
        raise InputsError(f"--shape: got {text!r}, expected lengths such as 3,224,224") from None


def _check_writable(picture: Path) -> None:
    """Check that the picture can be written, before the measurement takes minutes."""
    directory = picture.parent
    why = why_not_writable(directory) if directory.is_dir() else f"there is no directory {directory}"
    if why is None and picture.exists() and not os.access(picture, os.W_OK):
        why = "it is there and cannot be written"
    if why is not None:
        fail(f"--plot {picture}: {why}", Exit.USAGE)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"{path}: {error}")


def _print(setup: report.Setup, result: Result) -> None:
    title = f"{setup.model} at {setup.server}: {setup.load}, {setup.contents}, {setup.request_bytes:,} bytes a request"
    print_table(title, ("measure", "value"), report.rows(setup, result))
    _print_errors(report.errors(result))
    for caution in report.cautions(setup, result):
        stderr().print(f"[yellow]caution:[/] {caution}")


def _print_errors(rows: Sequence[tuple[str, str, str]]) -> None:
    if rows:
        print_table("Errors", ("code", "count", "message"), rows)
