"""The figures of docs/operations.md: sizes of the images, times and memory of the compose project.

    python benchmarks/container_figures.py                               # where an engine answers
    tests/containers/engine.sh python benchmarks/container_figures.py    # as root on a bare Debian machine

Builds both images under names of their own and trains with few steps. Times are the median of `RUNS` starts; the memory
is that of the server's container after requests to both models: what the engine counts, and the resident memory of its
processes, in which pages of libraries are counted too.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from service.client import InferenceClient
from tests.containers.compose import IMAGE, Project, added_bytes, address, docker, with_wheels

RUNS = 5
REQUESTS = 1000
BUILD_S = 1200.0
FEW_STEPS = {"services": {"trainer": {"environment": {"MNIST1D_UP_STEPS": "200", "MNIST1D_UP_ENGINE": "torch"}}}}


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        project = Project(f"mnist1d-figures-{os.getpid()}", Path(directory), with_wheels(FEW_STEPS))
        try:
            print(json.dumps(measure(project), indent=2))
        finally:
            project.down()


def measure(project: Project) -> dict[str, object]:
    project.compose("build", "server", "trainer", timeout_s=BUILD_S)
    figures: dict[str, object] = {
        f"image_{target}_above_base_mb": round(added_bytes(f"{IMAGE}:{target}") / 1e6) for target in ("serve", "train")
    }
    project.up()
    healthy, ready, stopped = [], [], []
    for _ in range(RUNS):
        project.compose("rm", "--stop", "--force", "server", "trainer")
        began = time.perf_counter()
        project.up()
        healthy.append(time.perf_counter() - began)
        container = project.container("server")
        ready.append(_ready_at(project) - _time(container["State"]["StartedAt"]))
        if len(ready) == RUNS:
            figures |= _used(project, address(container))
        began = time.perf_counter()
        docker("stop", container["Id"])
        stopped.append(time.perf_counter() - began)
    return {
        **figures,
        "up_to_healthy_s": round(statistics.median(healthy), 2),
        "container_start_to_ready_s": round(statistics.median(ready), 2),
        "sigterm_to_exit_s": round(statistics.median(stopped), 2),
    }


def _used(project: Project, where: str) -> dict[str, object]:
    """Memory after requests, and the processor time of a health check."""
    x = np.zeros((1, 40), np.float32)
    with InferenceClient(where) as client:
        for model in ("mnist1d-conv", "mnist1d-fc"):
            for _ in range(REQUESTS):
                client.infer(model, {"x": x})
    used = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", project.container("server")["Id"])
    program = (
        "import resource, subprocess; [subprocess.run(['mnist1d', 'health'], check=True, capture_output=True) for _ in "
        "range(10)]; used = resource.getrusage(resource.RUSAGE_CHILDREN); print((used.ru_utime + used.ru_stime) / 10)"
    )
    return {
        "memory": used.split("/")[0].strip(),
        "resident_mb": round(project.resident_bytes("server") / 1e6),
        "health_check_cpu_s": round(float(project.python("server", program)), 3),
    }


def _ready_at(project: Project) -> float:
    (line,) = [line for line in project.logs("server") if line["message"] == "server ready"]
    return _time(line["time"])


def _time(text: str) -> float:
    """Seconds since the epoch; the engine writes nanoseconds."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).astimezone(UTC).timestamp()


if __name__ == "__main__":
    main()
