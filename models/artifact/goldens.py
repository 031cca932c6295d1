"""Goldens: recorded inputs and the reference's outputs, in ONNX's own test-data layout.

``test_data_set_N/input_0.pb, output_0.pb`` are ``TensorProto`` files, numbered in the order of the model's inputs
and outputs; the tensors carry their names. The ONNX model zoo, onnxruntime's test runner and others read the same
folders. This module does not depend on the runtime that replays them.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from onnx.external_data_helper import uses_external_data

from models.artifact.datatypes import BY_ONNX, DATATYPES
from models.errors import ArtifactError, GoldenMismatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Arrays = dict[str, np.ndarray]
_DATA_SET = re.compile(r"test_data_set_([0-9]+)")
_TEXT = DATATYPES["BYTES"]
_DTYPES = {datatype.numpy for datatype in DATATYPES.values()}


class Infer(Protocol):
    """A callable that runs a model: it takes the inputs and returns the outputs, both by name."""

    def __call__(self, feeds: Arrays, /) -> Mapping[str, np.ndarray]:
        """Run the model once."""
        ...


@dataclass(frozen=True)
class Tolerance:
    """How far an answer may lie from the reference: ``|answer - reference| <= absolute + relative * |reference|``."""

    absolute: float = 0.0
    relative: float = 0.0

    def __post_init__(self) -> None:
        for field in ("absolute", "relative"):
            value = getattr(self, field)
            # `not <=` also catches NaN, with which every comparison would pass as "not greater"; the upper bound
            # catches infinity, and whole numbers that no float can hold.
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not 0 <= value <= sys.float_info.max:
                raise ArtifactError(f"tolerance, {field}: got {value!r}, expected a finite number of at least 0")

    def __str__(self) -> str:
        return f"{self.absolute:g} + {self.relative:g} x |reference|"

    def to_dict(self) -> dict[str, float]:
        """The tolerance as the manifest stores it."""
        return {"absolute": self.absolute, "relative": self.relative}


@dataclass(frozen=True)
class Golden:
    """The recorded inputs of one run, and the expected outputs."""

    name: str
    inputs: Arrays
    outputs: Arrays

    @property
    def batch(self) -> int:
        """The length of the first axis of the first input; 1 for a scalar."""
        first = next(iter(self.inputs.values()), np.zeros(()))
        return int(first.shape[0]) if first.ndim else 1


@dataclass(frozen=True)
class Difference:
    """The comparison of one output of a replayed golden with its recorded value."""

    golden: str
    batch: int
    output: str
    max_absolute: float
    """Largest absolute difference seen; infinite where only one of the two is finite; 1 for unequal strings and
    booleans; 0 if nothing could be compared (``detail`` says why)."""
    worst_index: tuple[int, ...] | None
    """Index of the element whose difference lies farthest outside, or least inside, the tolerance."""
    tolerance: Tolerance
    passed: bool
    detail: str = ""
    """What is wrong; empty if it passed."""

    def to_dict(self) -> dict[str, Any]:
        """The difference as values for JSON; an amount that is not finite becomes None, as JSON has no infinity."""
        return {
            "golden": self.golden,
            "batch": self.batch,
            "output": self.output,
            "max_absolute": self.max_absolute if np.isfinite(self.max_absolute) else None,
            "worst_index": list(self.worst_index) if self.worst_index is not None else None,
            "tolerance": self.tolerance.to_dict(),
            "passed": self.passed,
            "detail": self.detail,
        }

    def __str__(self) -> str:
        if self.detail:
            return f"{self.golden} (batch {self.batch}), output {self.output!r}: {self.detail}"
        return (
            f"{self.golden} (batch {self.batch}), output {self.output!r}: largest difference {self.max_absolute:.3g}, "
            f"allowed {self.tolerance}"
        )


@dataclass(frozen=True)
class ReplayReport:
    """All comparisons of one replay, passed or failed."""

    differences: tuple[Difference, ...]

    @property
    def passed(self) -> bool:
        """Whether at least one output was compared, and all are within their tolerance."""
        return bool(self.differences) and all(difference.passed for difference in self.differences)

    @property
    def max_absolute(self) -> float:
        """The largest difference seen, over all outputs."""
        return max((difference.max_absolute for difference in self.differences), default=0.0)

    def raise_if_failed(self) -> None:
        """Raise GoldenMismatch unless `passed`, naming the first failed output and the number of others."""
        if self.passed:
            return
        failed = [difference for difference in self.differences if not difference.passed]
        if not failed:
            raise GoldenMismatch("there are no goldens to replay")
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise GoldenMismatch(f"golden mismatch: {failed[0]}{more}")


def replay(goldens: Sequence[Golden], tolerances: Mapping[str, Tolerance], infer: Infer) -> ReplayReport:
    """Call ``infer`` with the inputs of every golden and compare its answers with the recorded outputs.

    ``tolerances`` maps output names to allowed differences; an output without one must be equal. NaN equals NaN, and
    0.0 equals -0.0. Never raises for a wrong answer: the report says what differs. Exceptions of ``infer`` propagate.
    """
    differences: list[Difference] = []
    for golden in goldens:
        answers = infer(dict(golden.inputs))
        for output, expected in golden.outputs.items():
            tolerance = tolerances.get(output, Tolerance())
            differences.append(_compare(golden, output, expected, answers.get(output), tolerance))
    return ReplayReport(tuple(differences))


def _compare(
    golden: Golden, output: str, expected: np.ndarray, got: np.ndarray | None, tolerance: Tolerance
) -> Difference:
    def difference(
        *, passed: bool, amount: float = 0.0, at: tuple[int, ...] | None = None, why: str = ""
    ) -> Difference:
        return Difference(golden.name, golden.batch, output, amount, at, tolerance, passed, why)

    if got is None:
        return difference(passed=False, why="the model has no such output")
    if got.dtype != expected.dtype or got.shape != expected.shape:
        return difference(
            passed=False,
            why=f"expected {expected.dtype}{list(expected.shape)}, got {got.dtype}{list(got.shape)}",
        )
    if expected.dtype == np.object_ or expected.dtype == np.bool_:
        unequal = np.argwhere(np.asarray(got != expected))
        if not len(unequal):
            return difference(passed=True)
        at = tuple(int(i) for i in unequal[0])
        return difference(passed=False, amount=1.0, at=at, why=f"expected {expected[at]!r} at {at}, got {got[at]!r}")
    if expected.size == 0:
        return difference(passed=True)
    with np.errstate(invalid="ignore", over="ignore"):  # infinite differences and allowances are dealt with below
        off, same = _distances(got, expected)
        size = np.abs(expected.astype(np.float64))
        allowed = tolerance.absolute + tolerance.relative * np.where(np.isfinite(size), size, 0)
        excess = np.where(same, -np.inf, np.where(np.isinf(off), np.inf, off - allowed))
    at = tuple(int(i) for i in np.unravel_index(int(np.argmax(excess)), off.shape))
    amount = float(off.max())
    if excess[at] <= 0:
        return difference(passed=True, amount=amount, at=at)
    why = f"difference {off[at]:.3g} at {at}: expected {expected[at]}, got {got[at]}, allowed {tolerance}"
    return difference(passed=False, amount=amount, at=at, why=why)


def _distances(got: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|got - expected| as float64, infinite where one of them is not finite, and a mask of the equal elements.

    NaN equals NaN, and inf equals inf.
    """
    if expected.dtype.kind in "iu":
        # Exact for 64 bits too, where float64 is not: unsigned subtraction is modulo 2**64.
        high, low = np.maximum(got, expected), np.minimum(got, expected)
        return (high.astype(np.uint64) - low.astype(np.uint64)).astype(np.float64), got == expected
    a, b = got.astype(np.float64), expected.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    off = np.abs(a - b)
    return np.where(same, 0.0, np.where(np.isnan(off), np.inf, off)), same


def is_golden_name(name: str) -> bool:
    """Whether ``name`` is ``test_data_set_N``; such a name cannot be a path to another folder."""
    return _DATA_SET.fullmatch(name) is not None


def write_golden(directory: Path, golden: Golden) -> None:
    """Write one golden as ``directory/test_data_set_N/*.pb``, where ``golden.name`` is ``test_data_set_N``."""
    if not is_golden_name(golden.name):
        raise ArtifactError(f"golden name: got {golden.name!r}, expected test_data_set_N")
    if not golden.outputs:
        raise ArtifactError(f"{golden.name} records no outputs: it would prove nothing")
    folder = directory / golden.name
    folder.mkdir()
    for role, arrays in (("input", golden.inputs), ("output", golden.outputs)):
        for index, (name, array) in enumerate(arrays.items()):
            if array.dtype not in _DTYPES:
                raise ArtifactError(f"{golden.name}, {role} {name!r}: {array.dtype} is no served datatype")
            (folder / f"{role}_{index}.pb").write_bytes(numpy_helper.from_array(array, name).SerializeToString())


def read_goldens(directory: Path) -> tuple[Golden, ...]:
    """Read every ``test_data_set_N`` below ``directory``, by ascending N; empty if there is none.

    Raises ArtifactError naming the file that is damaged or missing.
    """
    try:
        numbered = [(int(m[1]), p) for p in directory.iterdir() if (m := _DATA_SET.fullmatch(p.name)) and p.is_dir()]
    except OSError as error:
        raise ArtifactError(f"{directory} cannot be read: {error.strerror}") from error
    return tuple(read_golden(folder) for _, folder in sorted(numbered))


def read_golden(folder: Path) -> Golden:
    """Read one folder of ``input_N.pb`` and ``output_N.pb`` files; other files are ignored.

    A model may have no inputs, so ``input_0.pb`` may be missing; without outputs there is nothing to replay.
    Raises ArtifactError naming the file that is damaged or missing.
    """
    try:
        files = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise ArtifactError(f"golden {folder} cannot be read: {error.strerror}") from error
    inputs, outputs = _read_role(folder, files, "input"), _read_role(folder, files, "output")
    if not outputs:
        raise ArtifactError(f"{folder.name} has no output_0.pb")
    return Golden(folder.name, inputs, outputs)


def _read_role(folder: Path, files: Sequence[str], role: str) -> Arrays:
    present = {name for name in files if re.fullmatch(rf"{role}_[0-9]+\.pb", name)}
    arrays: Arrays = {}
    for index in range(len(present)):
        file = f"{role}_{index}.pb"
        if file not in present:
            raise ArtifactError(f"{folder.name} has no {file}, but {', '.join(sorted(present))}")
        name, array = _read_tensor(folder / file, default_name=f"{role}_{index}")
        if name in arrays:
            raise ArtifactError(f"{folder.name}: two {role}s are named {name!r}")
        arrays[name] = array
    return arrays


def read_regular(path: Path, name: str) -> bytes:
    """Read a file of a published model; ArtifactError, with ``name`` in the message, unless it is a regular file.

    Reading a pipe or a device could block forever. OSError propagates.
    """
    if path.exists() and not path.is_file():
        raise ArtifactError(f"{name} is no regular file")
    return path.read_bytes()


def _read_tensor(path: Path, default_name: str) -> tuple[str, np.ndarray]:
    where = f"{path.parent.name}/{path.name}"
    try:
        content = read_regular(path, where)
        tensor = onnx.TensorProto.FromString(content)
    except DecodeError as error:
        raise ArtifactError(f"{where} is not a tensor: {error}") from error
    except OSError as error:
        raise ArtifactError(f"{where} cannot be read: {error.strerror}") from error
    if tensor.data_type == onnx.TensorProto.UNDEFINED:
        raise ArtifactError(f"{where} is not a tensor: {'it has no element type' if content else 'the file is empty'}")
    datatype = BY_ONNX.get(tensor.data_type)
    if datatype is None:
        raise ArtifactError(f"{where}: tensors of type {tensor.data_type} are not served")
    if uses_external_data(tensor):
        raise ArtifactError(f"{where} keeps its numbers in another file (external data)")
    try:
        array = _text(tensor) if datatype is _TEXT else numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:  # UnicodeDecodeError is a ValueError
        raise ArtifactError(f"{where} is not a tensor: {error}") from error
    name: object = tensor.name  # protobuf returns bytes where they are no UTF-8
    if not isinstance(name, str):
        raise ArtifactError(f"{where} is not a tensor: its name is not UTF-8: {name!r}")
    return name or default_name, array


def _text(tensor: onnx.TensorProto) -> np.ndarray:
    # numpy_helper goes by way of NumPy's fixed-width strings, which lose trailing NULs.
    result = np.empty(len(tensor.string_data), dtype=np.object_)
    result[:] = [item.decode("utf-8") for item in tensor.string_data]
    return result.reshape(tuple(tensor.dims))
