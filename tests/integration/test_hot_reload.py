"""Version switches under load and reloads, against a server process: `benchmarks/hot_reload.py` in small."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks.hot_reload import reload_again_and_again, switch_under_load
from service.client import InferenceClient
from tests.conftest import publish_affine
from tests.processes import serve

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_no_request_fails_and_no_answer_is_mixed_while_versions_switch(tmp_path) -> None:
    outcome = switch_under_load(tmp_path, switches=30, clients=4, corrupt_every=6, poll_s=0.02)
    assert (outcome.switches, outcome.failed, outcome.mixed) == (30, [], [])
    assert outcome.refused >= 5
    assert outcome.answers.total() > 30
    assert all(version % 6 for version in outcome.answers)


@pytest.mark.slow
def test_the_memory_of_reloads_comes_back(tmp_path) -> None:
    before, after, _ = reload_again_and_again(tmp_path, reloads=100, warm_up=60)
    assert after - before < 5e6


def test_a_hangup_rescans_at_once(repository, tmp_path) -> None:
    """In a session of its own there is no terminal, and the signal means what it means to daemons."""
    publish_affine(repository, scale=2)
    command = [sys.executable, "-m", "service.cli", "serve", str(repository), "--log-format", "json"]
    command += ["--port", "0", "--metrics-port", "0", "--control-on-main-port", "--model-control-mode", "none"]
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=file,
            start_new_session=True,
            # Where the tests themselves run under nohup the child would inherit an ignored signal.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
    try:
        wait_for(log, "server ready")
        publish_affine(repository, scale=5)
        process.send_signal(signal.SIGHUP)
        wait_for(log, '"version ready", "model": "affine", "version": 2')
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("mode", "answers"), [("none", 3), ("poll", 6)])
def test_what_is_published_while_the_server_runs_is_served_where_it_polls(repository, tmp_path, mode, answers) -> None:
    publish_affine(repository, scale=2)
    options = ("--model-control-mode", mode, "--repository-poll-s", "0.02")
    with (
        serve(repository, tmp_path / "log", *options) as server,
        InferenceClient(f"127.0.0.1:{server.port}") as client,
    ):
        publish_affine(repository, scale=5)
        if mode == "poll":
            wait_for(tmp_path / "log", '"version ready", "model": "affine", "version": 2')
            until = time.monotonic() + 60
            while client.infer("affine", {"x": np.ones((1, 3), np.float32)}).version == "1":
                assert time.monotonic() < until
        assert client.infer("affine", {"x": np.ones((1, 3), np.float32)}).outputs["y"][0, 0] == answers
        assert server.stop() == 0


def wait_for(log: Path, text: str) -> None:
    until = time.monotonic() + 60
    while text not in log.read_text():
        assert time.monotonic() < until, f"{text!r} is not in the log"
        time.sleep(0.01)
