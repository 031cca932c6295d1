"""Run the trials of a sweep in freshly started processes of this machine, one thread each. Does not import torch.

It does not use `concurrent.futures`: there a process that dies breaks the whole pool, and its trial is unknown.
"""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import signal
from collections import deque
from multiprocessing import connection
from typing import TYPE_CHECKING, Final

from models.errors import SweepUnavailable, TrainingInterrupted
from models.sweeps.environment import environment
from models.sweeps.executor import LOOK_UP_EVERY_S
from models.sweeps.outcome import TrialFailure
from models.training import events

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from multiprocessing.connection import Connection

    from models.sweeps.executor import ProgressSink
    from models.sweeps.outcome import Outcome
    from models.sweeps.trial import Trial

ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
"""Environment variables that mathematics libraries read when they are loaded, so set before a process starts."""
_GRACE_S: Final = 5.0


class Processes:
    """An `Executor` with ``count`` processes."""

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        self._count = count

    def __call__(
        self, trials: Sequence[Trial], *, on_progress: ProgressSink, stop: Callable[[], bool]
    ) -> Generator[Outcome]:
        """Run the trials as `Executor` describes. A trial whose process dies has failed; the others go on.

        Raises SweepUnavailable without torch.
        """
        if importlib.util.find_spec("torch") is None:
            raise SweepUnavailable(
                "training needs torch, which is not installed: pip install -e '.[train]' in the project's folder"
            )
        waiting = deque(trials)
        busy: dict[Connection, _Worker] = {}
        try:
            while waiting and len(busy) < self._count:
                _give(_Worker(), waiting, busy)
            while busy and not stop():
                for ready in connection.wait(list(busy), timeout=LOOK_UP_EVERY_S):
                    worker = busy[ready]  # type: ignore[index]  # `wait` returns those that it was given
                    message = worker.receive()
                    if isinstance(message, int):
                        on_progress(worker.trial, message)
                        continue
                    del busy[worker.connection]
                    if worker.is_gone or not waiting:
                        worker.end()
                    if waiting:
                        _give(_Worker() if worker.is_gone else worker, waiting, busy)
                    yield message
        finally:
            for worker in busy.values():
                worker.end()


def _give(worker: _Worker, waiting: deque[Trial], busy: dict[Connection, _Worker]) -> None:
    worker.begin(waiting.popleft())
    busy[worker.connection] = worker


class _Worker:
    """A process, and the trial that it runs."""

    trial: Trial

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, os.getpid()), daemon=True)
        with environment(ONE_THREAD):
            self._process.start()
        theirs.close()
        self.is_gone = False

    def begin(self, trial: Trial) -> None:
        self.trial = trial
        with contextlib.suppress(OSError):  # `receive` reports a process that is gone already
            self.connection.send(trial)

    def receive(self) -> Outcome | int:
        """Receive the step that the trial has reached, or its outcome."""
        try:
            message: Outcome | int = self.connection.recv()
        except (EOFError, OSError):
            self.is_gone = True
            self._process.join()
            return TrialFailure(self.trial, "ProcessDied", _last_words(self._process.exitcode))
        return message

    def end(self) -> None:
        self.connection.close()
        self._process.terminate()
        self._process.join(_GRACE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()


def _last_words(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name if -exit_code in set(signal.Signals) else str(-exit_code)
        why = "; the kernel does that where memory runs out" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{why}"
    return f"its process ended with exit code {exit_code} and no result"


# ---- in the process ----------------------------------------------------------------------------------------------


def _work(parent: Connection, parent_id: int) -> None:
    """Run the trials that ``parent`` sends, until it closes the connection; send it steps and outcomes."""
    # Ctrl-C reaches every process of the terminal; only the parent handles it, and ends this one with SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    from models.sweeps.running import run_trial

    def tell(event: events.Event) -> None:
        if isinstance(event, events.Progress):
            parent.send(event.step)

    # The connection is closed if the parent was killed; then the outcome is not needed.
    with contextlib.suppress(EOFError, OSError, TrainingInterrupted):
        while True:
            parent.send(run_trial(parent.recv(), on_event=tell, stop=lambda: os.getppid() != parent_id))
