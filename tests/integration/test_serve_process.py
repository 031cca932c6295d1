"""``mnist1d serve`` as a process: signals, exit codes, and what it must never import."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from models.artifact.artifact import Manifest
from models.artifact.goldens import Golden
from models.artifact.onnx_session import open_model
from models.artifact.publication import publish
from service.client import InferenceClient, ServerError
from service.errors import Code
from tests.conftest import publish_affine, put_plain
from tests.foreign_models import alone, loop_of_x
from tests.processes import serve

X = {"x": np.ones((1, 3), np.float32)}


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_leaves_with_zero(repository, tmp_path, signum) -> None:
    publish_affine(repository)
    with serve(repository, tmp_path / "log") as server:
        with InferenceClient(f"127.0.0.1:{server.port}") as client:
            assert client.is_ready()
            assert client.infer("affine", X).outputs["y"].tolist() == [[3, 3, 3]]
        assert server.stop(signum) == 0
        messages = [line["message"] for line in server.lines()]
        assert messages[-2:] == ["signal received, draining", "server stopped"]


def test_calls_that_run_when_the_signal_comes_are_answered(repository, tmp_path) -> None:
    publish_affine(repository)
    outcomes: list[str] = []

    def ask(port: int, started: threading.Event) -> None:
        with InferenceClient(f"127.0.0.1:{port}") as client:
            while True:
                try:
                    answer = client.infer("affine", {"x": np.ones((4096, 3), np.float32)})
                except ServerError as error:
                    outcomes.append(str(error))
                    return
                outcomes.append("right" if (answer.outputs["y"] == 3).all() else "wrong")
                started.set()

    with serve(repository, tmp_path / "log") as server:
        started = [threading.Event() for _ in range(4)]
        threads = [threading.Thread(target=ask, args=(server.port, event)) for event in started]
        for thread in threads:
            thread.start()
        assert all(event.wait(30) for event in started)
        assert server.stop() == 0
        for thread in threads:
            thread.join(30)
    # Each thread ends with its first refused call: told to go elsewhere, by the server or, if it went there on a new
    # connection, by the port that is closed; never cut off in the middle.
    refused = [outcome for outcome in outcomes if outcome != "right"]
    assert len(refused) == 4
    assert all(re.match(f"{Code.UNAVAILABLE.name}: (Server exiting|.*Connection refused)", each) for each in refused)


def test_serving_imports_nothing_of_training(repository, tmp_path) -> None:
    publish_affine(repository)
    program = """
import sys, asyncio, signal, threading, os
from pathlib import Path
from service.config import ServerConfig
from service.server.server import serve
def ready(server):
    from service.client import InferenceClient
    import numpy as np
    def use():
        with InferenceClient(f"127.0.0.1:{server.port}") as client:
            client.infer("affine", {"x": np.ones((1, 3), np.float32)})
        os.kill(os.getpid(), signal.SIGTERM)
    threading.Thread(target=use).start()
asyncio.run(serve(ServerConfig(repository=Path(sys.argv[1]), port=0, metrics_port=0, control_port=0), ready))
ours = {"models.networks.modules", "models.training.loop", "models.pipeline"}
heavy = {"torch", "scipy", "onnxscript", "matplotlib", *ours}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(repository)], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_a_port_in_use_is_said_and_leaves_with_one(repository, tmp_path) -> None:
    with serve(repository, tmp_path / "log") as server:
        done = subprocess.run(
            [sys.executable, "-m", "service.cli", "serve", str(repository), "--port", str(server.port)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert f"error: cannot listen on 127.0.0.1:{server.port}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--port", "70000"], "port: got 70000, expected 0 to 65535"),
        (["--version-policy", "newest"], "version policy: got 'newest'"),
        (["--grace-s", "-1"], "--grace-s: got -1.0"),
        (["--tls-cert", "no.pem", "--tls-key", "no.key"], "--tls-cert: 'no.pem' cannot be read: No such file"),
        (["--tls-cert", "no.pem"], "error: --tls-cert: needs --tls-key, which is not set"),
        (["--control-tokens", "no"], "error: --control-tokens: 'no' cannot be read: No such file"),
        (["--control-on-main-port", "--no-control"], "--control-on-main-port: needs control, which is turned off"),
        (
            ["--load-model", "a"],
            "error: --load-model: got 'a', which needs --model-control-mode explicit; in mode poll",
        ),
    ],
)
def test_unusable_settings_leave_with_two(repository, options, says) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", "serve", str(repository), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert says in done.stderr


def test_settings_come_from_the_environment_too(repository, tmp_path, monkeypatch) -> None:
    put_plain(repository, "broken", b"junk")
    monkeypatch.setenv("MNIST1D_SERVE_LOG_LEVEL", "error")
    monkeypatch.setenv("MNIST1D_SERVE_PORT", "70000")
    monkeypatch.setenv("MNIST1D_SERVE_REPOSITORY", str(repository))
    line = [sys.executable, "-m", "service.cli", "serve"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (2, "error: MNIST1D_SERVE_PORT: got 70000, expected 0 to 65535\n")
    monkeypatch.setenv("MNIST1D_SERVE_PORT", "0")
    printed = subprocess.run([*line, "--print-config", "--json"], capture_output=True, check=False, timeout=60)
    assert json.loads(printed.stdout)["repository"] == str(repository)


def test_a_variable_that_sets_nothing_is_named_with_the_one_that_may_be_meant(repository, monkeypatch) -> None:
    monkeypatch.setenv("MNIST1D_SERVE_PROT", "9000")
    line = [sys.executable, "-m", "service.cli", "serve", str(repository), "--print-config"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    told = json.loads(done.stderr)
    assert (told["level"], told["variable"], told["nearest"]) == (
        "warning",
        "MNIST1D_SERVE_PROT",
        "MNIST1D_SERVE_PORT",
    )


@pytest.mark.parametrize("transport", ["http2", "grpcio"])
def test_whatever_a_client_does_every_line_of_the_log_is_json(repository, tmp_path, transport) -> None:
    root = pytest.importorskip("tests.certificates").Root(tmp_path)
    pair = root.sign("server")
    publish_affine(repository)
    options = ("--transport", transport, "--tls-cert", str(pair.cert), "--tls-key", str(pair.key))
    with serve(repository, tmp_path / "log", *options) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            plain.settimeout(30)
            with contextlib.suppress(ConnectionError):
                while plain.recv(4096):
                    pass
        assert server.stop() == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line for line in lines if not line.startswith("{")] == []


def test_a_request_leaves_one_line_at_debug_level_and_none_at_info(repository, tmp_path) -> None:
    publish_affine(repository)
    for level, expected in (("debug", 1), ("info", 0)):
        with serve(repository, tmp_path / level, "--log-level", level) as server:
            with InferenceClient(f"127.0.0.1:{server.port}") as client:
                client.infer("affine", X, request_id="abc")
            assert server.stop() == 0
            lines = [
                line for line in server.lines() if line.get("method") == "/inference.GRPCInferenceService/ModelInfer"
            ]
        assert len(lines) == expected
        if lines:
            assert {key: lines[0][key] for key in ("level", "model", "id", "code", "inputs")} == {
                "level": "debug",
                "model": "affine",
                "id": "abc",
                "code": "OK",
                "inputs": "x[1, 3]",
            }


def test_every_question_about_a_model_says_which_one_in_its_line_and_names_a_version_only_if_it_did(
    repository, tmp_path
) -> None:
    publish_affine(repository)
    with serve(repository, tmp_path / "log", "--log-level", "debug") as server:
        with InferenceClient(f"127.0.0.1:{server.port}") as client:
            client.model("affine", "1")
            client.config("affine")
            with pytest.raises(ServerError):
                client.infer("nope", X)
        assert server.stop() == 0
        lines = [(line["model"], line.get("version")) for line in server.lines() if "model" in line and "code" in line]
    assert lines == [("affine", "1"), ("affine", None), ("nope", None)]


@pytest.mark.parametrize("timeout_s", [60, None])
def test_a_signal_ends_the_server_while_runs_go_on_that_have_no_end(repository, tmp_path, timeout_s) -> None:
    put_plain(repository, "loop_of_x", loop_of_x())
    publish_affine(repository)
    failures: list[ServerError] = []

    def ask(port: int) -> None:
        with InferenceClient(f"127.0.0.1:{port}") as client, pytest.raises(ServerError) as failure:
            client.infer("loop_of_x", {"x": np.array([10**12])}, timeout_s=timeout_s)
        failures.append(failure.value)

    with serve(repository, tmp_path / "log", "--grace-s", "1") as server:
        with InferenceClient(f"127.0.0.1:{server.port}") as client:
            assert client.infer("loop_of_x", {"x": np.array([3])}).outputs["y"].tolist() == [3]
            threads = [threading.Thread(target=ask, args=(server.port,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            time.sleep(0.5)
            assert client.infer("affine", X, timeout_s=5).outputs["y"].tolist() == [[3, 3, 3]]
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10
        for thread in threads:
            thread.join(30)
        messages = [line["message"] for line in server.lines()]
    assert "calls still run after the grace, they are cancelled" in messages
    assert "left while threads were busy" not in messages
    assert [failure.code for failure in failures] == [Code.UNAVAILABLE] * 3


SERVE = """
from service.cli import main
main(["serve", sys.argv[1], "--port", "0", "--metrics-port", "0", "--control-port", "0", "--log-format", "json"])
"""


def log_of_a_stop(repository, log, program: str, *, said: str) -> str:
    """The log of a server that ran a program before it served, and got SIGTERM once it had printed ``said``."""
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-c", program + SERVE, str(repository)], stdout=file, stderr=file)
    try:
        while said not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    return log.read_text()


def test_a_signal_ends_a_server_whose_proof_has_no_end(repository, tmp_path) -> None:
    model_bytes = loop_of_x()
    right = alone(model_bytes, np.array([3]))
    golden = Golden("test_data_set_0", {"x": np.array([10**12])}, right)
    interface = open_model(model_bytes)

    def manifest(version: int) -> Manifest:
        return Manifest.of(
            model_bytes,
            name="loop_of_x",
            version=version,
            inputs=interface.inputs,
            outputs=interface.outputs,
            goldens=[golden],
            tolerances={},
            tolerance_rationale="none is needed",
        )

    publish(repository, "loop_of_x", model_bytes, [golden], manifest)
    program = """
import sys
from models.artifact.onnx_session import Model
run = Model.run
def told(*arguments):
    print("replaying", flush=True)
    return run(*arguments)
Model.run = told
"""
    log = log_of_a_stop(repository, tmp_path / "log", program, said="replaying")
    assert "server stopped" in log
    assert "left while threads were busy" not in log


def test_liveness_is_answered_while_a_long_run_computes(repository, tmp_path) -> None:
    publish_affine(repository)
    with (
        serve(repository, tmp_path / "log", "--max-batch-size", "1000000") as server,
        InferenceClient(f"127.0.0.1:{server.port}") as busy,
        InferenceClient(f"127.0.0.1:{server.port}") as probe,
    ):
        stop = time.monotonic() + 1.0
        answers = []

        def load() -> None:
            while time.monotonic() < stop:
                answers.append(busy.infer("affine", {"x": np.ones((300_000, 3), np.float32)}).version)

        thread = threading.Thread(target=load)
        thread.start()
        asked = 0
        while time.monotonic() < stop:
            assert probe.is_live()
            asked += 1
        thread.join(60)
    assert answers
    # Were the loop held up by each run, a probe would come through only between two of them.
    assert asked > 2 * len(answers)


@pytest.mark.parametrize("signums", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
def test_signals_that_come_twice_at_once_drain_all_the_same(repository, tmp_path, signums) -> None:
    publish_affine(repository)
    with serve(repository, tmp_path / "log") as server:
        for signum in signums:
            server.process.send_signal(signum)
        assert server.process.wait(60) == 0
        assert server.lines()[-1]["message"] == "server stopped"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_sigterm_ends_the_lame_duck_time(repository, tmp_path, workers) -> None:
    publish_affine(repository)
    with serve(repository, tmp_path / "log", "--lame-duck-s", "600", "--workers", workers) as server:
        server.process.send_signal(signal.SIGTERM)
        while (line := server.lines()[-1])["message"] not in ("signal received, draining", "draining"):
            time.sleep(0.02)
        assert line["lame_duck_s"] == 600
        time.sleep(0.7)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert server.lines()[-1]["message"] == "server stopped"


def test_a_second_ctrl_c_ends_the_drain(repository, tmp_path) -> None:
    publish_affine(repository)
    with serve(repository, tmp_path / "log", "--lame-duck-s", "600") as server:
        server.process.send_signal(signal.SIGINT)
        while server.lines()[-1]["message"] != "signal received, draining":
            time.sleep(0.02)
        time.sleep(0.7)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 130


def test_a_signal_while_the_models_load_stops_the_server(repository, tmp_path) -> None:
    program = """
import sys, time
def hang(self):
    print("hanging", flush=True)
    time.sleep(600)
import service.repository.repository as module
module.Repository.load_all = hang
"""
    log = log_of_a_stop(repository, tmp_path / "log", program, said="hanging")
    assert "interrupted while the models were loading" in log
    assert "server stopped" in log
