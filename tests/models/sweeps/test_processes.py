"""Real processes and real, short trainings."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs_torch
pytest.importorskip("torch")

from models.errors import SweepUnavailable  # noqa: E402  (torch may be missing)
from models.sweeps import processes  # noqa: E402
from models.sweeps.outcome import TrialFailure, TrialResult  # noqa: E402
from models.sweeps.processes import Processes  # noqa: E402
from models.sweeps.trial import Trial  # noqa: E402
from models.training.recipes import recipe  # noqa: E402

ENDLESS = Trial(recipe("lecture", steps=50_000_000, evaluate_every=0))
ANOTHER = Trial(ENDLESS.recipe.replace(seed=1))


def short(**fields) -> Trial:
    return Trial(recipe("quick", **{"steps": 60, **fields}))


def run(trials, *, count=2, on_progress=lambda trial, step: None, stop=lambda: False):
    return Processes(count)(trials, on_progress=on_progress, stop=stop)


def children() -> set[int]:
    """Processes of this one that still run."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                command = (status.parent / "cmdline").read_text()
                if "spawn_main" in command:
                    found.add(int(status.parent.name))
    return found


@pytest.fixture(autouse=True)
def _nothing_is_left():
    before = children()
    yield
    assert children() == before


@pytest.mark.slow
def test_trials_fail_die_and_succeed_beside_each_other():
    """One process for all: it survives a failure, its successor goes on after it was killed, and ends when told to."""
    diverging, good, later = short(learning_rate=1e6, optimiser="sgd", augmentation=None), short(), short(seed=1)
    asked = [diverging, ENDLESS, good, later]
    running = run([*asked, ANOTHER], count=1, on_progress=lambda trial, step: kill(trial))

    def kill(trial):
        if trial == ENDLESS:
            (process,) = children()
            os.kill(process, signal.SIGKILL)

    outcomes = {outcome.trial: outcome for outcome in itertools.islice(running, len(asked))}
    assert list(outcomes) == asked
    assert len(children()) == 1
    running.close()
    assert children() == set()
    assert outcomes[diverging].error == "TrainingDiverged"
    assert "try a smaller learning_rate" in outcomes[diverging].message
    assert outcomes[ENDLESS] == TrialFailure(
        ENDLESS, "ProcessDied", "its process was ended by SIGKILL; the kernel does that where memory runs out"
    )
    result = outcomes[good]
    assert isinstance(result, TrialResult)
    assert result.weights_sha256 == trained_here(good)
    assert result.weights_sha256 != outcomes[later].weights_sha256
    assert result.history.curves["test"].steps_N[-1] == 60
    assert result.scores["test"].accuracy == result.history.curves["test"].accuracy_N[-1]


def trained_here(trial: Trial) -> str:
    from models.data.dataset import canonical
    from models.training.loop import train

    return train(trial.recipe, canonical()).weights_sha256


@pytest.mark.slow
def test_two_run_at_a_time_with_one_thread_each_until_they_are_to_stop(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    seen: dict[Trial, int] = {}
    environments: list[list[bytes]] = []

    def stop() -> bool:
        if len(seen) == 2:
            environments.extend(Path(f"/proc/{process}/environ").read_bytes().split(b"\0") for process in children())
        return len(seen) == 2

    outcomes = run([ENDLESS, ANOTHER, short()], on_progress=seen.__setitem__, stop=stop)
    assert list(outcomes) == []
    assert set(seen) == {ENDLESS, ANOTHER}
    assert len(environments) == 2
    for name in processes.ONE_THREAD:
        assert all(f"{name}=1".encode() in environment for environment in environments)
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "OPENBLAS_NUM_THREADS" not in os.environ


@pytest.mark.slow
def test_processes_end_when_who_started_them_is_killed(tmp_path):
    program = (
        "from models.training.recipes import recipe; from models.sweeps.trial import Trial\n"
        "from models.sweeps.processes import Processes\n"
        "if __name__ == '__main__':\n"
        "    trial = Trial(recipe('lecture', steps=50_000_000, evaluate_every=0))\n"
        "    list(Processes(1)([trial], on_progress=lambda trial, step: print(step, flush=True), stop=lambda: False))\n"
    )
    (tmp_path / "program.py").write_text(program)
    mark = f"SWEEP_TEST={tmp_path}"
    environment = {**os.environ, "SWEEP_TEST": str(tmp_path), "PYTHONPATH": os.getcwd()}  # noqa: PTH109 - a string
    with subprocess.Popen(
        [sys.executable, tmp_path / "program.py"], stdout=subprocess.PIPE, text=True, env=environment
    ) as running:
        assert running.stdout.readline()
        assert len(marked(mark)) >= 2
        running.kill()
    deadline_s = time.monotonic() + 30
    while marked(mark) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert marked(mark) == []


def marked(mark: str) -> list[int]:
    """Running processes with that in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def test_a_process_that_cannot_even_begin_is_a_failed_trial(monkeypatch):
    monkeypatch.setattr(processes, "_work", sys.exit)  # takes no two arguments: it dies of them
    outcomes = list(run([short(), short(seed=1)], count=2))
    assert {outcome.error for outcome in outcomes} == {"ProcessDied"}
    assert outcomes[0].message == "its process ended with exit code 1 and no result"


def test_without_torch_nothing_begins(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SweepUnavailable, match="training needs torch"):
        next(run([short()]))


def test_there_must_be_a_process():
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        Processes(0)
