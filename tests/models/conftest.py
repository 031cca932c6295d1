"""A trained network, its ONNX file and a published version, each made once, and what training is tested with.

Torch is imported only where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import onnx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from models.data.dataset import Dataset, Examples
    from models.networks.architectures import Architecture
    from models.pipeline import PublishedModel
    from models.training.recipes import TrainingRecipe

CODE = {"version": "0.0.0", "commit": None, "modified": None}


@dataclass(frozen=True)
class Exported:
    """A network and the file made of it."""

    network: nn.Module
    architecture: Architecture
    model_bytes: bytes


def _tiny(network: str, **fields: Any) -> TrainingRecipe:
    from models.training.recipes import recipe

    return recipe("quick", network=network, **{"steps": 200, "warmup_steps": 20, **fields})


@pytest.fixture(scope="session")
def tiny() -> Callable[..., TrainingRecipe]:
    """``tiny("conv", seed=1)``: a recipe of 200 steps."""
    return _tiny


def _exported(name: str) -> Exported:
    pytest.importorskip("torch")
    from models.data.dataset import canonical
    from models.export.export import export
    from models.networks.architectures import architecture
    from models.training.loop import train

    network = train(_tiny(name), canonical()).network
    return Exported(network, architecture(name), export(network, provenance={"network": name}))


@pytest.fixture(scope="session")
def conv() -> Exported:
    """The convolutional net after 200 steps."""
    return _exported("conv")


@pytest.fixture(scope="session")
def conv_as_conv(conv: Exported) -> Exported:
    """The same network, its convolution layers left Conv in the file."""
    from models.export.export import export

    return replace(conv, model_bytes=export(conv.network, provenance={"network": "conv"}, lowering="conv"))


@pytest.fixture(scope="session")
def fc() -> Exported:
    """Its fully connected baseline after 200 steps."""
    return _exported("fc")


@pytest.fixture(scope="session")
def few() -> Examples:
    """The first 70 test examples: enough for batches of 64 with a remainder."""
    from models.data.dataset import canonical

    return canonical().test.take(range(70))


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> PublishedModel:
    """Version 1 of mnist1d-conv, as the pipeline publishes it. Not to be changed: copy it first."""
    pytest.importorskip("torch")
    from models import pipeline, provenance

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "code", lambda: CODE)
        return pipeline.run(_tiny("conv"), repository=tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="session")
def edited() -> Callable[[bytes, Callable[[onnx.ModelProto], None]], bytes]:
    """``edited(model_bytes, edit)``: the bytes of the model after ``edit`` changed it in place."""

    def change(model_bytes: bytes, edit: Callable[[onnx.ModelProto], None]) -> bytes:
        model = onnx.ModelProto.FromString(model_bytes)
        edit(model)
        return model.SerializeToString()

    return change


@pytest.fixture
def operators(tmp_path: Path) -> Callable[[bytes], list[str]]:
    """``operators(model_bytes)``: what onnxruntime runs of it, when everything that is constant has been computed."""
    import onnxruntime as ort

    def run(model_bytes: bytes) -> list[str]:
        options = ort.SessionOptions()
        options.log_severity_level = 4  # it remarks that such a file is for this machine only
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        ort.InferenceSession(model_bytes, options, providers=["CPUExecutionProvider"])
        return [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]

    return run


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, bytes]]:
    """``snapshot(directory)``: every file below it with its content."""

    def take(directory: Path) -> dict[str, bytes]:
        return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}

    return take


@pytest.fixture(scope="module")
def data() -> Dataset:
    """MNIST-1D as it is."""
    from models.data.dataset import canonical

    return canonical()


@pytest.fixture(scope="module")
def small() -> Dataset:
    """230 examples to train on and 50 to test on."""
    from models.data.dataset import Dataset, fresh

    return Dataset.of(fresh(230, seed=1), fresh(50, seed=2))


@pytest.fixture(params=["torch", "fused"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either engine, one step at a time, so that a test can stop between any two."""
    if request.param == "fused":
        pytest.importorskip("numba")
        monkeypatch.setattr("models.training.fused.fused_engine.FusedEngine.steps_at_once", 1)
    return str(request.param)
