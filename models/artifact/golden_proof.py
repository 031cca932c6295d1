"""The proof of any ONNX file against goldens: recorded inputs and their expected outputs.

It needs only the model's file, and no torch. It checks that the file loads, has the inputs and outputs of the goldens
by name, dtype and shape, gives the recorded answers within tolerance, and gives every row the same bits alone and in a
batch.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Final

from models.artifact.batch_identity import NAME as BIT_IDENTITY
from models.artifact.batch_identity import CannotRun, batchable, bit_identity, run
from models.artifact.datatypes import DATATYPES
from models.artifact.goldens import Difference, Golden, Tolerance, replay
from models.artifact.onnx_session import open_model
from models.artifact.parity_report import Check, Comparison, ParityReport, value_check
from models.errors import ArtifactError
from models.networks.architectures import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np

    from models.artifact.artifact import Artifact
    from models.artifact.onnx_session import Model
    from models.artifact.tensor_spec import TensorSpec

EXACT: Final = Tolerance()
"""The tolerance that allows no difference."""


def prove_against_goldens(
    model_bytes: bytes,
    goldens: Sequence[Golden],
    tolerances: Mapping[str, Tolerance],
    *,
    default: Tolerance = EXACT,
) -> ParityReport:
    """Prove any ONNX model that loads; every check is made, even after one has failed.

    ``tolerances`` maps output names to allowed differences; ``default`` is for floating-point outputs without an entry.
    Other outputs without an entry must be equal. Raises ArtifactError if onnxruntime cannot load the file.
    """
    model = open_model(model_bytes)
    allowed = {
        spec.name: tolerances.get(spec.name, default if DATATYPES[spec.datatype].is_float else EXACT)
        for spec in model.outputs
    }
    checks = (
        Check("file", passed=True, detail=f"{len(model_bytes):,} bytes, loads in onnxruntime"),
        _names(model, goldens),
        _dtypes(model, goldens),
        _shapes(model, goldens),
        golden_check(model, goldens, allowed, name="values"),
        _bit_identity(model, goldens),
    )
    return ParityReport(
        model_sha256=hashlib.sha256(model_bytes).hexdigest(),
        examples=sum(golden.batch for golden in goldens),
        batch_sizes=tuple(sorted({golden.batch for golden in goldens})),
        tolerances=allowed,
        checks=checks,
    )


def prove_artifact(artifact: Artifact) -> ParityReport:
    """Replay a published version's goldens within its manifest's tolerances, and check the manifest's interface.

    Raises ArtifactError if the file cannot be loaded.
    """
    tolerances = artifact.manifest.tolerances if artifact.manifest is not None else {}
    report = prove_against_goldens(artifact.model_bytes, artifact.goldens, tolerances)
    return dataclasses.replace(report, checks=(manifest_check(artifact), *report.checks))


def manifest_check(artifact: Artifact) -> Check:
    """Check that the model's interface is the one in the manifest. `Artifact.load` has compared the sha256."""
    if artifact.manifest is None:
        return Check("manifest", passed=False, detail="there is none")
    model = open_model(artifact.model_bytes)
    try:
        artifact.check_interface(model.inputs, model.outputs)
    except ArtifactError as error:
        return Check("manifest", passed=False, detail=str(error))
    return Check("manifest", passed=True, detail="sha256 and interface are as promised")


def published_network(artifact: Artifact) -> tuple[str, str]:
    """Return (network name, weights sha256) from an artifact's provenance; ArtifactError if missing or unknown."""
    provenance = artifact.manifest.provenance if artifact.manifest is not None else {}
    network = provenance.get("network")
    name = network.get("name") if isinstance(network, dict) else None
    recorded = provenance.get("weights_sha256")
    if not isinstance(name, str) or not isinstance(recorded, str):
        raise ArtifactError("the manifest names no network and weight hash: it was not published by this pipeline")
    if name not in ARCHITECTURES:
        raise ArtifactError(f"the manifest names the network {name!r}; known are {', '.join(ARCHITECTURES)}")
    return name, recorded


def golden_check(
    model: Model, goldens: Sequence[Golden], tolerances: Mapping[str, Tolerance], *, name: str = "goldens"
) -> Check:
    """Replay ``goldens`` with onnxruntime, as a check; fails, and does not raise, if the model refuses their inputs."""
    try:
        report = replay(goldens, tolerances, lambda feeds: run(model, feeds))
    except CannotRun as error:
        return Check(name, passed=False, detail=f"cannot run: {error}")
    return value_check(name, [_comparison(difference) for difference in report.differences])


def _comparison(difference: Difference) -> Comparison:
    example, position = None, None
    if difference.worst_index is not None:
        example = difference.worst_index[0] if difference.worst_index else 0
        position = difference.worst_index[1:]
    finite = difference.max_absolute < float("inf")
    return Comparison(
        against=difference.golden,
        output=difference.output,
        batch=difference.batch,
        max_absolute=difference.max_absolute if finite else None,
        example=example,
        position=position,
        argmax_mismatches=0,
        passed=difference.passed,
        detail=difference.detail or ("" if finite else f"not finite where {difference.golden} is, or the other way"),
    )


# ---- the interface of the file and of the goldens ----------------------------------------------------------------


def _pairs(model: Model, golden: Golden) -> list[tuple[str, TensorSpec, np.ndarray]]:
    """Return (description, spec, recorded array) for every tensor that the model and the golden both have."""
    return [
        (f"{golden.name}, {role} {spec.name!r}", spec, arrays[spec.name])
        for role, specs, arrays in (
            ("input", model.inputs, golden.inputs),
            ("output", model.outputs, golden.outputs),
        )
        for spec in specs
        if spec.name in arrays
    ]


def _names(model: Model, goldens: Sequence[Golden]) -> Check:
    """Check that each golden has exactly the model's inputs, and that together they record exactly its outputs.

    One golden may leave outputs out; an output that no golden records was not compared, and so is not proven.
    """
    inputs, outputs = {spec.name for spec in model.inputs}, {spec.name for spec in model.outputs}
    faults = []
    for golden in goldens:
        if set(golden.inputs) != inputs:
            faults.append(f"{golden.name} has the inputs {_listed(golden.inputs)}, the model {_listed(inputs)}")
        if not set(golden.outputs) <= outputs:
            faults.append(f"{golden.name} has the outputs {_listed(golden.outputs)}, the model {_listed(outputs)}")
    recorded = {name for golden in goldens for name in golden.outputs}
    faults += [
        f"no golden records output {name!r}, so that nothing was proven of it" for name in sorted(outputs - recorded)
    ]
    return _verdict("names", goldens, faults, f"{_listed(inputs)} -> {_listed(outputs)}")


def _dtypes(model: Model, goldens: Sequence[Golden]) -> Check:
    faults = [
        f"{where} is {array.dtype}, the model has {spec.datatype}"
        for golden in goldens
        for where, spec, array in _pairs(model, golden)
        if array.dtype != DATATYPES[spec.datatype].numpy
    ]
    return _verdict("dtypes", goldens, faults, ", ".join(str(spec.datatype) for spec in model.inputs + model.outputs))


def _shapes(model: Model, goldens: Sequence[Golden]) -> Check:
    """Check that fixed axes have their length, and that a named axis has one length throughout a golden."""
    faults = []
    for golden in goldens:
        lengths: dict[str, int] = {}
        for where, spec, array in _pairs(model, golden):
            if not spec.shape and array.ndim:
                continue  # onnxruntime reports an unknown rank as an empty shape
            fits = len(spec.shape) == array.ndim and all(
                axis == length if isinstance(axis, int) else not axis or lengths.setdefault(axis, length) == length
                for axis, length in zip(spec.shape, array.shape, strict=True)
            )
            if not fits:
                faults.append(f"{where} has shape {list(array.shape)}, the model {spec}")
    return _verdict("shapes", goldens, faults, ", ".join(str(spec) for spec in model.inputs + model.outputs))


def _bit_identity(model: Model, goldens: Sequence[Golden]) -> Check:
    """Check bit identity on the rows of the largest golden, if rows can be put into one batch."""
    reason = batchable(model)
    if reason is not None:
        return Check(BIT_IDENTITY, passed=True, detail=f"does not apply: {reason}")
    largest = max(goldens, key=lambda golden: golden.batch, default=None)
    if largest is None:
        return Check(BIT_IDENTITY, passed=False, detail="there are no goldens")
    sizes = sorted({1, 2, 7, largest.batch})
    return bit_identity(model, largest.inputs, sizes)


def _verdict(name: str, goldens: Sequence[Golden], faults: list[str], fine: str) -> Check:
    if not goldens:
        return Check(name, passed=False, detail="there are no goldens")
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        return Check(name, passed=False, detail=f"{faults[0]}{more}")
    return Check(name, passed=True, detail=fine)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
