"""Networks to report on, made without training: random weights, and examples whose digits are what the nets answer."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from models.artifact.artifact import Manifest
from models.artifact.publication import publish
from models.artifact.tensor_spec import TensorSpec
from models.data.dataset import CANONICAL_SHA256, Examples, canonical
from models.networks.architectures import ARCHITECTURES
from models.report.shifting import without_ramp
from models.report.subject import Pair, Subject
from models.training.history import Curve, History, curve_steps
from models.training.recipes import recipe
from tests.conftest import onnx_model

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "</script><script>alert('x')</script>&\"'<img src=http://example.com/x.png>"
"""What a manifest of somebody else may hold."""


def parsed(svg: str) -> ET.Element:
    """A picture that was made here."""
    return ET.fromstring(svg)  # noqa: S314 - nobody else's


def weights(network: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Random ones, in the names and shapes of the trained ones."""
    spec, random = ARCHITECTURES[network], np.random.default_rng(seed)
    if spec.kind == "conv":
        shapes = {f"conv{layer}": (spec.channels, 1 if layer == 1 else spec.channels, 3) for layer in (1, 2, 3)}
        shapes["linear"] = (10, 4 * spec.channels)
    else:
        names = [*(f"hidden{layer}" for layer in range(1, len(spec.widths) - 1)), "output"]
        shapes = {name: spec.widths[at + 1 : at - 1 if at else None : -1] for at, name in enumerate(names)}
    made = {}
    for name, shape in shapes.items():
        fan_in = int(np.prod(shape[1:]))
        made[f"{name}.weight"] = (random.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)
        made[f"{name}.bias"] = (0.1 * random.standard_normal(shape[0])).astype(np.float32)
    assert sum(array.size for array in made.values()) == spec.parameters
    return made


def model_bytes(network: str, seed: int = 0, always: int | None = None) -> bytes:
    """A file with these weights in it; what it computes is of no interest here. ``always`` is its only answer."""
    made = weights(network, seed)
    if always is not None:
        made[[name for name in made if name.endswith(".bias")][-1]][always] = 1_000
    return onnx_model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", TensorProto.FLOAT, ["batch", 40])],
        [("y", TensorProto.FLOAT, ["batch", 40])],
        [numpy_helper.from_array(array, name) for name, array in made.items()],
    )


def history(steps: int = 1_000, *, held_out: bool = False) -> History:
    """Curves as they might be, overfitting included; with those of held-out examples, where it does better."""
    at = np.array(curve_steps(steps))
    share = at / steps
    train, test = np.exp(-8 * share), 0.2 + 0.7 * np.exp(-8 * share)

    def unseen(test: np.ndarray) -> Curve:
        return Curve(tuple(at.tolist()), tuple((2 * test + share).tolist()), tuple((1 - test).tolist()))

    return History(
        {
            "train": Curve(tuple(at.tolist()), tuple((2.3 * train).tolist()), tuple((1 - 0.9 * train).tolist())),
            **({"validation": unseen(0.8 * test)} if held_out else {}),
            "test": unseen(test),
        }
    )


def manifest(
    content: bytes,
    network: str,
    *,
    version: int = 1,
    name: str = "",
    note: str = "",
    created: str = "",
    recipe_name: str = "quick",
    steps: int = 10_000,
) -> Manifest:
    spec = ARCHITECTURES[network]
    tensor = {"datatype": "FP32", "shape": ["batch", 40]}
    return Manifest.of(
        content,
        name=name or f"mnist1d-{network}",
        version=version,
        created=created or "2026-01-01T00:00:00+00:00",
        inputs=(TensorSpec.from_dict({"name": "x", **tensor}),),
        outputs=(TensorSpec.from_dict({"name": "y", **tensor}),),
        tolerances={},
        tolerance_rationale="none",
        goldens=(),
        metrics={"test": {"accuracy": 0.8, "loss": 1.0}, "train": {"accuracy": 1.0, "loss": 0.1}},
        parity=PARITY,
        provenance={
            "network": {"name": network, "title": spec.title, "parameters": spec.parameters},
            "recipe": recipe(recipe_name, network=network, steps=steps).to_dict(),
            "data_sha256": dict(CANONICAL_SHA256),
            "note": note,
        },
    )


PARITY = {
    "passed": True,
    "summary": "all 2 checks passed on 1000 examples",
    "batch_sizes": [1, 2],
    "tolerances": {"logits": {"absolute": 1e-4, "relative": 1e-6}},
    "checks": [
        {"name": "file", "passed": True, "detail": "valid ONNX", "comparisons": []},
        {
            "name": "values: PyTorch",
            "passed": True,
            "detail": "logits within 5e-05",
            "comparisons": [
                {"output": "logits", "max_absolute": 5e-05, "argmax_mismatches": 0, "passed": True},
                {"output": "logits", "max_absolute": 4e-05, "argmax_mismatches": 0, "passed": True},
            ],
        },
    ],
}


def subject(network: str, *, seed: int = 0, always: int | None = None, kept: bool = True, **about: str) -> Subject:
    content = model_bytes(network, seed, always)
    return Subject.of(manifest(content, network, **about), content, history() if kept else None)


def pair(own: str = "conv", other: str | None = "fc", **about: str) -> Pair:
    """Two random nets, and test examples that the first gets right, but for every fifth.

    The second knows one answer only, that which the first gives most often.
    """
    first = subject(own, **about)
    test = answered(first)
    second = None if other is None else subject(other, seed=1, always=int(np.bincount(test.y_B).argmax()))
    return Pair(first, second, "" if second else "There is none yet.", test)


def answered(own: Subject) -> Examples:
    x_BL = canonical().test.x_BL[:120]
    y_B = own.probabilities(without_ramp(x_BL)).argmax(axis=1).astype(np.int64)
    y_B[::5] = (y_B[::5] + 1) % 10
    return Examples(x_BL, y_B)


def publish_random(repository: Path, network: str, *, seed: int = 0, kept: bool = True, **about: Any) -> Path:
    """The next version of a random net, as the pipeline lays it down."""
    content = model_bytes(network, seed)
    name = about.pop("name", f"mnist1d-{network}")
    files = {"history.json": history().to_json().encode()} if kept else {}
    return publish(
        repository,
        name,
        content,
        (),
        lambda version: manifest(content, network, version=version, name=name, **about),
        lambda _: files,
    )
