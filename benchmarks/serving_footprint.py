"""Memory of a serving process with four models, and the time from its start to READY.

    python benchmarks/serving_footprint.py [--starts 10]

Publishes nothing and trains nothing: the four models are small random networks of this project's own shape (a
convolution over 40 samples), written with goldens of their own, so that each start replays four proofs. The time is
from the start of the process to the first ServerReady that says true, asked over gRPC every 2 ms; the memory is the
resident set after 200 requests to each model. The part of it that is not anonymous are pages of libraries, which
processes share and the kernel may drop; how many it maps depends on how the files got into its cache, and differs by
up to 25 MB between installations of the same packages. For scale, the time of a Python that only imports numpy,
onnxruntime and grpc is printed beside it, measured in turn.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from models.artifact.artifact import Manifest
from models.artifact.goldens import Golden, Tolerance
from models.artifact.onnx_session import open_model
from models.artifact.publication import publish
from service.client import InferenceClient

MODELS = 4


def conv_model(seed: int) -> bytes:
    """Three convolutions of 15 channels and a linear layer: x FP32[batch, 40] -> probabilities FP32[batch, 10]."""
    random = np.random.default_rng(seed)
    nodes = [helper.make_node("Unsqueeze", ["x", "axes"], ["h0"])]
    weights = [numpy_helper.from_array(np.array([1], np.int64), "axes")]
    for layer, channels in enumerate((1, 15, 15)):
        weights.append(
            numpy_helper.from_array(random.standard_normal((15, channels, 3)).astype(np.float32) / 3, f"w{layer}")
        )
        nodes += [
            helper.make_node("Conv", [f"h{layer}", f"w{layer}"], [f"c{layer}"], strides=[2]),
            helper.make_node("Relu", [f"c{layer}"], [f"h{layer + 1}"]),
        ]
    weights.append(numpy_helper.from_array(random.standard_normal((60, 10)).astype(np.float32) / 8, "w"))
    nodes += [
        helper.make_node("Flatten", ["h3"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "footprint",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 40])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


def publish_models(repository: Path) -> None:
    for seed in range(MODELS):
        model_bytes = conv_model(seed)
        model = open_model(model_bytes)
        goldens = []
        for number, batch in enumerate((1, 2, 64)):
            x = np.random.default_rng(number).standard_normal((batch, 40)).astype(np.float32)
            (y,) = model.run(["probabilities"], {"x": x})
            goldens.append(Golden(f"test_data_set_{number}", {"x": x}, {"probabilities": y}))
        manifest = Manifest.of(
            model_bytes,
            name=f"model-{seed}",
            version=1,
            inputs=model.inputs,
            outputs=model.outputs,
            goldens=goldens,
            tolerances={"probabilities": Tolerance(absolute=2e-5)},
            tolerance_rationale="as for a trained network",
        )
        publish(repository, f"model-{seed}", model_bytes, goldens, lambda _, manifest=manifest: manifest)


def measure_start(repository: Path, log: Path) -> tuple[float, int, int]:
    """(seconds from process start to READY, resident bytes after the requests, anonymous ones among them)."""
    command = [sys.executable, "-m", "service.cli", "serve", str(repository), "--log-format", "json"]
    command += ["--port", "0", "--metrics-port", "0", "--control-port", "0"]
    with log.open("wb") as file:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        while not (found := re.search(r'"server ready", "address": "127\.0\.0\.1:(\d+)"', log.read_text())):
            if process.poll() is not None or time.perf_counter() - began > 60:
                raise SystemExit(f"the server did not become ready: {log.read_text()}")
            time.sleep(0.002)
        with InferenceClient(f"127.0.0.1:{found[1]}") as client:
            if not client.is_ready():
                raise SystemExit("the log says ready and ServerReady does not")
            took_s = time.perf_counter() - began
            x = np.zeros((1, 40), np.float32)
            for _ in range(200):
                for seed in range(MODELS):
                    client.infer(f"model-{seed}", {"x": x})
        status = Path(f"/proc/{process.pid}/status").read_text()
        resident, anonymous = (int(re.findall(rf"{name}:\s+(\d+) kB", status)[0]) for name in ("VmRSS", "RssAnon"))
        return took_s, 1024 * resident, 1024 * anonymous
    finally:
        process.terminate()
        process.wait(30)


def measure_imports() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import numpy, onnxruntime, grpc"], check=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=10)
    starts = parser.parse_args().starts
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "repository"
        repository.mkdir()
        publish_models(repository)
        measure_start(repository, Path(folder) / "log")  # warms the file cache; not counted
        took, imports, resident, anonymous = [], [], [], []
        for _ in range(starts):
            imports.append(measure_imports())
            seconds, all_of_it, own = measure_start(repository, Path(folder) / "log")
            took.append(seconds)
            resident.append(all_of_it)
            anonymous.append(own)
    print(f"{MODELS} models with proofs, {starts} starts, median (min to max)")
    print(f"process start to READY     {_spread(took, 's')}")
    print(f"bare imports, for scale    {_spread(imports, 's')}")
    print(f"resident memory            {_spread([size / 1e6 for size in resident], 'MB')}")
    print(f"anonymous, its own part    {_spread([size / 1e6 for size in anonymous], 'MB')}")


def _spread(values: list[float], unit: str) -> str:
    return f"{statistics.median(values):.3g} {unit} ({min(values):.3g} to {max(values):.3g})"


if __name__ == "__main__":
    main()
