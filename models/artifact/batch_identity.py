"""Do the bits of an answer depend on who shares the batch? They must not.

A server that collects requests into batches may only do so if every row of the answer is what the row alone would have
got. This file asks a model the same rows alone, in batches of several sizes cut at several offsets, in another order,
and beside quite different companions, and compares bits. Knows any ONNX model; not torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from models.artifact.parity_report import Check

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from models.artifact.onnx_session import Model

Arrays: TypeAlias = "dict[str, np.ndarray]"

NAME: Final = "bit identity"
OFFSETS: Final = (0, 1, 5)
"""Where the first batch begins; the rows before it make a smaller batch of their own."""
_SEED: Final = 20_240_501  # of the shuffled order: any fixed number
_COMPANION_SCALE: Final = 1_000  # companions far outside of the data, yet finite in float16


class CannotRun(Exception):
    """onnxruntime refused the inputs; the message is its own, on one line."""


def run(model: Model, feeds: Arrays) -> Arrays:
    """One run, all outputs by name. Raises CannotRun, whatever onnxruntime raised."""
    names = [spec.name for spec in model.outputs]
    try:
        return dict(zip(names, model.run(names, feeds), strict=True))
    except Exception as error:  # onnxruntime's exceptions have no common base below Exception
        raise CannotRun(" ".join(str(error).split())) from error


def run_batched(model: Model, feeds: Arrays, batch: int, offset: int = 0) -> Arrays:
    """All rows of ``feeds`` in runs of ``batch`` rows; the first run ends after ``offset`` rows where that is not 0.

    Returns the answers put together again, one row an example. Raises CannotRun, also if the answers do not have a row
    for each row of the question.
    """
    count = _rows(feeds)
    parts: list[Arrays] = []
    for start, stop in _windows(count, batch, offset):
        answers = run(model, {name: array[start:stop] for name, array in feeds.items()})
        for name, array in answers.items():
            if array.ndim == 0 or len(array) != stop - start:
                raise CannotRun(f"{stop - start} rows in, but output {name!r} has shape {list(array.shape)}")
        parts.append(answers)
    try:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
    except ValueError as error:
        raise CannotRun(f"the shape of an answer depends on the rows beside it: {error}") from error


def batchable(model: Model) -> str | None:
    """None if rows can be put into one batch, otherwise the reason why not.

    They can if the first axis of every input and output is free, and all of them are the same axis by name.
    """
    axes = {}
    for role, specs in (("input", model.inputs), ("output", model.outputs)):
        for spec in specs:
            if spec.batch_axis is None:
                return f"the first axis of {role} {spec.name!r} is not free"
            axes[spec.batch_axis] = spec.name
    if len(axes) > 1:
        return "the free first axes have different names: " + ", ".join(sorted(axes))
    return None


def bit_identity(model: Model, feeds: Arrays, batch_sizes: Sequence[int]) -> Check:
    """The check: every row's bits, alone and in company.

    ``feeds`` maps every input to an array with one row an example. Each of ``batch_sizes`` is asked at all ``OFFSETS``.
    Answers differ in bits, not in value: -0.0 is not 0.0 here. Only NaN is NaN whatever its payload, which depends on
    the instruction that made it and means nothing. Fails, and does not raise, if the model cannot be run.
    """
    if not _rows(feeds):
        return Check(NAME, passed=False, detail="there are no examples")
    try:
        alone = run_batched(model, feeds, batch=1)
        tried = 0
        for situation, rows, answers in _situations(model, feeds, batch_sizes):
            tried += 1
            for name, array in answers.items():
                differing = differing_rows(array, alone[name][rows])
                if len(differing):
                    example = int(rows[differing[0]])
                    return Check(
                        NAME,
                        passed=False,
                        detail=f"{name} of {len(differing)} of {len(rows)} examples has other bits {situation} "
                        f"than alone, first example {example}",
                    )
    except CannotRun as error:
        return Check(NAME, passed=False, detail=f"cannot run: {error}")
    return Check(NAME, passed=True, detail=f"{_rows(feeds)} examples have the same bits alone and in {tried} companies")


def _situations(model: Model, feeds: Arrays, batch_sizes: Sequence[int]) -> Iterator[tuple[str, np.ndarray, Arrays]]:
    """(what was done, indices of the examples in the answers' order, answers)."""
    count = _rows(feeds)
    everyone = np.arange(count)
    for batch in batch_sizes:
        for offset in OFFSETS:
            if offset < batch:  # from there on the cuts are those of a smaller offset
                yield f"in batches of {batch} from {offset}", everyone, run_batched(model, feeds, batch, offset)
    shuffled = np.random.default_rng(_SEED).permutation(count)
    largest = max(batch_sizes, default=2)
    yield (
        f"in shuffled batches of {largest}",
        shuffled,
        run_batched(model, {name: array[shuffled] for name, array in feeds.items()}, largest),
    )
    mixed = run_batched(model, {name: _with_companions(array) for name, array in feeds.items()}, largest)
    yield "beside far larger companions", everyone, {name: array[::2] for name, array in mixed.items()}


def _with_companions(array: np.ndarray) -> np.ndarray:
    """Every row followed by its neighbour, scaled up where the rows are floating-point numbers."""
    neighbours = np.roll(array, 1, axis=0)
    if array.dtype.kind == "f":
        neighbours = neighbours * array.dtype.type(_COMPANION_SCALE)
    return np.stack([array, neighbours], axis=1).reshape(2 * len(array), *array.shape[1:])


def _windows(count: int, batch: int, offset: int) -> Iterator[tuple[int, int]]:
    start = 0
    stop = min(offset, count) or min(batch, count)
    while start < count:
        yield start, stop
        start, stop = stop, min(stop + batch, count)


def differing_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Indices of the rows that have other bits in ``b`` than in ``a``; NaN is NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return np.arange(len(a))
    rows_a, rows_b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    if a.dtype == np.object_:
        return np.flatnonzero((rows_a != rows_b).any(axis=1))
    both_nan = (rows_a != rows_a) & (rows_b != rows_b)  # only NaN differs from itself
    return np.flatnonzero(((_bits(rows_a) != _bits(rows_b)) & ~both_nan).any(axis=1))


def _bits(rows: np.ndarray) -> np.ndarray:
    """The elements as unsigned integers of their size."""
    return np.ascontiguousarray(rows).view(f"u{rows.dtype.itemsize}")


def _rows(feeds: Arrays) -> int:
    return min((len(array) for array in feeds.values()), default=0)
