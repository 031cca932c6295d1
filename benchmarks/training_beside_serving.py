"""What a training run beside it does to a server's answers, where a core is free.

    python benchmarks/training_beside_serving.py [--rounds 9] [--rate 200] [--duration-s 5]

One server serves the convolutional net at a fixed rate, by the clock, and each round measures it three times: while it
does nothing else, while a run trains in its one slot, and, as a control, beside a process that only counts. The process
of the run is niced and has one thread; server and load generator need a small part of a core at this rate, so that on
two cores one is free for it. What counts is the ratio within a round; the median of the rounds is the result, since a
machine with other tenants has rounds of its own. What the control does to the answers is the machine's doing: two
processors that are one core of the host's, or a host that is full.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models import pipeline
from models.training.recipes import recipe
from service.client import TrainingClient
from service.training.scheduler import NICENESS
from tests.processes import serve

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 1.5
"""p99 while a run trains, divided by p99 without."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rate", type=float, default=200.0, help="Requests a second.")
    parser.add_argument("--duration-s", type=float, default=5.0, help="Of each measurement.")
    given = parser.parse_args()
    ratios: dict[str, list[list[float]]] = {"p50": [], "p99": []}
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "repository"
        pipeline.run(recipe("plain", steps=200), repository=repository)
        with serve(repository, Path(folder) / "log", "--training-slots", "1") as server:
            address = f"127.0.0.1:{server.port}"
            print(f"{given.rate:g} requests a second on {os.cpu_count()} CPUs; latencies in ms\n")
            print("         p50 idle  counting  training    p99 idle  counting  training    p99: counting  training")
            row = "{:5}  {:10.3f}  {:8.3f}  {:8.3f}  {:10.3f}  {:8.3f}  {:8.3f}  {:14.2f} x  {:6.2f} x"
            with TrainingClient(address) as client:
                for number in range(1, given.rounds + 1):
                    found = [measured(address, given.rate, given.duration_s)]
                    for beside in (counting, partial(training, client)):
                        with beside():
                            found.append(measured(address, given.rate, given.duration_s))
                    for name in ratios:
                        idle, *others = (each[name] for each in found)
                        ratios[name].append([other / idle for other in others])
                    values = [each[name] for name in ratios for each in found]
                    print(row.format(number, *values, *ratios["p99"][-1]), flush=True)
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in ratios.items()}
    for name, (control, run) in medians.items():
        print(f"{name}, median ratio to idle: {control:.2f} beside a process that counts, {run:.2f} beside a run")
    print(f"p99 beside a run: at most {LIMIT} x is asked for")
    return 0 if medians["p99"][1] <= LIMIT else 1


@contextmanager
def counting() -> Iterator[None]:
    """A process, niced like a run's, that does nothing but count."""
    with subprocess.Popen(
        [sys.executable, "-c", f"import os, itertools\nos.nice({NICENESS})\nfor _ in itertools.count(): pass"]
    ) as process:
        try:
            yield
        finally:
            process.kill()


@contextmanager
def training(client: TrainingClient) -> Iterator[None]:
    """A run that takes steps."""
    run = client.create(recipe="lecture", publish_name="beside", overrides={"evaluate_every": 0})
    for event in client.watch(run.name):
        if event.HasField("progress"):
            break
    try:
        yield
    finally:
        client.cancel(run.name)
        client.wait(run.name)


def measured(address: str, rate: float, duration_s: float) -> dict[str, float]:
    """p50 and p99 in milliseconds; raises where an answer was wrong or missing."""
    command = [sys.executable, "-m", "service.cli", "bench", "--server", address, "--rate", str(rate), "--json"]
    command += ["--duration-s", str(duration_s), "--warm-up-s", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return {name: float(report["latency_ms"][name]) for name in ("p50", "p99")}


if __name__ == "__main__":
    raise SystemExit(main())
