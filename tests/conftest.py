"""Small ONNX models, published ones among them, and a server in this process. Nothing here needs torch."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.artifact.artifact import Manifest
from models.artifact.goldens import Golden, Tolerance
from models.artifact.onnx_session import open_model
from models.artifact.publication import publish
from service.config import ServerConfig
from service.server.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

pytest_plugins = ["tests.fake_training", "tests.skips", "tests.trained", "tests.transports"]

# grpcio's C core asks for this when a process forks after using it; some tests start servers as processes.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


def onnx_model(nodes, inputs, outputs, initializers=(), *, opset: int = 20, metadata=None) -> bytes:
    """Serialise a model; inputs and outputs are (name, onnx type, axes)."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(*entry) for entry in inputs],
        [helper.make_tensor_value_info(*entry) for entry in outputs],
        list(initializers),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def affine_model(scale: float = 2.0, offset: float = 1.0) -> bytes:
    """y = scale * x + offset, x FP32[batch, 3]."""
    return onnx_model(
        [helper.make_node("Mul", ["x", "scale"], ["scaled"]), helper.make_node("Add", ["scaled", "offset"], ["y"])],
        [("x", TensorProto.FLOAT, ["batch", 3])],
        [("y", TensorProto.FLOAT, ["batch", 3])],
        [
            numpy_helper.from_array(np.array(scale, np.float32), "scale"),
            numpy_helper.from_array(np.array(offset, np.float32), "offset"),
        ],
    )


def identity_model(onnx_type: int, axes: Sequence[int | str | None] = ("batch", 2)) -> bytes:
    """y = x for any element type."""
    return onnx_model(
        [helper.make_node("Identity", ["x"], ["y"])], [("x", onnx_type, list(axes))], [("y", onnx_type, list(axes))]
    )


def conv2d_model() -> tuple[bytes, np.ndarray, np.ndarray]:
    """A 2-D convolution over three channels, with its weights (4, 3, 3, 3) and biases (4,)."""
    random = np.random.default_rng(7)
    weight = random.standard_normal((4, 3, 3, 3)).astype(np.float32)
    bias = random.standard_normal(4).astype(np.float32)
    model = onnx_model(
        [helper.make_node("Conv", ["image", "w", "b"], ["features"], pads=[1, 1, 1, 1])],
        [("image", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [("features", TensorProto.FLOAT, ["batch", 4, "height", "width"])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    return model, weight, bias


def mixed_model() -> bytes:
    """Several inputs and dtypes: total = a + float(b), flipped = not flag, same = text, size = int64 scalar."""
    return onnx_model(
        [
            helper.make_node("Cast", ["b"], ["b_float"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["a", "b_float"], ["total"]),
            helper.make_node("Not", ["flag"], ["flipped"]),
            helper.make_node("Identity", ["text"], ["same"]),
            helper.make_node("Size", ["a"], ["size"]),
        ],
        [
            ("a", TensorProto.FLOAT, ["n", 2]),
            ("b", TensorProto.INT64, ["n", 2]),
            ("flag", TensorProto.BOOL, ["n"]),
            ("text", TensorProto.STRING, ["n"]),
        ],
        [
            ("total", TensorProto.FLOAT, ["n", 2]),
            ("flipped", TensorProto.BOOL, ["n"]),
            ("same", TensorProto.STRING, ["n"]),
            ("size", TensorProto.INT64, []),
        ],
    )


def goldens_for(model_bytes: bytes, batches: Sequence[int] = (1, 2, 8), *, shift: float = 0.0) -> list[Golden]:
    """Goldens of an `affine_model` from its own answers; ``shift`` falsifies them."""
    model = open_model(model_bytes)
    random = np.random.default_rng(0)
    goldens = []
    for number, batch in enumerate(batches):
        x = random.standard_normal((batch, 3)).astype(np.float32)
        (y,) = model.run(["y"], {"x": x})
        goldens.append(Golden(f"test_data_set_{number}", {"x": x}, {"y": y + np.float32(shift)}))
    return goldens


def declare_independent(repository: Path, name: str) -> None:
    """Say in ``model.json``, unless there is one, that the model's rows are independent: its requests are joined."""
    settings = repository / name / "model.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    if not settings.exists():
        settings.write_text('{"rows_are_independent": true}')


def publish_affine(
    repository: Path,
    name: str = "affine",
    *,
    scale: float = 2.0,
    goldens: Sequence[Golden] | None = None,
    is_independent: bool = True,
    **fields,
) -> Path:
    """Publish an `affine_model` with honest goldens, or with the given ones; its rows are declared independent."""
    model_bytes = affine_model(scale)
    chosen = goldens_for(model_bytes) if goldens is None else goldens
    interface = open_model(model_bytes)

    def manifest(version: int) -> Manifest:
        return Manifest.of(
            model_bytes,
            name=name,
            version=version,
            created="2026-01-01T00:00:00Z",
            inputs=interface.inputs,
            outputs=interface.outputs,
            goldens=chosen,
            tolerances={"y": Tolerance(absolute=1e-6)},
            tolerance_rationale="one multiplication and one addition in float32",
            **fields,
        )

    published = publish(repository, name, model_bytes, chosen, manifest)
    if is_independent:
        declare_independent(repository, name)
    return published


def put_plain(
    repository: Path, name: str, model_bytes: bytes, version: int = 1, *, is_independent: bool = False
) -> Path:
    """A model as a user drops it: no manifest, no goldens; ``model.json`` only if its rows shall be independent."""
    if is_independent:
        declare_independent(repository, name)
    directory = repository / name / str(version)
    directory.mkdir(parents=True)
    (directory / "model.onnx").write_bytes(model_bytes)
    return directory


@pytest.fixture
def lock(monkeypatch) -> Callable[[str], None]:
    """From the call on, folders of that name may not be listed, as far as ``Path.iterdir`` goes."""

    def of(name: str) -> None:
        listed = Path.iterdir

        def iterdir(path: Path):
            if path.name == name:
                raise PermissionError(13, "Permission denied", str(path))
            return listed(path)

        monkeypatch.setattr(Path, "iterdir", iterdir)

    return of


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """An empty model repository."""
    directory = tmp_path / "repository"
    directory.mkdir()
    return directory


@pytest.fixture
def serving(transport) -> Callable[..., object]:
    """``async with serving(repository, **settings) as server``: a server in this process on a free port."""

    @asynccontextmanager
    async def start(repository: Path, **settings) -> AsyncIterator[Server]:
        config = ServerConfig(
            repository=repository,
            **{
                "port": 0,
                "metrics_port": 0,
                "control_on_main_port": True,
                "grace_s": 2.0,
                "transport": transport,
                **settings,
            },
        )
        async with Server(config) as server:
            yield server

    return start
