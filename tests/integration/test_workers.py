"""``mnist1d serve --workers``: real processes, asked by real clients."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.client import RETRIES, InferenceClient, ServerError
from service.errors import Code
from tests.conftest import affine_model, publish_affine, put_plain
from tests.processes import ServerProcess, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

X = {"x": np.ones((1, 3), np.float32)}
MIB = 1024 * 1024
DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "workers.md"
LONG_S = 60.0
"""Nothing here takes as long; only a hang does."""


def until(condition: Callable[[], object]) -> None:
    """Wait until it is true."""
    end = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.02)


@contextmanager
def several(server: ServerProcess, count: int, **settings) -> Iterator[list[InferenceClient]]:
    """Clients with connections of their own: grpcio shares one among those whose options are the same."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                InferenceClient(f"127.0.0.1:{server.port}", max_message_bytes=64 * MIB + number, **settings)
            )
            for number in range(count)
        ]


def workers_of(server: ServerProcess, message: str, **fields) -> list[object]:
    """Which workers have said so in the log, in order."""
    return [
        line.get("worker")
        for line in server.lines()
        if line["message"] == message and all(line.get(name) == value for name, value in fields.items())
    ]


def pid_of(server: ServerProcess, worker: int) -> int:
    """Of the process that is this worker now."""
    started = [line for line in server.lines() if line["message"] == "worker started" and line["worker"] == worker]
    return int(str(started[-1]["pid"]))


def scrape(server: ServerProcess) -> dict[tuple[str, ...], float]:
    """Every sample by its name and label values, as Prometheus' own client reads them, which lets counters of any name
    end in ``_total``: here none does.
    """
    url = next(str(line["metrics"]) for line in server.lines() if line["message"].startswith("server "))
    with urllib.request.urlopen(url, timeout=LONG_S) as answer:  # noqa: S310 - of our own server
        text = answer.read().decode()
    return {
        (sample.name.removesuffix("_total"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize(("transport", "end"), [("http2", signal.SIGKILL), ("grpcio", signal.SIGTERM)])
def test_two_workers_are_one_server(repository, tmp_path, transport, end) -> None:
    publish_affine(repository)
    options = ("--workers", "2", "--transport", transport, "--log-level", "debug")
    with (
        serve(repository, tmp_path / "log", *options) as server,
        several(server, 16) as clients,
    ):
        for rows, client in enumerate(clients, start=1):
            answer = client.infer("affine", {"x": np.ones((rows, 3), np.float32)})
            assert answer.outputs["y"].tolist() == [[3, 3, 3]] * rows

        asked = workers_of(server, "request", method="/inference.GRPCInferenceService/ModelInfer")
        assert len(asked) == 16
        assert set(asked) == {0, 1}
        if transport == "http2":  # dealt, and not by chance
            assert asked.count(0) == asked.count(1) == 8

        for client in clients[:4]:
            (statistics,) = client.statistics("affine")
            assert (statistics.success.count, statistics.inferences) == (16, sum(range(1, 17)))

        (state,) = clients[0].repository_index()
        assert (state.name, state.version, state.state, state.reason) == ("affine", "1", "READY", "")

        samples = scrape(server)
        assert samples["nv_inference_request_success", "affine", "1"] == 16
        assert samples["nv_inference_count", "affine", "1"] == sum(range(1, 17))
        assert samples["mnist1d_server_ready",] == 1
        assert samples["mnist1d_model_ready", "affine", "1"] == 1
        assert samples["mnist1d_workers",] == 2
        assert samples["mnist1d_worker_up", "0"] == samples["mnist1d_worker_up", "1"] == 1
        assert samples["mnist1d_worker_restarts", "0"] == 0
        assert {key[1] for key in samples if key[0] == "process_resident_memory_bytes"} == {"supervisor", "0", "1"}
        listed = re.findall(r"^\| `(mnist1d_worker\w+?)(?:_total)?` \|", DOCUMENT.read_text(), re.MULTILINE)
        assert {key[0] for key in samples if key[0].startswith("mnist1d_worker")} == set(listed)
        calls = samples["mnist1d_request_duration_seconds_count", "inference.GRPCInferenceService/ModelInfer", "OK"]
        assert calls == 16

        # A worker that was killed outright takes nothing along that was ever seen, and one that leaves nothing at all.
        if end == signal.SIGTERM:
            clients[0].infer("affine", X)
        counted = 17 if end == signal.SIGTERM else 16
        os.kill(pid_of(server, 1), end)
        until(lambda: scrape(server)["mnist1d_worker_restarts", "1"] == 1)
        until(lambda: scrape(server)["mnist1d_worker_up", "1"] == 1)
        samples = scrape(server)
        assert samples["nv_inference_request_success", "affine", "1"] == counted
        assert samples["mnist1d_server_ready",] == 1
        (left,) = [line for line in server.lines() if line["message"] == "worker left, another one takes its place"]
        assert (left["worker"], left["exit"], left["pause_s"]) == (
            1,
            "SIGKILL" if end == signal.SIGKILL else "exit code 0",
            0,
        )

        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10
    assert sorted(workers_of(server, "worker stopped"))[:2] == [0, 1]
    assert server.lines()[-1]["message"] == "server stopped"


@pytest.mark.parametrize("transport", ["http2", "grpcio"])
def test_a_worker_that_is_killed_under_load_costs_no_call(repository, tmp_path, transport) -> None:
    publish_affine(repository)
    failed: list[str] = []
    answers = [0] * 4
    stop = threading.Event()

    def ask(number: int, client: InferenceClient) -> None:
        while not stop.is_set():
            try:
                answer = client.infer("affine", X)
            except ServerError as error:
                failed.append(str(error))
                return
            assert (answer.outputs["y"] == 3).all()
            answers[number] += 1

    with (
        serve(repository, tmp_path / "log", "--workers", "2", "--transport", transport) as server,
        several(server, 4, retry=RETRIES, timeout_s=LONG_S) as clients,
    ):
        threads = [threading.Thread(target=ask, args=entry) for entry in enumerate(clients)]
        for thread in threads:
            thread.start()
        counted = 0.0
        for worker in (0, 1):
            seen = list(answers)
            until(lambda seen=seen: all(now > before + 20 for now, before in zip(answers, seen, strict=True)))
            os.kill(pid_of(server, worker), signal.SIGKILL)
            until(lambda worker=worker: workers_of(server, "worker ready").count(worker) == 2)
            now = scrape(server)["nv_inference_request_success", "affine", "1"]
            assert now >= counted
            counted = now
        seen = list(answers)
        until(lambda: all(now > before + 20 for now, before in zip(answers, seen, strict=True)))
        stop.set()
        for thread in threads:
            thread.join(LONG_S)
        assert failed == []
        assert server.stop() == 0


def test_models_are_loaded_and_unloaded_in_all_workers_and_in_those_that_come_later(repository, tmp_path) -> None:
    publish_affine(repository, "first")
    publish_affine(repository, "second")
    options = ("--workers", "2", "--model-control-mode", "explicit", "--load-model", "first")
    with serve(repository, tmp_path / "log", *options) as server, several(server, 12) as clients:
        clients[0].load("second")
        clients[1].unload("first")
        for client in clients:
            assert client.infer("second", X).outputs["y"].tolist() == [[3, 3, 3]]
            with pytest.raises(ServerError) as refused:
                client.infer("first", X)
            assert refused.value.code is Code.NOT_FOUND
        states = {model.name: model.state for model in clients[0].repository_index() if model.version}
        assert states == {"first": "UNAVAILABLE", "second": "READY"}

        put_plain(repository, "broken", b"junk")
        with pytest.raises(ServerError, match=r"^INTERNAL.*failed to load 'broken', no version is available") as failed:
            clients[2].load("broken")
        assert "worker" not in str(failed.value)

        clients[3].load("first", config={}, files={"1/model.onnx": affine_model(4)})

        # The one that takes a killed one's place learns what was decided before it is given a call.
        os.kill(pid_of(server, 1), signal.SIGKILL)
        until(lambda: workers_of(server, "worker ready").count(1) == 2)
        with several(server, 24) as others:
            for client in others[12:]:
                assert client.infer("second", X).outputs["y"].tolist() == [[3, 3, 3]]
                assert client.infer("first", X).outputs["y"].tolist() == [[5, 5, 5]]
        assert server.stop() == 0


def test_a_hangup_lets_one_worker_after_the_other_look(repository, tmp_path) -> None:
    publish_affine(repository, scale=2)
    options = ("--workers", "2", "--model-control-mode", "none")
    with serve(repository, tmp_path / "log", *options, detached=True) as server, several(server, 8) as clients:
        publish_affine(repository, scale=5)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: set(workers_of(server, "version ready", version=2)) == {0, 1})
        rescans = [
            (line["message"], line["worker"])
            for line in server.lines()
            if line["message"] == "rescanning the repository" or line.get("version") == 2
        ]
        first, second = rescans[0][1], 1 - rescans[0][1]
        looked = [worker for _, worker in rescans]
        assert looked == sorted(looked, key=[first, second].index)
        assert {client.infer("affine", X).version for client in clients} == {"2"}
        assert server.stop() == 0


def test_a_port_in_use_is_said_once_and_leaves_with_one(repository, tmp_path) -> None:
    with serve(repository, tmp_path / "log", "--workers", "2") as server:
        for workers in ("2", "1"):
            options = ("--workers", workers, "--port", str(server.port), "--metrics-port", "0")
            done = subprocess.run(
                [sys.executable, "-m", "service.cli", "serve", str(repository), *options],
                capture_output=True,
                text=True,
                check=False,
                timeout=LONG_S,
            )
            assert done.returncode == 1
            assert done.stderr.count(f"error: cannot listen on 127.0.0.1:{server.port}") == 1
            assert "Traceback" not in done.stderr


def test_unusable_files_are_said_once_and_leave_with_two(repository, tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", "serve", str(repository), "--workers", "3", "--control-tokens", "no"],
        capture_output=True,
        text=True,
        check=False,
        timeout=LONG_S,
    )
    assert done.returncode == 2
    assert done.stderr.count("--control-tokens: 'no' cannot be read") == 1


def is_running(pid: int) -> bool:
    """Whether there is such a process, and not only what is left of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_do_not_outlive_their_supervisor(repository, tmp_path) -> None:
    with serve(repository, tmp_path / "log", "--workers", "2") as server:
        pids = [pid_of(server, worker) for worker in (0, 1)]
        assert all(is_running(pid) for pid in pids)
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        until(lambda: not any(is_running(pid) for pid in pids))


def test_a_second_ctrl_c_ends_the_drain_of_all(repository, tmp_path) -> None:
    with serve(repository, tmp_path / "log", "--workers", "2", "--lame-duck-s", "600") as server:
        pids = [pid_of(server, worker) for worker in (0, 1)]
        server.process.send_signal(signal.SIGINT)
        until(lambda: len(workers_of(server, "draining")) == 2)
        time.sleep(0.7)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(LONG_S) == 130
        assert not any(is_running(pid) for pid in pids)


def test_settings_that_workers_cannot_use_end_the_server_at_once(repository, tmp_path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif sys.orig_argv[2:3] == ['service.cli.commands.worker']:\n    os._exit(2)\n"
    )
    options = ("--workers", "2", "--port", "0", "--metrics-port", "0", "--control-port", "0")
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", "serve", str(repository), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=LONG_S,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parent.parent.parent}"},
    )
    assert done.returncode == 2
    assert "left with exit code 2 before it served, and no other one serves: see above" in done.stderr
