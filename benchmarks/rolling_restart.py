"""Restarts under load: what a client with the retry preset notices when servers are restarted one after the other.

    python benchmarks/rolling_restart.py [--restarts 50] [--clients 4] [--grace-s 10]

Two servers over one repository; clients with round robin over both and the preset of retries ask them without a pause,
with requests of one row and, now and then, of thousands. In turn each server gets SIGTERM, must leave with 0 within its
grace, and is started again on its port. Every call must be answered, and rightly.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from models.artifact import Manifest
from models.goldens import Golden, Tolerance
from models.onnx_session import open_model
from models.publication import publish
from service.client import RETRIES, InferenceClient, ServerError

NAME = "scaled"
ROWS = 4000
"""Of the larger requests: some of them run when the signal comes."""
HANG_S = 60.0
"""Nothing here takes as long; only a hang does."""


def publish_model(repository: Path) -> None:
    """y = 3 * x, x FP32[batch, 8]; exact in float32 for whole numbers."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "scale"], ["y"])],
        NAME,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])],
        [numpy_helper.from_array(np.array(3, np.float32), "scale")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model_bytes = model.SerializeToString()
    interface = open_model(model_bytes)
    x = np.arange(16, dtype=np.float32).reshape(2, 8)

    def manifest(version: int) -> Manifest:
        return Manifest(
            name=NAME,
            version=version,
            created="2026-01-01T00:00:00Z",
            model_sha256=hashlib.sha256(model_bytes).hexdigest(),
            model_bytes=len(model_bytes),
            inputs=interface.inputs,
            outputs=interface.outputs,
            tolerances={"y": Tolerance(absolute=1e-6)},
            tolerance_rationale="one multiplication of whole numbers in float32",
            goldens=("test_data_set_0",),
        )

    publish(repository, NAME, model_bytes, [Golden("test_data_set_0", {"x": x}, {"y": 3 * x})], manifest)


class RestartedServer:
    """``mnist1d serve`` on one port, started as often as needed."""

    def __init__(self, repository: Path, log: Path, grace_s: float) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self._log = log
        self._command = [sys.executable, "-m", "service.cli", "serve", str(repository), "--log-format", "json"]
        self._command += ["--port", str(self.port), "--no-metrics", "--no-control", "--grace-s", str(grace_s)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it is ready."""
        seen = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as file:
            self._process = subprocess.Popen(self._command, stdout=file, stderr=file)
        until = time.monotonic() + HANG_S
        while b'"server ready"' not in self._log.read_bytes()[seen:]:
            if self._process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"the server did not come up: {self._log.read_text()[seen:]}")
            time.sleep(0.01)

    def stop(self) -> tuple[int, float]:
        """SIGTERM; the exit code, and the seconds until it left."""
        assert self._process is not None
        began = time.perf_counter()
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(HANG_S)
        return code, time.perf_counter() - began

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@dataclass
class Outcome:
    """What clients and restarts came to."""

    answered: int = 0
    wrong: int = 0
    failed: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    exit_codes: Counter[int] = field(default_factory=Counter)
    stop_s: list[float] = field(default_factory=list)
    answered_between: list[int] = field(default_factory=list)
    """Calls answered from one SIGTERM until that server was ready again."""
    lock: threading.Lock = field(default_factory=threading.Lock)


def restart_under_load(
    folder: Path, *, restarts: int, clients: int, grace_s: float = 10.0, pause_s: float = 0.3
) -> Outcome:
    """Restart two servers in turn, ``restarts`` times in all, with clients asking all the time."""
    repository = folder / "repository"
    repository.mkdir()
    publish_model(repository)
    outcome = Outcome()
    stop = threading.Event()
    servers = [RestartedServer(repository, folder / f"log{number}", grace_s) for number in range(2)]
    with ExitStack() as cleanup:
        for server in servers:
            cleanup.callback(server.kill)
            server.start()
        addresses = [f"127.0.0.1:{server.port}" for server in servers]
        threads = [threading.Thread(target=_ask, args=(addresses, seed, outcome, stop)) for seed in range(clients)]
        for thread in threads:
            thread.start()
        try:
            for number in range(restarts):
                # Both get calls again before the next one goes.
                time.sleep(pause_s)
                before = outcome.answered
                code, took_s = servers[number % 2].stop()
                outcome.exit_codes[code] += 1
                outcome.stop_s.append(took_s)
                servers[number % 2].start()
                outcome.answered_between.append(outcome.answered - before)
            time.sleep(pause_s)
        finally:
            stop.set()
            for thread in threads:
                thread.join(HANG_S)
        for server in servers:
            code, took_s = server.stop()
            outcome.exit_codes[code] += 1
    return outcome


def _ask(addresses: list[str], seed: int, outcome: Outcome, stop: threading.Event) -> None:
    random = np.random.default_rng(seed)
    with InferenceClient(addresses, retry=RETRIES) as client:
        while not stop.is_set():
            rows = ROWS if random.random() < 0.1 else 1
            x = random.integers(-100, 100, (rows, 8)).astype(np.float32)
            began = time.perf_counter()
            try:
                answer = client.infer(NAME, {"x": x})
            except ServerError as error:
                with outcome.lock:
                    outcome.failed.append(str(error))
                continue
            took_s = time.perf_counter() - began
            is_right = np.array_equal(answer.outputs["y"], 3 * x)
            with outcome.lock:
                outcome.answered += 1
                outcome.wrong += not is_right
                outcome.slowest_s = max(outcome.slowest_s, took_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--restarts", type=int, default=50)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--grace-s", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        outcome = restart_under_load(
            Path(folder), restarts=options.restarts, clients=options.clients, grace_s=options.grace_s
        )
        took_s = time.perf_counter() - began
    stop_ms = sorted(1000 * each for each in outcome.stop_s)
    print(
        json.dumps(
            {
                "restarts": options.restarts,
                "calls_answered": outcome.answered,
                "calls_failed": len(outcome.failed),
                "answers_wrong": outcome.wrong,
                "exit_codes": dict(outcome.exit_codes),
                "stop_ms_median": round(stop_ms[len(stop_ms) // 2]),
                "stop_ms_max": round(stop_ms[-1]),
                "grace_ms": round(1000 * options.grace_s),
                "fewest_calls_answered_during_a_restart": min(outcome.answered_between),
                "slowest_call_ms": round(1000 * outcome.slowest_s),
                "took_s": round(took_s, 1),
            },
            indent=2,
        )
    )
    for failure in outcome.failed[:10]:
        print(failure, file=sys.stderr)
    if outcome.failed or outcome.wrong or set(outcome.exit_codes) != {0} or stop_ms[-1] > 1000 * options.grace_s:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
