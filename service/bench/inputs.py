"""Make inputs for a model from its server's description."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from service.client.operations import infer
from service.wire.datatypes import DATATYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.client.answers import ModelInfo, TensorInfo

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_TEXT_CHARACTERS = 8
_HIGHEST_INTEGER = 10
"""Integers are 0 to 9, since most integer inputs are indices, and these fit most tables."""


class InputsError(ValueError):
    """The model's inputs cannot be made from the arguments; the message says what to add."""


def made_inputs(
    model: ModelInfo,
    *,
    batch: int,
    count: int,
    shapes: Mapping[str, Sequence[int]],
    seed: int,
) -> list[dict[str, np.ndarray]]:
    """Make ``count`` different random inputs: standard normal numbers, integers from 0 to 9, short words.

    A free first axis gets the length ``batch``; ``shapes`` gives the other free axes.
    Raises InputsError.
    """
    if not model.inputs and not model.outputs:
        # KServe and MLServer answer this for models that do not declare their inputs.
        raise InputsError(f"the server describes neither inputs nor outputs of model {model.name!r}")
    unknown = shapes.keys() - {tensor.name for tensor in model.inputs}
    if unknown:
        raise InputsError(f"shape for {', '.join(sorted(unknown))}: model {model.name!r} has no such input")
    random = np.random.default_rng(seed)
    chosen = {tensor.name: _shape(tensor, batch, shapes.get(tensor.name)) for tensor in model.inputs}
    return [
        {tensor.name: _random(random, tensor.datatype, chosen[tensor.name]) for tensor in model.inputs}
        for _ in range(count)
    ]


def given_inputs(
    model: ModelInfo, arrays: Mapping[str, np.ndarray], *, batch: int, count: int
) -> list[dict[str, np.ndarray]]:
    """Make at most ``count`` inputs of ``batch`` rows each from arrays of rows, which are repeated as needed.

    Raises InputsError: an array is missing, unknown or empty, or has the wrong rank.
    """
    names = [tensor.name for tensor in model.inputs]
    if arrays.keys() != set(names):
        raise InputsError(f"expected arrays for the inputs {', '.join(names)}, got {', '.join(arrays) or 'none'}")
    lengths = {len(array) if array.ndim else 0 for array in arrays.values()}
    if len(lengths) > 1 or 0 in lengths:
        raise InputsError(f"expected arrays with the same number of rows, got {sorted(lengths)}")
    (rows,) = lengths
    made = []
    for number in range(min(count, max(1, math.ceil(rows / batch)))):
        chosen = np.arange(number * batch, (number + 1) * batch) % rows
        made.append({tensor.name: _rows(tensor, arrays[tensor.name], chosen) for tensor in model.inputs})
    return made


def samples_of(model: ModelInfo, inputs: Mapping[str, np.ndarray]) -> int:
    """Number of examples in one request: the length of the first axis if the model leaves it free."""
    for tensor in model.inputs:
        if tensor.shape and tensor.shape[0] == -1:
            return len(inputs[tensor.name])
    return 1


def messages(model: str, version: str, inputs: Sequence[Mapping[str, np.ndarray]], *, typed: bool) -> tuple[bytes, ...]:
    """Serialise requests; raises ContentsError if a datatype has no typed contents."""
    return tuple(infer(model, each, version=version, typed=typed).request.SerializeToString() for each in inputs)


def _shape(tensor: TensorInfo, batch: int, given: Sequence[int] | None) -> tuple[int, ...]:
    axes = list(tensor.shape)
    if axes and axes[0] == -1:
        axes[0] = batch
    elif batch != 1 and axes:
        raise InputsError(f"input {tensor.name!r} {list(tensor.shape)} has no free first axis; use batch 1")
    if given is not None:
        # The shape may be given with or without the batch axis.
        axes = list(given) if len(given) == len(axes) else [*axes[: len(axes) - len(given)], *given]
        fits = len(axes) == len(tensor.shape) and all(
            wanted in (-1, length) for wanted, length in zip(tensor.shape, axes, strict=True)
        )
        if not fits:
            raise InputsError(f"input {tensor.name!r}: shape {list(given)} does not fit {list(tensor.shape)}")
    if any(length < 0 for length in axes):
        raise InputsError(f"input {tensor.name!r} {list(tensor.shape)} leaves axes free; say --shape {tensor.name}:...")
    return tuple(axes)


def _random(random: np.random.Generator, datatype: str, shape: tuple[int, ...]) -> np.ndarray:
    row = DATATYPES.get(datatype)
    if row is None:
        raise InputsError(f"datatype {datatype!r} is unknown here")
    if row.name == "BYTES":
        words = np.empty(math.prod(shape), np.object_)
        for index in range(words.size):
            words[index] = "".join(random.choice(list(_LETTERS), _TEXT_CHARACTERS))
        return words.reshape(shape)
    if row.name == "BOOL":
        return random.integers(0, 2, shape).astype(np.bool_)
    if row.is_float:
        return random.standard_normal(shape).astype(row.numpy)
    return random.integers(0, _HIGHEST_INTEGER, shape).astype(row.numpy)


def _rows(tensor: TensorInfo, array: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    rows: np.ndarray = array[chosen]
    if rows.ndim != len(tensor.shape):
        raise InputsError(
            f"input {tensor.name!r}: expected {list(tensor.shape)}, the array has rows of {array.shape[1:]}"
        )
    datatype = DATATYPES.get(tensor.datatype)
    return rows if datatype is None or datatype.name == "BYTES" else rows.astype(datatype.numpy)
