"""Check that the bits of an answer do not depend on the other rows in the batch.

A server may only collect requests into batches if every row gets the answer that it would get alone. This module runs a
model on the same rows alone, in batches of several sizes cut at several offsets, in another order, and beside very
different rows, and compares the bits. It works for any ONNX model and does not need torch.
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
"""Index at which the first full batch begins; the rows before it make a smaller batch."""
_SEED: Final = 20_240_501  # for the shuffled order; any fixed number will do
_COMPANION_SCALE: Final = 1_000  # makes neighbouring rows far larger than the data, yet finite in float16


class CannotRun(Exception):
    """The model cannot be run on the inputs; the message, onnxruntime's or ours, is one line."""


def run(model: Model, feeds: Arrays) -> Arrays:
    """Run the model once and return all outputs by name. Raises CannotRun for any exception of onnxruntime."""
    names = [spec.name for spec in model.outputs]
    try:
        return dict(zip(names, model.run(names, feeds), strict=True))
    except Exception as error:  # onnxruntime's exceptions have no common base below Exception
        raise CannotRun(" ".join(str(error).split())) from error


def run_batched(model: Model, feeds: Arrays, batch: int, offset: int = 0) -> Arrays:
    """Run the model on all rows of ``feeds``, ``batch`` at a time; the first run has ``offset`` rows unless that is 0.

    Returns the concatenated answers, one row per example. Raises CannotRun, also if an answer does not have one row per
    input row.
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

    They can if the first axis of every input and output is free and has the same name.
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
    """Check that every row has the same bits alone and in every batch.

    ``feeds`` maps every input to an array with one row per example. Each of ``batch_sizes`` is tried at each offset.
    Bits are compared, not values: -0.0 differs from 0.0. Only NaNs are all equal, since their payload depends on the
    instruction that made them and means nothing. Fails, and does not raise, if the model cannot be run.
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
    """Yield (description, indices of the examples in the answers' order, answers) for each way to form batches."""
    count = _rows(feeds)
    everyone = np.arange(count)
    for batch in batch_sizes:
        for offset in OFFSETS:
            if offset < batch:  # larger offsets repeat the cuts of smaller ones
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
    """Put a neighbouring row after every row, scaled up if the rows are floating-point numbers."""
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
    """Indices of the rows whose bits differ between ``a`` and ``b``; NaN equals NaN."""
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
