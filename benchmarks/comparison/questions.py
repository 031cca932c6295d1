"""What is asked of every server: one ONNX file, some requests in each of the protocol's forms, the right answers."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import models
from models.artifact.onnx_session import open_model
from service.bench.answers import Right
from service.client.operations import infer

if TYPE_CHECKING:
    from models.artifact.onnx_session import Model
    from service.bench.answers import Shapes

DISTINCT_EXAMPLES = 64
"""Different examples, at least; requests of one example take turns."""
TOLERANCE = 1e-4
"""For servers that may compute otherwise than we do; logits reach 200. Ours have to give the same bits."""
_STEPS = 300
"""What is learned does not matter here, and takes the same time."""


@dataclass(frozen=True)
class Questions:
    """A published version of a model, and what to ask it."""

    repository: Path
    name: str
    version: str

    @property
    def folder(self) -> Path:
        """Of the version."""
        return self.repository / self.name / self.version

    @property
    def path(self) -> Path:
        """The ONNX file."""
        return self.folder / "model.onnx"

    @property
    def expected(self) -> Shapes:
        """Name, datatype and shape of each output."""
        return tuple(
            (spec.name, spec.datatype, tuple(axis if isinstance(axis, int) else -1 for axis in spec.shape))
            for spec in _model(self.path).outputs
        )

    def inputs(self, batch: int) -> list[dict[str, np.ndarray]]:
        """Different inputs of ``batch`` rows each."""
        random = np.random.default_rng(0)
        (spec,) = _model(self.path).inputs
        shape = (batch, *(int(axis) for axis in spec.shape[1:]))
        count = max(4, DISTINCT_EXAMPLES // batch)
        return [{spec.name: random.standard_normal(shape).astype(np.float32)} for _ in range(count)]

    def messages(self, batch: int, *, typed: bool) -> tuple[bytes, ...]:
        """Serialised requests for `inputs`."""
        return tuple(
            infer(self.name, each, typed=typed).request.SerializeToString(deterministic=True)
            for each in self.inputs(batch)
        )

    def right(self, batch: int, tolerance: float) -> Right:
        """onnxruntime's answers to `inputs`, from a session of this process."""
        model = _model(self.path)
        names = [spec.name for spec in model.outputs]
        outputs = [dict(zip(names, model.run(names, each), strict=True)) for each in self.inputs(batch)]
        return Right(outputs=tuple(outputs), tolerance=tolerance)

    @property
    def answer_bytes(self) -> int:
        """What the numbers of an answer to one example take, at least."""
        return sum(array.nbytes for array in self.right(1, 0.0).outputs[0].values())


@cache
def _model(path: Path) -> Model:
    return open_model(path.read_bytes())


def questions(repository: Path, name: str) -> Questions:
    """The newest version of a model; SystemExit where there is none, or one that has other than one FP32 input."""
    versions = sorted((int(folder.name) for folder in (repository / name).glob("[0-9]*")), reverse=True)
    if not versions:
        raise SystemExit(f"{repository} has no version of {name}")
    found = Questions(repository, name, str(versions[0]))
    inputs = _model(found.path).inputs
    if (
        len(inputs) != 1
        or inputs[0].datatype != "FP32"
        or not all(isinstance(axis, int) for axis in inputs[0].shape[1:])
    ):
        raise SystemExit(f"{found.path}: one input FP32[batch, ...] is needed, got {inputs}")
    return found


def trained(folder: Path) -> Path:
    """A repository with the convolutional net, trained hastily and proven like any other; made on the first call."""
    repository = folder / f"repository-{_code_of_models()}"
    if not (repository / "mnist1d-conv").is_dir():
        command = [sys.executable, "-m", "service.cli", "train", "--network", "conv", "--recipe", "quick"]
        command += ["--steps", str(_STEPS), "--repository", str(repository), "--checkpoint-dir", str(folder / "run")]
        result = subprocess.run([*command, "--quiet", "--json"], capture_output=True, text=True, check=False)
        if result.returncode:
            raise SystemExit(f"training the model failed: {result.stderr.strip()[-2000:]}")
    return repository


def _code_of_models() -> str:
    """A fingerprint of what trains and exports."""
    code = hashlib.sha256()
    for path in sorted(Path(models.__file__).parent.rglob("*.py")):
        code.update(path.read_bytes())
    return code.hexdigest()[:12]


def provenance(asked: Questions) -> str:
    """The model in a line."""
    model_bytes = asked.path.read_bytes()
    sha256 = hashlib.sha256(model_bytes).hexdigest()
    return f"{asked.name}, {len(model_bytes):,} bytes of ONNX, sha256 {sha256[:12]}"
