"""Run one training run in a separate process for a supervisor: ``python -m models.training.process``.

The first line of standard input says what to do (`Job`). Standard output has one JSON line for each event of
`models.training.events`, and a last line that `main` describes. The process has low priority, one thread and a memory
limit, and is killed when the process that started it ends.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from models.gate import Gate
    from models.training.backend import EngineChoice

EXIT_FAILED: Final = 1
"""Exit code of an expected failure; the last line says which."""
EXIT_INTERRUPTED: Final = 75
"""Exit code after a signal to stop, with a checkpoint left; also if the parent had ended before the start."""

LOCK_FILE: Final = "run.lock"
_LOCK_WAIT_S: Final = 10.0
_PR_SET_PDEATHSIG: Final = 1
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Job:
    """The training job that a supervisor asks for."""

    run_id: str
    recipe: Mapping[str, Any]
    """The recipe as ``TrainingRecipe.to_dict()``."""
    repository: str
    publish_as: str
    work_dir: str
    """Directory of the checkpoints; a lock in it keeps two processes of a run apart."""
    checkpoint_every: int
    """Steps between two checkpoints."""
    engine: EngineChoice = "auto"
    """Training backend; see `models.training.backend`."""
    gate: str = ""
    """The version to compare with: ``serving`` (asks on standard output and reads the version's number, or null, from
    standard input), ``NAME/VERSION``, ``NAME``, or empty for no gate."""
    parent_pid: int = 0
    """Process that started this one; 0 if this one may outlive it."""
    niceness: int = 0
    """Niceness that is added to this process's."""
    memory_bytes: int = 0
    """Limit of the process's data (``RLIMIT_DATA``); 0 for none."""

    def to_json(self) -> str:
        """The job as one line of JSON, without a newline."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The inverse of `to_json`."""
        return cls(**json.loads(text))


def main() -> int:
    """Do the job on standard input, and return the exit code.

    The last line is ``{"event": "published", ...}``, ``{"event": "interrupted", ...}`` or ``{"event": "failed", ...}``
    with the error's class, message and attributes. If none of these is there, the process died.
    """
    events = _take_stdout()
    job = Job.from_json(sys.stdin.readline())
    _belong_to(job.parent_pid)
    _be_polite(job)
    with _alone(Path(job.work_dir)):
        return _run(job, events)


def _run(job: Job, events: TextIO) -> int:
    from models.training.events import stage, to_json_line

    def tell(line: str) -> None:
        events.write(f"{line}\n")
        events.flush()

    with stage("load", lambda event: tell(to_json_line(event))):
        from models import pipeline  # torch: only now that the limits are set
    from models.errors import ModelsError, TrainingInterrupted
    from models.training.checkpoint import path_in
    from models.training.interruption import interruptible
    from models.training.recipes import TrainingRecipe

    checkpoint_dir = Path(job.work_dir)
    try:
        with interruptible() as stop:
            published = pipeline.run(
                TrainingRecipe.from_dict(job.recipe),
                repository=Path(job.repository),
                publish_as=job.publish_as,
                engine=job.engine,
                on_event=lambda event: tell(to_json_line(event)),
                checkpoint_dir=checkpoint_dir,
                resume=path_in(checkpoint_dir).exists(),
                checkpoint_every=job.checkpoint_every,
                stop=stop,
                run_id=job.run_id,
                gate=_gate(job, tell),
            )
    except TrainingInterrupted as error:
        tell(json.dumps({"event": "interrupted", "step": error.step}))
        return EXIT_INTERRUPTED
    except ModelsError as error:
        tell(json.dumps(failure(error), default=str))
        return EXIT_FAILED
    tell(json.dumps({"event": "published", "name": published.name, "version": published.version}))
    return 0


def failure(error: Exception) -> dict[str, Any]:
    """Describe an expected failure as an event."""
    cause = error.__cause__
    return {
        "event": "failed",
        "error": type(error).__name__,
        "message": str(error),
        "disk_full": isinstance(cause, OSError) and cause.errno in _FULL,
        **{name: getattr(error, name) for name in ("field", "report", "decision") if hasattr(error, name)},
    }


def _gate(job: Job, tell: Callable[[str], None]) -> Gate | None:
    """The job's gate, which looks up the version to compare with when it is called; None without a gate."""
    if not job.gate:
        return None
    from models.artifact.publication import versions

    repository = Path(job.repository)

    def serving() -> Path | None:
        tell(json.dumps({"event": "asks_what_serves"}))
        version = json.loads(sys.stdin.readline())
        return None if version is None else repository / job.publish_as / str(version)

    def named() -> Path:
        name, _, version = job.gate.partition("/")
        # Without versions this names a missing one, which cannot be compared with.
        return repository / name / (version or str(max(versions(repository / name), default=1)))

    return serving if job.gate == "serving" else named


# ---- process setup -----------------------------------------------------------------------------------------------


def _take_stdout() -> TextIO:
    """Reserve standard output for events: what libraries print goes to standard error from now on."""
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return events


def _belong_to(parent_pid: int) -> None:
    """Have Linux kill this process when the parent ends; exit at once if it has ended already."""
    if not parent_pid:
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        sys.exit(EXIT_INTERRUPTED)


def _be_polite(job: Job) -> None:
    os.nice(job.niceness)
    if job.memory_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (job.memory_bytes, job.memory_bytes))
    # A core dump of a process of this size is of no use, and may fill the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextmanager
def _alone(work_dir: Path) -> Iterator[None]:
    """Hold the lock that only one process of a run can have; BlockingIOError if another one keeps it."""
    work_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(work_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    until_s = time.monotonic() + _LOCK_WAIT_S
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until_s:
                    raise
                time.sleep(0.02)
            else:
                break
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # everything is on the disk; shutting torch down cleanly would take longer than starting it
