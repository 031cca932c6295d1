"""``mnist1d predict``."""

from __future__ import annotations

import csv
import io
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from service.cli.connection_options import check_server, connection_options, headers_from, tls_from
from service.cli.display.console import Exit, FiniteRange, fail, json_option, print_json, print_table
from service.cli.display.output import can_write
from service.client import Answer, InferenceClient, ServerError, TensorInfo
from service.errors import Code
from service.wire.datatypes import DATATYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"
_PLAIN_BLOCKS = "_.,-+=*#"
"""Blocks for terminals without Unicode."""
_SPARKLINE_COLUMNS = 24
_LIVE_TIMEOUT_S = 2.0


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, allow_dash=True))
@click.option("--model", default="mnist1d-conv", show_default=True, help="Model to ask.")
@click.option("--version", default="", help="Version to ask; default: the newest that is ready.")
@connection_options("predict")
@click.option(
    "--example",
    "examples",
    multiple=True,
    type=click.IntRange(0, 999),
    help="Index into the MNIST-1D test set; may be given several times. Default without FILES: 0 to 9.",
)
@click.option(
    "--timeout-s",
    type=FiniteRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="How long to wait for an answer.",
)
@json_option
def command(
    files: tuple[Path, ...],
    model: str,
    version: str,
    server: str,
    examples: tuple[int, ...],
    timeout_s: float,
    *,
    as_json: bool,
    **connection: Any,  # noqa: ANN401 - of many types
) -> None:
    """Send examples to a running server and print the digits and their probabilities.

    FILES are .npy arrays of shape (40,) or (n, 40), or CSV files with 40 numbers a line ('-': CSV from standard
    input). Without any, examples of the MNIST-1D test set are sent, whose true digit is known.
    """
    if files and examples:
        fail("give FILES or --example, not both", Exit.USAGE)
    check_server(server)
    tls, headers = tls_from(connection), headers_from(connection)
    open_client = partial(InferenceClient, server, tls=tls, metadata=headers)
    x, names, truth = _from_files(files) if files else _from_test_set(examples or tuple(range(10)))
    try:
        with open_client(timeout_s=timeout_s) as client:
            info = client.model(model, version)
            if len(info.inputs) != 1:
                fail(f"model {model!r} has {len(info.inputs)} inputs; predict fills one", Exit.USAGE)
            takes = info.inputs[0]
            answer = client.infer(model, {takes.name: _cast(x, takes)}, version=version)
    except ServerError as error:
        if error.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED) and not _is_live(open_client, timeout_s):
            fail(f"{server} does not answer ({error}); start one with `mnist1d serve`", Exit.UNREACHABLE)
        fail(str(error))
    if as_json:
        print_json(_as_json(answer, names, truth))
    elif "probabilities" in answer.outputs:
        _print_digits(answer, x, names, truth)
    else:
        _print_outputs(answer)


def _is_live(open_client: Callable[..., InferenceClient], timeout_s: float) -> bool:
    """Whether the server answers at all, since UNAVAILABLE may also mean that it refused the model."""
    with open_client(timeout_s=min(timeout_s, _LIVE_TIMEOUT_S)) as client:
        return client.is_live()


def _cast(x: np.ndarray, takes: TensorInfo) -> np.ndarray:
    """Cast to the model's datatype; floating-point values may be rounded, others must stay equal."""
    datatype = DATATYPES.get(takes.datatype)
    if datatype is None or datatype.name == "BYTES":
        fail(f"input {takes.name!r} takes {takes.datatype}; predict sends numbers", Exit.USAGE)
    with np.errstate(invalid="ignore", over="ignore"):  # checked below, or by the server
        cast = x.astype(datatype.numpy)
    if not datatype.is_float:
        unequal = np.argwhere(cast != x)
        if len(unequal):
            number = x[tuple(unequal[0])]
            fail(f"input {takes.name!r} takes {takes.datatype}, which cannot be {number}", Exit.USAGE)
    return cast


def _from_test_set(examples: Sequence[int]) -> tuple[np.ndarray, list[str], list[int | None]]:
    from models.data.dataset import canonical

    chosen = canonical().test.take(np.array(examples))
    return chosen.x_BL, [f"test[{index}]" for index in examples], [int(y) for y in chosen.y_B]


def _from_files(files: Sequence[Path]) -> tuple[np.ndarray, list[str], list[int | None]]:
    rows: list[np.ndarray] = []
    names: list[str] = []
    for path in files:
        array = _read(path)
        rows.append(array)
        names += [path.name if len(array) == 1 else f"{path.name}[{row}]" for row in range(len(array))]
    widths = {array.shape[1:] for array in rows}
    if len(widths) > 1:
        fail(f"the files hold examples of different shapes: {sorted(widths)}", Exit.USAGE)
    return np.concatenate(rows), names, [None] * len(names)


def _read(path: Path) -> np.ndarray:
    name = "standard input" if str(path) == "-" else str(path)
    array: Any  # numpy.load may return an archive
    try:
        if str(path) == "-":
            array = _from_csv(sys.stdin.read())
        elif path.suffix in (".npy", ".npz"):
            array = np.load(path, allow_pickle=False)
        else:
            array = _from_csv(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        fail(f"{name}: expected text, one example a line, or an array in a file that ends in .npy", Exit.USAGE)
    except EOFError:
        fail(f"{name}: the file is empty", Exit.USAGE)
    except OSError as error:
        fail(f"{name}: {error.strerror or error}", Exit.USAGE)
    except ValueError as error:
        fail(f"{name}: {error}", Exit.USAGE)
    if not isinstance(array, np.ndarray):
        array.close()
        fail(f"{name}: an archive of arrays; expected one array, as numpy.save writes it", Exit.USAGE)
    if array.dtype.kind not in "fiub" or array.ndim == 0 or not len(array):
        fail(f"{name}: expected an array of numbers, got {array.dtype} of shape {array.shape}", Exit.USAGE)
    return array[np.newaxis] if array.ndim == 1 else array


def _from_csv(text: str) -> np.ndarray:
    rows: list[list[float]] = []
    for number, line in enumerate(csv.reader(io.StringIO(text)), start=1):
        if not line:
            continue
        try:
            rows.append([_number(cell) for cell in line])
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if len(rows[-1]) != len(rows[0]):
            raise ValueError(f"line {number} has {len(rows[-1])} numbers, the first has {len(rows[0])}")
    if not rows:
        raise ValueError("there are no numbers in it")
    return np.array(rows)


def _number(cell: str) -> float:
    if "_" in cell:  # float() accepts digits grouped by underscores, which no CSV file has
        raise ValueError(f"could not convert string to float: {cell!r}")
    return float(cell)


def _as_json(answer: Answer, names: Sequence[str], truth: Sequence[int | None]) -> dict[str, Any]:
    result: dict[str, Any] = {"model": answer.model, "version": answer.version}
    if "probabilities" not in answer.outputs:
        return {**result, "outputs": {name: array.tolist() for name, array in answer.outputs.items()}}
    result["predictions"] = [
        {
            "example": name,
            "digit": int(np.argmax(row)),
            "probabilities": [float(p) for p in row],
            **({"truth": true} if true is not None else {}),
        }
        for name, row, true in zip(names, answer.outputs["probabilities"], truth, strict=True)
    ]
    return result


def _print_digits(answer: Answer, x: np.ndarray, names: Sequence[str], truth: Sequence[int | None]) -> None:
    rows = []
    for name, signal, p, true in zip(names, x, answer.outputs["probabilities"], truth, strict=True):
        first, second = np.argsort(p)[::-1][:2]
        verdict = "" if true is None else ("[green]right[/]" if true == first else f"[red]wrong, it is {true}[/]")
        rows.append(
            (name, sparkline(signal), f"[bold]{first}[/]", f"{p[first]:.4f}", f"{second} {p[second]:.4f}", verdict)
        )
    print_table(
        f"{answer.model}, version {answer.version}",
        ("example", "signal", "digit", "probability", "next", "truth" if any(t is not None for t in truth) else ""),
        rows,
    )


def _print_outputs(answer: Answer) -> None:
    print_table(
        f"{answer.model}, version {answer.version}",
        ("output", "shape", "values"),
        [
            (name, list(array.shape), np.array2string(array, threshold=20, precision=5))
            for name, array in answer.outputs.items()
        ],
    )


def sparkline(signal: np.ndarray) -> str:
    """A signal as a short line of blocks, scaled to its range."""
    samples = signal.ravel()
    if len(samples) > _SPARKLINE_COLUMNS:
        samples = np.interp(np.linspace(0, len(samples) - 1, _SPARKLINE_COLUMNS), np.arange(len(samples)), samples)
    low, high = float(samples.min()), float(samples.max())
    blocks = _BLOCKS if can_write(_BLOCKS) else _PLAIN_BLOCKS
    levels = (samples - low) / (high - low if high > low else 1.0) * (len(blocks) - 1)
    return "".join(blocks[round(float(level))] for level in levels)
