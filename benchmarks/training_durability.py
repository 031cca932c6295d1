"""kill -9 at random moments: does every training run end in the weights that it would have had?

One run is left alone: its weights are the reference. Each of the others is hit once, at a moment drawn evenly over the
time that the first one took, from its creation to its end: the server is killed and started again, or the process of
the run is killed. A run has passed if it succeeded, with the same hash of the weights, published exactly one version
that the server proved and serves, and if its events have no gap.

    python benchmarks/training_durability.py [--kills 20] [--seed 0] [--engine auto|fused|torch]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from models.artifact.publication import versions
from service.client import TrainingClient
from tests.processes import serve

if TYPE_CHECKING:
    from service.client import TrainingRun
    from tests.processes import ServerProcess

STEPS = {"auto": 12_000, "fused": 12_000, "torch": 3000}
"""A few seconds of training, which are about a third of a run."""
NAME = "killed"
PATIENCE_S = 600.0


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kills", type=int, default=20)
    arguments.add_argument("--seed", type=int, default=0, help="Of the random moments.")
    arguments.add_argument("--engine", choices=tuple(STEPS), default="auto", help="Of the training.")
    given = arguments.parse_args()
    chance = random.Random(given.seed)  # noqa: S311 - moments, no secrets
    reference, took_s = undisturbed(given.engine)
    print(f"undisturbed: {took_s:.1f} s, weights {reference[:16]}...\n")
    columns = "{:>4}  {:8}  {:>7}  {:10}  {:>8}  {:>10}  {}"
    print(
        columns.format(
            "kill", "victim", "after", "in stage", "attempts", "resumed at", "same weights, one version, no gap"
        )
    )
    passed = 0
    for number in range(1, given.kills + 1):
        victim, moment_s = chance.choice(("server", "process")), chance.uniform(0, took_s)
        stage, run, resumed_at, problems = killed(given.engine, victim, moment_s, reference)
        passed += not problems
        verdict = "yes" if not problems else "NO: " + "; ".join(problems)
        after = f"{moment_s:.1f} s"
        print(columns.format(number, victim, after, stage, run.snapshot.attempt, resumed_at, verdict), flush=True)
    print(f"\n{passed} of {given.kills} ended in the same weights and were published exactly once")
    return 0 if passed == given.kills else 1


def undisturbed(engine: str) -> tuple[str, float]:
    """The hash of the weights, and seconds from creation to the end."""
    with tempfile.TemporaryDirectory() as folder:
        repository, log = folders(folder)
        with serve(repository, log, "--training-slots", "1") as server, client_of(server) as client:
            began_s = time.monotonic()
            run = create(client, engine)
            done = wait(client, run.name)
            took_s = time.monotonic() - began_s
    if done.result is None:
        raise SystemExit(f"the undisturbed run ended {done.state}: {done.error}")
    return done.result.weights_sha256, took_s


def killed(engine: str, victim: str, moment_s: float, reference: str) -> tuple[str, TrainingRun, str, list[str]]:
    """One run with one kill: the stage it was in, how it ended, where it went on, and what is wrong with that."""
    with tempfile.TemporaryDirectory() as folder:
        repository, log = folders(folder)
        with serve(repository, log, "--training-slots", "1") as server:
            with client_of(server) as client:
                began_s = time.monotonic()
                run = create(client, engine)
                time.sleep(max(0.0, moment_s - (time.monotonic() - began_s)))
                before = client.get(run.name)
                stage = before.state.lower() if before.is_done else before.snapshot.stage or "starting"
                if victim == "server":
                    os.kill(server.process.pid, signal.SIGKILL)
                    server.process.wait()
                else:
                    for process in children(server):
                        os.kill(process, signal.SIGKILL)
                    done = wait(client, run.name)
                    events = list(client.watch(run.name))
            if victim == "server":
                with serve(repository, log, "--training-slots", "1") as again, client_of(again) as client:
                    done = wait(client, run.name)
                    events = list(client.watch(run.name))
        problems = []
        if done.result is None:
            problems.append(f"{done.state}: {done.error}")
        elif done.result.weights_sha256 != reference:
            problems.append(f"weights {done.result.weights_sha256[:16]}")
        if versions(repository / NAME) != [1]:
            problems.append(f"versions {versions(repository / NAME)}")
        if done.snapshot.serving.state != "READY":
            problems.append(f"served: {done.snapshot.serving.state} {done.snapshot.serving.reason}")
        if [event.number for event in events] != list(range(1, len(events) + 1)):
            problems.append("a gap in the events")
        starts = [f"{event.training_started.start_step:,}" for event in events if event.HasField("training_started")]
        return stage, done, starts[-1] if len(starts) > 1 else "-", problems


def folders(folder: str) -> tuple[Path, Path]:
    repository = Path(folder) / "repository"
    repository.mkdir()
    return repository, Path(folder) / "log"


def client_of(server: ServerProcess) -> TrainingClient:
    return TrainingClient(f"127.0.0.1:{server.port}")


def create(client: TrainingClient, engine: str) -> TrainingRun:
    overrides = {"steps": STEPS[engine], "evaluate_every": STEPS[engine] // 8}
    return client.create(recipe="quick", publish_name=NAME, overrides=overrides, engine=engine)


def wait(client: TrainingClient, name: str) -> TrainingRun:
    """Until the run is done, and a while longer until what it published is served."""
    run = client.wait(name, PATIENCE_S)
    until_s = time.monotonic() + 10
    while run.result is not None and run.snapshot.serving.state != "READY" and time.monotonic() < until_s:
        time.sleep(0.1)
        run = client.get(name)
    return run


def children(server: ServerProcess) -> list[int]:
    """The processes that a server has started."""
    return [
        int(text)
        for task in Path(f"/proc/{server.process.pid}/task").iterdir()
        for text in (task / "children").read_text().split()
    ]


if __name__ == "__main__":
    raise SystemExit(main())
