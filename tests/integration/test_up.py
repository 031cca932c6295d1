"""``mnist1d up`` as a process: from an empty folder to an answer."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from models.artifact.artifact import Artifact
from service.client import InferenceClient
from tests.conftest import publish_affine
from tests.processes import START_TIMEOUT_S

UP = [sys.executable, "-m", "service.cli", "up"]


def wait_for_ready(process: subprocess.Popen, output) -> int:
    until = time.monotonic() + 4 * START_TIMEOUT_S  # it trains and exports two networks
    while time.monotonic() < until:
        found = re.search(r"Ready on 127\.0\.0\.1:(\d+)", output.read_text())
        if found:
            return int(found[1])
        assert process.poll() is None, output.read_text()
        time.sleep(0.05)
    raise TimeoutError(output.read_text())


def up_until_ready(tmp_path, *arguments: str):
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*UP, *arguments, "--port", "0", "--metrics-port", "0", "--control-port", "0"],
            cwd=tmp_path,
            stdout=file,
            stderr=file,
        )
    try:
        with InferenceClient(f"127.0.0.1:{wait_for_ready(process, output)}") as client:
            assert client.is_ready()
            names = [name for name in ("mnist1d-conv", "mnist1d-fc") if client.is_model_ready(name)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_TIMEOUT_S) == 0
        return names, output.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.needs_torch
def test_what_is_missing_is_trained_proven_and_served_and_the_second_time_nothing_is_trained(tmp_path) -> None:
    pytest.importorskip("torch")
    names, output = up_until_ready(tmp_path, "--steps", "100", "--lowering", "conv")
    assert names == ["mnist1d-conv", "mnist1d-fc"]
    assert output.count("checks passed") >= 2
    assert "mnist1d-conv version 1 (proven here)" in output
    for name in names:
        provenance = Artifact.load(tmp_path / "repository" / name / "1").manifest.provenance
        assert provenance["steps"] == 100
        assert provenance.get("lowering") == {"mnist1d-conv": "conv", "mnist1d-fc": None}[name]
    again, output = up_until_ready(tmp_path, "--steps", "100")
    assert again == names
    assert "checks passed" not in output
    assert not (tmp_path / "repository" / "mnist1d-conv" / "2").exists()


def test_what_is_there_needs_no_torch_and_the_next_steps_name_the_address(tmp_path) -> None:
    for name in ("mnist1d-conv", "mnist1d-fc"):
        publish_affine(tmp_path / "repository", name)
    names, output = up_until_ready(tmp_path)
    assert names == ["mnist1d-conv", "mnist1d-fc"]
    assert re.search(r"mnist1d predict --server 127\.0\.0\.1:\d+", output)


@pytest.mark.needs_torch
def test_train_only_trains_what_is_missing_and_leaves(tmp_path) -> None:
    pytest.importorskip("torch")
    publish_affine(tmp_path / "repository", "mnist1d-fc")
    line = [*UP, "--train-only", "--steps", "100", "--engine", "torch"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=4 * START_TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    assert "mnist1d-fc is there: nothing to train" in done.stderr
    assert Artifact.load(tmp_path / "repository" / "mnist1d-conv" / "1").manifest.provenance["steps"] == 100
    assert not (tmp_path / "repository" / "mnist1d-fc" / "2").exists()


@pytest.mark.needs_torch
def test_a_recipe_that_does_not_exist_ends_it_before_anything_is_served(tmp_path) -> None:
    pytest.importorskip("torch")
    done = subprocess.run(
        [*UP, "--recipe", "nope", "--port", "0", "--metrics-port", "0", "--control-port", "0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "nope" in done.stderr
    assert done.stderr.startswith("Usage: mnist1d train ")
    assert not (tmp_path / "repository").exists()


@pytest.mark.needs_torch
@pytest.mark.parametrize("option", ["--port", "--control-port", "--metrics-port"])
def test_a_port_that_is_taken_is_noticed_before_anything_is_trained(option, tmp_path) -> None:
    pytest.importorskip("torch")
    ports = ["--port", "0", "--control-port", "0", "--metrics-port", "0"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*UP, *ports, option, port], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
        )
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "training" not in done.stderr
    assert not (tmp_path / "repository").exists()


def test_a_model_that_is_refused_is_named_with_its_reason_instead_of_ready(tmp_path) -> None:
    for name in ("mnist1d-conv", "mnist1d-fc"):
        publish_affine(tmp_path / "repository", name)
    (tmp_path / "repository" / "mnist1d-conv" / "1" / "model.onnx").write_bytes(b"no model")
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*UP, "--port", "0", "--control-port", "0", "--metrics-port", "0"], cwd=tmp_path, stdout=file, stderr=file
        )
    try:
        until = time.monotonic() + START_TIMEOUT_S
        while "Ctrl-C stops" not in output.read_text() and time.monotonic() < until:
            assert process.poll() is None, output.read_text()
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_TIMEOUT_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    said = output.read_text()
    assert "Ready on" not in said
    assert re.search(r"Not ready. Listening on 127\.0\.0\.1:\d+:\n +mnist1d-fc version 1 \(proven here\)\n", said)
    assert "    mnist1d-conv version 1: model.onnx is not what was proven" in said
