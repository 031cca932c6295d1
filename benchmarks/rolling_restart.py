"""Two servers, restarted in turn under load: what a client with several addresses and retries notices of it.

    python benchmarks/rolling_restart.py [--restarts 50] [--clients 4] [--grace-s 10]

Clients ask both servers in turn, without a pause, through `service.client` with its preset of retries. Each server is
sent SIGTERM in the middle of that and started again on the same port; the next restart waits until both are answering,
as an orchestrator does it. Server 0 computes y = 2 * x and server 1 y = 3 * x, exactly, so that an answer shows who
computed it and a wrong one shows at all.

Counted are failed calls, wrong answers, exit codes other than 0 and exits later than the grace; the process leaves with
exit code 1 if there is any.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from service.client import RETRIES, InferenceClient, ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "scaled"
SCALES = (2.0, 3.0)
"""What each server multiplies by."""
HANG_S = 60.0
"""Nothing here takes as long; only a hang does."""
SEEN_ANSWERS = 10
"""So many answers of a server that was started show that the clients have found it again."""
PORTS = range(20_000, 32_000)
"""Below those that outgoing connections are given: such a one could take a port while its server is away."""


@dataclass
class Load:
    """What the clients saw. Each client adds to its own and they are summed at the end, but for ``answers``."""

    answers: list[int] = field(default_factory=lambda: [0, 0])
    """By server; also read while the load goes on, to see who is answering."""
    failed: list[str] = field(default_factory=list)
    wrong: int = 0
    slowest_s: float = 0.0


@dataclass
class Report:
    """All of one run."""

    load: Load
    exit_codes: list[int]
    exits_s: list[float]
    """From SIGTERM to the end of the process."""
    starts_s: list[float]
    """From the start of the process until clients were answered by it."""


class RestartedServer:
    """``mnist1d serve`` on a port that it keeps."""

    def __init__(self, folder: Path, scale: float, grace_s: float) -> None:
        self.port = free_port()
        self._grace_s = grace_s
        self._repository = folder / "repository"
        self._log = folder / "log"
        version = self._repository / MODEL / "1"
        version.mkdir(parents=True)
        (version / "model.onnx").write_bytes(model_of(scale))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        options = {"port": self.port, "metrics-port": 0, "control-port": 0, "grace-s": self._grace_s}
        command = [sys.executable, "-m", "service.cli", "serve", str(self._repository), "--log-format", "json"]
        command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        until = time.monotonic() + HANG_S
        while b'"server ready"' not in self._log.read_bytes():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the server did not become ready: {self._log.read_text()}")
            time.sleep(0.01)

    def terminate(self) -> tuple[int, float]:
        """Send SIGTERM; the exit code and the seconds until then."""
        if self._process is None:
            raise RuntimeError("terminated before it was started")
        began = time.perf_counter()
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(HANG_S), time.perf_counter() - began

    def kill(self) -> None:
        """End it if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(HANG_S)


def run(folder: Path, *, restarts: int, clients: int, grace_s: float) -> Report:
    """Restart the servers in turn, ``restarts`` times in all, while the clients ask them."""
    report = Report(Load(), [], [], [])
    with ExitStack() as stack:
        servers = []
        for index, scale in enumerate(SCALES):
            (folder / str(index)).mkdir()
            servers.append(RestartedServer(folder / str(index), scale, grace_s))
            stack.callback(servers[-1].kill)
            servers[-1].start()
        load = stack.enter_context(loaded([f"127.0.0.1:{server.port}" for server in servers], clients))
        _wait_until_all_answer(load)
        for index in itertools.islice(itertools.cycle(range(len(servers))), restarts):
            code, took_s = servers[index].terminate()
            report.exit_codes.append(code)
            report.exits_s.append(took_s)
            began = time.perf_counter()
            servers[index].start()
            _wait_until_all_answer(load)
            report.starts_s.append(time.perf_counter() - began)
        report.load = load
    return report


@contextmanager
def loaded(addresses: list[str], clients: int) -> Iterator[Load]:
    """Ask from so many threads, each with a connection of its own, until the block is left."""
    load, lock, stopping = Load(), threading.Lock(), threading.Event()

    def ask(seed: int) -> None:
        own = np.random.default_rng(seed)
        with InferenceClient(addresses, retry=RETRIES, timeout_s=HANG_S) as client:
            while not stopping.is_set():
                x = np.array([[own.integers(-1000, 1000), 1]], np.float32)
                began = time.perf_counter()
                try:
                    y = client.infer(MODEL, {"x": x}).outputs["y"]
                except ServerError as error:
                    with lock:
                        load.failed.append(str(error))
                    continue
                took_s = time.perf_counter() - began
                with lock:
                    load.slowest_s = max(load.slowest_s, took_s)
                    by = [index for index, scale in enumerate(SCALES) if (y == np.float32(scale) * x).all()]
                    if by:
                        load.answers[by[0]] += 1
                    else:
                        load.wrong += 1

    threads = [threading.Thread(target=ask, args=(seed,), name=f"client-{seed}") for seed in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stopping.set()
        for thread in threads:
            thread.join(HANG_S)


def model_of(scale: float) -> bytes:
    """y = scale * x, x FP32[batch, 2]; exact in float32 for whole numbers of this size."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "scale"], ["y"])],
        "scaled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.array(scale, np.float32), "scale")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


def free_port() -> int:
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port from {PORTS.start} to {PORTS.stop}")


def _wait_until_all_answer(load: Load) -> None:
    before, until = list(load.answers), time.monotonic() + HANG_S
    while any(now < then + SEEN_ANSWERS for now, then in zip(load.answers, before, strict=True)):
        if time.monotonic() > until:
            raise RuntimeError(f"not all servers answer: {before} answers before, {load.answers} now, {load.failed}")
        time.sleep(0.01)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--restarts", type=int, default=50)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--grace-s", type=float, default=10.0)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = run(Path(folder), restarts=asked.restarts, clients=asked.clients, grace_s=asked.grace_s)
    late = sum(took_s > asked.grace_s for took_s in report.exits_s)
    figures = {
        "restarts": asked.restarts,
        "calls": sum(report.load.answers),
        "failed": len(report.load.failed),
        "wrong": report.load.wrong,
        "exit codes other than 0": sum(code != 0 for code in report.exit_codes),
        "exits later than the grace": late,
        "SIGTERM to exit, median s": round(statistics.median(report.exits_s), 3),
        "SIGTERM to exit, max s": round(max(report.exits_s), 3),
        "start to answering clients, median s": round(statistics.median(report.starts_s), 3),
        "slowest call s": round(report.load.slowest_s, 3),
        "cores": os.cpu_count(),
    }
    if asked.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:38}{value:>10}")
    for said in sorted(set(report.load.failed)):
        print(f"failed {report.load.failed.count(said)} times: {said}", file=sys.stderr)
    return int(
        any(figures[name] for name in ("failed", "wrong", "exit codes other than 0", "exits later than the grace"))
    )


if __name__ == "__main__":
    sys.exit(main())
