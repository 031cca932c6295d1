"""The images and the compose project, built and run by a real engine. The tests of this file go on from each other."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.artifact.artifact import Artifact
from service.client import InferenceClient
from service.config import ServerConfig
from tests.containers.compose import (
    IMAGE,
    MINUTE_S,
    ComposeError,
    Project,
    added_bytes,
    address,
    docker,
    inspect,
    with_wheels,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.container

MODELS = ("mnist1d-conv", "mnist1d-fc")
BUILD_S = 1200.0
SERVE_LIMIT_BYTES = 260e6
MEMORY_LIMIT_BYTES = 150e6
QUICKLY = {
    "services": {
        "trainer": {"environment": {"MNIST1D_UP_STEPS": "200", "MNIST1D_UP_ENGINE": "torch"}},
        "server": {"healthcheck": {"interval": "1s", "retries": 2, "start_period": "5s"}},
    }
}
"""So that nothing waits for accuracy, for a compiler, or for the seconds between two probes."""
NAME = f"mnist1d-test-{os.getpid()}"


@pytest.fixture(scope="module")
def project(engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Both images, built; nothing started."""
    made = Project(NAME, tmp_path_factory.mktemp("compose"), with_wheels(QUICKLY))
    try:
        made.compose("build", "server", "trainer", timeout_s=BUILD_S)
        yield made
    finally:
        made.down()
        docker("image", "rm", "--force", f"{IMAGE}:serve", f"{IMAGE}:train", check=False)


@pytest.fixture(scope="module")
def running(project: Project) -> Project:
    """The project after ``docker compose up``."""
    project.up()
    return project


def test_a_trainer_that_fails_stops_the_stack(project: Project) -> None:
    try:
        with pytest.raises(ComposeError, match="exit code 1"):
            project.up(MNIST1D_RECIPE="nonsense")
        assert project.container("trainer")["State"]["ExitCode"] == 2
        assert "'nonsense' is not one of" in project.printed("trainer")
        assert project.container("server")["State"]["Status"] == "created"
    finally:
        project.down()


def test_the_images_hold_what_they_must_and_no_more(project: Project) -> None:
    found = (
        "import importlib.util as u, shutil\n"
        "print([m for m in {} if u.find_spec(m)], [p for p in {} if shutil.which(p)])"
    )
    unwanted = found.format(
        ("torch", "scipy", "numba", "onnxscript", "pytest", "pip"), ("pip", "gcc", "cc", "make", "git")
    )
    assert docker("run", "--rm", "--entrypoint", "python", f"{IMAGE}:serve", "-c", unwanted).strip() == "[] []"
    wanted = found.format(("torch", "onnxscript"), ("mnist1d",))
    printed = docker("run", "--rm", "--entrypoint", "python", f"{IMAGE}:train", "-c", wanted).strip()
    assert printed == "['torch', 'onnxscript'] ['mnist1d']"
    assert added_bytes(f"{IMAGE}:serve") < SERVE_LIMIT_BYTES


def test_the_images_say_what_they_are(project: Project) -> None:
    for image in inspect(f"{IMAGE}:serve", f"{IMAGE}:train"):
        config = image["Config"]
        assert config["User"] == "10001:10001"
        assert config["Entrypoint"] == ["mnist1d"]
        labels = {key.rpartition(".")[2] for key in config["Labels"] if key.startswith("org.opencontainers.image.")}
        assert {"title", "description", "licenses", "vendor", "version", "revision"} <= labels


def test_after_up_the_trainer_has_done_its_work_and_the_server_is_healthy(running: Project) -> None:
    assert running.container("trainer")["State"]["ExitCode"] == 0
    state = running.container("server")["State"]
    assert (state["Status"], state["Health"]["Status"]) == ("running", "healthy")
    assert running.compose("exec", "--no-TTY", "server", "mnist1d", "health").strip() == "SERVING"


def test_answers_from_this_machine_are_pytorchs(running: Project, tmp_path: Path) -> None:
    with InferenceClient(address(running.container("server"))) as client:
        for name in MODELS:
            running.compose("cp", f"server:/repository/{name}/1", str(tmp_path / name))
            artifact = Artifact.load(tmp_path / name)
            assert artifact.goldens
            for golden in artifact.goldens:
                answer = client.infer(name, golden.inputs)
                for output, expected in golden.outputs.items():
                    allowed = artifact.manifest.tolerances[output]
                    np.testing.assert_allclose(
                        answer.outputs[output], expected, rtol=allowed.relative, atol=allowed.absolute
                    )


def test_the_server_can_change_nothing(running: Project) -> None:
    host = running.container("server")["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["CapAdd"] is None
    assert host["Memory"] == 512 * 1024**2
    assert host["PidsLimit"] == 256
    program = (
        "import os\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())\n"
        "rights = [int(status[name], 16) for name in ('CapEff', 'CapBnd', 'NoNewPrivs')]\n"
        "print(os.getuid(), os.getgid(), *rights)\n"
        "for path in ('/x', '/repository/x', '/home/mnist1d/x', '/opt/mnist1d/x', '/tmp/x'):\n"
        "    try: open(path, 'w').close(); print('written')\n"
        "    except OSError as error: print(error.strerror)\n"
    )
    refused = ["Read-only file system"] * 4
    assert running.python("server", program).splitlines() == ["10001 10001 0 0 1", *refused, "written"]


def test_workers_follow_the_quota_and_not_the_cores(running: Project) -> None:
    told = "from service.workers.cpus import usable_cpus; print(usable_cpus())"
    assert running.python("server", told) == "1"
    image = f"{IMAGE}:serve"
    counts = [
        docker("run", "--rm", *limit, "--entrypoint", "python", image, "-c", told).strip()
        for limit in ([], ["--cpus", "0.5"])
    ]
    assert counts == [str(len(os.sched_getaffinity(0))), "1"]


def test_metrics_are_for_the_network_of_the_containers_and_control_is_for_nobody(running: Project) -> None:
    program = (
        "import socket, urllib.request\n"
        "print('mnist1d_server_ready 1' in urllib.request.urlopen('http://server:8002/metrics').read().decode())\n"
        "try: socket.create_connection(('server', 8003), 5)\n"
        "except OSError as error: print(error.strerror)\n"
    )
    assert running.python("server", program).splitlines() == ["True", "Connection refused"]


def test_the_server_needs_little_memory(running: Project) -> None:
    assert running.resident_bytes("server") < MEMORY_LIMIT_BYTES


def test_a_second_up_trains_nothing_and_a_second_server_takes_its_part(running: Project) -> None:
    running.up("--scale", "server=2")
    assert "mnist1d-conv is there: nothing to train" in running.printed("trainer")
    versions = "import os; print([os.listdir(f'/repository/{name}') for name in os.listdir('/repository')])"
    assert running.python("server", versions) == "[['1'], ['1']]"
    containers = running.containers("server")
    assert [each["State"]["Health"]["Status"] for each in containers] == ["healthy", "healthy"]
    assert len({address(each) for each in containers}) == 2
    for each in containers:
        with InferenceClient(address(each)) as client:
            assert client.is_model_ready("mnist1d-conv")
    named = (
        "import socket; print(len({found[4] for found in socket.getaddrinfo('server', 8001, type=socket.SOCK_STREAM)}))"
    )
    assert running.python("server", named) == "2"


def test_sigterm_ends_a_server_with_0(running: Project) -> None:
    running.compose("stop", "server")
    assert [each["State"]["ExitCode"] for each in running.containers("server")] == [0, 0]
    assert [line["message"] for line in running.logs("server")].count("server stopped") == 2


def test_sigterm_ends_a_server_that_is_the_first_process_with_0(project: Project) -> None:
    container = docker("run", "--detach", f"{IMAGE}:serve").strip()
    try:
        for _ in range(100):
            if "server is up" in docker("logs", container, check=False):
                break
            time.sleep(0.1)
        docker("stop", container)
        (state,) = [each["State"] for each in inspect(container)]
        assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
    finally:
        docker("rm", "--force", "--volumes", container)


def test_the_training_service_trains_on_request_and_serves_what_it_has_published(running: Project) -> None:
    if "training_slots" not in {field.name for field in dataclasses.fields(ServerConfig)}:
        pytest.skip("this server has no setting training_slots")
    running.up("--no-deps", "training-server")
    line = ["mnist1d", "runs", "create", "--server", "127.0.0.1:8001", "--recipe", "quick", "--steps", "200"]
    running.compose(
        "exec", "--no-TTY", "training-server", *line, "--name", "by-request", "--watch", timeout_s=5 * MINUTE_S
    )
    with InferenceClient(address(running.container("training-server"))) as client:
        # Trained, proven, published; the server looks every two seconds, and proves it again.
        for _ in range(100):
            if any(model.name == "by-request" for model in client.repository_index(ready=True)):
                break
            time.sleep(0.1)
        assert client.is_model_ready("by-request")
    running.compose("stop", "training-server")
    assert running.container("training-server")["State"]["ExitCode"] == 0


def test_a_model_that_was_changed_makes_the_server_unhealthy_and_the_log_says_why(running: Project) -> None:
    program = "open('/repository/mnist1d-conv/1/model.onnx', 'ab').write(b'x')"
    running.compose("run", "--rm", "--no-deps", "--entrypoint", "python", "trainer", "-c", program)
    with pytest.raises(ComposeError, match="unhealthy"):
        running.up("--scale", "server=1", "server")
    state = running.container("server")["State"]
    assert (state["Status"], state["Health"]["Status"]) == ("running", "unhealthy")
    assert "NOT_SERVING: inference.GRPCInferenceService, model/mnist1d-conv" in state["Health"]["Log"][-1]["Output"]
    (refused,) = [line for line in running.logs("server") if line["message"] == "version refused"]
    assert (refused["model"], refused["version"]) == ("mnist1d-conv", 1)
    assert "model.onnx is not what was proven" in refused["reason"]
    # What is alive is not restarted for that, and the other model is served.
    assert running.compose("exec", "--no-TTY", "server", "mnist1d", "health", "liveness").strip() == "SERVING"
    with InferenceClient(address(running.container("server"))) as client:
        assert client.is_model_ready("mnist1d-fc")


def test_down_leaves_nothing(running: Project) -> None:
    assert running.leftovers()
    running.down()
    assert running.leftovers() == []
