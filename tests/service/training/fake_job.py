"""A training run without torch, for the service's tests: `models.training.process` with a "training" of hashes.

What it does is in the name that it publishes as: ``ok``, or one of the misbehaviours below. Its weights after a step
are a hash of those before, kept in a checkpoint: a run that was interrupted ends in the same weights, or it does not.
It starts in no time, since it imports next to nothing; so its versions are copies of the one in FAKE_TEMPLATE.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from models.training.process import Job, _alone, _belong_to

RUN_KEY = "run"  # of models.artifact.published_run, whose import takes longer than the rest of this

STEP_S = 0.002
asked_to_stop = False


def tell(event: str, **fields: object) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def train(job: Job, steps: int) -> str:
    checkpoint = Path(job.work_dir) / "fake-checkpoint.json"
    state = {"step": 0, "weights": str(job.recipe["seed"])}
    if checkpoint.exists():
        state = json.loads(checkpoint.read_text())
    tell("started", start_step=state["step"], total_steps=steps, recipe=job.recipe)
    for step in range(state["step"] + 1, steps + 1):
        state = {"step": step, "weights": hashlib.sha256(state["weights"].encode()).hexdigest()}
        if job.publish_as != "fast":
            time.sleep(STEP_S)
        if step % 10 == 0:
            tell(
                "progress", step=step, total_steps=steps, loss=1 / step, accuracy=0.5, steps_per_s=9.0, remaining_s=1.0
            )
        if step % 20 == 0 or step == steps or asked_to_stop:
            temporary = checkpoint.with_suffix(".tmp")
            temporary.write_text(json.dumps(state))
            temporary.replace(checkpoint)
            tell("checkpoint_saved", step=step, path=str(checkpoint))
        if asked_to_stop:
            tell("interrupted", step=step)
            sys.exit(75)
        died = checkpoint.with_name("died")
        if job.publish_as == "dies-once" and step == steps // 2 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    for split in ("validation", "test"):
        tell("evaluated", step=steps, split=split, loss=0.5, accuracy=0.75)
    tell("finished", step=steps, duration_s=0.1, weights_sha256=state["weights"])
    return str(state["weights"])


def publish(job: Job, weights: str, decision: dict[str, object]) -> Path:
    figures = {"accuracy": 0.75, "loss": 0.5, "count": 1000}
    model = Path(job.repository) / job.publish_as
    model.mkdir(exist_ok=True)
    version = 1 + max((int(path.name) for path in model.iterdir() if path.name.isdecimal()), default=0)
    staging = model / f".publishing-{version}"
    shutil.copytree(os.environ["FAKE_TEMPLATE"], staging)
    manifest = json.loads((staging / "manifest.json").read_text())
    manifest |= {
        "name": job.publish_as,
        "version": version,
        "metrics": {"test": {**figures, "confusion": []}, "validation": {**figures, "count": 500}},
        "parity": {"passed": True, "summary": "all checks passed", "checks": [1, 2]},
        "provenance": {
            "steps": job.recipe["steps"],
            "weights_sha256": weights,
            "recipe": job.recipe,
            RUN_KEY: job.run_id,
            **({"gate": decision} if job.gate else {}),
        },
    }
    (staging / "manifest.json").write_text(json.dumps(manifest))
    return staging.rename(model / str(version))


def main() -> None:
    def stop(*_: object) -> None:
        global asked_to_stop
        asked_to_stop = True

    signal.signal(signal.SIGTERM, stop)
    job = Job.from_json(sys.stdin.readline())
    _belong_to(job.parent_pid)
    with _alone(Path(job.work_dir)):
        match job.publish_as:
            case "dies":
                sys.stderr.write("first words\nlast words\n")
                sys.exit(9)
            case "out-of-memory":
                sys.stderr.write("MemoryError: no more\n")
                sys.exit(1)
            case "hangs" | "ignores":
                signal.signal(signal.SIGTERM, signal.SIG_IGN if job.publish_as == "ignores" else signal.SIG_DFL)
                tell("stage_started", stage="train")
                time.sleep(60)
            case "disk-full":
                tell("failed", error="CheckpointError", message="cannot write checkpoint: No space left on device",
                     disk_full=True)  # fmt: skip
                sys.exit(1)
            case "diverges":
                tell("progress", step=1, total_steps=2, loss=None, accuracy=0.1, steps_per_s=1.0, remaining_s=1.0)
                tell("failed", error="TrainingDiverged", message="training diverged", disk_full=False)
                sys.exit(1)
            case "refuted":
                tell("failed", error="ProofFailed", message="nothing was published: 1 of 12 checks failed",
                     disk_full=False, report={"passed": False, "summary": "1 of 12 checks failed"})  # fmt: skip
                sys.exit(1)
            case "babbles":
                sys.stdout.write("no json\n[1]\n{}\n")
        weights = train(job, job.recipe["steps"])
        baseline = None
        if job.gate == "serving":
            tell("asks_what_serves")
            baseline = json.loads(sys.stdin.readline())
        decision = {
            "is_met": job.publish_as != "not-met",
            "baseline": f"{job.publish_as}/{baseline}" if baseline else "",
            "candidate_accuracy": 0.75,
            "baseline_accuracy": 0.5 if baseline else None,
            "summary": "compared",
        }
        if job.gate:
            tell("stage_finished", stage="gate", duration_s=0.0, detail=decision)
        if not decision["is_met"]:
            tell("failed", error="GateNotMet", message="nothing was published: compared", decision=decision)
            sys.exit(1)
        path = publish(job, weights, decision)
        if job.publish_as == "dies-published":
            os.kill(os.getpid(), signal.SIGKILL)
        tell(
            "stage_finished",
            stage="publish",
            duration_s=0.1,
            detail={"name": job.publish_as, "version": int(path.name), "path": str(path)},
        )
        tell("published", name=job.publish_as, version=int(path.name))


main()
