"""Goldens: recorded inputs and the reference's outputs, in ONNX's own test-data layout.

``test_data_set_N/input_0.pb, output_0.pb`` are ``TensorProto`` files, numbered in the order of the model's inputs
and outputs; the tensors carry their names. The ONNX model zoo, onnxruntime's test runner and others read the same
folders. This file knows files and numbers; it does not know which runtime is asked to replay.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from models.datatypes import BY_ONNX
from models.errors import ArtifactError, GoldenMismatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

Arrays = dict[str, np.ndarray]
_DATA_SET = re.compile(r"test_data_set_(\d+)")


class Infer(Protocol):
    """Whatever answers a model's inputs with its outputs, both by name."""

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
            # `not >=` also catches NaN, with which every comparison would pass as "not greater".
            if not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ArtifactError(f"tolerance, {field}: got {value!r}, expected a finite number of at least 0")

    def to_dict(self) -> dict[str, float]:
        """The form the manifest keeps."""
        return {"absolute": self.absolute, "relative": self.relative}


@dataclass(frozen=True)
class Golden:
    """One recorded question and its answer."""

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
    """How one output of one replayed golden compares with the record."""

    golden: str
    batch: int
    output: str
    max_absolute: float
    """Largest absolute difference seen; 0 for identical strings, booleans and integers."""
    worst_index: tuple[int, ...] | None
    tolerance: Tolerance
    passed: bool
    detail: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For reports and ``--json``."""
        return {
            "golden": self.golden,
            "batch": self.batch,
            "output": self.output,
            "max_absolute": self.max_absolute,
            "worst_index": list(self.worst_index) if self.worst_index is not None else None,
            "tolerance": self.tolerance.to_dict(),
            "passed": self.passed,
            "detail": self.detail,
        }

    def __str__(self) -> str:
        if self.detail:
            return f"{self.golden} (batch {self.batch}), output {self.output!r}: {self.detail}"
        return (
            f"{self.golden} (batch {self.batch}), output {self.output!r}: difference {self.max_absolute:.3g} at "
            f"{self.worst_index}, allowed {self.tolerance.absolute:g} + {self.tolerance.relative:g} x |reference|"
        )


@dataclass(frozen=True)
class ReplayReport:
    """Every difference of one replay, passed or not."""

    differences: tuple[Difference, ...]

    @property
    def passed(self) -> bool:
        """Whether something was replayed, and all of it within its tolerance."""
        return bool(self.differences) and all(difference.passed for difference in self.differences)

    @property
    def max_absolute(self) -> float:
        """The largest difference seen, over all outputs."""
        return max((difference.max_absolute for difference in self.differences), default=0.0)

    def raise_if_failed(self) -> None:
        """Raise GoldenMismatch naming the first output that is off, and how many more are."""
        if self.passed:
            return
        failed = [difference for difference in self.differences if not difference.passed]
        if not failed:
            raise GoldenMismatch("there are no goldens to replay")
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise GoldenMismatch(f"golden mismatch: {failed[0]}{more}")


def replay(goldens: Sequence[Golden], tolerances: Mapping[str, Tolerance], infer: Infer) -> ReplayReport:
    """Ask ``infer`` every golden's inputs and compare its answers with the recorded outputs.

    ``tolerances`` maps output names to what is allowed; an output without one must be equal, bit for bit.
    Never raises for a wrong answer: the report says what differs. What ``infer`` raises passes through.
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
    # Python-exact for 64-bit integers too: long double has 64 bits of mantissa where it matters.
    wide: type[np.floating[Any]] = np.longdouble if expected.dtype.kind in "iu" else np.float64
    a, b = got.astype(wide), expected.astype(wide)
    with np.errstate(invalid="ignore"):  # inf - inf is dealt with just below
        off = np.abs(a - b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    off = np.where(same, 0, np.where(np.isnan(off), np.inf, off))
    excess = off - (tolerance.absolute + tolerance.relative * np.where(np.isfinite(b), np.abs(b), 0))
    worst = np.unravel_index(int(np.argmax(np.where(same, -np.inf, excess))), off.shape)
    passed = bool(np.all(same | (excess <= 0)))
    return difference(passed=passed, amount=float(off.max()), at=tuple(int(i) for i in worst))


def write_golden(directory: Path, golden: Golden) -> None:
    """Write one golden as ``directory/test_data_set_N/*.pb``, where ``golden.name`` is ``test_data_set_N``."""
    if not _DATA_SET.fullmatch(golden.name):
        raise ArtifactError(f"golden name: got {golden.name!r}, expected test_data_set_N")
    folder = directory / golden.name
    folder.mkdir()
    for role, arrays in (("input", golden.inputs), ("output", golden.outputs)):
        for index, (name, array) in enumerate(arrays.items()):
            (folder / f"{role}_{index}.pb").write_bytes(numpy_helper.from_array(array, name).SerializeToString())


def read_goldens(directory: Path) -> tuple[Golden, ...]:
    """Read every ``test_data_set_N`` below ``directory``, by ascending N; empty where there is none.

    Raises ArtifactError naming the file that is damaged or missing.
    """
    numbered = [(int(m[1]), p) for p in directory.iterdir() if (m := _DATA_SET.fullmatch(p.name)) and p.is_dir()]
    return tuple(read_golden(folder) for _, folder in sorted(numbered))


def read_golden(folder: Path) -> Golden:
    """Read one folder of ``input_N.pb`` and ``output_N.pb`` files."""
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is no folder")
    inputs, outputs = _read_role(folder, "input"), _read_role(folder, "output")
    return Golden(folder.name, inputs, outputs)


def _read_role(folder: Path, role: str) -> Arrays:
    count = len(list(folder.glob(f"{role}_*.pb")))
    if not count:
        raise ArtifactError(f"{folder.name} has no {role}_0.pb")
    arrays: Arrays = {}
    for index in range(count):
        name, array = _read_tensor(folder / f"{role}_{index}.pb", default_name=f"{role}_{index}")
        if name in arrays:
            raise ArtifactError(f"{folder.name}: two {role}s are named {name!r}")
        arrays[name] = array
    return arrays


def _read_tensor(path: Path, default_name: str) -> tuple[str, np.ndarray]:
    where = f"{path.parent.name}/{path.name}"
    try:
        tensor = onnx.TensorProto.FromString(path.read_bytes())
        datatype = BY_ONNX.get(tensor.data_type)
        if datatype is None:
            raise ArtifactError(f"{where}: tensors of type {tensor.data_type} are not served")
        array = numpy_helper.to_array(tensor)
    except (DecodeError, ValueError, TypeError) as error:
        raise ArtifactError(f"{where} is not a tensor: {error}") from error
    except OSError as error:
        raise ArtifactError(f"{where} cannot be read: {error.strerror}") from error
    if datatype.name == "BYTES":
        return tensor.name or default_name, _as_text(array, where)
    return tensor.name or default_name, np.ascontiguousarray(array)


def _as_text(array: np.ndarray, where: str) -> np.ndarray:
    def text(items: Iterable[object]) -> list[str]:
        return [item.decode("utf-8") if isinstance(item, bytes) else str(item) for item in items]

    try:
        decoded = text(array.ravel())
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{where}: an ONNX string is not UTF-8: {error}") from error
    result = np.empty(len(decoded), dtype=np.object_)
    result[:] = decoded
    return result.reshape(array.shape)
