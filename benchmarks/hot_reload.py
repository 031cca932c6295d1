"""Version switches under load, and what a thousand reloads leave in memory.

    python benchmarks/hot_reload.py [--switches 500] [--clients 4] [--corrupt-every 10] [--reloads 1000]

Switches: a server polls a repository into which version after version of one model is published, while clients ask it
without a pause. Version n computes y = n * x + 1 exactly, so that an answer shows which version computed it: one that
claims another is a mixed answer. Every tenth version is corrupt, in turn by goldens that do not fit, by a model file
that is not what its manifest says, and by one that is cut short; each must be refused, the refusal must be in
RepositoryIndex, and the version before must go on. Old versions are deleted on the way.

Reloads: one model is loaded again and again by request, from the repository (its file touched) and from files that the
request brings along, in turn, with inferences in between. Memory is the server's resident set; it is compared with
what it was after the first hundred, which fill the allocator's pools.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from models.artifact.artifact import Manifest
from models.artifact.goldens import Golden, Tolerance
from models.artifact.onnx_session import open_model
from models.artifact.publication import publish
from service.client import InferenceClient, ServerError
from service.pb import open_inference_pb2 as pb
from tests.stubs.open_inference_pb2_grpc import GRPCInferenceServiceStub

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "switched"
DAMAGES = ("golden mismatch", "is not what was proven", "is not what was proven")
"""What the index must say of the three kinds of corrupt versions."""
HANG_S = 60.0
"""Nothing here takes as long; only a hang does."""


def model_of(scale: float) -> bytes:
    """y = scale * x + 1, x FP32[batch, 8]; exact in float32 for small whole numbers."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "scale"], ["scaled"]), helper.make_node("Add", ["scaled", "one"], ["y"])],
        NAME,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])],
        [
            numpy_helper.from_array(np.array(scale, np.float32), "scale"),
            numpy_helper.from_array(np.array(1, np.float32), "one"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


def publish_version(repository: Path, number: int, *, damage: int | None = None) -> None:
    """Publish version ``number``, sound or damaged in one of three ways."""
    model_bytes = model_of(number)
    model = open_model(model_bytes)
    goldens = []
    for index, batch in enumerate((1, 2, 8)):
        x = np.random.default_rng(index).integers(-8, 8, (batch, 8)).astype(np.float32)
        goldens.append(Golden(f"test_data_set_{index}", {"x": x}, {"y": number * x + 1 + (damage == 0)}))

    def manifest(version: int) -> Manifest:
        if version != number:
            raise RuntimeError(f"the next version is {version}, not {number}")
        return Manifest.of(
            model_bytes,
            name=NAME,
            version=version,
            inputs=model.inputs,
            outputs=model.outputs,
            goldens=goldens,
            tolerances={"y": Tolerance()},
            tolerance_rationale="whole numbers, exact in float32",
        )

    written = {1: model_of(number + 1), 2: model_bytes[: len(model_bytes) // 2]}.get(damage, model_bytes)
    publish(repository, NAME, written, goldens, manifest)


@dataclass
class Server:
    """``mnist1d serve`` in a process of its own."""

    process: subprocess.Popen[bytes]
    port: int

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def serving(repository: Path, log: Path, *options: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "service.cli", "serve", str(repository), "--log-format", "json"]
    command += ["--port", "0", "--metrics-port", "0", "--control-on-main-port"]
    with log.open("wb") as file:
        process = subprocess.Popen([*command, *options], stdout=file, stderr=file)
    try:
        until = time.monotonic() + HANG_S
        while not (found := re.search(r'"server (?:ready|is up.*)", "address": "127\.0\.0\.1:(\d+)"', log.read_text())):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"the server did not come up: {log.read_text()}")
            time.sleep(0.01)
        yield Server(process, int(found[1]))
        process.terminate()
        if process.wait(HANG_S) != 0:
            raise SystemExit(f"the server left with {process.returncode}: {log.read_text()[-2000:]}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@dataclass
class Outcome:
    """What the clients and the publisher saw."""

    answers: Counter[int] = field(default_factory=Counter)
    """By the version that they claim."""
    failed: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    switches: int = 0
    refused: int = 0
    switch_s: list[float] = field(default_factory=list)
    """From the rename that publishes a version to the first index that calls it READY."""


def switch_under_load(folder: Path, *, switches: int, clients: int, corrupt_every: int, poll_s: float) -> Outcome:
    """Publish until ``switches`` versions have taken over, with clients asking all the time."""
    repository = folder / "repository"
    repository.mkdir()
    publish_version(repository, 1)
    outcome = Outcome()
    stop = threading.Event()
    with serving(repository, folder / "log", "--repository-poll-s", str(poll_s)) as server:
        threads = [threading.Thread(target=_ask, args=(server.port, seed, outcome, stop)) for seed in range(clients)]
        for thread in threads:
            thread.start()
        try:
            with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                _publish_all(repository, GRPCInferenceServiceStub(channel), outcome, switches, corrupt_every)
        finally:
            stop.set()
            for thread in threads:
                thread.join(HANG_S)
    return outcome


def _ask(port: int, seed: int, outcome: Outcome, stop: threading.Event) -> None:
    random = np.random.default_rng(seed)
    with InferenceClient(f"127.0.0.1:{port}") as client:
        while not stop.is_set():
            x = random.integers(-100, 100, (int(random.integers(1, 9)), 8)).astype(np.float32)
            try:
                answer = client.infer(NAME, {"x": x})
            except ServerError as error:
                outcome.failed.append(str(error))
                continue
            version = int(answer.version)
            if not np.array_equal(answer.outputs["y"], version * x + 1):
                outcome.mixed.append(f"version {version} claims {answer.outputs['y'][0, 0]} for {x[0, 0]}")
            outcome.answers[version] += 1


def _publish_all(
    repository: Path, stub: GRPCInferenceServiceStub, outcome: Outcome, switches: int, corrupt_every: int
) -> None:
    number = serving_now = 1
    while outcome.switches < switches:
        number += 1
        is_corrupt = corrupt_every > 0 and number % corrupt_every == 0
        damage = outcome.refused % len(DAMAGES) if is_corrupt else None
        publish_version(repository, number, damage=damage)
        began = time.perf_counter()
        states = _wait_until_known(stub, number)
        took_s = time.perf_counter() - began
        if damage is None:
            if states.get(number) != ("READY", ""):
                raise SystemExit(f"version {number} is {states.get(number)}")
            outcome.switches += 1
            outcome.switch_s.append(took_s)
            serving_now = number
        else:
            state, reason = states[number]
            if state != "UNAVAILABLE" or DAMAGES[damage] not in reason:
                raise SystemExit(f"corrupt version {number} is {state}: {reason}")
            if states.get(serving_now, ("", ""))[0] != "READY":
                raise SystemExit(f"version {serving_now} does not go on beside the corrupt one: {states}")
            outcome.refused += 1
        for old in range(max(1, number - 6), number - 3):
            if old < serving_now:
                shutil.rmtree(repository / NAME / str(old), ignore_errors=True)


def _wait_until_known(stub: GRPCInferenceServiceStub, number: int) -> dict[int, tuple[str, str]]:
    until = time.monotonic() + HANG_S
    while time.monotonic() < until:
        index = stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=HANG_S)
        states = {int(entry.version): (entry.state, entry.reason) for entry in index.models if entry.version}
        if states.get(number, ("LOADING", ""))[0] != "LOADING":
            return states
        time.sleep(0.002)
    raise SystemExit(f"version {number} was never looked at")


def reload_again_and_again(folder: Path, *, reloads: int, warm_up: int = 100) -> tuple[int, int, float]:
    """(resident bytes after the warm-up, at the end, seconds a reload)."""
    repository = folder / "reloaded"
    repository.mkdir()
    publish_version(repository, 1)
    x = {"x": np.ones((4, 8), np.float32)}
    config = json.dumps({"name": NAME, "backend": "onnxruntime"})
    path = repository / NAME / "1" / "model.onnx"
    options = ("--model-control-mode", "explicit", "--load-model", NAME)
    with (
        serving(repository, folder / "reload-log", *options) as server,
        InferenceClient(f"127.0.0.1:{server.port}") as client,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        before = 0
        began = time.perf_counter()
        for number in range(warm_up + reloads):
            if number == warm_up:
                before = server.resident_bytes()
                began = time.perf_counter()
            request = pb.RepositoryModelLoadRequest(model_name=NAME)
            expected = 1
            if number % 2:
                expected = number
                request.parameters["config"].string_param = config
                request.parameters["file:1/model.onnx"].bytes_param = model_of(number)
            else:
                os.utime(path)
            stub.RepositoryModelLoad(request, timeout=HANG_S)
            answer = client.infer(NAME, x)
            if not (answer.outputs["y"] == expected + 1).all():
                raise SystemExit(f"reload {number} answers {answer.outputs['y'][0, 0]}, expected {expected + 1}")
        took_s = time.perf_counter() - began
        return before, server.resident_bytes(), took_s / reloads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switches", type=int, default=500)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--corrupt-every", type=int, default=10, help="0: none")
    parser.add_argument("--poll-s", type=float, default=0.02)
    parser.add_argument("--reloads", type=int, default=1000)
    options = parser.parse_args()
    passed = True
    with tempfile.TemporaryDirectory() as folder:
        if options.switches:
            outcome = switch_under_load(
                Path(folder),
                switches=options.switches,
                clients=options.clients,
                corrupt_every=options.corrupt_every,
                poll_s=options.poll_s,
            )
            took_ms = sorted(1e3 * value for value in outcome.switch_s)
            print(f"{outcome.switches} switches, {outcome.refused} corrupt versions refused and reported")
            print(
                f"{outcome.answers.total():,} answers by {len(outcome.answers)} versions, {len(outcome.failed)} failed,"
                f" {len(outcome.mixed)} mixed"
            )
            print(
                f"published to READY, polled every {1e3 * options.poll_s:g} ms: median {took_ms[len(took_ms) // 2]:.0f}"
                f" ms, longest {took_ms[-1]:.0f} ms"
            )
            for line in (*outcome.failed[:5], *outcome.mixed[:5]):
                print(f"  {line}")
            passed = not outcome.failed and not outcome.mixed
        if options.reloads:
            before, after, each_s = reload_again_and_again(Path(folder), reloads=options.reloads)
            print(
                f"{options.reloads} reloads, {1e3 * each_s:.1f} ms each: resident {before / 1e6:.1f} MB before,"
                f" {after / 1e6:.1f} MB after, {(after - before) / 1e6:+.2f} MB"
            )
            passed = passed and after - before < 5e6
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
