"""Training as a service with torch in a process of its own: killed twice, and its weights are as if it had not been."""

from __future__ import annotations

import os
import re
import signal
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from models.artifact.artifact import Artifact
from models.artifact.publication import versions
from models.training.recipes import recipe
from service.client import InferenceClient, TrainingClient
from tests.processes import START_TIMEOUT_S, serve

# By the slow engine, so that there is time to kill it in the middle; benchmarks/training_durability.py takes either.
OVERRIDES = {"steps": 2000, "validation": 500, "evaluate_every": 500}


@pytest.mark.slow
@pytest.mark.needs_torch
def test_a_run_whose_process_and_whose_server_are_killed_ends_in_the_same_weights_proven_and_served(
    repository, tmp_path
) -> None:
    pytest.importorskip("torch")
    from models.data.dataset import canonical
    from models.training.loop import train

    options = ("--training-slots", "1")
    with serve(repository, tmp_path / "log", *options) as server:
        with TrainingClient(f"127.0.0.1:{server.port}") as client:
            run = client.create(recipe="plain", overrides=OVERRIDES, seed=11, gate="serving", engine="torch")
            events = client.watch(run.name)
            next(event for event in events if event.HasField("checkpoint_saved"))
            (process,) = children(server.process.pid)
            os.kill(process, signal.SIGKILL)
            # The next one has gone on, and is further.
            next(event for event in events if event.HasField("training_started") and event.training_started.start_step)
            next(event for event in events if event.HasField("progress"))
            (process,) = children(server.process.pid)
        server.process.kill()
        server.process.wait()
        assert_gone(process)
    with serve(repository, tmp_path / "log2", *options) as server:
        address = f"127.0.0.1:{server.port}"
        with TrainingClient(address) as client:
            done = client.wait(run.name)
            assert done.result is not None, done.error
            told = list(client.watch(run.name))
        assert [event.number for event in told] == list(range(1, len(told) + 1))
        starts = [event.training_started.start_step for event in told if event.HasField("training_started")]
        assert len(starts) == 3
        assert starts[1:] == sorted(starts[1:])
        assert all(start and start % 1000 == 0 for start in starts[1:])
        assert versions(repository / "mnist1d-conv") == [1]
        with InferenceClient(address) as client:
            answer = client.infer("mnist1d-conv", {"x": np.zeros((1, 40), np.float32)})
        assert answer.version == "1"
        assert server.stop() == 0
    assert done.snapshot.serving.state == "READY"
    assert done.result.parity.passed
    assert done.result.gate.met
    undisturbed = train(recipe("plain", seed=11, **OVERRIDES), canonical(), engine="torch")
    assert done.result.weights_sha256 == undisturbed.weights_sha256
    manifest = Artifact.load(repository / "mnist1d-conv" / "1").manifest
    assert manifest is not None
    assert manifest.provenance["run"] == run.name.partition("/")[2]


@pytest.mark.slow
@pytest.mark.needs_torch
def test_runs_of_a_server_with_two_workers_are_counted_once(repository, tmp_path) -> None:
    pytest.importorskip("torch")
    overrides = {"steps": 60, "warmup_steps": 5}
    with serve(repository, tmp_path / "log", "--training-slots", "1", "--workers", "2") as server:
        # Connections of their own, so that both workers are asked.
        clients = [TrainingClient(f"127.0.0.1:{server.port}", max_message_bytes=2**20 + number) for number in (0, 1)]
        runs = [client.create(recipe="plain", overrides=overrides, engine="torch") for client in clients]
        clients[0].cancel(runs[1].name)
        ends = [client.wait(runs[number].name).state for number, client in enumerate(clients)]
        assert ends == ["SUCCEEDED", "CANCELLED"]
        for client in clients:
            client.close()
        url = next(str(line["metrics"]) for line in server.lines() if line["message"].startswith("server "))
        with urllib.request.urlopen(url, timeout=START_TIMEOUT_S) as answer:  # noqa: S310 - of our own server
            page = answer.read().decode()
        assert server.stop() == 0
    counted = dict(re.findall(r"^(mnist1d_training\S+) (\S+)$", page, re.MULTILINE))
    assert counted["mnist1d_training_slots"] == "1"
    assert counted['mnist1d_training_runs_finished_total{outcome="SUCCEEDED",reason="NONE"}'] == "1"
    assert counted['mnist1d_training_runs_finished_total{outcome="CANCELLED",reason="CANCELLED"}'] == "1"
    assert counted['mnist1d_training_run_duration_seconds_count{outcome="SUCCEEDED"}'] == "1"


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = [(task / "children").read_text().split() for task in Path(f"/proc/{pid}/task").iterdir()]
    return [int(text) for texts in found for text in texts]


def assert_gone(pid: int) -> None:
    """Killed together with its server; whoever adopted it may not have fetched its exit code yet."""
    status = Path(f"/proc/{pid}/stat")
    until_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until_s:
        try:
            if status.read_text().rpartition(")")[2].split()[0] in "ZX":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.01)
    pytest.fail(f"process {pid} lives on")
