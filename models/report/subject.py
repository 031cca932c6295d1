"""The subjects of a report: a published network as its own files describe it, and the one it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.artifact.artifact import Artifact
from models.data.dataset import CANONICAL_SHA256, SAMPLES, canonical
from models.errors import ArtifactError
from models.export.weights import weights_of
from models.networks import reference
from models.networks.architectures import ARCHITECTURES
from models.networks.convolution import ConvLayer, linear, relu, softmax, toeplitz
from models.training.history import History

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from models.artifact.artifact import Manifest
    from models.data.dataset import Examples
    from models.networks.architectures import Architecture
    from models.networks.convolution import Array
    from models.networks.reference import Weights
    from models.report.chart import Role

LAYER: Final = ConvLayer(kernel=3, stride=2)
"""The geometry of all convolution layers: lengths 40, 19, 9, 4."""


@dataclass(frozen=True)
class Subject:
    """A version of a network of this project; answers are computed in NumPy from the weights inside its ONNX file."""

    manifest: Manifest
    architecture: Architecture
    weights: Weights
    history: History | None
    """None for a version without a history."""

    @classmethod
    def of(cls, manifest: Manifest, model_bytes: bytes, history: History | None) -> Subject:
        """Make a subject from its parts. ArtifactError if they are of no network of this project."""
        name = network_name(manifest)
        if name is None or name not in ARCHITECTURES:
            raise ArtifactError(
                f"{manifest.name} is no network of this project, and only those can be reported on: its manifest "
                f"names {'none' if name is None else repr(name)}, known are {', '.join(ARCHITECTURES)}"
            )
        subject = cls(manifest, ARCHITECTURES[name], weights_of(model_bytes), history)
        try:
            reference.logits(subject.architecture, subject.weights, np.zeros((1, SAMPLES)))
        except (ValueError, IndexError) as error:
            raise ArtifactError(f"{manifest.name} does not hold the weights of {name}: {error}") from error
        return subject

    @classmethod
    def read(cls, directory: Path) -> Subject:
        """Read a published version. ArtifactError if its files are damaged, or of no network of this project."""
        artifact = Artifact.load(directory)
        if artifact.manifest is None:
            raise ArtifactError(f"{directory} has no manifest: nothing is known of it to report")
        return cls.of(artifact.manifest, artifact.model_bytes, History.read(directory))

    @property
    def role(self) -> Role:
        """The kind of network: ``conv`` or ``fc``."""
        return "conv" if self.architecture.kind == "conv" else "fc"

    @property
    def kind(self) -> str:
        """The kind of network in words."""
        return {"conv": "convolutional", "fc": "fully connected"}[self.role]

    @property
    def origin(self) -> Mapping[str, Any]:
        """The provenance of the manifest."""
        return self.manifest.provenance

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Fields of the recipe; empty if the manifest records none."""
        return recipe_of(self.manifest)

    @cached_property
    def _layers(self) -> tuple[tuple[Array, Array], ...]:
        """(matrix, bias) of every layer; convolutions are matrices too, which is fast for many signals at once."""
        names = list(dict.fromkeys(key.partition(".")[0] for key in self.weights))
        layers, length = [], SAMPLES
        for name in names:
            weight, bias = (self.weights[f"{name}.{part}"].astype(np.float32) for part in ("weight", "bias"))
            if weight.ndim == 3:
                weight, bias = toeplitz(weight, bias, length, stride=LAYER.stride)
                length = LAYER.output_length(length)
            layers.append((weight, bias))
        return tuple(layers)

    def hidden(self, x_BL: NDArray[Any]) -> tuple[Array, ...]:
        """Map signals (B, 40) to the outputs of the hidden layers: float32, (B, C, L) of a convolution, else (B, I)."""
        answers, h_BI = [], x_BL.astype(np.float32)
        channels = self.architecture.channels
        for matrix, bias in self._layers[:-1]:
            h_BI = linear(h_BI, matrix, bias, activation=relu)
            answers.append(h_BI if channels is None else h_BI.reshape(len(h_BI), channels, -1))
        return tuple(answers)

    def probabilities(self, x_BL: NDArray[Any]) -> Array:
        """Map signals (B, 40) to class probabilities (B, 10), float32."""
        return softmax(linear(self.hidden(x_BL)[-1].reshape(len(x_BL), -1), *self._layers[-1]))


@dataclass(frozen=True)
class Pair:
    """A convolutional net and its fully connected twin, one of them the run that is reported on."""

    own: Subject
    other: Subject | None
    """None if there is no other yet; then ``why_alone`` says why."""
    why_alone: str = ""
    test: Examples | None = None
    """The examples that are shown; the canonical test set unless given."""
    why_beside: str = ""
    """Why ``other`` was chosen, as the end of a sentence that names it."""

    @property
    def conv(self) -> Subject | None:
        """The convolutional one of the two."""
        return next((subject for subject in self.subjects if subject.role == "conv"), None)

    @property
    def fc(self) -> Subject | None:
        """The fully connected one of the two."""
        return next((subject for subject in self.subjects if subject.role == "fc"), None)

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """One or both networks, the convolutional one first."""
        both = [self.own] if self.other is None else [self.own, self.other]
        return tuple(sorted(both, key=lambda subject: subject.role != "conv"))

    @cached_property
    def examples(self) -> Examples:
        """The examples that are shown."""
        return canonical().test if self.test is None else self.test

    @cached_property
    def answers(self) -> Mapping[str, Array]:
        """The probabilities (B, 10) of all examples, by role."""
        return {subject.role: subject.probabilities(self.examples.x_BL) for subject in self.subjects}

    @property
    def have_foreign_data(self) -> bool:
        """Whether the networks and the shown examples do not all belong to the same data."""
        hashes = [subject.origin.get("data_sha256") for subject in self.subjects]
        if self.test is None:
            hashes.append(dict(CANONICAL_SHA256))
        return any(other != hashes[0] for other in hashes)


def network_name(manifest: Manifest) -> str | None:
    """The architecture that a manifest names; None if it names none."""
    network = manifest.provenance.get("network")
    name = network.get("name") if isinstance(network, dict) else None
    return name if isinstance(name, str) else None


def recipe_of(manifest: Manifest) -> Mapping[str, Any]:
    """Fields of the recipe; empty if the manifest records none."""
    recipe = manifest.provenance.get("recipe")
    return recipe if isinstance(recipe, dict) else {}
