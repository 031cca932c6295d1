"""The pipeline from a recipe to a published model: data, training, evaluation, export, proof, publication.

`run` calls the stages in order. It publishes a model only after its proof; if that fails, nothing is published and the
exception carries the report. Knows nothing of terminals, processes or gRPC.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from models import provenance
from models.artifact.artifact import HISTORY_FILE, REPORT_FILE, Manifest
from models.artifact.goldens import Golden
from models.artifact.onnx_session import open_model
from models.artifact.publication import check_model_name, publish
from models.artifact.published_run import RUN_KEY
from models.artifact.writable import why_not_writable
from models.data.dataset import CLASSES, Dataset, canonical, split
from models.errors import GateNotMet, ProofFailed, PublicationError, TrainingInterrupted
from models.export.export import INPUT, export
from models.export.lowering import DEFAULT_LOWERING
from models.gate import check_can_be_compared, decide
from models.networks.architectures import architecture
from models.proof import TOLERANCE_RATIONALE, TOLERANCES, prove, torch_answers
from models.report.counterpart import pair_of
from models.report.page import page
from models.report.subject import Subject
from models.training.checkpoint import path_in
from models.training.evaluation import Evaluation, evaluate
from models.training.events import EventSink, ignore, stage
from models.training.history import History, curve_steps
from models.training.loop import CHECKPOINT_EVERY, VALIDATION_SEED, TrainedNetwork, train
from models.training.threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import nn

    from models.artifact.parity_report import ParityReport
    from models.data.dataset import Examples
    from models.export.lowering import Lowering
    from models.gate import Gate
    from models.training.backend import EngineChoice
    from models.training.recipes import TrainingRecipe

GOLDEN_BATCHES: Final = (1, 2, 64)
"""Sizes of the recorded batches, which are consecutive examples of the test set."""
LABELS: Final = tuple(str(digit) for digit in range(CLASSES))


@dataclass(frozen=True)
class PublishedModel:
    """The published result of a run."""

    path: Path
    """The version's directory."""
    name: str
    version: int
    manifest: Manifest
    evaluation: Evaluation
    """Evaluation on the test set."""
    parity: ParityReport

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values for other programs; everything else is in the manifest."""
        return {
            "path": str(self.path),
            "name": self.name,
            "version": self.version,
            "network": self.manifest.provenance["network"],
            "metrics": dict(self.manifest.metrics),
            "parity": {
                "passed": self.parity.passed,
                "summary": self.parity.summary,
                "max_absolute": {output: self.parity.max_absolute(output) for output in self.parity.tolerances},
            },
            "model_sha256": self.manifest.model_sha256,
            "weights_sha256": self.manifest.provenance["weights_sha256"],
        }


def default_name(network: str) -> str:
    """The name a network is published under unless another is given: ``conv`` -> ``mnist1d-conv``."""
    return f"mnist1d-{network}"


@one_thread()
def run(
    recipe: TrainingRecipe,
    *,
    repository: Path,
    publish_as: str | None = None,
    lowering: Lowering = DEFAULT_LOWERING,
    engine: EngineChoice = "auto",
    data: Dataset | None = None,
    on_event: EventSink = ignore,
    checkpoint_dir: Path | None = None,
    resume: bool = False,
    checkpoint_every: int = CHECKPOINT_EVERY,
    stop: Callable[[], bool] | None = None,
    run_id: str | None = None,
    gate: Gate | None = None,
) -> PublishedModel:
    """Train ``recipe`` and publish the result as the next version of ``publish_as``.

    ``lowering`` says what convolution layers become in the file, and changes nothing else; the manifest names it if
    there are any. ``data`` is the canonical MNIST-1D set unless given. ``checkpoint_dir``, ``resume``,
    ``checkpoint_every`` and ``stop`` are those of `train`. Events of every stage go to ``on_event``. ``run_id`` is kept
    in the manifest, for `published_run.find`. ``gate`` is called just before publication for a version to compare with.

    Raises:
        PublicationError: the name or the repository cannot be used (noticed before training), or the disk refuses.
        ProofFailed: the exported file is not the trained network; carries the report, and nothing was published.
        GateNotMet: the version that ``gate`` names is better on the held-out examples or cannot be compared; nothing
            was published.
        TrainingInterrupted: ``stop`` returned True, during training or between the stages after it.
        InvalidRecipe, EngineUnavailable, CheckpointError, TrainingDiverged, DatasetError: as `train` and `canonical`
            raise them.
    """
    name = default_name(recipe.network) if publish_as is None else publish_as
    _check_target(repository, name)
    if gate is not None:
        check_can_be_compared(recipe)

    with stage("data", on_event) as detail:
        data = canonical() if data is None else data
        recipe.check_fits(len(data.train))
        held_out = {"validation": recipe.validation} if recipe.validation else {}
        detail.update(train=len(data.train) - recipe.validation, **held_out, test=len(data.test))

    with stage("train", on_event) as detail:
        trained = train(
            recipe,
            data,
            engine=engine,
            on_event=on_event,
            checkpoint_dir=checkpoint_dir,
            resume=resume,
            curve_steps=curve_steps(recipe.steps),
            checkpoint_every=checkpoint_every,
            stop=stop,
        )
        detail.update(steps=trained.steps, weights_sha256=trained.weights_sha256)

    def leave_if_stopped() -> None:
        if stop is not None and stop():
            raise TrainingInterrupted(trained.steps, None if checkpoint_dir is None else path_in(checkpoint_dir))

    with stage("evaluate", on_event) as detail:
        evaluation = evaluate(trained.network, data.test)
        metrics = _metrics(trained, data, evaluation)
        detail.update(test_accuracy=evaluation.accuracy, test_loss=evaluation.loss)

    leave_if_stopped()
    with stage("export", on_event) as detail:
        origin = _origin(trained, data, lowering)
        model_bytes = export(trained.network, provenance=_as_text(origin), lowering=lowering)
        detail.update(bytes=len(model_bytes), sha256=hashlib.sha256(model_bytes).hexdigest())

    leave_if_stopped()
    with stage("prove", on_event) as detail:
        goldens = record_goldens(trained.network, data.test)
        parity = prove(
            trained.network,
            architecture(recipe.network),
            model_bytes,
            data.test,
            goldens=goldens,
            expected_weights_sha256=trained.weights_sha256,
        )
        detail.update(passed=parity.passed, summary=parity.summary)
    if not parity.passed:
        raise ProofFailed(f"nothing was published: {parity.summary}", parity.to_dict())

    decision = None
    if gate is not None:
        with stage("gate", on_event) as detail:
            decision = decide(gate(), metrics, origin)
            detail.update(decision.to_dict())
        if not decision.is_met:
            raise GateNotMet(f"nothing was published: {decision.summary}", decision.to_dict())

    leave_if_stopped()  # the last chance: from here on there is a new version
    with stage("publish", on_event) as detail:
        about_run = {RUN_KEY: run_id, "gate": None if decision is None else decision.to_dict()}
        about_run = {key: value for key, value in about_run.items() if value is not None}
        manifest_for = _manifest(name, model_bytes, goldens, metrics, parity, origin, trained.duration_s, about_run)
        beside = _beside(repository, model_bytes, History.of(trained.history), data)
        path = publish(repository, name, model_bytes, goldens, manifest_for, beside)
        version = int(path.name)
        detail.update(name=name, version=version, path=path)

    return PublishedModel(path, name, version, manifest_for(version), evaluation, parity)


def record_goldens(network: nn.Module, examples: Examples) -> list[Golden]:
    """Record consecutive examples in batches of `GOLDEN_BATCHES`, with the answers of PyTorch, not of the file."""
    goldens = []
    start = 0
    for index, batch in enumerate(GOLDEN_BATCHES):
        x_BL = examples.x_BL[np.arange(start, start + batch) % len(examples)]
        outputs = torch_answers(network, torch.from_numpy(x_BL), batch)
        goldens.append(Golden(f"test_data_set_{index}", {INPUT: x_BL}, outputs))
        start += batch
    return goldens


def _beside(
    repository: Path, model_bytes: bytes, history: History, data: Dataset
) -> Callable[[Manifest], Mapping[str, bytes]]:
    """Return the function from a manifest to the files beside it for people: the run's history and its report."""

    def files(manifest: Manifest) -> Mapping[str, bytes]:
        pair = pair_of(Subject.of(manifest, model_bytes, history), repository, data.test)
        return {HISTORY_FILE: history.to_json().encode(), REPORT_FILE: page(pair).encode()}

    return files


# ---- the manifest ------------------------------------------------------------------------------------------------


def _metrics(trained: TrainedNetwork, data: Dataset, test: Evaluation) -> dict[str, Any]:
    """Metrics by split; each example is in one split.

    Those of the held-out examples are what training measured at the step of the final weights.
    """
    trained_on, _ = split(data.train, trained.recipe.validation, VALIDATION_SEED)
    train_set = evaluate(trained.network, trained_on)
    metrics: dict[str, Any] = {
        "test": test.to_dict(),
        "train": {"accuracy": train_set.accuracy, "loss": train_set.loss, "count": train_set.count},
    }
    for event in trained.history:
        if event.split == "validation" and event.step == trained.steps:
            held_out = trained.recipe.validation
            metrics["validation"] = {"accuracy": event.accuracy, "loss": event.loss, "count": held_out}
    return metrics


def _origin(trained: TrainedNetwork, data: Dataset, lowering: Lowering) -> dict[str, Any]:
    """Everything that decides the file's content; the same run gives the same origin, and so the same bytes."""
    spec = architecture(trained.recipe.network)
    return {
        "network": {"name": spec.name, "title": spec.title, "parameters": spec.parameters, "baseline": spec.baseline},
        "recipe": trained.recipe.to_dict(),
        "seed": trained.recipe.seed,
        "steps": trained.steps,
        "engine": trained.engine,
        "weights_sha256": trained.weights_sha256,
        "data_sha256": dict(data.sha256),
        **({"lowering": lowering} if spec.kind == "conv" else {}),
        "code": provenance.code(),
        "libraries": provenance.libraries(),
        "machine": provenance.machine(),
    }


def _as_text(origin: Mapping[str, Any]) -> dict[str, str]:
    """The origin as the strings that the file's metadata holds: strings stay, everything else becomes JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, sort_keys=True, allow_nan=False)
        for key, value in origin.items()
    }


def _manifest(
    name: str,
    model_bytes: bytes,
    goldens: list[Golden],
    metrics: Mapping[str, Any],
    parity: ParityReport,
    origin: Mapping[str, Any],
    duration_s: float,
    about_run: Mapping[str, Any],
) -> Callable[[int], Manifest]:
    """Return the function from a version number to its manifest. ``about_run`` is not in the metadata of the model."""
    model = open_model(model_bytes)
    created = datetime.now(UTC).isoformat(timespec="seconds")

    def manifest_for(version: int) -> Manifest:
        return Manifest.of(
            model_bytes,
            name=name,
            version=version,
            created=created,
            inputs=model.inputs,
            outputs=model.outputs,
            goldens=goldens,
            tolerances=TOLERANCES,
            tolerance_rationale=TOLERANCE_RATIONALE,
            labels={spec.name: LABELS for spec in model.outputs},
            metrics=metrics,
            parity=parity.to_dict(),
            provenance={**origin, "training_duration_s": round(duration_s, 3), **about_run},
        )

    return manifest_for


# ---- checks before training --------------------------------------------------------------------------------------


def _check_target(repository: Path, name: str) -> None:
    """Raise PublicationError now, not after minutes of training, if nothing can be published; leaves nothing behind."""
    check_model_name(name)
    why_not = why_not_writable(repository / name)
    if why_not is not None:
        raise PublicationError(f"{name} cannot be published to {repository}: {why_not}")
