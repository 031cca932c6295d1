"""The proof that an exported model is the trained network.

It compares four independent computations (opinions) of every test example: onnxruntime running the file, PyTorch
running the network, NumPy summing the lecture's equations in float64, and, for a convolutional net, its fully connected
twin. The checks have names and an order: the file, its names, axes, shapes, dtypes and weights, then values at several
batch sizes, argmax, and the bits of onnxruntime's answers from batch to batch.

The tolerance is stated here, before anything is measured, and a report that fails says where. Nothing in this module
raises because a model is wrong: the report says so, and the caller decides.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import onnx
import torch
from torch import nn

from models.artifact.batch_identity import CannotRun, bit_identity, run_batched
from models.artifact.golden_proof import golden_check, manifest_check, published_network
from models.artifact.goldens import Golden, Tolerance
from models.artifact.onnx_session import Model, open_model
from models.artifact.parity_report import Check, Comparison, ParityReport, compare, unanswered, value_check
from models.errors import ArtifactError
from models.export.export import BATCH_AXIS, INPUT, OUTPUTS
from models.export.weights import weights_of
from models.networks import reference
from models.networks.architectures import ARCHITECTURES
from models.networks.modules import CLASSES, LENGTH, ConvNet, build, dense_twin, state_arrays, weights_sha256
from models.training.threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from models.artifact.artifact import Artifact
    from models.data.dataset import Examples
    from models.networks.architectures import Architecture

BATCH_SIZES: Final = (1, 2, 7, 64, 1000)
"""Every example is run in batches of each of these sizes."""

TOLERANCES: Final[Mapping[str, Tolerance]] = MappingProxyType(
    {"probabilities": Tolerance(absolute=2e-5), "logits": Tolerance(absolute=1e-4, relative=1e-6)}
)
"""Allowed difference between onnxruntime and each other opinion. Argmax must always be identical."""

TOLERANCE_RATIONALE: Final = (
    "The same for every model, fixed before it is measured: float32 rounds at 1.2e-7 of a value; sums over three "
    "hidden layers in another order differ by a few hundred such roundings, so logits of size 1 to 100 may differ by "
    "1e-4 and larger ones by 1e-6 of their size more; the softmax turns that into at most 2e-5. Argmax must be "
    "identical on every example."
)

_Sides: TypeAlias = "tuple[tuple[Any, ...], tuple[Any, ...]]"
"""A property of each input, and of each output."""

PYTORCH: Final = "PyTorch"
REFERENCE: Final = "NumPy reference"
TWIN: Final = "dense twin"


@dataclasses.dataclass(frozen=True)
class _Opinion:
    """An independent computation of the answers to all examples, by output name, at a batch size."""

    name: str
    at_batch: Callable[[int], Mapping[str, NDArray[Any]]]


def prove(
    network: nn.Module,
    architecture: Architecture,
    model_bytes: bytes,
    examples: Examples,
    *,
    goldens: Sequence[Golden] = (),
    expected_weights_sha256: str | None = None,
) -> ParityReport:
    """Compare the file with the network it was exported from; every check is made, even after one has failed.

    ``network`` is the trained one, of ``architecture``, float32, in eval mode. ``goldens`` are replayed too if there
    are any, and ``expected_weights_sha256`` is the hash that the file's weights must have, None for any. Batch sizes
    above ``len(examples)`` are left out; the report says which were used. Takes 0.3 to 1 s for 1,000 examples.
    """
    sizes = tuple(size for size in BATCH_SIZES if size <= len(examples))
    file_check, model = _file(model_bytes)
    checks = [
        file_check,
        _names(model),
        _axes(model),
        _shapes(model),
        _dtypes(model),
        _weights(model_bytes, network, expected_weights_sha256),
    ]
    x_BL = np.ascontiguousarray(examples.x_BL)
    with one_thread():
        comparisons = _compare_all(model, _opinions(network, architecture, x_BL), x_BL, sizes)
    checks += [value_check(f"values: {opinion}", rows) for opinion, rows in comparisons.items()]
    checks.append(_argmax([row for rows in comparisons.values() for row in rows]))
    checks.append(bit_identity(model, {INPUT: x_BL}, sizes) if model else _not_run("bit identity"))
    if goldens:
        checks.append(golden_check(model, goldens, TOLERANCES) if model else _not_run("goldens"))
    return ParityReport(
        model_sha256=hashlib.sha256(model_bytes).hexdigest(),
        examples=len(examples),
        batch_sizes=sizes,
        tolerances=TOLERANCES,
        checks=tuple(checks),
    )


def prove_published(artifact: Artifact, examples: Examples) -> ParityReport:
    """Prove a published version again, from its own files only.

    The PyTorch network is rebuilt from the weights inside ``model.onnx``; they must have the hash that the manifest's
    provenance recorded when they were trained. ``examples`` are the test set, and the recorded accuracy is measured
    again. Raises ArtifactError if the version was not published by this project's pipeline (then only its goldens can
    be replayed, see ``golden_proof``) or holds the weights of another network.
    """
    name, recorded = published_network(artifact)
    network = build(name, seed=0)
    weights = {key: torch.from_numpy(array) for key, array in weights_of(artifact.model_bytes).items()}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ArtifactError(f"the weights in the file are not those of a network {name}: {_one_line(error)}") from error
    report = prove(
        network.eval(),
        ARCHITECTURES[name],
        artifact.model_bytes,
        examples,
        goldens=artifact.goldens,
        expected_weights_sha256=recorded,
    )
    checks = (manifest_check(artifact), *report.checks, _accuracy(artifact, examples))
    return dataclasses.replace(report, checks=checks)


# ---- the file, its interface and its weights ---------------------------------------------------------------------


def _file(model_bytes: bytes) -> tuple[Check, Model | None]:
    try:
        onnx.checker.check_model(model_bytes, full_check=True)
        model = open_model(model_bytes)
    except Exception as error:  # noqa: BLE001 - the checker raises several unrelated classes, also from its C++ part
        return Check("file", passed=False, detail=_one_line(error)), None
    detail = f"{len(model_bytes):,} bytes, valid ONNX, loads in onnxruntime"
    return Check("file", passed=True, detail=detail), model


def _names(model: Model | None) -> Check:
    return _interface("names", model, lambda model: _both(model, "name"), ((INPUT,), OUTPUTS))


def _axes(model: Model | None) -> Check:
    def first_axes(model: Model) -> _Sides:
        return tuple(spec.shape[:1] for spec in model.inputs), tuple(spec.shape[:1] for spec in model.outputs)

    return _interface("axes", model, first_axes, (((BATCH_AXIS,),), ((BATCH_AXIS,),) * len(OUTPUTS)))


def _shapes(model: Model | None) -> Check:
    def other_axes(model: Model) -> _Sides:
        return tuple(spec.shape[1:] for spec in model.inputs), tuple(spec.shape[1:] for spec in model.outputs)

    return _interface("shapes", model, other_axes, (((LENGTH,),), ((CLASSES,),) * len(OUTPUTS)))


def _dtypes(model: Model | None) -> Check:
    return _interface("dtypes", model, lambda model: _both(model, "datatype"), (("FP32",), ("FP32",) * len(OUTPUTS)))


def _both(model: Model, field: str) -> _Sides:
    return tuple(getattr(spec, field) for spec in model.inputs), tuple(getattr(spec, field) for spec in model.outputs)


def _interface(name: str, model: Model | None, look: Callable[[Model], _Sides], expected: _Sides) -> Check:
    if model is None:
        return _not_run(name)
    got = look(model)
    if got == expected:
        return Check(name, passed=True, detail=_arrow(got))
    return Check(name, passed=False, detail=f"expected {_arrow(expected)}, got {_arrow(got)}")


def _arrow(pair: _Sides) -> str:
    """Format inputs and outputs as ``x -> probabilities, logits``."""
    sides = (
        ", ".join(item if isinstance(item, str) else str(list(item)).replace("'", "") for item in side) for side in pair
    )
    return " -> ".join(sides)


def _weights(model_bytes: bytes, network: nn.Module, expected_sha256: str | None) -> Check:
    """Check that the file holds the network's parameters by name and bit for bit, with the hash that was recorded."""
    try:
        weights = weights_of(model_bytes)
    except ArtifactError as error:
        return Check("weights", passed=False, detail=str(error))
    expected = state_arrays(network)
    missing, extra = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    if missing or extra:
        return Check(
            "weights", passed=False, detail=f"missing: {missing or 'none'}, not in the network: {extra or 'none'}"
        )
    for name, array in expected.items():
        got = weights[name]
        if got.dtype != array.dtype or got.shape != array.shape:
            detail = f"{name}: expected {array.dtype}{list(array.shape)}, got {got.dtype}{list(got.shape)}"
            return Check("weights", passed=False, detail=detail)
        if got.tobytes() != array.tobytes():
            amount = float(np.abs(got.astype(np.float64) - array).max())
            return Check("weights", passed=False, detail=f"{name} differs from the network's by up to {amount:.3g}")
    digest = weights_sha256(weights)
    if expected_sha256 is not None and digest != expected_sha256:
        return Check("weights", passed=False, detail=f"sha256 is {digest}, recorded was {expected_sha256}")
    count = sum(array.size for array in weights.values())
    return Check("weights", passed=True, detail=f"{count:,} parameters, sha256 {digest[:16]}...")


# ---- values ------------------------------------------------------------------------------------------------------


def _opinions(network: nn.Module, architecture: Architecture, x_BL: NDArray[np.float32]) -> list[_Opinion]:
    x_BL_torch = torch.tensor(x_BL)  # a copy: the dataset's arrays are read-only
    opinions = [_Opinion(PYTORCH, lambda batch: torch_answers(network, x_BL_torch, batch))]
    weights = state_arrays(network)
    logits_BK = reference.logits(architecture, weights, x_BL)
    by_equation = {"probabilities": reference.probabilities(architecture, weights, x_BL), "logits": logits_BK}
    opinions.append(_Opinion(REFERENCE, lambda _: by_equation))
    if isinstance(network, ConvNet):
        # In float64, so that the difference is onnxruntime's own and not the sum of two roundings.
        twin = dense_twin(copy.deepcopy(network).double())
        by_twin = torch_answers(twin, x_BL_torch.double(), max(len(x_BL), 1))
        opinions.append(_Opinion(TWIN, lambda _: by_twin))
    return opinions


def torch_answers(network: nn.Module, x_BL: torch.Tensor, batch: int) -> dict[str, NDArray[Any]]:
    """PyTorch's answers to all examples in batches of ``batch``, by output name, in the network's own dtype."""
    with torch.inference_mode():
        logits_BK = torch.cat([network(part_BL) for part_BL in torch.split(x_BL, batch)])
        probabilities_BK = torch.softmax(logits_BK, dim=-1)
    return {"probabilities": probabilities_BK.numpy(), "logits": logits_BK.numpy()}


def _compare_all(
    model: Model | None, opinions: Sequence[_Opinion], x_BL: NDArray[np.float32], sizes: Sequence[int]
) -> dict[str, list[Comparison]]:
    """Compare onnxruntime with every opinion, for every output and batch size."""
    comparisons: dict[str, list[Comparison]] = {opinion.name: [] for opinion in opinions}
    for batch in sizes:
        answers, why = _onnxruntime_answers(model, x_BL, batch)
        for opinion in opinions:
            expected = opinion.at_batch(batch)
            for output, tolerance in TOLERANCES.items():
                about: dict[str, Any] = {"against": opinion.name, "output": output, "batch": batch}
                answer = answers.get(output)
                comparisons[opinion.name].append(
                    compare(answer, expected[output], tolerance, **about)
                    if answer is not None
                    else unanswered(why or f"the model has no output {output!r}", **about)
                )
    return comparisons


def _onnxruntime_answers(
    model: Model | None, x_BL: NDArray[np.float32], batch: int
) -> tuple[dict[str, NDArray[Any]], str]:
    if model is None:
        return {}, "the file does not load"
    try:
        return run_batched(model, {INPUT: x_BL}, batch), ""
    except CannotRun as error:
        return {}, f"cannot run: {error}"


def _argmax(comparisons: Sequence[Comparison]) -> Check:
    """Check that every opinion gives every example the same class, by logits and by probabilities."""
    answered = [comparison for comparison in comparisons if comparison.example is not None]
    if not answered or len(answered) < len(comparisons):
        return Check("argmax", passed=False, detail="not every comparison could be made")
    different = [comparison for comparison in answered if comparison.argmax_mismatches]
    if different:
        worst = max(different, key=lambda comparison: comparison.argmax_mismatches)
        detail = (
            f"{worst.argmax_mismatches} examples get another class than from {worst.against} "
            f"by {worst.output} at batch {worst.batch}"
        )
        return Check("argmax", passed=False, detail=detail)
    return Check("argmax", passed=True, detail=f"identical in all {len(answered)} comparisons")


def _accuracy(artifact: Artifact, examples: Examples) -> Check:
    """Check that the file classifies as many test examples correctly as the manifest says.

    An example whose two best logits are too close for the tolerance may be classified differently on another machine,
    so the recorded accuracy may count it as right or wrong.
    """
    test = artifact.manifest.metrics.get("test") if artifact.manifest is not None else None
    if test is None:
        return Check("accuracy", passed=True, detail="does not apply: the manifest records none")
    recorded, count = (test.get(key) if isinstance(test, dict) else None for key in ("accuracy", "count"))
    if not isinstance(recorded, int | float) or count != len(examples):
        detail = f"recorded are {recorded!r} of {count!r} examples, measured was on {len(examples)}"
        return Check("accuracy", passed=False, detail=detail)
    try:
        answers = run_batched(open_model(artifact.model_bytes), {INPUT: np.ascontiguousarray(examples.x_BL)}, 1000)
        logits_BK = answers["logits"].astype(np.float64)
        rows = np.arange(len(examples))
        right_B = logits_BK[rows, examples.y_B]
    except (ArtifactError, CannotRun, KeyError, IndexError) as error:
        return Check("accuracy", passed=False, detail=f"not measured: {_one_line(error)}")
    measured = float((logits_BK.argmax(axis=1) == examples.y_B).mean())
    tolerance = TOLERANCES["logits"]
    unsure_B = 2 * (tolerance.absolute + tolerance.relative * np.abs(logits_BK).max(axis=1))
    logits_BK[rows, examples.y_B] = -np.inf
    ahead_B = right_B - logits_BK.max(axis=1)
    fewest, most = float((ahead_B > unsure_B).mean()), float((ahead_B >= -unsure_B).mean())
    return Check(
        "accuracy",
        passed=fewest <= recorded <= most,
        detail=f"measured {measured:.2%} of {len(examples):,} test examples, recorded {recorded:.2%}",
    )


def _not_run(name: str) -> Check:
    return Check(name, passed=False, detail="not run: the file does not load")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
