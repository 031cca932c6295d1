"""A sweep on a real Ray cluster, on this machine: the same trials and the same files as with processes."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.needs_torch, pytest.mark.slow]
pytest.importorskip("torch")
if importlib.util.find_spec("ray") is None:  # importing it changes the logging of the whole process
    pytest.skip("Ray is not installed", allow_module_level=True)

from models.errors import SweepUnavailable  # noqa: E402  (torch may be missing)
from models.sweeps.folder import ResultsFolder  # noqa: E402
from models.sweeps.ray_cluster import RayCluster  # noqa: E402
from models.sweeps.running import run_trial  # noqa: E402
from models.sweeps.trial import Trial  # noqa: E402
from models.training.recipes import recipe  # noqa: E402  (torch may be missing)

SWEEP = [sys.executable, "-m", "service.cli", "sweep", "--recipe", "quick", "--steps", "60", "--seeds", "0-1", "--json"]


def running_with(mark: bytes) -> list[str]:
    """Command lines of the processes that have this in their environment."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in environment.read_bytes().split(b"\0"):
                found.append((environment.parent / "cmdline").read_text().replace("\0", " "))
    return found


def test_two_trials_on_a_local_ray(tmp_path):
    """Nothing is left of Ray afterwards: no process, no file in the home or temporary directory."""
    home, temporary = tmp_path / "home", Path("/tmp")  # noqa: S108 - where Ray's sockets have short enough names
    home.mkdir()
    before = set(temporary.glob("ray*"))
    environment = {**os.environ, "HOME": str(home), "SWEEP_TEST": str(tmp_path)}
    on_ray = subprocess.run(
        [*SWEEP, "--jobs", "2", "--out", tmp_path / "ray", "--ray-address", "local"],
        capture_output=True, text=True, check=False, timeout=240, env=environment,
    )  # fmt: skip
    assert on_ray.returncode == 0, on_ray.stderr
    lines = [json.loads(line) for line in on_ray.stdout.splitlines()]
    assert [line["event"] for line in lines] == ["started", "finished", "finished", "result"]
    assert on_ray.stderr == ""

    deadline_s = time.monotonic() + 30
    while running_with(f"SWEEP_TEST={tmp_path}".encode()) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert running_with(f"SWEEP_TEST={tmp_path}".encode()) == []
    assert set(temporary.glob("ray*")) - before == set()
    assert [path.name for path in home.iterdir() if "ray" in path.name] == []

    # Processes would find nothing left to do, and have found the same.
    trials = [Trial(recipe("quick", steps=60, seed=seed)) for seed in (0, 1)]
    results = ResultsFolder(tmp_path / "ray").results(trials)
    assert len(list((tmp_path / "ray").iterdir())) == 2
    for trial in trials:
        found = results[trial.digest]
        assert found == dataclasses.replace(run_trial(trial), duration_s=found.duration_s)


def test_no_cluster_that_this_machine_is_part_of(tmp_path):
    # Found by an address file that does not exist in a temporary directory of its own: nothing is asked over a network.
    environment = {**os.environ, "RAY_TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [*SWEEP, "--out", tmp_path / "out", "--ray-address", "auto"],
        capture_output=True, text=True, check=False, timeout=120, env=environment,
    )  # fmt: skip
    assert done.returncode == 1
    assert "error: no Ray cluster at 'auto'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_where_nobody_listens_and_one_that_is_none():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, so that nobody else takes it, and not listening
        address = f"127.0.0.1:{free.getsockname()[1]}"
        assert refusal(address) == f"no Ray cluster at '{address}': [Errno 111] Connection refused"
    for address in ("nonsense", ":80", "127.0.0.1:"):
        assert refusal(address) == f"a Ray address must be local, auto or HOST:PORT, got '{address}'"
    assert refusal("127.0.0.1:99999").startswith("no Ray cluster at '127.0.0.1:99999': ")


def refusal(address: str) -> str:
    trial = Trial(recipe("quick", steps=60))
    with pytest.raises(SweepUnavailable) as caught:
        next(RayCluster(address, local_cpus=1)([trial], on_progress=lambda trial, step: None, stop=lambda: False))
    return str(caught.value)
