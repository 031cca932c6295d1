"""`models.training.process` as the process that it is. What it does with kills, the tests of the service show."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from models.errors import CheckpointError, GateNotMet, InvalidRecipe, ProofFailed
from models.training.process import EXIT_FAILED, EXIT_INTERRUPTED, Job, failure
from models.training.recipes import recipe

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-P", "-m", "models.training.process"]


def job(tmp_path: Path, **fields) -> Job:
    fields = {"steps": 60, "validation": 500, **fields}
    about = {name: fields.pop(name) for name in list(fields) if name in Job.__dataclass_fields__}
    return Job(
        **{
            "run_id": "r1",
            "recipe": recipe("plain", evaluate_every=0, **fields).to_dict(),
            "repository": str(tmp_path / "repository"),
            "publish_as": "m",
            "work_dir": str(tmp_path / "work"),
            "checkpoint_every": 20,
            **about,
        }
    )


def start(told: Job, **options) -> subprocess.Popen[str]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(COMMAND, text=True, **pipes, **options)
    process.stdin.write(f"{told.to_json()}\n")
    process.stdin.flush()
    return process


def test_a_job_comes_back_from_its_line(tmp_path) -> None:
    told = job(tmp_path, gate="serving", memory_bytes=1)
    assert Job.from_json(told.to_json()) == told
    assert "\n" not in told.to_json()


@pytest.mark.parametrize(
    ("error", "fields"),
    [
        (InvalidRecipe("steps", 0, "must be above 0"), {"error": "InvalidRecipe", "field": "steps"}),
        (ProofFailed("no", {"passed": False}), {"error": "ProofFailed", "report": {"passed": False}}),
        (GateNotMet("no", {"is_met": False}), {"error": "GateNotMet", "decision": {"is_met": False}}),
        (CheckpointError("no"), {"error": "CheckpointError", "disk_full": False}),
    ],
)
def test_a_failure_says_what_its_error_carries(error, fields) -> None:
    told = failure(error)
    assert told["event"] == "failed"
    assert fields.items() <= told.items()
    json.dumps(told)


@pytest.mark.parametrize("number", [28, 27, 122])
def test_a_full_disk_is_told_from_other_failures(number) -> None:
    error = CheckpointError("cannot write")
    error.__cause__ = OSError(number, "no room")
    assert failure(error)["disk_full"]


def test_a_process_whose_starter_is_gone_leaves_at_once(tmp_path) -> None:
    process = start(job(tmp_path, parent_pid=1))
    assert process.wait(60) == EXIT_INTERRUPTED
    assert process.communicate() == ("", "")


@pytest.mark.slow
@pytest.mark.needs_torch
def test_it_tells_everything_asks_what_serves_and_is_polite(tmp_path) -> None:
    pytest.importorskip("torch")
    told = job(tmp_path, gate="serving", niceness=3, memory_bytes=2**31, parent_pid=os.getpid())
    process = start(told)
    events, niceness = [], None
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] == "asks_what_serves":
            niceness = os.getpriority(os.PRIO_PROCESS, process.pid)
            limit = resource.prlimit(process.pid, resource.RLIMIT_DATA)
            process.stdin.write("null\n")
            process.stdin.flush()
    assert process.wait(60) == 0, process.stderr.read()
    assert niceness == min(os.getpriority(os.PRIO_PROCESS, 0) + 3, 19)
    assert limit == (2**31, 2**31)
    assert events[-1] == {"event": "published", "name": "m", "version": 1}
    kinds = [event["event"] for event in events]
    assert kinds.count("checkpoint_saved") == 3
    assert events[0] == {"event": "stage_started", "stage": "load"}
    stages = [event["stage"] for event in events if event["event"] == "stage_finished"]
    assert stages == ["load", "data", "prepare", "train", "evaluate", "export", "prove", "gate", "publish"]
    process.communicate()


@pytest.mark.slow
@pytest.mark.needs_torch
def test_a_signal_leaves_a_checkpoint_a_limit_of_the_disk_leaves_nothing_partial(tmp_path) -> None:
    pytest.importorskip("torch")
    process = start(job(tmp_path, steps=1_000_000))
    for line in process.stdout:
        if json.loads(line)["event"] == "checkpoint_saved":
            process.send_signal(signal.SIGTERM)
            break
    *_, last = process.stdout
    assert json.loads(last)["event"] == "interrupted"
    assert process.wait(60) == EXIT_INTERRUPTED
    process.communicate()
    work = tmp_path / "work"
    assert sorted(path.name for path in work.iterdir()) == ["checkpoint.npz", "run.lock"]
    before = (work / "checkpoint.npz").read_bytes()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # less than a checkpoint has

    process = start(job(tmp_path, steps=1_000_000), preexec_fn=limit)
    *_, last = process.stdout
    failed = json.loads(last)
    assert process.wait(60) == EXIT_FAILED
    process.communicate()
    assert (failed["error"], failed["disk_full"]) == ("CheckpointError", True)
    assert "cannot write checkpoint" in failed["message"]
    assert sorted(path.name for path in work.iterdir()) == ["checkpoint.npz", "run.lock"]
    assert (work / "checkpoint.npz").read_bytes() == before
    assert not (tmp_path / "repository").exists()
