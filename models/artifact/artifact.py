"""A published model: one ONNX file, a manifest and goldens. The interface between training and serving.

``<repository>/<name>/<version>/`` holds ``model.onnx``, ``manifest.json`` and ``test_data_set_N/``. The optional files
``history.json`` and ``report.html`` are for people, and no server reads them. A directory with only a ``model.onnx`` is
an artifact too, but counts as unproven. Torch-free: the server imports this file.
"""

from __future__ import annotations

import hashlib
import json
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from models.artifact.goldens import (
    Golden,
    Infer,
    ReplayReport,
    Tolerance,
    is_golden_name,
    read_goldens,
    read_regular,
    replay,
)
from models.artifact.tensor_spec import TensorSpec
from models.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"
HISTORY_FILE = "history.json"
REPORT_FILE = "report.html"
FOR_PEOPLE = frozenset({HISTORY_FILE, REPORT_FILE})
"""Files in a version's directory that are not part of the model; they may appear and change at any time."""
FORMAT_VERSION = 1
GLANCE_BYTES = 16 * 1024 * 1024
"""Files up to this size are hashed when a repository is listed: 16 MiB take about 10 ms."""
WIDEST_TOLERANCE = Tolerance(absolute=1e-2, relative=1e-2)
"""The widest tolerance that a manifest may have. Rounding in float16 and bfloat16 stays below it; a wider tolerance
would also accept other weights, and so prove nothing."""

T = TypeVar("T")


@dataclass(frozen=True)
class Manifest:
    """The description of a published model, stored as ``manifest.json``.

    Raises ArtifactError for a tolerance above `WIDEST_TOLERANCE`, which would prove nothing.
    """

    name: str
    version: int
    created: str
    """UTC, ISO 8601."""
    model_sha256: str
    model_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    tolerances: Mapping[str, Tolerance]
    """Allowed difference for each output, at most `WIDEST_TOLERANCE`; an output without an entry must replay
    exactly."""
    tolerance_rationale: str
    """How the tolerances were set, in a sentence."""
    goldens: tuple[str, ...]
    """Names of the golden folders that must exist; with some of them missing, the proof is not valid."""
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Class labels by output, for the outputs that have any."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    """The report of the proof that let it be published."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Recipe, seed, data hashes, weight hash, code and library versions."""

    def __post_init__(self) -> None:
        for output, tolerance in self.tolerances.items():
            for name, value in tolerance.to_dict().items():
                widest = getattr(WIDEST_TOLERANCE, name)
                if value > widest:
                    raise ArtifactError(
                        f"manifest, tolerances.{output}.{name}: got {value:g}, expected at most {widest:g}: within a "
                        "wider tolerance nothing is proven"
                    )

    @classmethod
    def of(
        cls,
        model_bytes: bytes,
        *,
        name: str,
        version: int,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        goldens: Iterable[Golden],
        created: str = "",
        **said: Any,  # noqa: ANN401 - the fields of this class, of many types
    ) -> Manifest:
        """The manifest of a model and its goldens, with digest and size taken from the bytes.

        ``said`` holds the other fields; ``created`` defaults to the current time.
        """
        return cls(
            name=name,
            version=version,
            created=created or datetime.now(UTC).isoformat(timespec="seconds"),
            model_sha256=hashlib.sha256(model_bytes).hexdigest(),
            model_bytes=len(model_bytes),
            inputs=inputs,
            outputs=outputs,
            goldens=tuple(golden.name for golden in goldens),
            **said,
        )

    @property
    def test_accuracy(self) -> float | None:
        """Share of the test set that is classified correctly, 0 to 1; None if it was not measured."""
        test = self.metrics.get("test")
        accuracy = test.get("accuracy") if isinstance(test, dict) else None
        return float(accuracy) if isinstance(accuracy, int | float) else None

    def to_dict(self) -> dict[str, Any]:
        """The manifest as values for JSON."""
        return {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "version": self.version,
            "created": self.created,
            "model": {"file": MODEL_FILE, "sha256": self.model_sha256, "bytes": self.model_bytes},
            "inputs": [spec.to_dict() for spec in self.inputs],
            "outputs": [spec.to_dict() for spec in self.outputs],
            "labels": {output: list(labels) for output, labels in self.labels.items()},
            "tolerances": {output: tolerance.to_dict() for output, tolerance in self.tolerances.items()},
            "tolerance_rationale": self.tolerance_rationale,
            "goldens": list(self.goldens),
            "metrics": dict(self.metrics),
            "parity": dict(self.parity),
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Manifest:
        """The inverse of `to_dict`; raises ArtifactError naming the field, the actual and the expected value."""
        # Checked first: the other fields of an unknown format mean nothing to this program.
        if _get(data, "format_version", int) != FORMAT_VERSION:
            raise ArtifactError(
                f"manifest, format_version: got {data['format_version']!r}, this program reads {FORMAT_VERSION}"
            )
        model = _get(data, "model", dict)
        if _get(model, "file", str, within="model") != MODEL_FILE:
            raise ArtifactError(f"manifest, model.file: got {model['file']!r}, expected {MODEL_FILE!r}")
        return cls(
            name=_get(data, "name", str),
            version=_get(data, "version", int),
            created=_get(data, "created", str),
            model_sha256=_get(model, "sha256", str, within="model"),
            model_bytes=_get(model, "bytes", int, within="model"),
            inputs=_specs(data, "inputs"),
            outputs=_specs(data, "outputs"),
            tolerances={output: _tolerance(data, output) for output in _get(data, "tolerances", dict)},
            tolerance_rationale=_get(data, "tolerance_rationale", str),
            goldens=_texts(data, "goldens", is_golden_name, "test_data_set_N with digits for N"),
            labels={output: _labels(data, output) for output in _get(data, "labels", dict)},
            metrics=_get(data, "metrics", dict),
            parity=_get(data, "parity", dict),
            provenance=_get(data, "provenance", dict),
        )

    def to_json(self) -> str:
        """The text of ``manifest.json``."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass(frozen=True)
class Artifact:
    """One version of a model, read once and checked against its own manifest."""

    directory: Path
    model_bytes: bytes
    manifest: Manifest | None
    """None for a plain ``model.onnx``: served, but unproven."""
    goldens: tuple[Golden, ...]

    @property
    def is_provable(self) -> bool:
        """Whether there is a manifest with goldens to replay."""
        return self.manifest is not None and bool(self.goldens)

    @classmethod
    def load(cls, directory: Path) -> Artifact:
        """Read a version directory.

        Raises:
            ArtifactError: no model file, a damaged manifest, a sha256 that does not match, or goldens that are missing,
                damaged, or do not record every input and output.
        """
        model_bytes = _read(directory / MODEL_FILE)
        manifest_path = directory / MANIFEST_FILE
        # A dangling symlink means that the manifest was lost, not that the model never had one.
        if not manifest_path.exists() and not manifest_path.is_symlink():
            return cls(directory, model_bytes, None, ())
        manifest = read_manifest(directory)
        _check_digest(model_bytes, manifest)
        goldens = read_goldens(directory)
        missing = sorted(set(manifest.goldens) - {golden.name for golden in goldens})
        if missing:
            raise ArtifactError(f"goldens named in the manifest are missing: {', '.join(missing)}")
        for golden in goldens:
            _check_complete(golden, manifest)
        return cls(directory, model_bytes, manifest, goldens)

    def check_interface(self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        """Raise ArtifactError unless the loaded model has the inputs and outputs that the manifest promises."""
        if self.manifest is None:
            return
        for role, promised, got in (
            ("inputs", self.manifest.inputs, inputs),
            ("outputs", self.manifest.outputs, outputs),
        ):
            if promised != got:
                raise ArtifactError(
                    f"{role}: the manifest promises {_listing(promised)}, the model has {_listing(got)}"
                )

    def replay(self, infer: Infer) -> ReplayReport:
        """Replay the goldens through ``infer`` within the manifest's tolerances, as `models.artifact.goldens.replay`
        does.
        """
        tolerances = self.manifest.tolerances if self.manifest is not None else {}
        return replay(self.goldens, tolerances, infer)


def read_manifest(directory: Path) -> Manifest:
    """Read and check ``directory/manifest.json`` alone; raises ArtifactError."""
    text = _read(directory / MANIFEST_FILE)
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # bytes that are no text raise a ValueError too
        raise ArtifactError(f"{MANIFEST_FILE} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ArtifactError(f"{MANIFEST_FILE}: expected an object, got {type(data).__name__}")
    return Manifest.from_dict(data)


def check_model_file(directory: Path, manifest: Manifest | None = None) -> None:
    """Raise ArtifactError unless ``model.onnx`` is a regular file that passes a quick check against the manifest.

    The check compares the size, and the sha256 of a file of at most `GLANCE_BYTES`. `Artifact.load` hashes any file.
    """
    path = directory / MODEL_FILE
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactError(f"{MODEL_FILE} is {'a directory' if stat.S_ISDIR(status.st_mode) else 'no file'}")
        if manifest is None:
            return
        if status.st_size != manifest.model_bytes:
            raise ArtifactError(
                f"{MODEL_FILE} has {status.st_size:,} bytes, the manifest says {manifest.model_bytes:,}"
            )
        if status.st_size <= GLANCE_BYTES:
            _check_digest(path.read_bytes(), manifest)
    except FileNotFoundError as error:
        raise ArtifactError(f"{MODEL_FILE} is missing") from error
    except OSError as error:
        raise ArtifactError(f"{MODEL_FILE} cannot be read: {error.strerror}") from error


def _check_digest(model_bytes: bytes, manifest: Manifest) -> None:
    digest = hashlib.sha256(model_bytes).hexdigest()
    if digest != manifest.model_sha256:
        raise ArtifactError(
            f"{MODEL_FILE} is not what was proven: sha256 is {digest}, the manifest says {manifest.model_sha256}"
        )


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, path.name)
    except OSError as error:
        raise ArtifactError(f"{path.name} cannot be read: {error.strerror}") from error


def _listing(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(str(spec) for spec in specs)


def _refuse_constant(constant: str) -> object:
    raise ValueError(f"it contains {constant}, which JSON does not have")


def _check_complete(golden: Golden, manifest: Manifest) -> None:
    for role, arrays, specs in (
        ("inputs", golden.inputs, manifest.inputs),
        ("outputs", golden.outputs, manifest.outputs),
    ):
        promised = {spec.name for spec in specs}
        if set(arrays) != promised:
            raise ArtifactError(
                f"{golden.name} records the {role} {_names(arrays)}, the manifest promises {_names(promised)}"
            )


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _specs(data: Mapping[str, Any], key: str) -> tuple[TensorSpec, ...]:
    specs = _get(data, key, list)
    try:
        return tuple(TensorSpec.from_dict(spec) for spec in specs)
    except ArtifactError as error:
        raise ArtifactError(f"manifest, {key}: {error}") from error


def _tolerance(data: Mapping[str, Any], output: str) -> Tolerance:
    where = f"tolerances.{output}"
    fields = _get(data["tolerances"], output, dict, within="tolerances")
    absolute, relative = (_get(fields, key, float, within=where) for key in ("absolute", "relative"))
    try:
        return Tolerance(absolute, relative)
    except ArtifactError as error:
        raise ArtifactError(f"manifest, {where}: {error}") from error


def _labels(data: Mapping[str, Any], output: str) -> tuple[str, ...]:
    return _texts(data["labels"], output, lambda _: True, "a string", within="labels")


def _texts(
    data: Mapping[str, Any], key: str, fits: Callable[[str], bool], expected: str, *, within: str = ""
) -> tuple[str, ...]:
    values = _get(data, key, list, within=within)
    for value in values:
        if not isinstance(value, str) or not fits(value):
            raise ArtifactError(f"manifest, {_path(within, key)}: got {value!r}, expected {expected}")
    return tuple(values)


def _get(data: Mapping[str, Any], key: str, kind: type[T], *, within: str = "") -> T:
    value = data.get(key)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = _as_float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        got = repr(value) if key in data else "nothing"
        raise ArtifactError(f"manifest, {_path(within, key)}: got {got}, expected {kind.__name__}")
    return value


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")  # `Tolerance` rejects it


def _path(within: str, key: str) -> str:
    return f"{within}.{key}" if within else key
